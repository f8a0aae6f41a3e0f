"""Rounds become one number per checkpoint, at one level."""

from __future__ import annotations

import pytest

from densescope.estimate import Estimate
from densescope.records import ScoreRecord
from densescope.selection.rounds import images_of, pooled, pooled_scores, saving


def one(value: float, *replicates: float, **more: object) -> Estimate:
    return Estimate(value, replicates or (value - 1, value + 1), **more)  # type: ignore[arg-type]


def test_a_checkpoint_with_all_rounds_has_their_mean_block_by_block() -> None:
    (number,) = pooled([[one(1.0, 0.0, 4.0), one(3.0, 2.0, 6.0)]])
    assert number == Estimate(2.0, (1.0, 5.0))


def test_missing_rounds_move_a_checkpoint_as_they_moved_the_others() -> None:
    """The second round lowers everybody by 1, and block 1 of it by 2."""
    whole = [one(5.0, 4.0, 6.0), one(4.0, 3.0, 4.0)]
    first, stopped, none = pooled([whole, [one(5.5, 4.5, 6.5)], []])
    assert first == Estimate(4.5, (3.5, 5.0))
    assert stopped == Estimate(5.0, (4.0, 5.5))
    assert none is None
    assert stopped is not None
    assert stopped.minus(first).replicates == (0.5, 0.5)


def test_a_number_that_is_not_finite_moves_nobody_else() -> None:
    nan = float("nan")
    table = [[one(1.0), one(2.0)], [one(nan), one(nan)], [one(5.0)]]
    first, second, third = pooled(table)
    assert first is not None
    assert first.value == 1.5
    assert second is not None
    assert second.value != second.value
    assert third is not None
    assert third.value == 5.5


def test_spread_over_clusterings_is_that_of_a_mean_and_notes_stay() -> None:
    rows = [[one(1.0, seed_spread=0.3, note="few"), one(1.0, seed_spread=0.4, note="few")]]
    (number,) = pooled(rows)
    assert number is not None
    assert number.seed_spread == pytest.approx(0.25)
    assert number.note == "few"


def test_a_number_of_the_first_round_only_stays_as_it_is() -> None:
    first = {"-1": {"effective_rank": one(1.0), "lidar": one(7.0)}}
    second = {"-1": {"effective_rank": one(3.0)}}
    both, stopped = pooled_scores([[first, second], [first]])
    assert both["-1"]["effective_rank"].value == 2.0
    assert both["-1"]["lidar"] == one(7.0)
    assert stopped["-1"]["effective_rank"].value == 2.0


def raced(step: int, done: int, lidar: int = 0) -> ScoreRecord:
    race = {"rounds": 4, "round_size": 100, "alpha": 0.05, "done": done}
    settings = {"lidar_images": lidar, "lidar_views": 10}
    provenance = {"race": race, "settings": settings, "images": {"count": 400}}
    return ScoreRecord(f"epoch{step}.pth", step, provenance=provenance)


def test_what_a_race_saved_is_a_sentence() -> None:
    records = [raced(0, 1), raced(1, 4), raced(2, 1)]
    assert saving(records) == (
        "1 of 3 checkpoints went through all 4 rounds of 100 images: "
        "50% of the images of a full sweep."
    )
    assert [images_of(record) for record in records] == [100, 400, 100]


def test_views_of_lidar_count_as_forward_passes() -> None:
    """200 + 40 x 10 of 400 + 40 x 10; a race has no more of them than its first round has."""
    few = [raced(0, 1, 40), raced(1, 4, 40), raced(2, 1, 40)]
    assert str(saving(few)).endswith(
        "50% of the images of a full sweep (75% of its forward passes)."
    )
    many = [raced(0, 1, 200), raced(1, 4, 200), raced(2, 1, 200)]
    assert str(saving(many)).endswith("(50% of its forward passes).")


def test_records_of_no_race_say_nothing_of_it() -> None:
    plain = ScoreRecord("epoch0.pth", 0, provenance={"images": {"count": 64}})
    assert saving([plain]) is None
    assert images_of(plain) == 64
    assert images_of(ScoreRecord("epoch0.pth", 0)) is None
