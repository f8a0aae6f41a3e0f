"""Two processes over gloo say what one says, bit for bit, and none of them waits for ever."""

from __future__ import annotations

from typing import Any

import pytest

from densescope.monitoring.metric import DenseMetric
from densescope.monitoring.monitor import DenseMonitor
from densescope.monitoring.observation import MetricValues
from tests.monitoring import ranks
from tests.monitoring.scenes import SETTINGS, features, pixels, vit


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return ranks.spawn(ranks.everything, tmp_path_factory.mktemp("ranks"))


@pytest.fixture
def shares(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [answer["shares"] for answer in answers]


@pytest.fixture(scope="module")
def single() -> Any:
    metric = DenseMetric(SETTINGS)
    metric.update(features(), range(32), features()[:, 0])
    return metric.compute().to_json()


@pytest.mark.parametrize(
    "name", ["unequal", "copies", "nothing on the second", "nothing on the first"]
)
def test_any_share_gives_the_numbers_of_one_process(
    shares: list[dict[str, Any]], single: Any, name: str
) -> None:
    assert [answers[name] for answers in shares] == [single, single]


@pytest.mark.parametrize(
    "name", ["unequal", "copies", "nothing on the second", "nothing on the first"]
)
def test_torchmetrics_agrees(shares: list[dict[str, Any]], single: Any, name: str) -> None:
    expected = MetricValues.from_json(single).numbers()
    for answers in shares:
        assert answers["torchmetrics"][name] == pytest.approx(expected, rel=1e-6, abs=1e-7)
        assert "call update() first" in answers["torchmetrics"]["nothing at all"]


def test_what_fails_fails_on_every_rank(shares: list[dict[str, Any]]) -> None:
    for answers in shares:
        assert "call update() first" in answers["nothing at all"]
        assert "different shapes on different ranks" in answers["two shapes"]
        assert answers["one rank fails"].startswith("rank 1: features of one image have shape")


def test_one_process_can_be_left_to_itself(shares: list[dict[str, Any]], single: Any) -> None:
    assert shares[0]["alone"] == single


def test_a_model_in_ddp_is_watched_by_all_ranks(answers: list[dict[str, Any]]) -> None:
    first, second = (answer["watched"] for answer in answers)
    alone = DenseMonitor(pixels(36), settings=SETTINGS, batch_size=8)
    expected = alone.observe(vit(), step=1)
    assert expected is not None
    assert expected.values is not None
    for mine in (first, second):
        assert mine["reading"] == expected.values.to_json()
        assert mine["same"]
        assert mine["masked"] == ranks.masked()
        assert mine["problems"] == ["rank 1: RuntimeError: the device is lost"]
        assert mine["numbers"] == sorted(expected.numbers)
    assert (first["logged"], second["logged"]) == ([1, 3], [])
    assert (first["records"], second["records"]) == (3, 0)
