"""What a selection says, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal, Self, cast

from densescope.errors import RecordError
from densescope.estimate import Estimate
from densescope.selection.columns import DensePoint

SCHEMA = 3
NAMES = ("candidates", "shortlist", "failed", "unscored_after", "diverged", "collapsed")
Part = Literal["effective_rank", "separability", "both", "neither"]


@dataclass(frozen=True)
class Change:
    """What happened between the pick and the last checkpoint: last minus pick, on the same images.

    Attributes:
        separability: change of ``M_inter - M_intra``.
        effective_rank: change of ``M_dim``, not multiplied by lambda.
        dse: change of DSE.
        moved: the part that moved DSE: it went the way DSE went, by more than its noise, and,
            weighted, at least twice as far as the other part; ``"both"`` when neither leads,
            ``"neither"`` when no part exceeds its noise.
    """

    separability: Estimate
    effective_rank: Estimate
    dse: Estimate
    moved: Part

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON document."""
        return {
            "separability": self.separability.to_json(),
            "effective_rank": self.effective_rank.to_json(),
            "dse": self.dse.to_json(),
            "moved": self.moved,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        return cls(
            Estimate.from_json(document["separability"]),
            Estimate.from_json(document["effective_rank"]),
            Estimate.from_json(document["dse"]),
            cast(Part, document["moved"]),
        )


@dataclass(frozen=True)
class SelectionRow(DensePoint):
    """One scored checkpoint.

    Attributes:
        name: file name of the checkpoint.
        step: its position in the run, in ``unit``.
        unit: ``"epoch"``, ``"step"`` or ``"checkpoint number"``.
        separability: ``M_inter - M_intra``.
        effective_rank: ``M_dim``.
        dse: ``separability + lambda * effective_rank``; ``None`` where lambda is not defined.
        is_candidate: a local maximum of DSE.
        rank_in_shortlist: 1 for the highest candidate; ``None`` outside the shortlist.
        is_pick: the checkpoint to use.
        below_noise_of_pick: its DSE and the pick's differ by less than their noise; ``False``
            for the pick itself. Where the noise is not known, only equal values do.
        images: how many it was scored on, where its record says so.
        has_weights_of_pick: another name of the pick: the same backbone tensors (``sha256``).
    """

    dse: Estimate | None = None
    is_candidate: bool = False
    rank_in_shortlist: int | None = None
    is_pick: bool = False
    below_noise_of_pick: bool = False
    images: int | None = None
    has_weights_of_pick: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON document."""
        document = {field.name: getattr(self, field.name) for field in fields(self)}
        estimates = {k: v.to_json() for k, v in document.items() if isinstance(v, Estimate)}
        return {**document, **estimates}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        values = {field.name: document[field.name] for field in fields(cls)}
        for part in ("separability", "effective_rank", "dse"):
            values[part] = None if values[part] is None else Estimate.from_json(values[part])
        return cls(**values)


@dataclass(frozen=True)
class Selection:
    """The choice among the checkpoints of one run, and what it rests on.

    Attributes:
        definition: row of ``DEFINITIONS``.
        layer: which layer's features were scored; -1 is the last.
        lambda_: lambda of DSE, or ``None`` where it is not defined; ``"lambda"`` in JSON.
        lambda_note: a sentence about it.
        rows: the scored checkpoints in order of step.
        candidates: names of the local maxima in order of step.
        shortlist: names of the highest candidates, highest first.
        pick: name of the checkpoint to use, ``None`` without a DSE.
        last: name of the last scored checkpoint.
        verdict: the choice in words.
        change: last checkpoint minus pick; ``None`` when they are the same or there is no pick.
        failed: names of the checkpoints left out: not scored, or a score that is not finite.
        unscored_after: those of them that come after the last scored one.
        diverged: those of ``unscored_after`` whose weights or features are NaN or infinite.
        collapsed: those of ``unscored_after`` whose features are finite, but not their score.
        level: confidence of an interval of one number.
        comparison_level: confidence of each comparison with the pick, ``1 - (1 - level) / m``
            for ``m`` comparisons, so that all hold together at ``level``.
        images: how many images were scored, where the records say so; at most, where they differ.
        saving: what a race saved, as a sentence; ``None`` for records of no race.
        stitched: how the files of the run tell of more than one training, as a sentence; ``None``
            where they tell of one, or nothing.
        lambda_choice: the rule for lambda, row of ``LAMBDAS``.
        advised: name of the checkpoint to take without labels where that is not the pick, by the
            definition that the study of this package looked at: the one that the first alarm of the
            run goes back to, or the last where no alarm came although one could for a fall after
            the pick. Else ``None``.
    """

    definition: str
    layer: int
    lambda_: float | None
    lambda_note: str | None
    rows: tuple[SelectionRow, ...]
    candidates: tuple[str, ...]
    shortlist: tuple[str, ...]
    pick: str | None
    last: str
    verdict: str
    change: Change | None
    failed: tuple[str, ...]
    level: float = 0.95
    comparison_level: float = 0.95
    images: int | None = None
    saving: str | None = None
    stitched: str | None = None
    unscored_after: tuple[str, ...] = ()
    diverged: tuple[str, ...] = ()
    collapsed: tuple[str, ...] = ()
    lambda_choice: str = "1"
    advised: str | None = None

    @property
    def images_differ(self) -> bool:
        """Whether some checkpoints were scored on more images than others."""
        return len({row.images for row in self.rows}) > 1

    @cached_property
    def noise_known(self) -> bool:
        """Whether the numbers of the checkpoints have intervals."""
        return any(row.separability.standard_error is not None for row in self.rows)

    @cached_property
    def tied(self) -> tuple[str, ...]:
        """The pick and all that are not told apart from it, by step; empty where there is none."""
        if not any(row.below_noise_of_pick and not row.has_weights_of_pick for row in self.rows):
            return ()
        return tuple(
            row.name
            for row in self.rows
            if row.is_pick or row.below_noise_of_pick or row.has_weights_of_pick
        )

    @property
    def earliest_peak(self) -> str | None:
        """The first local maximum of DSE among the tied checkpoints; else the pick."""
        tied = self.tied
        peaks = (row.name for row in self.rows if row.is_candidate and row.name in tied)
        return next(peaks, self.pick)

    @cached_property
    def _by_name(self) -> dict[str, SelectionRow]:
        return {row.name: row for row in reversed(self.rows)}

    def row(self, name: str) -> SelectionRow:
        """The row of one checkpoint.

        Raises:
            RecordError: no scored checkpoint has this name.
        """
        if name in self._by_name:
            return self._by_name[name]
        known = ", ".join(row.name for row in self.rows)
        raise RecordError(f"no scored checkpoint is named {name!r}; there are: {known}")

    def against_pick(self, row: SelectionRow) -> str | None:
        """How its DSE stands to that of the pick: two words, or ``None`` for the pick itself."""
        pick = None if self.pick is None else self.row(self.pick)
        if pick is None or row.is_pick or pick.dse is None or row.dse is None:
            return None
        if row.has_weights_of_pick:
            return "same weights"
        if row.below_noise_of_pick:
            return "within noise"
        return "higher" if row.dse.value > pick.dse.value else "lower"

    def to_json(self) -> dict[str, Any]:
        """The document, with plain values only."""
        plain = {field.name.rstrip("_"): getattr(self, field.name) for field in fields(self)}
        return {
            **{key: list(v) if isinstance(v, tuple) else v for key, v in plain.items()},
            "schema": SCHEMA,
            "rows": [row.to_json() for row in self.rows],
            "change": None if self.change is None else self.change.to_json(),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`.

        Raises:
            RecordError: another schema version, or a field is missing or garbled.
        """
        if document.get("schema") != SCHEMA:
            raise RecordError(
                f"this selection has schema {document.get('schema')!r}, this version reads "
                f"{SCHEMA}; select again from the records"
            )
        try:
            values = {field.name: document[field.name.rstrip("_")] for field in fields(cls)}
            for key in NAMES:
                values[key] = tuple(values[key])
            values["rows"] = tuple(SelectionRow.from_json(row) for row in values["rows"])
            change = values["change"]
            values["change"] = None if change is None else Change.from_json(change)
            return cls(**values)
        except (KeyError, TypeError, ValueError, AttributeError) as cause:
            raise RecordError(f"a selection lacks or garbles a field: {cause!r}") from cause
