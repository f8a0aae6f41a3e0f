"""One table of how every metric behaves when its input is turned, scaled, reordered or repeated.

``docs/reference/metrics.md`` carries the same table; a metric that is missing here or there fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from densescope.numerics import baselines
from densescope.numerics.assignment import Assignment, assign
from densescope.numerics.intervals import BASELINE_NAMES, COMPONENTS
from densescope.numerics.structure import structure_of

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reference" / "metrics.md"
SETTINGS = {"local_clusters": 2, "global_clusters": 4, "group_size": 4}
STRUCTURE = [f"released.{name}" for name in COMPONENTS]
STRUCTURE += [f"paper.{name}" for name in COMPONENTS if name != "dse"]
PUBLIC = [*STRUCTURE, *BASELINE_NAMES]


@dataclass(frozen=True)
class Behavior:
    """``True``: the number stays the same.

    Attributes:
        rotation: every feature vector is turned by one orthogonal matrix.
        scale: every vector is multiplied by one positive number.
        group_order: groups of consecutive images change places as wholes.
        image_order: any two images change places.
        duplication: every image is there twice.
    """

    rotation: bool
    scale: bool
    group_order: bool
    image_order: bool
    duplication: bool


# Labels move with their images, except where images change groups: there k-means runs anew.
CLASSES = Behavior(True, True, True, False, True)
WITHIN = Behavior(True, True, True, True, True)
TABLE = {
    "released.inter": CLASSES,
    "released.intra": CLASSES,
    "released.intra_image": WITHIN,
    "released.intra_batch": CLASSES,
    "released.effective_rank": WITHIN,
    "released.dse": CLASSES,
    "paper.inter": CLASSES,
    "paper.intra": CLASSES,
    "paper.intra_image": WITHIN,
    "paper.intra_batch": CLASSES,
    "paper.effective_rank": WITHIN,
    "rankme": WITHIN,
    "dense_rankme": WITHIN,
    "alpha_req": WITHIN,
    "lidar": Behavior(True, False, True, True, True),
    "outlier_fraction": WITHIN,
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


FEATURES = torch.randn(16, 10, 8, generator=seeded(1)).double() + 0.5
FEATURES[::3, 0] *= 9
GIVEN = assign(FEATURES, normalize=True, generator=seeded(), **SETTINGS)  # type: ignore[arg-type]


def picked(given: Assignment, images: Tensor, groups: Tensor) -> Assignment:
    return Assignment(
        given.local_labels[images],
        given.global_labels[images],
        given.global_centroids[groups],
        given.permutations[images],
        given.local_clusters,
        given.group_size,
        given.normalize,
    )


def regrouped(features: Tensor, images: Tensor) -> Assignment:
    """Images keep their own labels and permutations; groups are clustered anew."""
    fresh = assign(features, normalize=True, generator=seeded(), **SETTINGS)  # type: ignore[arg-type]
    return Assignment(
        GIVEN.local_labels[images],
        fresh.global_labels,
        fresh.global_centroids,
        GIVEN.permutations[images],
        GIVEN.local_clusters,
        GIVEN.group_size,
        GIVEN.normalize,
    )


TURN = torch.linalg.qr(torch.randn(8, 8, generator=seeded(2), dtype=torch.float64)).Q
GROUPS = torch.tensor([2, 0, 3, 1])
BY_GROUP = (GROUPS.unsqueeze(1) * 4 + torch.arange(4)).flatten()
ANY = torch.randperm(16, generator=seeded(3))
TWICE = torch.cat([torch.arange(16), torch.arange(16)])
TWICE_GROUPS = torch.cat([torch.arange(4), torch.arange(4)])


def changed(change: str) -> tuple[Tensor, Tensor, Assignment]:
    """Features, which image each came from, and the assignment that belongs to them."""
    still = torch.arange(16)
    if change == "rotation":
        turned = GIVEN.global_centroids @ TURN
        given = Assignment(
            GIVEN.local_labels, GIVEN.global_labels, turned, GIVEN.permutations, 2, 4, True
        )
        return FEATURES @ TURN, still, given
    if change == "scale":
        return FEATURES * 3, still, GIVEN
    if change == "group_order":
        return FEATURES[BY_GROUP], BY_GROUP, picked(GIVEN, BY_GROUP, GROUPS)
    if change == "image_order":
        return FEATURES[ANY], ANY, regrouped(FEATURES[ANY], ANY)
    return FEATURES[TWICE], TWICE, picked(GIVEN, TWICE, TWICE_GROUPS)


def value(metric: str, features: Tensor, images: Tensor, given: Assignment) -> Tensor:
    definition, _, component = metric.partition(".")
    if component:
        result: Tensor = getattr(structure_of(features, given, definition), component)  # type: ignore[arg-type]
        return result
    if metric == "lidar":
        twice = len(images) > 16
        ids = torch.cat([torch.arange(16), torch.arange(16, 32)]) if twice else images
        return baselines.lidar(features.flatten(0, 1), ids.repeat_interleave(10), delta=0.5)
    function: Callable[..., Tensor] = getattr(baselines, metric)
    if metric == "alpha_req":
        return function(features.mean(1), ranks=(1, 8))
    return function(features.mean(1) if metric == "rankme" else features)


@pytest.mark.parametrize("change", list(Behavior.__dataclass_fields__))
@pytest.mark.parametrize("metric", PUBLIC)
def test_a_metric_behaves_as_declared(metric: str, change: str) -> None:
    before = value(metric, FEATURES, torch.arange(16), GIVEN)
    after = value(metric, *changed(change))
    same = torch.isclose(before, after, rtol=1e-5, atol=1e-9)
    assert bool(same) is getattr(TABLE[metric], change), (before, after)


def undeclared(table: dict[str, Any], names: list[str]) -> set[str]:
    return set(table) ^ set(names)


def test_every_metric_is_declared() -> None:
    assert undeclared(TABLE, PUBLIC) == set()


def test_an_undeclared_metric_would_be_noticed() -> None:
    assert undeclared(TABLE, [*PUBLIC, "new"]) == {"new"}


def rendered() -> str:
    names = list(Behavior.__dataclass_fields__)
    lines = ["| metric | " + " | ".join(name.replace("_", " ") for name in names) + " |"]
    lines.append("|" + " --- |" * (len(names) + 1))
    for metric, behavior in TABLE.items():
        cells = ["same" if getattr(behavior, name) else "changes" for name in names]
        lines.append(f"| `{metric}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def test_the_document_carries_the_table() -> None:
    assert rendered() in DOCUMENT.read_text(), f"docs/reference/metrics.md must hold:\n{rendered()}"


def test_the_document_has_a_section_per_metric() -> None:
    text = DOCUMENT.read_text()
    for metric in PUBLIC:
        assert f"`{metric}`" in text.split("## Behavior")[0], metric
