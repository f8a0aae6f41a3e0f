"""A run folder read back as one object."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import densescope
from densescope.errors import InputError, RecordError
from densescope.records import ProbeRecord
from densescope.runs.store import RunStore
from tests.selection.runs import failed, noisy_run

CURVE = [0.0, 3.0, 2.0, 1.0, 2.5, 1.0, 0.0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = RunStore(tmp_path / "scores")
    store.open({"backbone": {"format": "dino"}})
    for record in [*reversed(noisy_run(CURVE, CURVE, noise=0.1)), failed(15)]:
        store.write(record)
    for step in (30, 20):
        probe = ProbeRecord(
            f"epoch{step}.pth", step, "epoch", "quick", "camvid", "miou", (0.01 * step,)
        )
        store.write_probe("camvid-quick", probe)
    return store.folder


def test_records_and_probes_come_in_order_of_step(folder: Path) -> None:
    run = densescope.read_run(folder)
    assert [record.step for record in run.records] == [10, 15, 20, 30, 40, 50, 60, 70]
    assert [probe.step for probe in run.probes["camvid-quick"]] == [20, 30]
    assert run.settings == {"backbone": {"format": "dino"}}
    assert run.selection() == densescope.select_checkpoints(run.records)
    assert run.selection().failed == ("epoch15.pth",)


def test_the_table_as_a_data_frame(folder: Path) -> None:
    pytest.importorskip("pandas")
    run = densescope.read_run(folder)
    frame = run.to_pandas()
    assert list(frame["name"]) == [row.name for row in run.selection().rows]
    assert frame.columns.tolist() == list(run.rows()[0])
    assert frame["lambda"].unique().tolist() == [run.selection().lambda_]
    by_hand = (
        frame["released.inter"]
        - frame["released.intra"]
        + frame["lambda"] * frame["effective_rank"]
    )
    assert by_hand.tolist() == pytest.approx(frame["dse"].tolist())
    assert frame.set_index("step")["camvid-quick.miou"].dropna().to_dict() == {20: 0.2, 30: 0.3}


def test_without_pandas_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match=r"needs pandas: pip install 'densescope\[pandas\]', or "):
        densescope.read_run(folder).to_pandas()


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="holds no scored run"):
        densescope.read_run(tmp_path)
