"""Kendall's tau of every metric over the runs of a study, beside that of time itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from densescope.correlation import MeanCorrelation, mean_correlation
from densescope.estimate import Estimate
from densescope.records import ProbeRecord
from densescope.runs.correlate import Judgement
from densescope.study.spread import Spread

Spreads = Mapping[str, Spread | None]


@dataclass(frozen=True)
class MeanTaus:
    """What metrics say of labels on average over runs, and how much of it the clock says too.

    Attributes:
        metrics: mean tau of each metric with each labelled set, beside the paper's.
        clock: labelled set -> mean tau of the number of the checkpoint itself: what any number
            that moves with time has.
        beyond: metric -> labelled set -> mean over runs of the difference of the two.
    """

    metrics: MeanCorrelation
    clock: Spreads
    beyond: Mapping[str, Spreads]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "metrics": self.metrics.to_json(),
            "clock": _plain(self.clock),
            "beyond": {number: _plain(spreads) for number, spreads in self.beyond.items()},
        }


def mean_taus(runs: Sequence[tuple[Judgement, Sequence[ProbeRecord]]]) -> MeanTaus | None:
    """Average over runs.

    Args:
        runs: of each run and labelled set what was found, and the probes it was found with.

    Returns:
        ``None`` without runs.
    """
    if not runs:
        return None
    names = labelled_columns([probes for _, probes in runs])
    found = [
        replace(judged.correlation, dataset=name)
        for (judged, _), name in zip(runs, names, strict=True)
    ]
    clocks = [_value(one.clock.tau) for one in found]
    metrics = mean_correlation(found)

    def spreads(values: Sequence[float]) -> Spreads:
        return {
            name: Spread.of([v for v, n in zip(values, names, strict=True) if n == name])
            for name in metrics.datasets
        }

    beyond = {}
    for row in metrics.rows:
        known = [_value(one.tau(row.number)) for one in found]
        beyond[row.number] = spreads([a - b for a, b in zip(known, clocks, strict=True)])
    return MeanTaus(metrics, spreads(clocks), beyond)


def labelled_columns(runs: Sequence[Sequence[ProbeRecord]]) -> list[str]:
    """The data set of each run's probes, with the protocol where one set has several."""
    pairs = [(probes[0].dataset, probes[0].protocol) for probes in runs]
    several = len(set(pairs)) > len({dataset for dataset, _ in pairs})
    return [", ".join(pair) if several else pair[0] for pair in pairs]


def _value(tau: Estimate | None) -> float:
    return math.nan if tau is None else tau.value


def _plain(spreads: Spreads) -> dict[str, Any]:
    return {name: None if one is None else asdict(one) for name, one in spreads.items()}
