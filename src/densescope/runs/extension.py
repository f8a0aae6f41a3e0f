"""A record that was scored with fewer metrics gets the others; none is computed twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from densescope.metrics import METRICS, ScoreSettings
from densescope.records import ScoreRecord

DONE = "metrics"  # entry of the provenance: the metrics that were asked for, computable or not


def missing_metrics(record: ScoreRecord, settings: ScoreSettings) -> tuple[str, ...]:
    """The metrics to compute that a record was not asked for yet.

    A record of an earlier version does not say what it was asked for: it lacks what it does not
    hold, but only where metrics are named, so that a new version alone scores nothing again.
    """
    if settings.metrics is None and not isinstance(record.provenance.get(DONE), list):
        return ()
    done = _done(record)
    return tuple(name for name in settings.stored if name not in done)


def _done(record: ScoreRecord) -> set[str]:
    asked = record.provenance.get(DONE)
    if isinstance(asked, list):
        return {str(name) for name in asked}
    return {name for row in record.scores.values() for name in row}


def extended(held: ScoreRecord | None, new: ScoreRecord, asked: tuple[str, ...]) -> ScoreRecord:
    """A new record with what an earlier one of the same weights has beside it.

    Args:
        held: the earlier one, or ``None``.
        new: with the metrics that were computed now.
        asked: those that were to be computed now.

    Returns:
        The union of both, with the seconds of both.
    """
    done = set(asked) | (set() if held is None else _done(held))
    provenance = {**new.provenance, DONE: [name for name in METRICS if name in done]}
    if held is None:
        return replace(new, provenance=provenance)
    scores = {layer: {**held.scores.get(layer, {}), **row} for layer, row in new.scores.items()}
    timing = summed_timing([held.timing, new.timing])
    return replace(new, scores=scores, provenance=provenance, timing=timing)


def summed_timing(timings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The last one, with the seconds of all."""
    seconds = {key for timing in timings for key in timing if key.endswith("_seconds")}
    sums = {key: round(sum(one.get(key, 0.0) for one in timings), 3) for key in sorted(seconds)}
    return {**timings[-1], **sums}
