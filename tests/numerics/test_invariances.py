"""Every metric behaves as its row says when its input is turned, scaled, reordered or repeated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from densescope.metrics import METRICS, Computation, Derivation, ScoredFeatures, ScoreSettings
from densescope.metrics.metric import CHANGES
from densescope.metrics.rivals import RIVAL_METRICS
from densescope.numerics import baselines
from densescope.numerics.assignment import Assignment, assign
from densescope.numerics.intervals import BASELINE_NAMES
from densescope.numerics.structure import structure_of

SETTINGS = {"local_clusters": 2, "global_clusters": 4, "group_size": 4}
COMPONENTS = ("inter", "intra", "intra_image", "intra_batch", "effective_rank", "dse_lambda_1")
STRUCTURE = [f"released.{name}" for name in COMPONENTS]
STRUCTURE += [f"{d}.{name}" for d in ("paper", "pooled") for name in COMPONENTS[:-1]]
RIVALS = [metric.name for metric in RIVAL_METRICS if metric.is_stored]
# Their order of patches is drawn: what does not change is the number with the same order.
RAW = {"effective_rank_raw": "released", "pooled_rank_raw": "pooled"}
PUBLIC = [*STRUCTURE, *BASELINE_NAMES, *RIVALS]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


FEATURES = torch.randn(16, 16, 8, generator=seeded(1)).double() + 0.5
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
    if change == "group order":
        return FEATURES[BY_GROUP], BY_GROUP, picked(GIVEN, BY_GROUP, GROUPS)
    if change == "image order":
        return FEATURES[ANY], ANY, regrouped(FEATURES[ANY], ANY)
    return FEATURES[TWICE], TWICE, picked(GIVEN, TWICE, TWICE_GROUPS)


def value(metric: str, features: Tensor, images: Tensor, given: Assignment) -> Tensor:
    definition, _, component = metric.partition(".")
    if component:
        result: Tensor = getattr(
            structure_of(features, given, definition),  # type: ignore[arg-type]
            component.removesuffix("_lambda_1"),
        )
        return result
    if metric in RAW:
        raw = replace(given, normalize=False)
        return structure_of(features, raw, RAW[metric]).effective_rank  # type: ignore[arg-type]
    twice = len(images) > 16
    ids = (torch.arange(32) if twice else images).repeat_interleave(16)
    if metric in RIVALS:
        made_by = METRICS[metric].made_by
        assert isinstance(made_by, Computation)
        scored = ScoredFeatures(features, features.mean(1), features.flatten(0, 1), ids, (4, 4))
        return torch.tensor(made_by.compute(scored, ScoreSettings(group_size=4))[metric].value)
    if metric == "lidar":
        return baselines.lidar(features.flatten(0, 1), ids, delta=0.5)
    function: Callable[..., Tensor] = getattr(baselines, metric)
    if metric == "alpha_req":
        return function(features.mean(1), ranks=(1, 8))
    return function(features.mean(1) if metric == "rankme" else features)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("metric", PUBLIC)
def test_a_metric_behaves_as_declared(metric: str, change: str) -> None:
    before = value(metric, FEATURES, torch.arange(16), GIVEN)
    after = value(metric, *changed(change))
    same = torch.isclose(before, after, rtol=1e-5, atol=1e-9)
    assert bool(same) is (change not in METRICS[metric].changes_with), (before, after)


DERIVED = [name for name, metric in METRICS.items() if isinstance(metric.made_by, Derivation)]


@pytest.mark.parametrize("metric", [name for name in DERIVED if name != "gram_drift"])
def test_what_is_made_of_other_metrics_changes_with_what_they_change_with(metric: str) -> None:
    made_by = METRICS[metric].made_by
    assert isinstance(made_by, Derivation)
    parts = [METRICS[name].changes_with for name in made_by.of]
    assert METRICS[metric].changes_with == frozenset().union(*parts)


MEANS = [f"{d}.{part}" for d in ("paper", "pooled") for part in COMPONENTS[:4]]
MEANS += ["token_cosine", "patch_norm", "spatial_contrast"]


@pytest.mark.parametrize("metric", [name for name in PUBLIC if name in MEANS])
def test_two_sets_one_after_the_other_have_the_mean_of_both(metric: str) -> None:
    """Concatenation: what is a mean over images or groups is that of the two halves."""
    whole = value(metric, FEATURES, torch.arange(16), GIVEN)
    halves = []
    for start in (0, 1):
        images, groups = torch.arange(8) + 8 * start, torch.arange(2) + 2 * start
        halves.append(value(metric, FEATURES[images], images, picked(GIVEN, images, groups)))
    assert torch.isclose(whole, torch.stack(halves).mean(), rtol=1e-6)
    assert not torch.isclose(halves[0], halves[1], rtol=1e-3)


def test_every_stored_metric_is_tried() -> None:
    stored = [m.name for m in METRICS.values() if m.is_stored]
    assert sorted(PUBLIC) == sorted(stored)
