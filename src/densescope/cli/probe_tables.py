"""Probes as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from densescope.cli.screen import name_cells, table
from densescope.cli.tables import layer_table
from densescope.correlation.pairing import labels_of_probe
from densescope.evaluation.measures import MEASURES, Measure, measure_of
from densescope.records import ProbeRecord
from densescope.selection.layers import layers_of_record
from densescope.selection.run_table import RunTable

if TYPE_CHECKING:
    from densescope.evaluation.probes import ProbeOutcome

MOST_CLASSES = 30


def print_outcome(console: Console, name: str, outcome: ProbeOutcome) -> None:
    """What one checkpoint reached, what was chosen on the way, and what each class reached."""
    if _is_any(outcome.details, "under_trained", True):
        console.print(str(outcome.details["notes"][0]), soft_wrap=True)
    measure = measure_of(outcome.measure)
    spread = "" if outcome.spread is None else f" (± {measure.number(outcome.spread)} over seeds)"
    console.print(
        f"{name}: {measure.title} {measure.text(outcome.value)}{spread}, {outcome.protocol} on "
        f"{outcome.dataset}, {outcome.seconds:.0f} s",
    )
    details = dict(outcome.details)
    notes = details.pop("notes", [])
    by_class = details.pop("class_iou", None) or details.pop("class_accuracy", None)
    for key, value in details.items():
        if value not in (None, [], {}, ""):
            console.print(f"  {key.replace('_', ' ')}: {_detail(key, value)}")
    for note in notes:
        console.print(f"  note: {note}")
    if by_class:
        console.print(_class_table(by_class, outcome.classes, measure))
    if outcome.layers:
        console.print(_layers_of(name, outcome, measure))


def _layers_of(name: str, outcome: ProbeOutcome, measure: Measure) -> Table:
    """What probes of single layers reach, and last minus best of them."""
    record = ProbeRecord(
        name,
        0,
        "step",
        outcome.protocol,
        outcome.dataset,
        outcome.measure,
        outcome.values,
        images=outcome.images,
        layers=outcome.layers,
    )
    made = table(f"by layer, {measure.unit}", ["layer", ""])
    for layer in layers_of_record(record):
        values = outcome.layers[str(layer)]["values"]
        made.add_row(str(layer), measure.number(sum(values) / len(values)))
    gap = RunTable.of((), {"probe": [record]}).layer_gaps("probe").get(name)
    if gap is not None:
        made.add_row("last minus best", gap.text(measure.scale))
    return made


def _class_table(by_class: Any, classes: Sequence[str], measure: Measure) -> Table:
    pairs = by_class.items() if isinstance(by_class, dict) else zip(classes, by_class, strict=True)
    known = [(name, value) for name, value in pairs if value is not None]
    known.sort(key=lambda pair: -pair[1])
    made = table(f"by class, {measure.unit}", ["class", ""])
    for name, value in known[:MOST_CLASSES]:
        made.add_row(Text(name), measure.number(value))
    if len(known) > MOST_CLASSES:
        made.add_row(f"and {len(known) - MOST_CLASSES} lower ones", "")
    return made


def _detail(key: str, value: Any) -> str:
    """Measures in their unit, other numbers to four digits; lists and tables on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{at}: {_detail(key, item)}" for at, item in value.items())
    if isinstance(value, list):
        return "; ".join(_detail(key, item) for item in value)
    if not isinstance(value, float):
        return str(value)
    measure = MEASURES.get(key.removeprefix("held_out_"))
    return f"{value:.4g}" if measure is None else measure.text(value)


def print_probes(console: Console, records: Sequence[ProbeRecord]) -> None:
    """One line per checkpoint, and what its layers reach where they were probed."""
    console.print(_table(records))
    layers = layer_table(RunTable.of((), {"probe": records}), ["probe"])
    if layers is not None:
        console.print(layers)


def _table(records: Sequence[ProbeRecord]) -> Table:
    first = records[0]
    measure = measure_of(first.measure)
    value_column = f"{measure.title} ({measure.unit})" if measure.unit else measure.title
    made = table(
        f"{first.protocol} on {first.dataset}{_settings(first)}",
        ["checkpoint", first.unit, value_column, "spread over seeds", "seeds"],
    )
    names = name_cells(record.name for record in records)
    for record in records:
        if record.status == "failed":
            made.add_row(names[record.name], str(record.step), Text("failed", "red"))
            continue
        spread = "" if record.spread is None else measure.number(record.spread)
        value = measure.number(record.value)
        made.add_row(names[record.name], str(record.step), value, spread, str(len(record.values)))
    return made


def _settings(record: ProbeRecord) -> str:
    """Size of the images, few labels and folds, as far as the probe was made with them."""
    size = (record.provenance.get("settings") or {}).get("image_size")
    labels = labels_of_probe(record)
    words = {"labels": "{} labelled images", "folds": "over {} folds"}
    return "".join(
        [
            "" if size is None else f" at {size} pixels",
            *(f", {text.format(labels[key])}" for key, text in words.items() if key in labels),
        ]
    )


def doubts(records: Sequence[ProbeRecord]) -> list[str]:
    """What to know before the numbers are read: probes that ended before they were trained."""
    probed = [record for record in records if record.status == "probed"]
    under = [record for record in probed if _is_any(record.details, "under_trained", True)]
    open_ends = [record for record in probed if _is_any(record.details, "converged", False)]
    at_edge = [record for record in probed if _is_any(record.details, "at_edge", True)]
    made = []
    if at_edge:
        made.append(
            f"perhaps too low: {len(at_edge)} of {len(probed)} probes chose a value at the edge of "
            "the grid that the protocol fixes, beyond which a better one may lie"
        )
    if under:
        made.append(
            f"under-trained: {len(under)} of {len(probed)} probes chose the smallest or largest "
            "learning rate of all that were tried; use the protocol linear"
        )
    if open_ends:
        made.append(
            f"not converged: {len(open_ends)} of {len(probed)} probes stopped before the minimum "
            "was found"
        )
    return made


def _is_any(details: Mapping[str, Any], key: str, value: bool) -> bool:
    """Whether a detail is this, with folds or subsets that of any of them."""
    found = details.get(key)
    return value in found.values() if isinstance(found, Mapping) else found is value
