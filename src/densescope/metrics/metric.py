"""One label-free metric: everything the program knows of it, in one row."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from densescope.estimate import Estimate
from densescope.metrics.settings import ScoreSettings

if TYPE_CHECKING:
    from torch import Tensor

Better = Literal["higher", "lower", "near 1"]
Reads = Literal["patches", "image", "views"]
Change = Literal["rotation", "scale", "group order", "image order", "duplication"]
CHANGES: tuple[Change, ...] = ("rotation", "scale", "group order", "image order", "duplication")

Series = Mapping[str, Estimate]
"""One metric over the checkpoints of a run, by name of the checkpoint."""


@dataclass(frozen=True)
class ScoredFeatures:
    """Features of one layer of one backbone.

    Attributes:
        patches: ``images patches dim``.
        image: ``images dim``, the backbone's own image vector.
        views: ``samples dim``, image vectors of augmented views, or ``None``.
        sample_ids: ``samples``, the image that each view shows, or ``None``.
        grid: rows and columns that the patches form, row by row, or ``None`` where that is not
            known.
    """

    patches: Tensor
    image: Tensor
    views: Tensor | None
    sample_ids: Tensor | None
    grid: tuple[int, int] | None = None


@dataclass(frozen=True)
class Computation:
    """What computes one metric or several from features; all of its metrics are stored.

    Attributes:
        name: of its stage in the timing of a record.
        reads: ``"patches"`` (once per layer), or ``"image"`` or ``"views"`` (once per backbone).
        compute: features and settings to estimates by metric name; a metric that cannot be
            computed from these features is left out.
    """

    name: str
    reads: Reads
    compute: Callable[[ScoredFeatures, ScoreSettings], Mapping[str, Estimate]]


@dataclass(frozen=True)
class Derived:
    """A metric made of others over the checkpoints of a run.

    Attributes:
        series: the metric by checkpoint; empty where it is not defined for this run.
        note: a sentence about it: what it depends on, or why it is not defined.
        lambda_: the weight of the effective rank in it, where it has one.
    """

    series: Series
    note: str | None = None
    lambda_: float | None = None


@dataclass(frozen=True)
class Derivation:
    """How a metric follows from stored ones.

    Attributes:
        of: the metrics it is made of.
        derive: their series in that order to its own. All hold the same checkpoints, those
            where every one is finite.
        over_run: whether the value of a checkpoint depends on the other checkpoints.
    """

    of: tuple[str, ...]
    derive: Callable[..., Derived]
    over_run: bool = False


@dataclass(frozen=True)
class Metric:
    """Everything the program knows of one number.

    Attributes:
        name: in records, tables and options.
        title: for people.
        unit: of its values.
        better: which way it is held to be good; choices follow it, Kendall's tau does not.
        made_by: how it is computed from features, or derived from other metrics.
        summary: what it measures, as one sentence.
        about: how it is computed and its range, as a paragraph.
        trap: how it misleads, as a paragraph; may be empty.
        source: where the definition comes from.
        heading: its title in a narrow column; ``title`` where empty.
        formula: the definition on one line, in the symbols of docs/reference/metrics.md.
        use: when to look at it, as a sentence.
        changes_with: what moves it although no feature has become better or worse.
        overview: whether the table of a sweep and the main table of a report show it.
        judged: whether it is compared with labelled probes, and has a curve of its own in a report.
        chooses: whether regret asks what a choice by it alone would have cost.
    """

    name: str
    title: str
    unit: str
    better: Better
    made_by: Computation | Derivation
    summary: str
    about: str
    trap: str = ""
    source: str = ""
    heading: str = ""
    changes_with: frozenset[Change] = frozenset()
    overview: bool = True
    judged: bool = True
    chooses: bool = True
    formula: str = ""
    use: str = ""

    @property
    def is_stored(self) -> bool:
        """Whether it is computed from features, and stored; else it is derived from others."""
        return isinstance(self.made_by, Computation)

    @property
    def reads(self) -> tuple[str, ...]:
        """What it is made of: ``"patches"``, ``"image"`` or ``"views"``, or other metrics."""
        return (self.made_by.reads,) if isinstance(self.made_by, Computation) else self.made_by.of

    @property
    def short(self) -> str:
        """Heading of a narrow column."""
        return self.heading or self.title

    @property
    def direction(self) -> str:
        """Which way is good, as a sentence."""
        near = "Near 1 is held to be best, not high or low."
        return near if self.better == "near 1" else f"{self.better.capitalize()} is better."

    @property
    def lines(self) -> tuple[str, ...]:
        """Everything a user should know of it, a line of text each."""
        made = (
            f"{self.title}: {self.summary}",
            self.formula and f"formula: {self.formula}",
            f"unit: {self.unit or 'none'}. {self.direction}",
            self.about,
            self.use and f"when to use it: {self.use}",
            self.trap and f"how it misleads: {self.trap}",
            self.source and f"source: {self.source}",
        )
        return tuple(filter(None, made))

    @property
    def superlative(self) -> str:
        """``"highest RankMe"``: the best value in words."""
        words = {"higher": "highest", "lower": "lowest", "near 1": "nearest to 1:"}
        return f"{words[self.better]} {self.title}"

    def badness(self, value: float) -> float:
        """A number that is low for a value that is held to be good."""
        if self.better == "near 1":
            return abs(value - 1)
        return -value if self.better == "higher" else value

    def best(self, series: Series) -> str | None:
        """Name of the first checkpoint with the best finite value; ``None`` without one."""
        known = {name: e.value for name, e in series.items() if math.isfinite(e.value)}
        return min(known, key=lambda name: self.badness(known[name]), default=None)
