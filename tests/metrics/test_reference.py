"""The page of metrics: each row has its formula, its use, and a picture drawn from stored runs."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from docs.made import all_metrics
from docs.pictures import LOOKS, metric_picture, stored, verdict

from densescope.metrics import METRICS, Metric

PAGE = all_metrics()


@pytest.mark.parametrize("row", METRICS.values(), ids=METRICS)
def test_every_metric_has_a_formula_a_use_and_a_picture(row: Metric) -> None:
    assert row.formula, "a row says its definition on one line: formula="
    assert row.use.endswith("."), "a row says when to look at it: use="
    assert row.trap.endswith("."), "a row says how it misleads: trap="
    assert row.formula in PAGE
    assert metric_picture(row), "draw it: python -m benchmarks.pictured FOLDER"


def test_a_picture_has_both_runs_and_the_numbers_that_are_stored() -> None:
    metric = METRICS["released.effective_rank"]
    figure = ElementTree.fromstring(metric_picture(metric))
    lines = figure.findall(".//polyline")
    assert len(lines) == len(LOOKS) == 2
    steps = stored()["healthy"]["steps"]
    points = [[float(p.split(",")[1]) for p in line.attrib["points"].split()] for line in lines]
    for name, heights in zip(LOOKS, points, strict=True):
        values = [value for value, *_ in stored()[name]["metrics"][metric.name]]
        assert len(heights) == len(values) == len(steps)
        order = sorted(range(len(steps)), key=lambda i: (values[i], -heights[i]))
        assert [heights[i] for i in order] == sorted(heights, reverse=True)  # down is larger
    healthy, collapsing = (max(part) for part in points)
    assert collapsing > healthy
    assert {text.text for text in figure.findall(".//text")} >= {"healthy", "collapsing", "step"}
    dashes = [line.get("stroke-dasharray") for line in lines]
    assert dashes == [None, "5 3"]  # not by color alone
    assert figure.find("svg").attrib["aria-label"].startswith("effective rank (released) over")  # type: ignore[union-attr]


def test_what_the_picture_says_follows_the_direction_of_the_metric() -> None:
    higher, lower = METRICS["rankme"], METRICS["token_cosine"]
    assert "healthy run has the better" in verdict(higher, {"healthy": 2.0, "collapsing": 1.0})
    assert "Misled" in verdict(higher, {"healthy": 1.0, "collapsing": 2.0})
    assert "Misled" in verdict(lower, {"healthy": 2.0, "collapsing": 1.0})
    assert "does not tell" in verdict(lower, {"healthy": 1.0, "collapsing": 1.0})
    assert "no finite value" in verdict(lower, {"healthy": 1.0, "collapsing": None})
    run = {"healthy": 1.0, "collapsing": 2.0}
    assert "do not compare" in verdict(METRICS["released.dse_lambda_run"], run)


def test_the_collapse_is_one() -> None:
    at_end = {
        name: {metric: points[-1][0] for metric, points in run["metrics"].items()}
        for name, run in stored().items()
    }
    assert at_end["collapsing"]["token_cosine"] > 0.99 > at_end["healthy"]["token_cosine"]
    assert at_end["collapsing"]["released.effective_rank"] < 0.1


def test_a_metric_without_stored_runs_has_no_picture() -> None:
    assert metric_picture(replace(METRICS["rankme"], name="unheard")) == ""


def test_pictures_stand_in_the_sections_of_their_metrics() -> None:
    sections = re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]
    assert len(sections) == len(METRICS)
    assert all(section.count('<figure class="picture">') == 1 for section in sections)
    assert all("**When to use it.**" in section for section in sections)
