"""Runs whose files tell of more than one training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from densescope.records import ScoreRecord
from densescope.selection import schedule_breaks, select_checkpoints, stitched
from tests.selection.runs import noisy_run

EPOCHS = range(10, 110, 10)


def cosine(epoch: int, epochs: int = 100, warm: int = 20) -> float:
    if epoch <= warm:
        return 0.001 * epoch / warm
    return 0.0005 * (1 + math.cos(math.pi * (epoch - warm) / (epochs - warm)))


def facts(epoch: int, **more: Any) -> dict[str, Any]:
    found = {
        "learning_rate": cosine(epoch),
        "weight_decay": 0.04 + 0.0036 * epoch,
        "counters": {"epoch": epoch},
        "settings": {"args.epochs": 100, "args.batch_size": 64, "args.arch": "vit"},
    }
    return {**found, **more}


def run(of: Callable[[int], dict[str, Any]] = facts) -> list[ScoreRecord]:
    curve = [0.0, 1.0, 2.0, 3.0, 2.0, 1.5, 1.0, 0.5, 0.2, 0.0]
    records = noisy_run(curve, curve, noise=0.01)
    return [replace(r, checkpoint={"training": of(r.step)}) for r in records]


def changed(epoch: int, start: int = 60, **settings: Any) -> dict[str, Any]:
    found = facts(epoch)
    return {**found, "settings": {**found["settings"], **(settings if epoch >= start else {})}}


def test_one_training_with_warm_up_and_cosine_is_not_flagged() -> None:
    assert schedule_breaks(run()) == ()
    assert select_checkpoints(run()).stitched is None
    constant = run(lambda epoch: {"learning_rate": 0.3})
    assert schedule_breaks(constant) == ()
    before_the_schedule = [*run()]
    first = {"training": {"learning_rate": 0.001}}
    before_the_schedule[0] = replace(before_the_schedule[0], step=0, checkpoint=first)
    assert schedule_breaks(before_the_schedule) == ()


def test_files_that_say_nothing() -> None:
    assert schedule_breaks(noisy_run([1.0, 2.0, 3.0], [1.0] * 3, noise=0.1)) == ()
    assert schedule_breaks([]) == ()
    gaps = run(lambda epoch: facts(epoch) if epoch in (10, 100) else {})
    assert schedule_breaks(gaps) == ()


def resumed(epoch: int) -> dict[str, Any]:
    """A second training of 300 epochs that began from the file of epoch 60 of the first."""
    found = changed(epoch, 70, **{"args.epochs": 300})
    if epoch >= 70:
        found |= {"learning_rate": cosine(epoch, 300), "resumed": {"start_epoch": 60}}
    return found


def test_a_run_resumed_with_another_schedule() -> None:
    found = schedule_breaks(run(resumed)[::-1])
    assert {(one.kind, one.name) for one in found} == {
        ("learning rate", "epoch70.pth"),
        ("length", "epoch70.pth"),
        ("resumed", "epoch70.pth"),
    }
    sentence = stitched(found)
    assert sentence == (
        "The schedule looks stitched: at epoch70.pth (epoch 70) the learning rate rises again from "
        "0.0005 to 0.000923; 'epochs' changes from 100 to 300. It is marked as resumed "
        "(start_epoch 60). What changes there may come from the schedule: select the parts alone."
    )
    selection = select_checkpoints(run(resumed))
    assert selection.stitched == sentence
    assert selection.verdict.startswith(f"Use epoch40.pth (epoch 40). {sentence} From the pick")


def test_a_resumed_run_that_goes_on_as_before_is_not_flagged() -> None:
    found = schedule_breaks(run(lambda e: facts(e, **({"resumed": {"r": "x"}} if e > 50 else {}))))
    assert [one.kind for one in found] == ["resumed"]
    assert stitched(found) is None


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (lambda e: changed(e, **{"args.batch_size": 32}), "'batch_size' changes from 64 to 32"),
        (lambda e: changed(e, **{"args.arch": "b"}), "'arch' changes from vit to b"),
        (
            lambda e: facts(e, settings={"betas": [0.9, 0.95 if e < 60 else 0.99]}),
            "'betas' changes from [0.9, 0.95] to [0.9, 0.99]",
        ),
        (
            lambda e: facts(e, counters={"global_step": e if e < 60 else e - 55}),
            "the counter 'global_step' goes back from 50 to 5",
        ),
        (
            lambda e: facts(e, weight_decay=0.04 + 0.0036 * (e if e < 60 else 0)),
            "the weight decay turns from 0.22 to 0.04",
        ),
        (
            lambda e: facts(e, learning_rate=0.1 if e < 60 else 0.2),
            "the learning rate rises again from 0.1 to 0.2",
        ),
    ],
)
def test_every_kind_of_break(of: Callable[[int], dict[str, Any]], said: str) -> None:
    found = schedule_breaks(run(of))
    assert [one.name for one in found] == ["epoch60.pth"]
    assert f"at epoch60.pth (epoch 60) {said}. What changes there" in str(stitched(found))
    assert found[0].to_json()["what"] == found[0].what


def test_what_changes_at_every_checkpoint_is_no_setting_and_none_is_said_twice() -> None:
    def of(epoch: int) -> dict[str, Any]:
        found = changed(epoch, **{"args.epochs": 300, "hparams.args.epochs": 300})
        first = {"hparams.args.epochs": 100} if epoch < 60 else {}
        return {**found, "settings": {**found["settings"], **first, "args.best": 1 / epoch}}

    assert [one.what for one in schedule_breaks(run(of))] == ["epochs"]


@pytest.mark.parametrize(("devices", "count"), [(16, 0), (8, 1), (32, 2)])
def test_a_batch_spread_over_more_devices_is_the_same_batch(devices: int, count: int) -> None:
    def of(epoch: int) -> dict[str, Any]:
        late = epoch >= 60
        batch = {"args.batch_size": 32 if late else 64, "args.world_size": devices if late else 8}
        return {**facts(epoch), "settings": batch}

    assert len(schedule_breaks(run(of))) == count


def test_many_changes_are_counted_and_later_breaks_named() -> None:
    def of(epoch: int) -> dict[str, Any]:
        found = changed(epoch, **{f"args.s{i}": i for i in range(5)})
        early: Sequence[str] = () if epoch >= 60 else [f"args.s{i}" for i in range(5)]
        extra = dict.fromkeys(early, -1) | {"args.late": epoch >= 80}
        return {**found, "settings": {**found["settings"], **extra}}

    sentence = str(stitched(schedule_breaks(run(of))))
    assert (
        "'s2' changes from -1 to 2; and 2 more changes. More of it at epoch80.pth (epoch 80)."
        in (sentence)
    )
