"""A probed run becomes its correlation, its verdict on degradation and its regrets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from densescope.correlation import (
    Correlation,
    Degradation,
    RegretTable,
    correlate,
    find_degradation,
    regret_table,
)
from densescope.correlation.protocols import ProtocolDifference, protocol_differences
from densescope.correlation.sets import SetsJudgement, verdict_over_sets
from densescope.errors import RecordError
from densescope.records import ProbeRecord, write_json
from densescope.runs.store import RunStore
from densescope.selection import RunTable
from densescope.selection.headline import across_choices


@dataclass(frozen=True)
class Judgement:
    """What one protocol on one data set says of a run.

    Attributes:
        correlation: of each label-free number with the probe.
        degradation: best against last checkpoint.
        regret: of each way to choose.
        path: the JSON document that holds all three; ``None`` when it was not written.
    """

    correlation: Correlation
    degradation: Degradation
    regret: RegretTable
    path: Path | None = None


@dataclass(frozen=True)
class CorrelatedRun:
    """What all labelled probes of a run say.

    Attributes:
        by_set: ``<dataset>-<protocol>`` to what that set of probes says.
        together: what several labelled sets say together, one entry per protocol.
        protocols: what two protocols on one labelled set say differently.
        across: whether the pick depends on the definition of DSE or the rule for lambda.
    """

    by_set: Mapping[str, Judgement]
    together: tuple[SetsJudgement, ...]
    protocols: tuple[ProtocolDifference, ...]
    across: str | None = None


def judge_run(
    table: RunTable,
    probes: Sequence[ProbeRecord],
    *,
    losses: Mapping[str, float] | None = None,
    layer: int = -1,
) -> Judgement:
    """Correlation, degradation and regret of one set of probes."""
    return Judgement(
        correlate(table, probes, layer=layer),
        find_degradation(probes, table, layer=layer),
        regret_table(table, probes, losses=losses, layer=layer),
    )


def correlate_run(
    store: RunStore,
    table: RunTable,
    *,
    losses: Mapping[str, float] | None = None,
    layer: int = -1,
) -> CorrelatedRun:
    """Judge every set of probes of a run, and store what was found beside them.

    Args:
        store: the run.
        table: its :func:`labelled_table`.
        losses: training loss by checkpoint name, for the row that picks by loss; kept in the run
            for the next call and for the report. By default those kept before.
        layer: the block whose numbers are judged.

    Returns:
        What each set says, and several together.

    Raises:
        RecordError: the probes do not fit the records.
    """
    breaks = [found.to_json() for found in table.schedule_breaks]
    if losses is None:
        losses = store.losses()
    else:
        store.write_losses(losses)
    found = {}
    for probe_set, probes in table.probes.items():
        judged = judge_run(table, probes, losses=losses, layer=layer)
        path = store.folder / "correlation" / f"{probe_set}.json"
        document = {
            "correlation": judged.correlation.to_json(),
            "degradation": judged.degradation.to_json(),
            "regret": judged.regret.to_json(),
            "schedule": breaks,
        }
        write_json(document, path)
        found[probe_set] = Judgement(judged.correlation, judged.degradation, judged.regret, path)
    together = tuple(verdict_over_sets(table.probes))
    protocols = tuple(protocol_differences(table.probes))
    if together or protocols:
        document = {
            "sets": [judged.to_json() for judged in together],
            "protocols": [difference.to_json() for difference in protocols],
        }
        write_json(document, store.folder / "correlation" / "sets.json")
    return CorrelatedRun(found, together, protocols, across_choices(table, layer=layer))


def labelled_table(store: RunStore) -> RunTable:
    """The table of a run with its probes.

    Sets of which no probe has a value are left out where others have some.

    Raises:
        RecordError: the folder holds no scored run, or the run has no probes.
    """
    store.manifest()
    every = store.probes()
    probe_sets = {
        name: probes
        for name, probes in every.items()
        if any(probe.status == "probed" for probe in probes)
    } or every
    if not probe_sets:
        raise RecordError(
            f"{store.folder} has no probes; make some with: densescope probe "
            f"{quote(str(store.folder))} --dataset NAME --root DIR"
        )
    return RunTable.of(store.records(), probe_sets)
