"""Gram drift of the checkpoints of a run from any reference on the same images."""

from __future__ import annotations

from collections.abc import Mapping

from densescope.errors import InputError, RecordError
from densescope.estimate import Estimate
from densescope.metrics import METRICS
from densescope.metrics.drift import gram_drift
from densescope.records import ScoreRecord
from densescope.selection.columns import Column
from densescope.selection.run_table import RunTable
from densescope.selection.words import is_called, no_such

COSINE = "token_cosine"
FIRST, PICK = "first", "pick"


def drift_from(table: RunTable, reference: str | ScoreRecord, *, layer: int = -1) -> Column:
    """The metric ``gram_drift``, from a reference of one's choice.

    Args:
        table: of the run.
        reference: ``"first"``, ``"pick"`` (of the released definition), the name or the step of a
            checkpoint of the run, or a record of another network on the same images, of any width.
        layer: whose patches, of both.

    Raises:
        RecordError: no checkpoint has this name; there is no pick; or the records hold no pairs of
            patches, other ones, or those of other images.
    """
    check_reference(table, reference)
    series = table.column(COSINE, layer).finite
    if not series:
        raise RecordError(f"Gram drift needs {COSINE}: {table.column(COSINE, layer).note}")
    if isinstance(reference, ScoreRecord):
        found, name = _of_record(table, reference, layer), reference.name
        if reference.checkpoint not in [record.checkpoint for record in table.scored]:
            name += " of another run"
    else:
        name = _name(table, series, reference, layer)
        found = series[name]
    try:
        drift = {one: gram_drift(estimate, found, one) for one, estimate in series.items()}
    except InputError as error:
        raise RecordError(str(error)) from error
    return Column(METRICS["gram_drift"], drift, f"Gram drift from {name}")


def check_reference(table: RunTable, reference: str | ScoreRecord) -> None:
    """Refuse a reference that is none, before any work.

    Raises:
        RecordError: no scored checkpoint has this name or step; the sentence lists them.
    """
    is_known = isinstance(reference, ScoreRecord) or reference in (FIRST, PICK)
    if is_known or any(is_called(record, str(reference)) for record in table.scored):
        return
    raise RecordError(
        no_such(
            table.scored,
            str(reference),
            f"the reference of the Gram drift is {FIRST}, {PICK}, a record (FILE.json), or one of "
            "the scored checkpoints",
        )
    )


def _of_record(table: RunTable, reference: ScoreRecord, layer: int) -> Estimate:
    ours, theirs = (_fingerprint(one) for one in (table.scored[0], reference))
    if ours != theirs:
        raise RecordError(
            f"{reference.name} was scored on other images than this run; Gram drift compares the "
            "same images: score it with the same --images, --images-count and --seed"
        )
    return reference.estimate(COSINE, layer)


def _fingerprint(record: ScoreRecord) -> object:
    images = record.provenance.get("images")
    return images.get("fingerprint") if isinstance(images, Mapping) else None


def _name(table: RunTable, series: Mapping[str, Estimate], reference: str, layer: int) -> str:
    if reference == FIRST:
        return next(iter(series))
    if reference == PICK:
        pick = table.selection(layer=layer).pick
        if pick is None or pick not in series:
            raise RecordError("there is no pick to take as the reference of the Gram drift")
        return pick
    name = next(record.name for record in table.scored if is_called(record, reference))
    if name not in series:
        raise RecordError(f"{name} has no finite {COSINE} at layer {layer} to drift from")
    return name
