"""The tables of "Does it work?" hold the numbers of the study's generated tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "does-it-work.md"
RESULTS = ROOT / "studies" / "degradation" / "scenes-results.md"
ARMS = {"constant": RESULTS, "raised": RESULTS, "long": RESULTS.with_name("scenes-long-results.md")}


def rows(text: str) -> Iterator[list[str]]:
    """Cells of every row of the tables in a text."""
    for line in text.splitlines():
        if line.startswith("| "):
            yield [cell.strip(" *") for cell in line.strip("| ").split(" | ")]


def arm(name: str, heading: str) -> dict[str, list[str]]:
    """A table of one arm of part 3 or 19, by its first column."""
    part = ARMS[name].read_text(encoding="utf-8").split(f"## The arm {name}\n")[1].split("\n## ")[0]
    return {row[0]: row for row in rows(part.split(f"### {heading}")[1].split("\n### ")[0])}


def section(number: int) -> list[list[str]]:
    """The rows of a section of the page, without its head."""
    text = PAGE.read_text(encoding="utf-8").split(f"\n## {number}. ")[1].split("\n## ")[0]
    return list(rows(text))[2:]


@pytest.mark.parametrize(("place", "name"), list(enumerate(ARMS)))
def test_choices_cost_what_the_study_found(place: int, name: str) -> None:
    known = arm(name, "Regret of a choice")
    found = section(4)
    assert len(found) == 7
    for title, labels, *regrets, _ in found:
        if regrets[place] != "not probed":
            assert known[title][1:3] == [labels, regrets[place]]


@pytest.mark.parametrize(("place", "name"), list(enumerate(ARMS)))
def test_metrics_have_the_tau_that_the_study_found(place: int, name: str) -> None:
    known = arm(name, "Kendall's tau")
    found = section(3)
    assert len(found) == 8
    for title, *taus in found:
        assert known[title][2] == taus[place]


def test_declines_are_those_of_the_contrasts() -> None:
    text = RESULTS.read_text(encoding="utf-8")
    counts = {row[0]: row for row in rows(text.split("## The best three checkpoints against")[1])}
    for training, title in (
        ("raised to 0.1", "scenes, rate raised on purpose (part 3)"),
        ("0.01, constant", "scenes, from MAE, rate 0.01 (part 8)"),
        ("0.01 on a cosine to 0", "scenes, from MAE, rate 0.01 on a cosine to 0 (part 9)"),
    ):
        (found,) = [row for row in section(1) if row[1] == training]
        known = counts[title]
        assert known[5] == f"{found[3]} of {found[2]}"
        fall, theirs = (
            [float(part) for part in cell.split(" ± ")] for cell in (found[4], known[2])
        )
        assert fall == pytest.approx(theirs, abs=0.051)


def test_the_rule_costs_what_parts_15_and_23_found() -> None:
    text = RESULTS.read_text(encoding="utf-8").split("## After an alarm, back to which")[1]
    known = {row[0]: row[1:5] for row in rows(text)}
    groups = ("constant, all (32)", "raised, all (30)", "raised, parts 15 and 23 (12)")
    found = section(5)
    assert len(found) == 4
    for place, (_, *cells) in enumerate(found):
        for cell, group in zip(cells, groups, strict=True):
            ours, theirs = (
                [float(part) for part in one.split(" ± ")] for one in (cell, known[group][place])
            )
            assert ours == pytest.approx(theirs, abs=0.051)


def test_regularizers_did_in_breaking_runs_what_part_17_found() -> None:
    text = RESULTS.read_text(encoding="utf-8").split("(part 17 of the plan)")[1]
    known = {tuple(row[:2]): row[2] for row in rows(text) if len(row) == 8}
    anchored, aligned = section(7)[-2:]
    for place, method in enumerate(("mae", "simsiam", "vicreg"), start=1):
        weight = 1000 if method == "vicreg" else 100
        found = {f"gram-{weight}": anchored[place], "paka": aligned[place]}
        for name, cell in found.items():
            ours, theirs = (
                [float(part) for part in one.split(" ± ")] for one in (cell, known[name, method])
            )
            assert ours == pytest.approx(theirs, abs=0.051)


def test_the_readme_says_the_same() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("## Does it work?")[1]
    last, pick, _, back = (row[1:3] for row in section(5))
    assert [row[1:] for row in list(rows(text))[2:5]] == [last, pick, back]
