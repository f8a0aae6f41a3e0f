"""Mean correlation over runs, beside the numbers of the paper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from densescope.correlation.tau import CLOCK, Correlation
from densescope.errors import InputError, RecordError
from densescope.estimate import student_quantile
from densescope.metrics import METRICS

PAPER_SOURCE = (
    "Dai et al. (2025), arXiv 2510.17299: Kendall's tau with mIoU over the checkpoints of a run, "
    "mean over 16 methods"
)
PAPER_COLUMNS = ("COCO", "VOC", "ADE20K", "Cityscapes", "mean")
# As printed. The mean of DSE is not that of its four rounded columns (0.5575).
PAPER_TAU: Mapping[str, tuple[float, ...]] = {
    "alpha_req": (-0.07, -0.05, -0.05, 0.09, -0.02),
    "rankme": (-0.10, -0.09, -0.14, 0.00, -0.08),
    "lidar": (-0.37, -0.36, -0.26, -0.21, -0.30),
    "dense_rankme": (0.25, 0.26, 0.22, 0.23, 0.24),
    "separability": (0.45, 0.42, 0.33, 0.37, 0.39),
    "dse_lambda_run": (0.58, 0.60, 0.56, 0.49, 0.57),
}


@dataclass(frozen=True)
class MeanTau:
    """Mean of tau over runs.

    Attributes:
        value: the mean.
        runs: how many runs have a tau.
        interval: Student's over the runs, cut to [-1, 1]; ``None`` for one run.
    """

    value: float
    runs: int
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class MeanRow:
    """One number's mean tau, by data set.

    Attributes:
        number: row of ``METRICS``.
        title: for people.
        cells: data set -> mean over its runs; data sets without a tau are left out.
        mean: mean of the cells, each data set counting once; ``None`` unless all have one.
        paper: column of ``PAPER_COLUMNS`` -> the paper's number; empty where it has none.
    """

    number: str
    title: str
    cells: Mapping[str, MeanTau]
    mean: float | None
    paper: Mapping[str, float]


@dataclass(frozen=True)
class MeanCorrelation:
    """Mean Kendall's tau of each number over runs: the shape of the paper's table.

    Attributes:
        datasets: in order of first appearance.
        rows: one per judged row of ``METRICS``.
        clock: the same of the number of the checkpoint.
        level: confidence of the intervals.
        source: of the paper's numbers.
    """

    datasets: tuple[str, ...]
    rows: tuple[MeanRow, ...]
    clock: MeanRow
    level: float
    source: str = PAPER_SOURCE

    def row(self, number: str) -> MeanRow:
        """The row of one number.

        Raises:
            RecordError: there is no such number.
        """
        for row in self.rows:
            if row.number == number:
                return row
        raise RecordError(f"no number is named {number!r}; there are: {', '.join(METRICS)}")

    def to_json(self) -> dict[str, Any]:
        """The document, with plain values only."""
        clock, *rows = [
            {
                **vars(row),
                "cells": {name: dict(vars(cell)) for name, cell in row.cells.items()},
                "paper": dict(row.paper),
            }
            for row in (self.clock, *self.rows)
        ]
        return {**vars(self), "datasets": list(self.datasets), "clock": clock, "rows": rows}


def mean_correlation(
    correlations: Sequence[Correlation], *, level: float = 0.95
) -> MeanCorrelation:
    """Average tau over runs for each data set, and over data sets.

    Runs are what is independent here: the interval of a cell is Student's over its runs, and says
    nothing for one run. The paper's numbers stand beside ours; they are of other runs, probes
    and images, so equality is not to be expected.

    Args:
        correlations: one per run and data set, of :func:`correlate`.
        level: confidence of the intervals, between 0 and 1.

    Raises:
        InputError: ``level`` out of its range.
        RecordError: none given, or two of one data set that differ in protocol, measure or layer.

    Source: Dai et al. (2025), arXiv 2510.17299, whose table this is.
    """
    if not 0 < level < 1:
        raise InputError(f"level is {level}; it must lie between 0 and 1, e.g. 0.95")
    if not correlations:
        raise RecordError("there is no correlation to average; compute that of some runs first")
    by_dataset: dict[str, list[Correlation]] = {}
    for correlation in correlations:
        by_dataset.setdefault(correlation.dataset, []).append(correlation)
    for group in by_dataset.values():
        _check_alike(group)
    scored = {row.number for correlation in correlations for row in correlation.rows}
    rows = tuple(
        _row(m.name, m.title, by_dataset, level) for m in METRICS.values() if m.name in scored
    )
    clock = _row(CLOCK, correlations[0].clock.title, by_dataset, level)
    return MeanCorrelation(tuple(by_dataset), rows, clock, level)


def paper_tau(number: str) -> dict[str, float]:
    """The paper's numbers of one of ours by column; empty where it has none."""
    part = number.rpartition(".")[2]
    row = PAPER_TAU.get("dense_rankme" if part == "effective_rank" else part)
    return {} if row is None else dict(zip(PAPER_COLUMNS, row, strict=True))


def _row(
    number: str, title: str, by_dataset: Mapping[str, Sequence[Correlation]], level: float
) -> MeanRow:
    cells = {}
    for dataset, group in by_dataset.items():
        taus = [tau.value for one in group if (tau := one.tau(number)) is not None]
        if taus:
            cells[dataset] = _mean_tau(taus, level)
    whole = len(cells) == len(by_dataset)
    mean = math.fsum(cell.value for cell in cells.values()) / len(cells) if whole else None
    return MeanRow(number, title, cells, mean, paper_tau(number))


def _mean_tau(taus: Sequence[float], level: float) -> MeanTau:
    runs = len(taus)
    mean = math.fsum(taus) / runs
    if runs < 2:
        return MeanTau(mean, runs, None)
    deviation = math.sqrt(math.fsum((tau - mean) ** 2 for tau in taus) / (runs - 1))
    half = student_quantile(level, runs - 1) * deviation / math.sqrt(runs)
    return MeanTau(mean, runs, (max(-1.0, mean - half), min(1.0, mean + half)))


def _check_alike(group: Sequence[Correlation]) -> None:
    first = group[0]
    for other in group[1:]:
        for trait in ("protocol", "measure", "layer"):
            ours, theirs = getattr(first, trait), getattr(other, trait)
            if ours != theirs:
                raise RecordError(
                    f"two runs on {first.dataset} differ in their {trait}: {ours} and {theirs}; "
                    "unlike numbers have no mean: make one table for each"
                )
