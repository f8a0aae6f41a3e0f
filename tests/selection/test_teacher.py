"""The early checkpoint that Gram anchoring takes as its teacher."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from densescope.errors import InputError, RecordError
from densescope.records import ScoreRecord
from densescope.selection import select_gram_teacher
from tests.selection.runs import noisy_run, plain_run

# An early best, then the slow decline of a long training.
DECLINE = [0.0, 2.0, 3.0, 3.02, 2.5, 2.0, 1.5, 1.0, 0.5, 0.2]


def run(curve: list[float], noise: float = 0.1) -> list[ScoreRecord]:
    return noisy_run(curve, curve, noise=noise)


def test_the_earliest_that_is_tied_with_the_best_of_the_first_part() -> None:
    found = select_gram_teacher(run(DECLINE))
    assert (found.name, found.best) == ("epoch30.pth", "epoch40.pth")
    assert [row.tied_with_best for row in found.rows] == [False, False, True, True] + [False] * 6
    assert [row.in_first_part for row in found.rows] == [True] * 5 + [False] * 5
    assert found.comparison_level == pytest.approx(1 - 0.05 / 4)
    assert found.sentence.startswith(
        "Gram teacher: epoch30.pth (epoch 30), the earliest of the first 50% of the run that is "
        "not told apart from the best there (DSE (lambda = "
    )
    assert "The best is epoch40.pth (epoch 40), ahead by 0." in found.sentence
    last = found.rows[-1]
    low, high = last.loss.interval(found.comparison_level) or (0, 0)
    assert low > 0
    assert found.sentence.endswith(
        f" As a teacher the last checkpoint (epoch 100) would lose {last.loss.value:.3g} "
        f"[{low:.3g}, {high:.3g}] of DSE."
    )


def test_a_teacher_without_a_rival_is_said_to_be_the_only_one() -> None:
    found = select_gram_teacher(run([1.0, 0.0, 2.0]), first_part=0.4)
    assert "epoch10.pth (epoch 10), the only checkpoint scored in the first 40%" in found.sentence


def test_differences_are_those_of_the_same_images() -> None:
    found = select_gram_teacher(run(DECLINE))
    teacher = found.row(found.name)
    for row in found.rows:
        assert row.loss == teacher.dse.minus(row.dse)
    assert teacher.loss.value == 0


def test_without_noise_the_best_of_the_first_part_is_the_teacher() -> None:
    found = select_gram_teacher(plain_run(DECLINE))
    assert found.name == found.best == "epoch40.pth"
    assert "with the best dense structure of the first 50% of the run" in found.sentence
    assert "The noise is not known" in found.sentence
    assert "That the last checkpoint (epoch 100) would be worse is not shown" in found.sentence


def test_a_later_checkpoint_is_no_teacher_but_what_it_gains_is_said() -> None:
    rising = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 7.5]
    found = select_gram_teacher(run(rising))
    assert found.name == "epoch50.pth"
    assert "By DSE the last checkpoint (epoch 100) is better by " in found.sentence
    assert "goes on rising after the first part: epoch90.pth (epoch 90) is higher" in found.sentence
    assert select_gram_teacher(run(rising), first_part=0.2).name == "epoch20.pth"
    assert select_gram_teacher(run(rising), first_part=1.0).name == "epoch90.pth"


@pytest.mark.parametrize("part", [0.0, 1.1, -1.0])
def test_an_impossible_part(part: float) -> None:
    with pytest.raises(InputError, match="it must be above 0 and at most 1"):
        select_gram_teacher(run(DECLINE), first_part=part)


def test_no_checkpoint_in_the_first_part_and_no_dse() -> None:
    with pytest.raises(
        RecordError, match=r"first 5% of the run \(up to epoch 5\): the first is ep"
    ):
        select_gram_teacher(run(DECLINE), first_part=0.05)
    two = plain_run([1.0, 2.0], definition="paper")
    with pytest.raises(RecordError, match="no teacher can be chosen: Lambda"):
        select_gram_teacher(two, definition="paper")


def test_its_evidence_is_written(tmp_path: Path) -> None:
    found = select_gram_teacher(run(DECLINE))
    for suffix in ("json", "csv", "parquet"):
        found.write(tmp_path / f"teacher.{suffix}")
    document = json.loads((tmp_path / "teacher.json").read_text())
    assert document["name"] == "epoch30.pth"
    assert document["sentence"] == found.sentence
    assert [row["name"] for row in document["rows"] if row["teacher"]] == ["epoch30.pth"]
    with (tmp_path / "teacher.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["in_first_part"] for row in rows] == ["True"] * 5 + ["False"] * 5
    assert float(rows[-1]["loss_low"]) > 0
    assert float(rows[0]["lambda"]) == found.lambda_
