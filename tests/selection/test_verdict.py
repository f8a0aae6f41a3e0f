from __future__ import annotations

from dataclasses import replace

import pytest

from densescope.errors import InputError
from densescope.estimate import Estimate
from densescope.records import ScoreRecord
from densescope.selection import RunTable, select_checkpoints
from densescope.selection.headline import across_choices
from densescope.selection.result import Selection
from tests.selection.runs import diverged, failed, noisy_run, plain_run, record

PEAK = [0.0, 3.0, 2.0, 1.0, 0.5, 0.0]
UNKNOWN = (
    "The noise is not known, as there are too few images to cut 2,048 images into blocks: do not "
    "rest a choice on small differences; score more images, or a larger set if these were all "
    "of it."
)


def said(
    separability: list[float], effective_rank: list[float] | None = None, noise: float = 0.01
) -> str:
    run = noisy_run(
        separability, separability if effective_rank is None else effective_rank, noise=noise
    )
    return select_checkpoints(run).verdict


def test_a_clear_peak_and_a_degraded_end() -> None:
    assert select_checkpoints(plain_run(PEAK)).verdict == (
        "The pick is epoch20.pth (epoch 20); whether others are as good is not known. "
        "From the pick to the last checkpoint (epoch 60) DSE fell by 6. "
        "Which part moved it is not known without its noise (separability -3, effective rank -3). "
        + UNKNOWN
    )


def test_with_intervals() -> None:
    verdict = said(PEAK)
    assert verdict.startswith("Use epoch20.pth (epoch 20). From the pick to the last checkpoint ")
    assert "DSE fell by 6 [5.9" in verdict
    assert "(95%, all comparisons together)" in verdict
    assert "noise" not in verdict


def test_what_moved() -> None:
    sep = [0.0, 3.0, 2.9, 2.9, 2.9, 2.9]
    effective_rank = [1.0, 3.0, 2.0, 1.0, 0.5, 0.0]
    assert "The effective rank moved it: the features use fewer directions" in said(
        sep, effective_rank
    )
    assert "Separability moved it: the pseudo-classes stand less apart" in said(effective_rank, sep)
    assert "Both parts moved it" in said(PEAK)


def test_when_only_the_sum_exceeds_its_noise() -> None:
    """Opposite noise in the two parts: each alone is unsure, their sum is not."""
    shake = [-3.0, 3.0] * 4

    def parts(s: float, d: float, size: float) -> tuple[Estimate, Estimate]:
        up = tuple(s + size * x for x in shake)
        return Estimate(s, up), Estimate(d, tuple(d - size * x for x in shake))

    run = []
    for step, value in enumerate([0.0, 3.0, 1.0, 0.0, 2.0], start=1):
        separability, effective_rank = parts(value, value, float(step))
        run.append(record(step, separability, Estimate(0.0, (0.0,) * 8), effective_rank))
    verdict = select_checkpoints(run).verdict
    assert "DSE fell by 2 [2, 2]" in verdict
    assert "Neither part alone moved beyond its noise (separability -1 [" in verdict


def test_many_left_out_are_counted() -> None:
    run = [*plain_run(PEAK), *(failed(100 + step) for step in range(7))]
    verdict = select_checkpoints(run).verdict
    assert "7 checkpoints were left out without a score: epoch100.pth, epoch101" in verdict
    assert verdict.endswith("epoch103.pth, epoch104.pth and 2 more.")


def test_an_end_without_finite_numbers_comes_first() -> None:
    rising = noisy_run([0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0], noise=0.01)
    selection = select_checkpoints([*rising, diverged(50), failed(60)])
    assert selection.unscored_after == ("epoch50.pth", "epoch60.pth")
    assert selection.diverged == ("epoch50.pth",)
    assert selection.verdict.startswith(
        "Training diverged after epoch40.pth (epoch 40): the weights or features of epoch50.pth "
        "are NaN or infinite. Use epoch40.pth (epoch 40). It is the last scored "
        "checkpoint and DSE is highest there: no degradation is seen up to there. "
    )
    assert Selection.from_json(selection.to_json()) == selection
    gone = record(50, Estimate(float("nan"), (0.0,) * 16), 1.0, 1.0)
    assert select_checkpoints([*rising, gone]).verdict.startswith(
        "The features collapsed after epoch40.pth (epoch 40): those of epoch50.pth have no dense"
    )


def test_what_could_not_be_scored_for_another_reason_is_no_divergence() -> None:
    run = noisy_run(PEAK, PEAK, noise=0.01)
    verdict = select_checkpoints([*run, failed(70)]).verdict
    assert verdict.startswith("Use epoch20.pth (epoch 20). From the pick to the last scored check")
    assert verdict.endswith("1 checkpoint was left out without a score: epoch70.pth.")
    within = select_checkpoints([*run, diverged(15)]).verdict
    assert within.startswith("Use epoch20.pth (epoch 20). From the pick to the last checkpoint")


def test_when_the_last_checkpoint_is_as_good() -> None:
    verdict = said([0.0, 2.0, 4.0, 3.5, 3.5, 3.6], noise=0.5)
    assert "On DSE the last checkpoint (epoch 60) is as good as can be told: its diff" in verdict
    assert "is below the noise of 2,048 images." in verdict


def test_a_tied_peak_is_no_clear_winner() -> None:
    verdict = said([0.0, 3.0, 1.0, 0.0, 2.95, 1.0, 0.0], noise=0.4)
    assert verdict.startswith(
        "No clear winner: epochs 20 and 50 are tied; the earliest peak is epoch20.pth (epoch 20). "
        "It is also the pick by the rule; the differences from it are below the noise of 2,048 "
        "images: score more images, or a larger set if these were all of it. From the pick to"
    )
    assert "Use " not in verdict


def test_the_pick_is_named_where_it_is_not_the_earliest_peak() -> None:
    verdict = said([0.0, 2.95, 2.94, 0.0, 3.3, 3.2, 0.0, 0.0], noise=0.4)
    assert verdict.startswith(
        "No clear winner: epochs 20, 50 and 60 are tied; the earliest peak is epoch20.pth "
        "(epoch 20). epoch50.pth (epoch 50) is the pick by the rule; the differences from it "
    )


def test_a_stretch_of_tied_checkpoints_is_a_range() -> None:
    verdict = said([3.0, 3.01, 3.02, 3.0, 0.0, 3.01, 0.0], noise=0.4)
    assert verdict.startswith("No clear winner: epochs 10-40 and 60 are tied; the earliest peak is")


def test_when_nothing_can_be_told_apart() -> None:
    verdict = said([1.0, 1.01, 1.0, 1.02, 1.0], noise=1.0)
    assert verdict.startswith("No clear winner: all 5 checkpoints (epochs 10-50) are tied; the ear")
    assert "moved it" not in verdict


def test_a_file_under_two_names_is_said_to_be_one() -> None:
    run = noisy_run(PEAK, PEAK, noise=0.01)
    run[2] = replace(run[2], scores=run[1].scores)
    run = [replace(r, checkpoint={"sha256": f"{max(i, 2)}"[:1]}) for i, r in enumerate(run)]
    run[0] = replace(run[0], checkpoint={})
    selection = select_checkpoints(run)
    assert [row.has_weights_of_pick for row in selection.rows] == [False, False, True] + [False] * 3
    assert "epoch30.pth (epoch 30) holds the same weights as the pick." in selection.verdict
    assert selection.verdict.startswith("Use epoch20.pth (epoch 20).")
    ends = select_checkpoints(run[:3]).verdict
    assert "The last checkpoint (epoch 30) holds the same weights as the pick." in ends
    assert ends.count("same weights") == 1
    assert "below the noise" not in ends
    unknown = [replace(r, checkpoint={}) for r in run]
    assert "same weights" not in select_checkpoints(unknown).verdict


def test_when_dse_is_highest_at_the_end() -> None:
    verdict = said([0.0, 1.0, 2.0, 3.0, 4.0])
    assert verdict == (
        "Use epoch50.pth (epoch 50). It is the last checkpoint and DSE is highest there: "
        "no degradation is seen so far."
    )


def test_when_the_fall_after_the_maximum_is_not_seen_yet() -> None:
    assert "fewer than 2 checkpoints follow" in said([0.0, 1.0, 2.0, 3.0, 2.5])


def test_when_the_end_is_higher_than_the_pick() -> None:
    verdict = said([0.0, 3.0, 1.0, 0.0, 1.0, 3.1])
    assert verdict.startswith(
        "Use epoch20.pth (epoch 20). DSE is higher still at epoch60.pth (epoch 60) "
        "(6.28 against 6.09)"
    )
    assert "the pick is the highest peak that was followed by one" in verdict
    assert "DSE rose by" in verdict


def test_when_dse_only_falls() -> None:
    assert "It is the first checkpoint and DSE is nowhere higher" in said([4.0, 3.0, 2.0, 1.0])


def test_a_constant_curve_chooses_nothing() -> None:
    verdict = select_checkpoints(plain_run([1.0] * 5)).verdict
    assert verdict.startswith("No clear winner: all 5 checkpoints (epochs 10-50) are tied; the ")
    assert "DSE is the same in all checkpoints and chooses none of them" in verdict
    assert "Its DSE is that of the last checkpoint (epoch 50)." in verdict


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0], "Only epoch10.pth (epoch 10) was scored: there is nothing to choose from yet."),
        (
            [1.0, 2.0],
            "Only two checkpoints were scored; epoch20.pth (epoch 20) has the higher DSE. "
            "A peak cannot be told from a slope: score more checkpoints of the run.",
        ),
    ],
)
def test_too_few_checkpoints(values: list[float], expected: str) -> None:
    assert select_checkpoints(plain_run(values)).verdict == expected


def test_paper_with_two_checkpoints() -> None:
    selection = select_checkpoints(plain_run([1.0, 2.0], definition="paper"), definition="paper")
    assert selection.verdict == (
        "No checkpoint is picked. Lambda is not defined with 2 scored "
        "checkpoints: DSE of this definition is left open, only its parts are shown."
    )


def test_without_a_count_of_images() -> None:
    run = plain_run(PEAK, provenance={})
    assert "to cut these images into blocks" in select_checkpoints(run).verdict


def in_both(separability: list[float], rank: list[float], paper_rank: list[float]) -> RunTable:
    records = plain_run(separability, rank)
    paper = plain_run(separability, paper_rank, definition="paper")
    return RunTable.of(
        [
            replace(one, scores={"-1": {**one.scores["-1"], **other.scores["-1"]}})
            for one, other in zip(records, paper, strict=True)
        ]
    )


def test_whether_the_pick_depends_on_the_definition_is_one_line() -> None:
    separability = [0.0, 1.0, 2.0, 1.0, 0.5, 0.0]
    alike = in_both(separability, separability, [100 * s for s in separability])
    assert across_choices(alike) == (
        "Both definitions of DSE and all 3 rules for lambda pick the same checkpoint."
    )
    late = [0.0, 0.0, 0.0, 0.0, 9.0, 0.0]
    apart = in_both(separability, separability, late)
    assert across_choices(apart) == (
        "The pick depends on the definition of DSE: released, released with the run's lambda (1) "
        "and released with shrunk lambda (1): epoch30.pth (epoch 30); paper: epoch50.pth "
        "(epoch 50)."
    )


def test_picks_that_no_definition_tells_apart_are_said_to_be_so() -> None:
    curve, late = [0.0, 0.5, 0.6, 0.5, 0.5, 0.0], [0.0, 0.5, 0.5, 0.5, 0.6, 0.0]
    for noise, apart in ((0.5, False), (0.001, True)):
        released = noisy_run(curve, curve, noise=noise)
        paper = noisy_run(late, late, noise=noise, seed=1)
        records = [
            replace(one, scores={"-1": {**one.scores["-1"], **renamed(other)}})
            for one, other in zip(released, paper, strict=True)
        ]
        sentence = str(across_choices(RunTable.of(records)))
        assert sentence.startswith("The pick depends on the definition of DSE")
        assert ("None of them tells these checkpoints apart." in sentence) is not apart


def renamed(record: ScoreRecord) -> dict[str, Estimate]:
    return {name.replace("released", "paper"): e for name, e in record.scores["-1"].items()}


def test_whether_the_pick_depends_on_lambda_is_one_line() -> None:
    separability, rank = [0.0, 0.2, 0.4, 0.5, 0.4, 0.3], [0.4, 0.403, 0.402, 0.401, 0.4, 0.4]
    assert across_choices(RunTable.of(plain_run(separability, rank))) == (
        "The pick depends on the rule for lambda: released and released with shrunk lambda (1.46): "
        "epoch40.pth (epoch 40); released with the run's lambda (141): epoch30.pth (epoch 30)."
    )
    alike = RunTable.of(plain_run(separability))
    assert across_choices(alike) == "All 3 rules for lambda pick the same checkpoint."
    assert across_choices(RunTable.of(plain_run(separability[:2]))) is None
    table = RunTable.of(plain_run(separability, rank))
    assert table.selection(lambda_choice="run").pick == "epoch30.pth"
    assert table.selection().lambda_ == 1
    assert table.selection() is table.selection(lambda_choice="1")
    with pytest.raises(InputError, match="lambda shrunk does not go with the definition paper"):
        select_checkpoints(
            plain_run([1, 2, 3], definition="paper"), definition="paper", lambda_choice="shrunk"
        )
    with pytest.raises(InputError, match="lambda is 'mine'; it must be one of 1, run, shrunk"):
        select_checkpoints(table, lambda_choice="mine")
