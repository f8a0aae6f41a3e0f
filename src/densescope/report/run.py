"""A run folder becomes its report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densescope.correlation.protocols import protocol_differences
from densescope.correlation.sets import verdict_over_sets
from densescope.errors import InputError, RecordError
from densescope.files import location
from densescope.report.data import ReportData, build_report_data, preview_names
from densescope.report.labels import ProbedSet
from densescope.report.page import write_report
from densescope.runs.correlate import judge_run
from densescope.runs.differences import PLACE
from densescope.runs.store import RunStore
from densescope.selection import AlarmSettings, RunTable, Selection, find_alarm
from densescope.selection.headline import selections_by_definition

if TYPE_CHECKING:
    from densescope.report.masks import Masks
    from densescope.report.previews import Previews


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
        definition: the DSE that leads the page; the others are shown below.
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
    table = RunTable.of(store.records(), store.probes())
    if not table.scored:
        raise RecordError(
            f"none of the {len(table.records)} checkpoints in {store.folder} could be scored; "
            f"the first says: {table.records[0].error}"
        )
    selection = table.selection(definition=definition, layer=layer)
    return build_report_data(
        table,
        selection,
        _previews(store, preview_names(table, selection)),
        _provenance(store, table, selection),
        alternatives=[
            chosen
            for name, chosen in selections_by_definition(table, layer=layer).items()
            if name != definition
        ],
        probe_sets=[_probe_set(store, name, table, selection) for name in table.probes],
        together=_together(table),
        alarm=find_alarm(table, AlarmSettings(definition=definition), layer=layer),
    )


def _previews(store: RunStore, names: Sequence[str]) -> Previews | None:
    images = store.preview("images")
    stored = {name: store.preview(name) for name in names}
    if images is None or any(preview is None for preview in stored.values()):
        return None
    from densescope.report.previews import Previews

    try:
        patches = {name: preview["patches"].float() for name, preview in stored.items() if preview}
        return Previews(images["images"], patches)
    except (InputError, KeyError):  # those of another run, or damaged
        return None


def _probe_set(store: RunStore, name: str, table: RunTable, selection: Selection) -> ProbedSet:
    masks, probes = _masks(store, name, selection), table.probes[name]
    try:
        judgement = judge_run(table, probes, losses=store.losses(), layer=selection.layer)
    except RecordError as error:
        problem = f"These probes cannot be judged: {error}."
        return ProbedSet(name, probes, problem=problem, masks=masks)
    return ProbedSet(name, probes, judgement, masks=masks)


def _together(table: RunTable) -> list[str]:
    """What several labelled sets or protocols say; nothing where probes cannot be judged."""
    try:
        sets = [judged.sentence for judged in verdict_over_sets(table.probes)]
        return sets + [found.sentence for found in protocol_differences(table.probes)]
    except RecordError:
        return []  # each set says why


def _masks(store: RunStore, probe_set: str, selection: Selection) -> Masks | None:
    """What was drawn at the pick and at the last checkpoint; what does not fit counts as none."""
    truth = store.preview(f"{probe_set}/truth")
    if truth is None:
        return None
    from densescope.report.masks import Masks

    wanted = {
        name: store.preview(f"{probe_set}/{name}") for name in (selection.pick, selection.last)
    }
    try:
        drawn = {name: stored["predicted"] for name, stored in wanted.items() if stored and name}
        return Masks(truth["images"], truth["truth"], drawn)
    except (InputError, KeyError):
        return None


def _provenance(store: RunStore, table: RunTable, selection: Selection) -> dict[str, Any]:
    scored = table.scored[0]
    checkpoint = dict(scored.checkpoint)
    for of_one_file in ("sha256", "bytes", "epoch_inside", "note", "training"):
        checkpoint.pop(of_one_file, None)
    provenance = dict(scored.provenance)
    return {
        "title": _title(store),
        "checkpoints": len(table.records),
        "failed": len(table.records) - len(table.scored),
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


def _title(store: RunStore) -> str:
    """The run's folder with the one above it; that of the scores where the run has none."""
    place = store.manifest().get(PLACE)
    return "/".join(Path(place).parts[-2:]) if place else store.folder.resolve().name
