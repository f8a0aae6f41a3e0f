"""A run folder becomes its report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from densescope.errors import InputError, RecordError
from densescope.files import location
from densescope.records import ProbeRecord, ScoreRecord
from densescope.report.data import ReportData, build_report_data, preview_names
from densescope.report.labels import ProbedRoom
from densescope.report.masks import Masks
from densescope.report.page import write_report
from densescope.report.previews import Previews
from densescope.runs.agree import judge_run
from densescope.runs.store import RunStore
from densescope.selection import Selection, select_checkpoints, standing_alarm

DEFINITIONS = ("released", "paper")


def report_run(
    folder: Path | str,
    *,
    to: Path | str | None = None,
    definition: str = "released",
    layer: int = -1,
) -> Path:
    """Write the report of a scored run as one HTML file that works offline.

    Args:
        folder: what a sweep wrote.
        to: the file to write; ``report.html`` in the folder by default.
        definition: the DSE that leads the page; the other is shown below.
        layer: the block the page is about.

    Returns:
        The path of the file.

    Raises:
        RecordError: the folder holds no scored run, or no checkpoint of it was scored.
    """
    store = RunStore(folder)
    path = location(to) if to is not None else store.folder / "report.html"
    write_report(run_report_data(store, definition=definition, layer=layer), path)
    return path


def run_report_data(
    store: RunStore, *, definition: str = "released", layer: int = -1
) -> ReportData:
    """Everything the page of a run shows."""
    records = store.records()
    if all(record.status == "failed" for record in records):
        raise RecordError(
            f"none of the {len(records)} checkpoints in {store.folder} could be scored; "
            f"the first says: {records[0].error}"
        )
    selection = select_checkpoints(records, definition=definition, layer=layer)
    others = [
        select_checkpoints(records, definition=other, layer=layer)
        for other in DEFINITIONS
        if other != definition
    ]
    return build_report_data(
        records,
        selection,
        _previews(store, preview_names(records, selection)),
        _provenance(store, records, selection),
        alternatives=others,
        rooms=_rooms(store, records, selection),
        alarm=standing_alarm(records, definition=definition, layer=layer),
    )


def _previews(store: RunStore, names: Sequence[str]) -> Previews | None:
    images = store.preview("images")
    stored = {name: store.preview(name) for name in names}
    if images is None or any(preview is None for preview in stored.values()):
        return None
    patches = {name: preview["patches"].float() for name, preview in stored.items() if preview}
    return Previews(images["images"], patches)


def _rooms(store: RunStore, records: list[ScoreRecord], selection: Selection) -> list[ProbedRoom]:
    found = store.probes().items()
    return [_room(store, name, probes, records, selection) for name, probes in found]


def _room(
    store: RunStore,
    name: str,
    probes: list[ProbeRecord],
    records: list[ScoreRecord],
    selection: Selection,
) -> ProbedRoom:
    masks = _masks(store, name, selection)
    try:
        losses = store.losses()
        judgement = judge_run(records, probes, losses=losses, layer=selection.layer)
    except RecordError as error:
        problem = f"These probes cannot be judged: {error}."
        return ProbedRoom(name, probes, problem=problem, masks=masks)
    return ProbedRoom(name, probes, judgement, masks=masks)


def _masks(store: RunStore, room: str, selection: Selection) -> Masks | None:
    """What was drawn at the pick and at the last checkpoint; what does not fit counts as none."""
    truth = store.preview(f"{room}/truth")
    if truth is None:
        return None
    wanted = {name: store.preview(f"{room}/{name}") for name in (selection.pick, selection.last)}
    try:
        drawn = {name: stored["predicted"] for name, stored in wanted.items() if stored and name}
        return Masks(truth["images"], truth["truth"], drawn)
    except (InputError, KeyError):
        return None


def _provenance(
    store: RunStore, records: Sequence[ScoreRecord], selection: Selection
) -> dict[str, Any]:
    scored = next(record for record in records if record.status == "scored")
    checkpoint = dict(scored.checkpoint)
    for of_one_file in ("sha256", "bytes", "epoch_inside", "note", "training"):
        checkpoint.pop(of_one_file, None)
    provenance = dict(scored.provenance)
    return {
        "title": store.folder.resolve().name,
        "checkpoints": len(records),
        "failed": sum(record.status == "failed" for record in records),
        "definition": selection.definition,
        "layer": selection.layer,
        "backbone": checkpoint,
        "images": {
            **provenance.pop("images", {}),
            "image_size": provenance.pop("image_size", None),
        },
        "settings": provenance.pop("settings", {}),
        "software": {**provenance.pop("versions", {}), "device": provenance.pop("device", None)},
    }
