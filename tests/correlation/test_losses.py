"""Training logs: the layouts of public code, and what fits none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from densescope.correlation import losses_by_checkpoint, read_losses
from densescope.errors import RecordError
from tests.correlation.runs import name_of, probe, score


def written(folder: Path, text: str, name: str = "log.txt") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def lines(*rows: dict[str, object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_one_json_object_per_epoch(tmp_path: Path) -> None:
    text = lines(
        {"train_loss": 9.5, "train_lr": 1e-3, "epoch": 0},
        {"train_loss": 8.5, "train_lr": 1e-3, "epoch": 1},
    )
    assert read_losses(written(tmp_path, text)) == {0: 9.5, 1: 8.5}


def test_several_rows_of_an_epoch_are_averaged_and_a_resumed_run_replaces(tmp_path: Path) -> None:
    rows = [(0, 9.0), (0, 7.0), (1, 5.0), (2, 4.0), (1, 3.0)]
    text = lines(*({"epoch": e, "step": i, "loss": v} for i, (e, v) in enumerate(rows)))
    path = written(tmp_path, text, "stats.txt")
    assert read_losses(path) == {0: 8.0, 1: 3.0, 2: 4.0}
    assert read_losses(path, position="step") == {0: 9.0, 1: 7.0, 2: 5.0, 3: 4.0, 4: 3.0}


def test_rows_that_say_nothing_and_a_line_cut_off_are_passed_over(tmp_path: Path) -> None:
    text = lines({"env": "torch"}, {"epoch": 0, "loss": float("nan")}, {"epoch": 1, "loss": 2.0})
    assert read_losses(written(tmp_path, text + '{"epoch": 2, "lo')) == {1: 2.0}


def test_csv_of_ijepa_and_of_lightning(tmp_path: Path) -> None:
    ijepa = "epoch,itr,loss,mask-A,time (ms)\n1,0,0.5,80,100\n1,1,0.3,80,100\n2,0,0.2,80,100\n"
    assert read_losses(written(tmp_path, ijepa, "a.csv")) == {1: pytest.approx(0.4), 2: 0.2}
    lightning = "epoch,step,train_loss,val_acc\n0,49,3.0,\n0,49,,0.5\n1,99,2.0,\n"
    assert read_losses(written(tmp_path, lightning, "b.csv")) == {0: 3.0, 1: 2.0}
    by_step = {49: 3.0, 99: 2.0}
    assert read_losses(written(tmp_path, lightning, "b.csv"), position="step") == by_step
    assert read_losses(written(tmp_path, lightning, "b.csv"), unit="step") == by_step
    assert read_losses(written(tmp_path, ijepa, "a.csv"), unit="epoch").keys() == {1, 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; give the log of a training run"),
        ("hello world\n1\n", r"has no position under one of epoch, step, .*; it has: hello world"),
        ("epoch,acc\n1,2\n", r"has no loss under one of train_loss, .*; it has: epoch, acc. Name"),
        ("epoch,loss\n1,nan\n", "has no row with a epoch and a finite loss"),
        ('{"epoch": 1}\n{"epo\n{"epoch": 2}\n', "line 2 of .* is not a JSON object"),
        ("epoch,loss\n0.5,1\n", "has epoch 0.5, which is not whole; name the column of steps"),
    ],
)
def test_what_fits_nothing_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        read_losses(written(tmp_path, text))


def test_a_named_column_that_is_absent_and_a_missing_file(tmp_path: Path) -> None:
    path = written(tmp_path, "epoch,loss\n1,2\n")
    with pytest.raises(RecordError, match=r"has no loss under 'ntp'; it has: epoch, loss"):
        read_losses(path, loss="ntp")
    with pytest.raises(
        RecordError, match=r"cannot read the log .*none.txt \(No such file or.*\): check"
    ):
        read_losses(tmp_path / "none.txt")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    with pytest.raises(RecordError, match=r"picture.png: it is not a text in UTF-8"):
        read_losses(tmp_path / "picture.png")


def test_losses_belong_to_checkpoints_by_their_number() -> None:
    losses = {0: 9.0, 1: 8.0, 2: 7.0}
    records = [score(1, 0.5), score(2, 0.5), probe(2, 0.5), probe(3, 0.5)]
    assert losses_by_checkpoint(losses, records) == {name_of(1): 8.0, name_of(2): 7.0}
    shifted = losses_by_checkpoint(losses, records, offset=1)
    assert shifted == {name_of(1): 9.0, name_of(2): 8.0, name_of(3): 7.0}
    with pytest.raises(RecordError, match=r"steps are 1, 2, 3, the log's positions 90; name"):
        losses_by_checkpoint({90: 1.0}, records)
