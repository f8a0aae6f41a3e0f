"""Whether the dense features of a run that is still going have degraded: the alarm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from densescope.errors import NOT_FINITE, RecordError
from densescope.estimate import Estimate
from densescope.records import ScoreRecord
from densescope.selection.change import change_between
from densescope.selection.columns import DensePoint
from densescope.selection.falls import PLAIN_LEVEL, AlarmSettings, Falls, Status
from densescope.selection.result import Change, Part, Selection
from densescope.selection.run_table import RunTable
from densescope.selection.words import phrase, to_try

Kind = Literal["fall", "collapse", "not finite"]
KINDS: dict[Status, Kind] = {"fine": "fall", "collapsed": "collapse", "not finite": "not finite"}


@dataclass(frozen=True)
class Alarm:
    """What fell, since when, by how much, and where to go back to.

    Attributes:
        kind: ``"fall"`` (DSE is below its best by more than noise), ``"collapse"`` (almost no
            effective rank is left) or ``"not finite"`` (features are NaN or infinite, or all the
            same).
        fell: the parts that are below the best checkpoint by more than noise.
        since: first checkpoint from which on all have fallen.
        since_step: its position.
        last: the newest checkpoint.
        last_step: its position.
        back_to: the best checkpoint before the fall.
        back_to_step: its position.
        unit: of the three positions.
        change: last minus best on the same images; ``None`` where the last has no numbers.
        interval: of the change of DSE, with the noise of images and of training, at the level
            at which the rule compares; ``None`` where the last has no numbers or DSE no lambda.
        lambda_: of DSE in ``change`` (``"lambda"`` in JSON): 1, so that it stays as checkpoints
            arrive, or with ``"paper"`` that of the run before the fall.
        sentence: all of it in words.
    """

    kind: Kind
    fell: Part
    since: str
    since_step: int
    last: str
    last_step: int
    back_to: str
    back_to_step: int
    unit: str
    change: Change | None
    interval: tuple[float, float] | None
    lambda_: float | None
    sentence: str

    def overrules(self, selection: Selection) -> bool:
        """Whether the pick of a selection lies inside the fall.

        Where one part collapses while the other rises, DSE can peak in the middle of the fall, and
        more so with lambda of the run, which shrinks the part that collapsed.
        """
        if selection.pick is None:
            return False
        return selection.row(selection.pick).step >= self.since_step

    def weighs_in(self, selection: Selection) -> bool:
        """Whether lambda of a selection is taken over fallen checkpoints too.

        It is not where all that fell were left out, as they have no finite numbers, or lambda is 1.
        """
        fallen = any(row.step >= self.since_step for row in selection.rows)
        return fallen and selection.lambda_choice != "1"

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON document."""
        document = {field.name.rstrip("_"): getattr(self, field.name) for field in fields(self)}
        document["change"] = None if self.change is None else self.change.to_json()
        document["interval"] = None if self.interval is None else list(self.interval)
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`.

        Raises:
            RecordError: a field is missing or garbled.
        """
        try:
            values = {field.name: document[field.name.rstrip("_")] for field in fields(cls)}
            change, interval = values["change"], values["interval"]
            values["change"] = None if change is None else Change.from_json(change)
            values["interval"] = None if interval is None else (interval[0], interval[1])
            return cls(**values)
        except (KeyError, TypeError, ValueError, IndexError) as cause:
            raise RecordError(f"an alarm lacks or garbles a field: {cause!r}") from cause


def find_alarm(
    records: Sequence[ScoreRecord] | RunTable,
    settings: AlarmSettings | None = None,
    *,
    layer: int = -1,
) -> Alarm | None:
    """Whether a run, as of its last checkpoint, has degraded: DSE below its best beyond noise.

    There is an alarm where the last ``patience`` checkpoints or more have all *fallen*, each being

    - below the best checkpoint before them by more than noise, in ``separability +
      effective_rank`` and in at least one of the two, while DSE with lambda of the run before has
      not risen; or
    - collapsed: its effective rank is below ``collapse_fraction`` of the highest so far; or
    - without finite numbers.

    A part that falls while the other pays for it is a trade and no alarm. Noise is that of the
    images (jackknife, on paired blocks) and that of training, which is read off how the earlier
    checkpoints scatter around straight lines; both at a level that shrinks with the number of
    calls, so that ``false_alarm_rate`` holds over a run of any length. Checkpoints that failed
    for another reason than features or weights that are not finite are left out.

    Args:
        records: all of the run so far, in any order, or its table.
        settings: when a fall counts.
        layer: the block whose features were scored.

    Returns:
        The alarm, or ``None``: also where there is nothing good to go back to, and, for a plain
        fall, with fewer than six checkpoints before it.

    Raises:
        RecordError: a definition or layer that was not scored, or records of two runs.

    Source: our own; lambda of :func:`~densescope.metrics.lambdas.run_lambda`.

    Example:
        >>> find_alarm(densescope.read_run("scores").records) is None  # doctest: +SKIP
        True
    """
    settings = settings or AlarmSettings()
    return _standing(_observed(RunTable.of(records), settings.definition, layer), settings)


def _standing(points: Sequence[DensePoint], settings: AlarmSettings) -> Alarm | None:
    falls = Falls(points, settings)
    for cut in range(1, len(points) - settings.patience + 1):
        best = falls.fallen_from(cut)
        if best is not None:
            return _alarm(falls, cut, best)
    return None


def first_alarm(
    records: Sequence[ScoreRecord] | RunTable,
    settings: AlarmSettings | None = None,
    *,
    layer: int = -1,
) -> Alarm | None:
    """The alarm that a watch of a run would have raised first, seeing one checkpoint at a time.

    :func:`find_alarm` of the shortest beginning of the run that has one; its ``last`` is the
    checkpoint at which it comes. Arguments and errors are the same.
    """
    settings = settings or AlarmSettings()
    points = _observed(RunTable.of(records), settings.definition, layer)
    falls = Falls(points, settings)
    for end in range(settings.patience + 1, len(points) + 1):
        if falls.fallen_from(end - settings.patience, end) is not None:
            return _standing(points[:end], settings)
    return None


def _observed(table: RunTable, definition: str, layer: int) -> list[DensePoint]:
    """The scored checkpoints, and those whose features or weights are not finite."""
    scored = {point.name: point for point in table.points(definition, layer)}
    nothing = Estimate(math.nan)
    return [
        scored.get(r.name) or DensePoint(r.name, r.step, r.unit, nothing, nothing)
        for r in table.records
        if r.name in scored or NOT_FINITE in str(r.error)
    ]


def _alarm(falls: Falls, cut: int, best: DensePoint) -> Alarm:
    """The alarm of a run whose checkpoints have all fallen from ``cut`` on."""
    since, last = falls.points[cut], falls.points[-1]
    change, interval = None, None
    total = falls.total(cut)
    if last.is_finite and total is not None:
        change = change_between(best, last, total.of_rank, PLAIN_LEVEL)
        margin = falls.margin(cut, change.dse, total)
        interval = (change.dse.value - margin, change.dse.value + margin)
    kind = KINDS[falls.status[-1]]
    fell = falls.fell(cut, best) if last.is_finite else "both"
    lambda_ = None if total is None else total.of_rank
    return Alarm(
        kind=kind,
        fell=fell,
        since=since.name,
        since_step=since.step,
        last=last.name,
        last_step=last.step,
        back_to=best.name,
        back_to_step=best.step,
        unit=last.unit,
        change=change,
        interval=interval,
        lambda_=lambda_,
        sentence=_sentence(
            (KINDS[falls.status[cut]], kind), fell, (since, best, last), change, interval, lambda_
        ),
    )


def _sentence(
    kinds: tuple[Kind, Kind],
    fell: Part,
    where: tuple[DensePoint, DensePoint, DensePoint],
    change: Change | None,
    interval: tuple[float, float] | None,
    lambda_: float | None,
) -> str:
    first, kind = kinds
    since, best, last = where
    begun = f"since {phrase(since)}"
    back = f"Go back to {phrase(best)}. {to_try(is_finite=kind != 'not finite')}"
    if change is None or interval is None or lambda_ is None:
        if first != "not finite":
            return (
                f"DSE has been below its best {begun}, and at {phrase(last)} the features have no "
                f"dense structure left to measure: they are NaN, infinite, or the same in every "
                f"patch. {back}"
            )
        return (
            f"The features have no dense structure left to measure {begun}: they are NaN, "
            f"infinite, or the same in every patch. {back}"
        )
    low, high = sorted((-interval[0], -interval[1]))
    parts = (
        f"separability {best.separability.value:.3g} to {last.separability.value:.3g}, "
        f"effective rank {best.effective_rank.value:.3g} to {last.effective_rank.value:.3g}"
    )
    if kind == "collapse" and first == "fall":
        return (
            f"DSE has been below its best {begun}, and at {phrase(last)} the features have "
            f"collapsed: almost no effective rank is left ({parts}). {back}"
        )
    if kind == "collapse":
        return (
            f"The features have collapsed {begun}: almost no effective rank is left ({parts}). "
            f"{back}"
        )
    what = {"both": "Both parts fell", "effective_rank": "The effective rank fell"}
    return (
        f"DSE has been below its best {begun}: at {phrase(last)} by {-change.dse.value:.3g} "
        f"[{low:.3g}, {high:.3g}] with lambda {lambda_:.3g}, more than the noise of images and of "
        "training. "
        f"{what.get(fell, 'Separability fell')} ({parts}). {back}"
    )
