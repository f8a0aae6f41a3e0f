"""Regret of a run made by hand, where every choice is known."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from densescope.correlation import regret_table
from densescope.correlation.regret import RegretTable
from densescope.errors import RecordError
from densescope.estimate import Estimate
from densescope.records import ProbeRecord
from densescope.selection import RunTable
from tests.correlation.runs import name_of, probe, run_of

# A bump at 2 that falls, a rise to the end that is highest: the pick and the maximum differ.
SEPARABILITY = [0.0, 0.6, 0.95, 0.5, 0.1, 0.4, 0.8, 1.0]
MIOU = [0.1, 0.45, 0.5, 0.55, 0.4, 0.3, 0.2, 0.15]
NUMBERS = {
    "rankme": [1.0, 2.0, 3.0, 4.0, 9.0, 5.0, 6.0, 7.0],
    "alpha_req": [0.2, 1.5, 2.0, 3.0, 4.0, 0.9, 5.0, 6.0],
    "outlier_fraction": [0.5, 0.01, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7],
}
LOSSES = {name_of(i): 5.0 - i / 10 for i in range(7)}


def table(probes: list[ProbeRecord] | None = None) -> RegretTable:
    scores, all_probes = run_of(SEPARABILITY, MIOU, numbers=NUMBERS)
    return regret_table(scores, all_probes if probes is None else probes, losses=LOSSES)


@pytest.mark.parametrize(
    ("way", "step", "regret", "gain", "seconds"),
    [
        ("last", 7, 0.40, 0.0, 0.0),
        ("loss", 6, 0.35, 0.05, 0.0),
        ("released.pick", 2, 0.05, 0.35, 24.0),
        ("released.max", 7, 0.40, 0.0, 24.0),
        ("released.shortlist", 2, 0.05, 0.35, 224.0),
        ("rankme", 4, 0.15, 0.25, 24.0),
        ("alpha_req", 5, 0.25, 0.15, 24.0),
        ("outlier_fraction", 1, 0.10, 0.30, 24.0),
        ("probes", 3, 0.0, 0.40, 800.0),
    ],
)
def test_every_way_by_hand(way: str, step: int, regret: float, gain: float, seconds: float) -> None:
    row = table().row(way)
    assert (row.step, row.name) == (step, name_of(step))
    assert row.value == pytest.approx(MIOU[step])
    assert row.regret == pytest.approx(regret)
    assert row.gain == pytest.approx(gain)
    assert row.seconds == pytest.approx(seconds)
    assert row.needs_labels == (way in ("released.shortlist", "probes"))


def test_the_picks_by_the_other_rules_for_lambda_have_rows() -> None:
    scores, probes = run_of(SEPARABILITY, MIOU, numbers=NUMBERS)
    table = RunTable.of(scores)
    found = regret_table(table, probes)
    for rule in ("run", "shrunk"):
        row = found.row(f"released.pick_lambda_{rule}")
        assert row.name == table.selection(lambda_choice=rule).pick
        assert row.regret is not None
        assert row.regret >= 0
        assert row.title.startswith("DSE pick (released, ")


def test_a_definition_that_some_records_lack_chooses_nothing_and_says_why() -> None:
    scores, probes = run_of(SEPARABILITY, MIOU, numbers=NUMBERS)
    for place in range(4, 8):  # scored by a later version
        row = dict(scores[place].scores["-1"])
        for part in ("inter", "intra"):
            row[f"pooled.{part}"] = row[f"released.{part}"]
        row["pooled.effective_rank"] = Estimate(100.0 + place)
        scores[place] = replace(scores[place], scores={"-1": row})
    found = regret_table(RunTable.of(scores), probes)
    assert found.row("released.pick").name == name_of(2)
    row_of_pooled = found.row("pooled.pick")
    assert row_of_pooled.name is None
    assert "checkpoint0000.pth has no pooled.inter" in str(row_of_pooled.note)


def test_the_other_labelled_sets_of_a_run_and_cheap_probes_are_ways_to_choose() -> None:
    scores, probes = run_of(SEPARABILITY, MIOU)
    errors = [replace(one, dataset="depth", measure="rmse") for one in probes]  # lowest at 0
    few = [
        replace(
            one, values=(0.9 if one.step == 2 else 0.1,), provenance={"settings": settings_of(20)}
        )
        for one in probes
    ]
    run = RunTable.of(scores, {"ours": probes, "depth": errors, "ours-labels20": few})
    found = regret_table(run, probes)
    assert {row.way: row.step for row in found.rows if row.way.startswith("probe.")} == {
        "probe.depth": 0,
        "probe.ours-labels20": 2,
    }
    row = found.row("probe.ours-labels20")
    assert row.title.endswith(" with 20 labelled images")
    assert row.needs_labels
    assert row.regret == pytest.approx(0.05)
    assert row.seconds == 800


def test_the_guarded_choice_is_the_last_checkpoint_unless_an_alarm_came() -> None:
    scores, probes = run_of([0.1 * i for i in range(8)], MIOU)
    calm = regret_table(scores, probes).row("guarded")
    assert (calm.step, calm.needs_labels) == (7, False)
    rank = [0.5] * 4 + [0.01] * 2 + [0.5] * 2  # a collapse that ends
    scores, probes = run_of([0.1, 0.2, 0.3, 0.4, 0.3, 0.3, 0.2, 0.2], MIOU, effective_rank=rank)
    alarmed = regret_table(scores, probes)
    assert alarmed.row("guarded").step == alarmed.row("released.pick").step == 3
    assert alarmed.row("back").step == 3
    scores, probes = run_of([0.1, 0.2, 0.3, 0.4, 0.3, 0.6, 0.7, 0.6], MIOU, effective_rank=rank)
    again = regret_table(scores, probes)  # DSE peaks once more after the alarm
    assert again.row("guarded").step == again.row("released.pick").step == 6
    assert again.row("back").step == 3
    assert calm.step == regret_table(*run_of([0.1 * i for i in range(8)], MIOU)).row("back").step


def settings_of(labels: int) -> dict[str, object]:
    return {"data": {"labels": labels}}


def test_a_random_choice_is_the_mean() -> None:
    row = table().row("random")
    mean = sum(MIOU) / 8
    assert (row.name, row.step, row.seconds) == (None, None, 0.0)
    assert (row.value, row.regret) == (pytest.approx(mean), pytest.approx(0.55 - mean))


def test_what_flatters_a_way_is_said() -> None:
    assert (
        table().row("probes").note == "0 by definition, because this is the best probed checkpoint"
    )
    assert table().row("loss").note == "1 of 8 checkpoints have no loss"
    with pytest.raises(RecordError, match="no way to choose is named 'lidar'; there are: last"):
        table().row("lidar")  # it was not scored


def test_a_choice_without_a_probe_says_so() -> None:
    _, probes = run_of(SEPARABILITY, MIOU)
    found = table([one for one in probes if one.step not in (2, 7)])
    pick = found.row("released.pick")
    assert (pick.name, pick.value, pick.regret, pick.gain) == (name_of(2), None, None, None)
    assert pick.note == "checkpoint0002.pth was not probed"
    assert found.row("rankme").note == "the last checkpoint, checkpoint0007.pth, was not probed"
    assert found.row("rankme").regret == pytest.approx(0.15)
    short = found.row("released.shortlist")
    assert (short.name, short.seconds) == (None, None)
    assert short.note == "not probed: checkpoint0007.pth, checkpoint0002.pth"
    assert found.row("random").note == "6 of 8 checkpoints were probed"
    assert (found.probed, found.checkpoints) == (6, 8)


def test_a_shortlist_is_judged_by_the_members_that_were_probed() -> None:
    _, probes = run_of(SEPARABILITY, MIOU)
    short = table([one for one in probes if one.step != 2]).row("released.shortlist")
    assert (short.step, short.seconds) == (7, pytest.approx(124.0))
    assert short.note == "not probed: checkpoint0002.pth"


def test_regret_of_an_error_is_turned() -> None:
    _, probes = run_of(SEPARABILITY, MIOU)
    errors = [replace(one, measure="rmse", values=(1 - one.value,)) for one in probes]
    ours, theirs = table(), table(errors)
    for row in theirs.rows:
        assert row.regret == pytest.approx(ours.row(row.way).regret)
        assert row.gain == pytest.approx(ours.row(row.way).gain)
    assert theirs.row("probes").value == pytest.approx(0.45)


def test_regret_has_the_error_of_the_seeds() -> None:
    probes = [probe(i, value, value + 0.02 * (-1) ** i) for i, value in enumerate(MIOU)]
    row = table(probes).row("last")
    # after checkpoint and seed means +-0.01 each: 16 x 1e-4 over 7 degrees of freedom
    assert row.error == pytest.approx((16e-4 / 7) ** 0.5)
    assert table().row("last").error is None
    assert table(probes).row("probes").error is None


def test_records_without_times_have_no_cost() -> None:
    scores, probes = run_of(SEPARABILITY, MIOU)
    scores[0] = replace(scores[0], timing={"written": "today"})
    found = regret_table(scores, probes)
    assert found.row("released.pick").seconds is None
    assert found.row("released.shortlist").seconds is None
    assert found.row("probes").seconds == 800
    assert [row.way for row in found.rows].count("loss") == 0


def test_an_unknown_way_is_named() -> None:
    with pytest.raises(RecordError, match="no way to choose is named 'luck'; there are: last, "):
        table().row("luck")


def test_the_document_is_plain() -> None:
    document = table().to_json()
    assert json.loads(json.dumps(document)) == document
