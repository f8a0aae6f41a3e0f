"""Two protocols on one labelled set, side by side."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from densescope.correlation.protocols import protocol_differences
from densescope.records import ProbeRecord
from tests.correlation.runs import probe


def probes(protocol: str, values: list[float], dataset: str = "camvid") -> list[ProbeRecord]:
    return [
        probe(10 * i, value, protocol=protocol, dataset=dataset) for i, value in enumerate(values)
    ]


def test_what_one_protocol_reads_more_and_where_they_disagree() -> None:
    sets = {
        "camvid-linear": probes("linear", [0.20, 0.24, 0.23, 0.22]),
        "camvid-linear-sgd": probes("linear-sgd", [0.19, 0.21, 0.18, 0.17]),
    }
    (found,) = protocol_differences(sets)
    assert found.mean == pytest.approx(0.035)
    assert (found.lowest, found.highest) == (pytest.approx(0.01), pytest.approx(0.05))
    assert found.tau == pytest.approx(1 / 3)
    assert found.sentence == (
        "camvid-linear minus camvid-linear-sgd: +3.5 points on average (+1.0 to +5.0) over 4 "
        "checkpoints; Kendall's tau between the two is +0.33. They disagree on the course of the "
        "run: from the first to the last checkpoint +2.0 and -2.0."
    )
    assert json.loads(json.dumps(found.to_json()))["sentence"] == found.sentence


def test_protocols_that_agree_are_said_to_differ_by_no_more_than_their_level() -> None:
    sets = {
        "camvid-linear": probes("linear", [0.2, 0.3]),
        "camvid-capi-knn": probes("capi-knn", [0.1, 0.2, 0.3]),
    }
    (found,) = protocol_differences(sets)
    assert found.checkpoints == 2
    assert found.tau is None
    assert found.sentence.endswith("tau between the two is not defined.")


def test_folds_and_few_labels_are_no_other_protocol() -> None:
    def labelled(protocol: str, **data: object) -> list[ProbeRecord]:
        made = {"settings": {"data": {"test": "these", **data}}}
        return [replace(one, provenance=made) for one in probes(protocol, [0.2, 0.3])]

    plain, sgd = labelled("linear"), labelled("linear-sgd")
    few, folded = labelled("linear-sgd", labels=20), labelled("linear-sgd", folds=3)
    found = protocol_differences({"a": plain, "b": sgd, "few": few, "folded": folded})
    assert [(one.first, one.second) for one in found] == [("a", "b")]
    both = {"a": labelled("linear", labels=20), "b": few}
    assert len(protocol_differences(both)) == 1


def test_other_sets_measures_or_lone_checkpoints_are_not_compared() -> None:
    linear = probes("linear", [0.2, 0.3])
    assert protocol_differences({"a": linear, "b": probes("sgd", [0.2, 0.3], "scenes")}) == []
    assert protocol_differences({"a": linear, "b": probes("sgd", [0.2])}) == []
    assert protocol_differences({"a": linear, "b": probes("linear", [0.1, 0.2])}) == []
    other = [probe(10 * i, 0.5, protocol="depth", measure="rmse") for i in range(2)]
    assert protocol_differences({"a": linear, "b": other}) == []
