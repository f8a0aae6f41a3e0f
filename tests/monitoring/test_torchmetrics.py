"""The metric as torchmetrics has it; test_distributed.py has it on two ranks."""

from __future__ import annotations

import pickle

import pytest
import torch
from torchmetrics import Metric, MetricCollection
from torchmetrics.utilities import dim_zero_cat

from densescope.errors import InputError
from densescope.metrics import ScoreSettings
from densescope.monitoring.metric import DenseMetric
from densescope.monitoring.torchmetrics import DenseStructureMetric
from tests.monitoring.scenes import SETTINGS, features

PAIR = ScoreSettings(global_clusters=6, layers=(-2, -1))


def filled(metric: Metric) -> Metric:
    for here in (slice(20, 32), slice(0, 20)):
        metric.update(features()[here], torch.arange(32)[here], features()[here, 0])
    return metric


def expected() -> dict[str, float]:
    metric = DenseMetric(SETTINGS)
    metric.update(features(), range(32), features()[:, 0])
    return metric.compute().numbers()


def values(metric: Metric) -> dict[str, float]:
    return {name: float(value) for name, value in metric.compute().items()}


def test_the_numbers_are_those_of_the_plain_metric() -> None:
    assert values(filled(DenseStructureMetric(SETTINGS))) == pytest.approx(expected(), rel=1e-6)


def test_several_layers_of_different_widths() -> None:
    layers = [features(), features(dim=5, seed=1)]
    ours, plain = DenseStructureMetric(PAIR), DenseMetric(PAIR)
    ours.update(layers, range(32))
    plain.update(layers, range(32))
    assert values(ours) == pytest.approx(plain.compute().numbers(), rel=1e-6)


def test_it_pickles_clones_and_resets() -> None:
    metric = filled(DenseStructureMetric(SETTINGS))
    for copy in (pickle.loads(pickle.dumps(metric)), metric.clone()):
        assert values(copy) == values(metric)
    metric.reset()
    with (
        pytest.warns(UserWarning, match="before the ``update``"),
        pytest.raises(InputError, match=r"call update\(\) first"),
    ):
        metric.compute()
    assert values(filled(metric)) == pytest.approx(expected(), rel=1e-6)


def test_the_states_say_how_they_are_reduced() -> None:
    reductions = DenseStructureMetric(SETTINGS)._reductions
    assert {name for name, how in reductions.items() if how is dim_zero_cat} == {
        "ids",
        "values",
        "image_values",
    }


def test_it_works_in_a_collection() -> None:
    collection = MetricCollection([DenseStructureMetric(SETTINGS)])
    collection.update(features(), range(32), features()[:, 0])
    assert set(collection.compute()) == set(expected())


def test_forward_only_updates() -> None:
    metric = DenseStructureMetric(SETTINGS)
    assert metric(features()[:2], range(2)) is None
    assert len(metric.ids) == 1


def test_features_of_two_sizes_are_refused() -> None:
    metric = DenseStructureMetric(SETTINGS)
    metric.update(features(), range(32))
    with pytest.raises(InputError, match=r"sizes \[16, 9, 0\], before \[16, 8, 0\]"):
        metric.update(features(dim=9), range(32))
