from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from densescope.errors import InputError, RecordError
from densescope.estimate import Estimate
from densescope.records import ScoreRecord, read_json, write_json
from densescope.selection import Selection, select_checkpoints
from densescope.selection.change import leading_part
from densescope.selection.traits import TRAITS, Trait
from tests.selection.runs import PROVENANCE, failed, noisy_run, plain_run, record

CURVE = [0.0, 3.0, 2.0, 1.0, 2.5, 1.0, 0.0]


def test_a_small_run_by_hand() -> None:
    selection = select_checkpoints(plain_run(CURVE))
    assert selection.lambda_ == pytest.approx(1.0)
    assert [row.step for row in selection.rows] == [10, 20, 30, 40, 50, 60, 70]
    assert [row.dse.value for row in selection.rows if row.dse] == pytest.approx(
        [2 * value for value in CURVE]
    )
    assert selection.candidates == ("epoch20.pth", "epoch50.pth")
    assert selection.shortlist == ("epoch20.pth", "epoch50.pth")
    assert (selection.pick, selection.last) == ("epoch20.pth", "epoch70.pth")
    assert [row.is_candidate for row in selection.rows] == [i in (1, 4) for i in range(7)]
    assert [row.rank_in_shortlist for row in selection.rows] == [None, 1, None, None, 2, None, None]
    assert [row.is_pick for row in selection.rows] == [i == 1 for i in range(7)]
    assert not any(row.below_noise_of_pick for row in selection.rows)
    assert selection.failed == ()
    assert selection.images == 2048


def test_parts_and_lambda_are_those_of_the_definition() -> None:
    separability, effective_rank = [0.1, 0.3, 0.2], [100.0, 120.0, 150.0]
    both = [
        replace(a, scores={"-1": {**a.scores["-1"], **b.scores["-1"]}})
        for a, b in zip(
            plain_run(CURVE[:3]),
            plain_run(separability, effective_rank, definition="paper"),
            strict=True,
        )
    ]
    selection = select_checkpoints(both, definition="paper")
    assert selection.definition == "paper"
    assert [row.effective_rank.value for row in selection.rows] == effective_rank
    assert [row.separability.value for row in selection.rows] == pytest.approx(separability)
    assert selection.lambda_ == pytest.approx(0.003974, rel=1e-3)
    assert select_checkpoints(both).lambda_ == pytest.approx(1.0)


def test_another_layer() -> None:
    run = [
        replace(deep, scores={**deep.scores, "-4": shallow.scores["-1"]})
        for deep, shallow in zip(plain_run(CURVE), plain_run(CURVE[::-1]), strict=True)
    ]
    assert select_checkpoints(run).pick == "epoch20.pth"
    selection = select_checkpoints(run, layer=-4, window=1)
    assert (selection.layer, selection.pick) == (-4, "epoch60.pth")


def test_window_and_length_of_the_shortlist_are_used() -> None:
    run = plain_run([0.0, 3.0, 0.0, 4.0, 0.0, 2.0, 0.0])
    assert select_checkpoints(run, window=1).candidates == (
        "epoch20.pth",
        "epoch40.pth",
        "epoch60.pth",
    )
    assert select_checkpoints(run).candidates == ("epoch40.pth",)
    assert len(select_checkpoints(run, window=1, shortlist_size=2).shortlist) == 2


def test_the_order_of_the_records_does_not_matter() -> None:
    run = noisy_run(CURVE[:4], CURVE[3::-1], noise=0.3)
    expected = select_checkpoints(run)
    assert all(select_checkpoints(order) == expected for order in itertools.permutations(run))


def test_failed_and_nonfinite_checkpoints_are_left_out_and_named() -> None:
    run = [*plain_run(CURVE), failed(5), record(200, float("nan"), 1.0, 1.0)]
    selection = select_checkpoints(run)
    assert selection.failed == ("epoch5.pth", "epoch200.pth")
    assert len(selection.rows) == len(CURVE)
    assert selection.last == "epoch70.pth"
    assert "2 checkpoints were left out without a score: epoch5.pth and ep" in selection.verdict


def test_a_failed_checkpoint_of_other_settings_does_not_matter() -> None:
    run = [*plain_run(CURVE), failed(90)]
    assert select_checkpoints(run).failed == ("epoch90.pth",)


def test_one_and_two_checkpoints() -> None:
    one = select_checkpoints(plain_run([1.0]))
    assert (one.lambda_, one.pick, one.last) == (1.0, "epoch10.pth", "epoch10.pth")
    assert one.change is None
    two = select_checkpoints(plain_run([1.0, 2.0]))
    assert (two.lambda_, two.pick, two.candidates) == (1.0, "epoch20.pth", ("epoch20.pth",))


@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0], [2.0, 2.0, 2.0]])
def test_paper_without_a_weight_shows_only_parts(values: list[float]) -> None:
    selection = select_checkpoints(plain_run(values, definition="paper"), definition="paper")
    assert (selection.lambda_, selection.pick, selection.change) == (None, None, None)
    assert (selection.candidates, selection.shortlist) == ((), ())
    assert all(row.dse is None and not row.is_pick for row in selection.rows)
    assert [row.effective_rank.value for row in selection.rows] == values


def test_dse_holds_lambda_fixed_and_its_change_is_paired() -> None:
    run = noisy_run([0.0, 3.0, 2.0, 1.0], [1.0, 2.0, 4.0, 0.0], noise=0.2, seed=3)
    selection = select_checkpoints(run)
    pick, last, lambda_ = selection.row(str(selection.pick)), selection.rows[-1], selection.lambda_
    assert lambda_ is not None
    assert pick.dse is not None
    assert last.dse is not None
    assert pick.dse.replicates == pytest.approx(
        [
            s + lambda_ * d
            for s, d in zip(
                pick.separability.replicates, pick.effective_rank.replicates, strict=True
            )
        ]
    )
    change = selection.change
    assert change is not None
    assert change.dse.value == pytest.approx(last.dse.value - pick.dse.value)
    paired = last.dse.minus(pick.dse)
    assert change.dse.replicates == pytest.approx(paired.replicates)
    assert change.effective_rank.value == pytest.approx(
        last.effective_rank.value - pick.effective_rank.value
    )


def test_pairing_removes_noise_that_all_checkpoints_share() -> None:
    run = noisy_run(CURVE, CURVE, noise=0.01, shared=5.0)
    selection = select_checkpoints(run)
    change, pick = selection.change, selection.row(str(selection.pick))
    assert change is not None
    assert pick.dse is not None
    assert (pick.dse.standard_error or 0.0) > 50 * (change.dse.standard_error or 1.0)
    assert not any(row.below_noise_of_pick for row in selection.rows)


def test_every_comparison_is_made_at_the_level_of_bonferroni() -> None:
    run = noisy_run(CURVE, CURVE, noise=0.1)
    assert select_checkpoints(run).comparison_level == pytest.approx(1 - 0.05 / 6)
    assert select_checkpoints(run, level=0.9).comparison_level == pytest.approx(1 - 0.1 / 6)
    assert select_checkpoints(run[:1]).comparison_level == pytest.approx(0.95)


def test_below_noise_follows_the_paired_interval() -> None:
    run = noisy_run([0.0, 3.0, 2.9, 1.0, 0.0], [0.0, 3.0, 2.9, 1.0, 0.0], noise=0.5, seed=1)
    selection = select_checkpoints(run)
    pick = selection.row(str(selection.pick))
    for row in selection.rows:
        assert pick.dse is not None
        assert row.dse is not None
        interval = pick.dse.minus(row.dse).interval(selection.comparison_level)
        assert interval is not None
        inside = interval[0] <= 0 <= interval[1]
        assert row.below_noise_of_pick == (inside and not row.is_pick)
    assert [row.below_noise_of_pick for row in selection.rows] == [False, False, True, False, False]


def test_notes_and_seed_spread_travel_along() -> None:
    run = [
        record(
            step,
            Estimate(float(step), (), 0.3, "few"),
            Estimate(0.0, (), 0.4, "few"),
            effective_rank,
        )
        for step, effective_rank in ((1, 3.0), (2, Estimate(1.0, (), 1.2, "small")), (3, 2.0))
    ]
    row = select_checkpoints(run).rows[1]
    assert row.separability.seed_spread == pytest.approx(0.5)
    assert row.separability.note == "few"
    assert row.dse is not None
    assert row.dse.note == "few; small"
    assert row.dse.seed_spread == pytest.approx(1.3)
    untouched = select_checkpoints(plain_run(CURVE)).rows[0].dse
    assert untouched is not None
    assert (untouched.seed_spread, untouched.note) == (None, None)


def test_where_noise_is_not_known_only_equal_values_are_tied() -> None:
    equal = select_checkpoints(plain_run([1.0] * 4))
    assert [row.below_noise_of_pick for row in equal.rows] == [False, True, True, True]
    other = select_checkpoints(plain_run([1.0, 3.0, 2.999, 1.0, 1.0]))
    assert (other.tied, other.noise_known) == ((), False)


def test_the_tied_and_their_earliest_peak() -> None:
    curve = [0.0, 2.95, 1.0, 0.0, 3.3, 1.0, 0.0]
    selection = select_checkpoints(noisy_run(curve, curve, noise=0.4))
    assert selection.pick == "epoch50.pth"
    assert selection.tied == ("epoch20.pth", "epoch50.pth")
    assert selection.earliest_peak == "epoch20.pth"
    clear = select_checkpoints(noisy_run(CURVE, CURVE, noise=0.01))
    assert (clear.tied, clear.earliest_peak) == ((), clear.pick)


def sure(value: float) -> Estimate:
    return Estimate(value, (value - 0.001, value, value + 0.001))


def unsure(value: float) -> Estimate:
    return Estimate(value, (value - 9, value, value + 9))


def swinging(value: float) -> Estimate:
    return Estimate(value, (value - 1, value, value + 1))


def opposed(value: float, sign: int) -> Estimate:
    return Estimate(value, tuple(value + sign * x for x in (-9.0, 0.0, 9.0)))


@pytest.mark.parametrize(
    ("separability", "effective_rank", "lambda_", "expected"),
    [
        (sure(-1.0), sure(-0.1), 1.0, "separability"),
        (sure(-0.1), sure(-1.0), 1.0, "effective_rank"),
        (sure(-1.0), sure(-0.6), 1.0, "both"),
        (sure(-1.0), sure(-0.6), 0.1, "separability"),  # lambda counts
        (sure(-0.1), sure(-60.0), 0.1, "effective_rank"),
        (sure(-1.0), sure(0.8), 1.0, "separability"),  # the effective rank went the other way
        (sure(0.5), sure(-0.8), 1.0, "effective_rank"),
        (opposed(-1.0, 1), opposed(-1.1, -1), 1.0, "neither"),  # only the sum is sure
        (swinging(-0.5), sure(-9.0), 1.0, "effective_rank"),
        (unsure(-1.0), unsure(-1.0), 1.0, "neither"),
        (Estimate(-1.0), Estimate(-0.1), 1.0, "neither"),  # noise not known
        (sure(-0.1), unsure(-1.0), 1.0, "neither"),  # DSE itself did not move beyond its noise
        (Estimate(0.0), Estimate(0.0), 1.0, "neither"),
    ],
)
def test_which_part_moved(
    separability: Estimate, effective_rank: Estimate, lambda_: float, expected: str
) -> None:
    assert leading_part(separability, effective_rank, lambda_, 0.95) == expected


@pytest.mark.parametrize("run", [[], [1.0], CURVE])
@pytest.mark.parametrize("definition", ["released", "paper"])
def test_json_round_trip(run: list[float], definition: str, tmp_path: Path) -> None:
    records = noisy_run(CURVE, CURVE, noise=0.3) if not run else plain_run(run)
    if definition == "paper":
        records = plain_run(run or CURVE, definition="paper")
    selection = select_checkpoints([*records, failed(500)], definition=definition)
    assert Selection.from_json(json.loads(json.dumps(selection.to_json()))) == selection
    write_json(selection.to_json(), tmp_path / "selection.json")
    assert Selection.from_json(read_json(tmp_path / "selection.json")) == selection


def test_json_of_another_version_or_damaged() -> None:
    document = select_checkpoints(plain_run(CURVE)).to_json()
    with pytest.raises(RecordError, match="this selection has schema 7, this version reads 3"):
        Selection.from_json({**document, "schema": 7})
    del document["rows"]
    with pytest.raises(
        RecordError, match=r"a selection lacks or garbles a field: KeyError\('rows'"
    ):
        Selection.from_json(document)


def test_an_unknown_row() -> None:
    with pytest.raises(RecordError, match=r"named 'x.pth'; there are: epoch10.pth, epoch20.pth"):
        select_checkpoints(plain_run([1.0, 2.0])).row("x.pth")


def other(**changes: Any) -> list[ScoreRecord]:
    """A run whose last record has another provenance."""
    run = plain_run(CURVE)
    return [*run[:-1], replace(run[-1], provenance={**PROVENANCE, **changes})]


LATER_WITH_BLOCKS = noisy_run([1.0] * 8, [1.0] * 8, noise=1)[7]
BACKBONE = PROVENANCE["backbone"]
REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: select_checkpoints([]), "there are no records to choose from; score the"),
    (
        lambda: select_checkpoints([failed(3), failed(4)]),
        r"none of the 2 checkpoints has a score to choose by; the first, epoch3.pth: cut off",
    ),
    (
        lambda: select_checkpoints([record(3, float("nan"), 1.0, 1.0)]),
        "the first, epoch3.pth: its score is not a finite number",
    ),
    (
        lambda: select_checkpoints(plain_run(CURVE), definition="paper"),
        r"epoch10.pth has no paper.inter at layer -1; it has: released.effective_rank",
    ),
    (
        lambda: select_checkpoints([*plain_run([1.0]), *plain_run([1.0])]),
        "two records are named epoch10.pth; select each run alone",
    ),
    (
        lambda: select_checkpoints(other(images={"fingerprint": "beef", "count": 2048})),
        "epoch10.pth and epoch70.pth differ in their set of images: f00d and beef; their numbers "
        "do not compare: score all on the same images",
    ),
    (
        lambda: select_checkpoints(other(image_size=448)),
        "differ in their image size: 224 and 448; their numbers do not compare",
    ),
    (
        lambda: select_checkpoints(other(settings={"seed": 1, "blocks": 16})),
        r"differ in their settings \(seed\): 0 and 1; their numbers do not compare",
    ),
    (
        lambda: select_checkpoints(other(backbone={**BACKBONE, "format": "mae"})),
        "differ in their format: dino and mae; DSE ranks only checkpoints of one run: select each",
    ),
    (
        lambda: select_checkpoints(other(backbone={**BACKBONE, "architecture": "resnet50"})),
        "differ in their architecture: vit_small_patch16_224 and resnet50; DSE ranks only",
    ),
    (
        lambda: select_checkpoints(other(backbone={**BACKBONE, "weights": "student"})),
        "differ in their weights: teacher and student; DSE ranks only",
    ),
    (
        lambda: select_checkpoints(other(images=None)),
        "differ in their set of images: f00d and not stated",
    ),
    (
        lambda: select_checkpoints([*plain_run(CURVE), LATER_WITH_BLOCKS]),
        "epoch10.pth has 0 replicates and epoch80.pth 16; score all on the same images",
    ),
    (
        lambda: select_checkpoints([record(1, sure(1.0), 1.0, 1.0)]),
        "epoch1.pth has 3 replicates of released.inter and 0 of released.intra; score the",
    ),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_refused_records(call: Callable[[], object], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        call()


@pytest.mark.parametrize("trait", TRAITS, ids=lambda trait: ".".join(trait.path))
def test_every_trait_is_compared(trait: Trait) -> None:
    run = plain_run(CURVE)
    top, *keys = trait.path
    value: Any = "another"
    for key in reversed(keys):
        value = {key: value}
    if top == "provenance":
        value = {**PROVENANCE, **value}
        if len(keys) == 2:
            value[keys[0]] = {**PROVENANCE[keys[0]], **value[keys[0]]}
    with pytest.raises(RecordError, match=f"differ in their {trait.name}: .*{trait.cure}"):
        select_checkpoints([*run[:-1], replace(run[-1], **{top: value})])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"definition": "mine"}, "definition is 'mine'; it must be one of released, paper"),
        ({"level": 1.0}, "level is 1.0; it must lie between 0 and 1"),
        ({"window": 0}, "window is 0"),
        ({"shortlist_size": 0}, "shortlist size is 0"),
    ],
)
def test_refused_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        select_checkpoints(plain_run(CURVE), **arguments)


def test_the_traits_are_those_that_make_numbers_compare() -> None:
    assert {".".join(trait.path) for trait in TRAITS} == {
        "unit",
        *(f"checkpoint.{key}" for key in ("format", "architecture", "weights", "normalization")),
        *(f"provenance.{key}" for key in ("images.fingerprint", "image_size", "settings")),
        *(f"provenance.backbone.{key}" for key in ("format", "architecture", "weights", "loader")),
        "provenance.backbone.architecture_options",
    }
