"""The plain metric: the numbers of a sweep, whatever order the images come in."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from densescope.errors import InputError, RecordError
from densescope.evaluation.backbone import ScoringImages, score_backbone
from densescope.features.extraction import extract
from densescope.features.timm_backbone import TimmBackbone
from densescope.metrics import METRICS, ScoreSettings
from densescope.monitoring.metric import DenseMetric
from densescope.monitoring.observation import MetricValues
from densescope.numerics.replicates import estimate_structure
from densescope.numerics.structure import dense_structure
from tests.monitoring.scenes import SETTINGS, features, pixels, vit

WITHOUT_VIEWS = {m.name for m in METRICS.values() if m.is_stored and m.reads != ("views",)}


def read(metric: DenseMetric | None = None, **more: object) -> MetricValues:
    metric = metric or DenseMetric(SETTINGS)
    metric.update(features(), range(32), features()[:, 0])
    return metric.compute()


def test_every_number_that_needs_no_views_is_there() -> None:
    assert set(read().scores["-1"]) == WITHOUT_VIEWS


def test_without_image_vectors_only_their_numbers_are_missing() -> None:
    metric = DenseMetric(SETTINGS)
    metric.update(features(), range(32))
    assert WITHOUT_VIEWS - set(metric.compute().scores["-1"]) == {
        *("rankme", "alpha_req", "rankme_unit", "alpha_req_unit", "image_patch_cosine")
    }


def test_the_numbers_are_those_of_the_estimator() -> None:
    expected = estimate_structure(features(), global_clusters=6)
    row = read().scores["-1"]
    assert {name: row[name] for name in expected} == expected


def test_with_one_seed_the_value_is_that_of_dense_structure() -> None:
    metric = DenseMetric(ScoreSettings(global_clusters=6, clustering_seeds=1))
    metric.update(features(), range(32))
    generator = torch.Generator().manual_seed(0)
    expected = dense_structure(features(), global_clusters=6, generator=generator)
    reading = metric.compute()
    for part in ("inter", "intra", "effective_rank"):
        value = reading.estimate(f"released.{part}").value
        assert math.isclose(value, float(getattr(expected, part)), rel_tol=1e-6)
    assert expected.dse is not None
    assert math.isclose(reading.dse, float(expected.dse), rel_tol=1e-6)


def test_the_numbers_are_those_of_a_scored_backbone() -> None:
    backbone = TimmBackbone(vit().eval(), image_size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    layers = ScoreSettings(global_clusters=6, lidar_images=0, layers=(0, -1))
    expected = score_backbone(backbone, ScoringImages(pixels()), layers, device="cpu")
    extracted = extract(backbone, pixels(), layers=(0, -1), device="cpu")
    metric = DenseMetric(layers)
    metric.update(extracted.patches, range(32), extracted.image)
    assert metric.compute().scores == expected.scores


@given(st.permutations(range(32)), st.lists(st.integers(1, 31), max_size=3), st.integers(0, 9))
@settings(max_examples=10, deadline=None)
def test_order_batches_and_copies_change_no_bit(
    order: list[int], cuts: list[int], copies: int
) -> None:
    metric = DenseMetric(SETTINGS)
    order = [*order, *order[:copies]]
    edges = [0, *sorted(cuts), len(order)]
    for first, last in pairwise(edges):
        here = order[first:last]
        metric.update(features()[here], torch.tensor(here, dtype=torch.int64), features()[here, 0])
    assert metric.compute() == read()


def test_compute_can_be_called_again_and_reset_forgets() -> None:
    metric = DenseMetric(SETTINGS)
    assert read(metric) == metric.compute()
    metric.reset()
    with pytest.raises(InputError, match="no features to compute from: call update"):
        metric.compute()


def test_the_caller_may_write_into_its_tensor() -> None:
    metric, mine = DenseMetric(SETTINGS), features()
    metric.update(mine, range(32), mine[:, 0])
    mine.zero_()
    assert metric.compute() == read()


def test_half_precision_and_gradients_are_taken() -> None:
    metric = DenseMetric(SETTINGS)
    metric.update(features().bfloat16().requires_grad_(), range(32))
    expected = estimate_structure(features().bfloat16().float(), global_clusters=6)
    assert metric.compute().estimate("released.dse_lambda_1") == expected["released.dse_lambda_1"]


def test_the_global_random_state_stays() -> None:
    before = torch.get_rng_state()
    read()
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("given", "ids", "image", "text"),
    [
        (features().index_fill(0, torch.tensor([3]), math.nan), range(32), None, "NaN or infinite"),
        (features()[0], range(16), None, "must have 3 axes: images patches dim"),
        (features(), range(31), None, "has 32 images for 31 sample_ids"),
        (features(), torch.arange(32.0), None, "give one integer per image"),
        (features(), range(32), features(), "must have 2 axes: images dim"),
        ([features(), features()], range(32), None, "features of 2 layer.s. for 1"),
        (features().long(), range(32), None, "features are floating point"),
    ],
)
def test_bad_features_are_refused_in_a_sentence(
    given: torch.Tensor, ids: torch.Tensor, image: torch.Tensor | None, text: str
) -> None:
    with pytest.raises(InputError, match=text):
        DenseMetric(SETTINGS).update(given, ids, image)


def test_batches_of_two_shapes_are_refused() -> None:
    metric = DenseMetric(SETTINGS)
    metric.update(features(16), range(16))
    metric.update(features(16, dim=9), range(16, 32))
    with pytest.raises(InputError, match=r"shape \(16, 8\) in one batch and \(16, 9\) in another"):
        metric.compute()


def test_features_of_two_moments_are_not_mixed() -> None:
    metric = DenseMetric(SETTINGS)
    metric.update(features(), range(32))
    metric.update(features(seed=1), range(32))
    with pytest.raises(InputError, match="sample 0 came twice with different features.*reset"):
        metric.compute()


def test_a_reading_comes_back_from_json() -> None:
    assert MetricValues.from_json(read().to_json()) == read()


def test_a_number_that_was_not_read_is_named() -> None:
    with pytest.raises(
        RecordError, match="this observation has no lidar at layer -1; it has: alpha"
    ):
        read().estimate("lidar")


def test_names_of_numbers() -> None:
    metric = DenseMetric(ScoreSettings(global_clusters=6, layers=(-2, -1)))
    metric.update([features(), features(seed=1)], range(32), features()[:, 0])
    reading = metric.compute()
    names = reading.numbers()
    assert names["densescope/dse"] == reading.dse == reading.estimate("released.dse_lambda_1").value
    assert (
        names["densescope/paper.effective_rank"] == reading.estimate("paper.effective_rank").value
    )
    assert (
        names["densescope/layer_-2/effective_rank"]
        == reading.estimate("released.effective_rank", -2).value
    )
    assert names["densescope/dse_error"] == reading.estimate("released.dse_lambda_1").standard_error


def test_all_layers_are_for_files_as_a_monitor_cannot_know_their_number() -> None:
    with pytest.raises(InputError, match="layers='all' is for checkpoint files: name the layers"):
        DenseMetric(ScoreSettings(layers="all"))
