"""One metric over the checkpoints of a run, measured or made of others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from densescope.errors import RecordError
from densescope.estimate import Estimate
from densescope.metrics import Derivation, Metric


@dataclass(frozen=True)
class Column:
    """One metric over the scored checkpoints of a run.

    Attributes:
        metric: row of ``METRICS``.
        series: name of the checkpoint -> its value, finite or not, in order of step; checkpoints
            without one are left out.
        note: a sentence about it: what it depends on, or why there is none.
        lambda_: weight of the effective rank in it, where it has one.
    """

    metric: Metric
    series: Mapping[str, Estimate]
    note: str | None = None
    lambda_: float | None = None

    @cached_property
    def finite(self) -> dict[str, Estimate]:
        """The part of ``series`` that is finite."""
        return {name: e for name, e in self.series.items() if math.isfinite(e.value)}


@dataclass(frozen=True)
class DensePoint:
    """The two parts of DSE of one checkpoint.

    Attributes:
        name: file name of the checkpoint.
        step: its position in the run, in ``unit``.
        unit: ``"epoch"``, ``"step"`` or ``"checkpoint number"``.
        separability: ``M_inter - M_intra``; NaN where the features have none.
        effective_rank: ``M_dim``; NaN where the features have none.
    """

    name: str
    step: int
    unit: str
    separability: Estimate
    effective_rank: Estimate

    @property
    def is_finite(self) -> bool:
        """Whether both numbers are there."""
        return math.isfinite(self.separability.value) and math.isfinite(self.effective_rank.value)


def derived_column(metric: Metric, derivation: Derivation, columns: Sequence[Column]) -> Column:
    """A metric that is made of others: where these are finite, and NaN where they are not.

    Raises:
        RecordError: the others have unequal numbers of replicates.
    """
    absent = next((column.note for column in columns if not column.series), None)
    if absent is not None:
        return Column(metric, {}, absent)
    shared = [name for name in columns[0].series if all(name in c.series for c in columns)]
    finite = [name for name in shared if all(name in c.finite for c in columns)]
    _check_replicates(columns, finite)
    parts = [{name: column.series[name] for name in finite} for column in columns]
    derived = derivation.derive(*parts)
    known = {name: derived.series.get(name, Estimate(math.nan)) for name in shared}
    series = {} if finite and not derived.series else known  # not defined for this run
    return Column(metric, series, derived.note, derived.lambda_)


def _check_replicates(columns: Sequence[Column], names: Sequence[str]) -> None:
    """All numbers of a derived metric come in equally many replicates, or they cannot be paired."""
    for name in names:
        counts = {c.metric.name: len(c.series[name].replicates) for c in columns}
        if len(set(counts.values())) > 1:
            (one, few), *_, (other, more) = counts.items()
            raise RecordError(
                f"{name} has {few} replicates of {one} and {more} of {other}; score the "
                "checkpoint again"
            )
    for column in columns if names else ():
        expected = len(column.series[names[0]].replicates)
        for name in names:
            if (count := len(column.series[name].replicates)) != expected:
                raise RecordError(
                    f"{names[0]} has {expected} replicates and {name} {count}; score all on the "
                    "same images with the same settings"
                )
