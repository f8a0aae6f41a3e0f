"""Metrics are chosen by name; a record that was scored with fewer gets the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import densescope
from densescope.cli.tables import sweep_table
from densescope.errors import InputError, RecordError
from densescope.metrics import METRICS, ScoreSettings, compute_metrics
from densescope.metrics.chosen import groups, stored_metrics
from densescope.records import ScoreRecord
from densescope.runs.extension import DONE, missing_metrics
from densescope.runs.passes import SweepEvent
from densescope.runs.store import RunStore
from tests.tiny_run import IMAGES, SETTINGS, SPEC, write_checkpoints, write_images

FEW = ScoreSettings(**SETTINGS, metrics=("rankme", "clid"))  # type: ignore[arg-type]
ALL = replace(FEW, metrics=None)


def sweep(folder: Path, settings: ScoreSettings, output: str = "scores") -> list[ScoreRecord]:
    events: list[SweepEvent] = []
    records = densescope.sweep(
        folder / "run",
        SPEC,
        images=folder / "images",
        output=folder / output,
        images_count=IMAGES,
        settings=settings,
        on_event=events.append,
    )
    (folder / "events").write_text(" ".join(event.kind for event in events))
    return records


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_checkpoints(tmp_path / "run", range(3))
    write_images(tmp_path / "images")
    return tmp_path


def test_a_row_brings_what_it_is_made_of_and_what_is_computed_with_it() -> None:
    assert stored_metrics(("rankme",)) == ("rankme",)
    assert set(stored_metrics(("clid",))) == set(groups()["distances"])
    structure = groups()["dense_structure"]
    assert (
        stored_metrics(("released.dse_lambda_run",))
        == stored_metrics(("dense_structure",))
        == structure
    )
    assert "pooled.effective_rank" in structure
    every = tuple(metric.name for metric in METRICS.values() if metric.is_stored)
    assert stored_metrics(None) == every
    assert set(groups()) == {
        *(
            "dense_structure",
            "cosines",
            "shares",
            "distances",
            "raw_ranks",
            "unit_patches",
            "unit_images",
            "unit_views",
        ),
    }


def test_only_what_the_rows_need_is_computed() -> None:
    patches = torch.randn(16, 16, 8, generator=torch.Generator().manual_seed(0))
    asked = replace(ALL, metrics=("token_cosine", "twonn"), group_size=4)
    found = compute_metrics([patches], patches.mean(1), asked, device=torch.device("cpu"))["-1"]
    assert set(found) <= {*groups()["cosines"], *groups()["distances"]}
    every = compute_metrics(
        [patches], patches.mean(1), replace(asked, metrics=None), device=torch.device("cpu")
    )["-1"]
    assert {name: every[name] for name in found} == found
    assert len(every) > len(found) > 4


def test_a_later_sweep_computes_only_what_is_missing(folder: Path) -> None:
    whole = sweep(folder, ALL, "whole")
    few = sweep(folder, FEW)
    for record in few:
        expected = [name for name in METRICS if name in ("rankme", *groups()["distances"])]
        assert record.provenance[DONE] == expected
        assert set(record.scores["-1"]) <= set(expected)
        assert not any(name.startswith("views") for name in record.timing)
    named = sweep_table(few, named=("twonn",))  # a named metric has a column, its group has none
    heads = [str(column.header) for column in named.columns]
    assert heads == ["checkpoint", few[0].unit, "RankMe", "TwoNN dimension"]
    before = {record.name: dict(record.timing) for record in few}
    extended = sweep(folder, ALL)
    assert (folder / "events").read_text().count("kept") == 0
    for record, alone in zip(extended, whole, strict=True):
        assert record.scores == alone.scores
        assert record.provenance == alone.provenance
        for stage in ("rankme_seconds", "distances_seconds"):  # not computed again
            assert record.timing[stage] == before[record.name][stage]
        assert record.timing["dense_structure_seconds"] > 0
        assert record.timing["load_seconds"] >= before[record.name]["load_seconds"]
    sweep(folder, FEW)
    assert (folder / "events").read_text().count("kept") == 3


def test_a_choice_without_dense_structure_says_how_to_get_it(folder: Path) -> None:
    sweep(folder, FEW)
    table = densescope.read_run(folder / "scores")
    assert len(table.column("rankme").series) == 3
    with pytest.raises(RecordError, match="computes dense_structure .--metrics. adds it"):
        table.selection()
    sweep(folder, replace(FEW, metrics=("released.dse_lambda_1",)))
    chosen = densescope.read_run(folder / "scores")
    assert chosen.selection().pick is not None
    assert chosen.column("rankme").series == table.column("rankme").series


def test_a_record_that_does_not_say_what_it_has_is_kept(folder: Path) -> None:
    sweep(folder, FEW)
    store = RunStore(folder / "scores")
    for record in store.records():
        rest = {key: value for key, value in record.provenance.items() if key != DONE}
        store.write(replace(record, provenance=rest))
    sweep(folder, ALL)
    assert (folder / "events").read_text().count("kept") == 3
    named = sweep(folder, replace(FEW, metrics=("alpha_req", "rankme")))
    for record in named:  # what is named is added, what it holds is not computed again
        assert {"alpha_req", "rankme", "twonn"} <= set(record.scores["-1"])
        assert "alpha_req" in record.provenance[DONE]
    broken = replace(named[0], provenance={**named[0].provenance, DONE: 3})
    assert missing_metrics(broken, ALL) == ()


def test_other_weights_under_the_name_are_not_extended(folder: Path) -> None:
    sweep(folder, FEW)
    write_checkpoints(folder / "other", range(5, 6))
    (folder / "other" / "checkpoint0005.pth").replace(folder / "run" / "checkpoint0001.pth")
    records = densescope.sweep(
        folder / "run",
        SPEC,
        images=folder / "images",
        output=folder / "scores",
        images_count=IMAGES,
        settings=replace(FEW, metrics=("alpha_req",)),
        rescore=True,
    )
    assert "rankme" in records[0].scores["-1"]
    assert set(records[1].scores["-1"]) == {"alpha_req"}
    assert records[1].provenance[DONE] == ["alpha_req"]


def test_choices_and_alarms_always_have_what_they_rest_on() -> None:
    assert ScoreSettings().with_structure() == ScoreSettings()
    assert "released.inter" in FEW.with_structure().stored
    monitor = densescope.DenseMonitor(settings=FEW)
    assert {"released.inter", "rankme"} <= set(monitor.settings.stored)
    assert "token_cosine" not in monitor.settings.stored


def test_the_torchmetrics_class_takes_the_same_names() -> None:
    from densescope.monitoring.torchmetrics import DenseStructureMetric

    metric = DenseStructureMetric(ScoreSettings(metrics=("token_cosine",)))
    patches = torch.randn(16, 16, 8, generator=torch.Generator().manual_seed(0))
    metric.update(patches, range(16))
    found = metric.compute()
    names = {name.removeprefix("densescope/") for name in found}
    assert "token_cosine" in names
    assert names <= set(groups()["cosines"])


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("dse",), "no metric is named 'dse'; did you mean released.dse_lambda_1?"),
        (
            ("released.dse",),
            "no metric is named 'released.dse'; did you mean released.dse_lambda_1?",
        ),
        (("rmsc",), "no metric is named 'rmsc'; did you mean spatial_contrast?"),
        (("rankm",), "no metric is named 'rankm'; did you mean rankme? There are the groups dense"),
        (("xyzzy",), "no metric is named 'xyzzy'. There are the groups dense_structure"),
        ((), "no metric is named; name at least one, or leave metrics away for all"),
        ("rankme", "metrics is 'rankme'; give a list of names, such as ['rankme']"),
    ],
)
def test_refusals(names: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        ScoreSettings(metrics=names)
    assert sentence in str(caught.value)
