"""The rows of the rivals: what they are left out for, and the one that is derived."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest
import torch

from densescope.metrics import METRICS, ScoreSettings, compute_metrics
from densescope.metrics.rivals import RIVAL_METRICS
from densescope.numerics.baselines import lidar as lidar_of
from densescope.selection import RunTable
from tests.correlation.runs import score

CPU = torch.device("cpu")
STORED = {m.name for m in RIVAL_METRICS if m.is_stored and m.reads != ("views",)}
ON_THE_GRID = {"lds_paper", "lds_code", "cds_paper", "cds_code"}
OF_A_SAMPLE = {"twonn", "mst_dimension", "cluster_learnability", "davies_bouldin"}
SETTINGS = ScoreSettings(global_clusters=6, lidar_images=0)


def computed(
    patches: torch.Tensor, image: torch.Tensor | None, grid: tuple[int, int] | None
) -> set[str]:
    grids = None if grid is None else [grid]
    scores = compute_metrics([patches], image, SETTINGS, device=CPU, grids=grids)["-1"]
    assert all(len(estimate.replicates) == 4 for estimate in scores.values())
    return set(scores) & STORED


def drawn(patches: int = 16, dim: int = 12, images: int = 32) -> torch.Tensor:
    return torch.randn(images, patches, dim, generator=torch.Generator().manual_seed(0))


def test_every_rival_is_computed_where_it_can_be() -> None:
    features = drawn()
    assert computed(features, features.mean(1), (4, 4)) == STORED


def test_what_features_do_not_allow_is_left_out() -> None:
    features = drawn()
    assert computed(features, features.mean(1), None) == STORED  # taken for a square
    assert STORED - computed(drawn(15), drawn(15).mean(1), None) == ON_THE_GRID
    assert STORED - computed(features, features.mean(1), (2, 8)) == ON_THE_GRID
    assert STORED - computed(drawn(9), drawn(9).mean(1), (3, 3)) == {"lds_code"}
    assert STORED - computed(features, drawn(dim=5).mean(1), (4, 4)) == {"image_patch_cosine"}
    without = STORED - computed(features, None, (4, 4))
    assert without == {"image_patch_cosine", "rankme_unit", "alpha_req_unit"}


def test_raw_ranks_are_those_of_a_sweep_without_normalization() -> None:
    features = drawn()
    features[:2] += 50
    found, raw = (
        compute_metrics([features], None, settings, device=CPU)["-1"]
        for settings in (SETTINGS, replace(SETTINGS, normalize=False, clustering_seeds=1))
    )
    for name, part in (("effective_rank_raw", "released"), ("pooled_rank_raw", "pooled")):
        whole = f"{part}.effective_rank"
        assert found[name].value == pytest.approx(raw[whole].value, rel=1e-6)
        assert found[name].value < 0.8 * found[whole].value


def test_lidar_of_unit_vectors_does_not_depend_on_the_scale() -> None:
    features = drawn()
    ids = torch.arange(32).repeat_interleave(16)

    views = torch.nn.functional.normalize(features.flatten(0, 1), dim=-1)
    found, scaled = (
        compute_metrics(
            [features],
            None,
            SETTINGS,
            device=CPU,
            views=features.flatten(0, 1) * scale,
            sample_ids=ids,
        )["-1"]
        for scale in (1, 30)
    )
    assert found["lidar_unit"].value == pytest.approx(scaled["lidar_unit"].value, rel=1e-6)
    assert found["lidar_unit"].value == pytest.approx(lidar_of(views, ids).item(), rel=1e-6)
    assert found["lidar"].value != pytest.approx(scaled["lidar"].value, rel=1e-6)


def test_few_patches_make_no_sample() -> None:
    features = drawn(patches=6, images=8)
    settings = ScoreSettings(global_clusters=2, local_clusters=2, group_size=2, lidar_images=0)
    scores = compute_metrics([features], None, settings, device=CPU)["-1"]
    assert STORED & set(scores) & OF_A_SAMPLE == set()
    assert "token_cosine" in scores


def test_clid_is_the_sum_of_its_standardized_parts() -> None:
    learnability, dimension = [0.4, 0.6, 0.9], [9.0, 3.0, 6.0]
    records = [
        score(i, 0.1, cluster_learnability=a, twonn=b)
        for i, (a, b) in enumerate(zip(learnability, dimension, strict=True))
    ]
    found = RunTable.of(records).column("clid")
    expected = [
        (a - statistics.fmean(learnability)) / statistics.pstdev(learnability)
        + (b - statistics.fmean(dimension)) / statistics.pstdev(dimension)
        for a, b in zip(learnability, dimension, strict=True)
    ]
    assert [e.value for e in found.series.values()] == pytest.approx(expected)
    short = RunTable.of(records[:2]).column("clid")
    assert short.series == {}
    assert short.note == "CLID needs three checkpoints that differ in both of its parts"


def test_no_rival_widens_the_table_of_a_sweep() -> None:
    assert [name for name in STORED if METRICS[name].overview] == []
