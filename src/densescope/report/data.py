"""Everything the page shows, gathered from the records of one run and the choice made from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from densescope.estimate import Estimate
from densescope.records import ScoreRecord
from densescope.report.columns import BASELINES, part_column
from densescope.report.maps import Cluster, MapPanel, build_maps
from densescope.report.previews import Previews
from densescope.report.readings import Column, Curve, Reading, plain

if TYPE_CHECKING:
    from densescope.selection import Selection

PARTS = ("dse", "separability", "dim")


@dataclass(frozen=True)
class Checkpoint:
    """One row of the table: who it is and what the selection made of it."""

    name: str
    step: int
    unit: str
    error: str | None
    rank: int | None = None
    is_candidate: bool = False
    is_pick: bool = False
    is_last: bool = False
    within_noise: bool = False


@dataclass(frozen=True)
class PartChange:
    """One part of DSE at the pick, at the last checkpoint, and the paired difference."""

    curve: Curve
    pick: Reading
    last: Reading
    change: Reading
    moved: bool


@dataclass(frozen=True)
class View:
    """The run seen through one definition of DSE."""

    definition: str
    layer: int
    equation: str
    weight_note: str | None
    verdict: str
    dse: Curve
    separability: Curve
    dim: Curve
    checkpoints: tuple[Checkpoint, ...]
    moved: str | None
    changes: tuple[PartChange, ...]

    @property
    def pick(self) -> Checkpoint | None:
        """The picked checkpoint, if any."""
        return next((row for row in self.checkpoints if row.is_pick), None)

    @property
    def last(self) -> Checkpoint | None:
        """The last scored checkpoint, if any."""
        return next((row for row in self.checkpoints if row.is_last), None)

    @property
    def shortlist(self) -> tuple[Checkpoint, ...]:
        """The shortlisted checkpoints, best first."""
        ranked = [(row.rank, row) for row in self.checkpoints if row.rank is not None]
        return tuple(row for _, row in sorted(ranked, key=lambda pair: pair[0]))


@dataclass(frozen=True)
class ReportData:
    """What one page shows; every number was computed before.

    Attributes:
        title: name of the run.
        unit: what a step is, e.g. ``"epoch"``.
        view: the run through the definition that was asked for.
        alternatives: the same through other definitions.
        baselines: other label-free metrics, those that were scored.
        extras: further series, such as mIoU, by the caller.
        stored: every number in the records, for the table at the end.
        maps: component, cluster and similarity maps; empty without previews.
        run: groups of settings and provenance as (heading, ((key, text), ...)).
    """

    title: str
    unit: str
    view: View
    alternatives: tuple[View, ...]
    baselines: tuple[Curve, ...]
    extras: tuple[Curve, ...]
    stored: tuple[Curve, ...]
    maps: tuple[MapPanel, ...]
    run: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """All checkpoints by step, the failed ones included."""
        return self.view.checkpoints

    @property
    def columns(self) -> tuple[Curve, ...]:
        """The series of the main table: those of the definition, then the others."""
        view = self.view
        others = (other.dse for other in self.alternatives)
        curves = (view.dse, view.separability, view.dim, *self.extras, *others, *self.baselines)
        return tuple(curve for curve in curves if not curve.empty)


def build_report_data(
    records: Sequence[ScoreRecord],
    selection: Selection,
    previews: Previews | None = None,
    run: Mapping[str, Any] | None = None,
    *,
    alternatives: Sequence[Selection] = (),
    extras: Mapping[Column, Mapping[str, Estimate]] | None = None,
    cluster: Cluster | None = None,
) -> ReportData:
    """Gather what the page shows.

    Args:
        records: the run, in any order; failed checkpoints are named with their reason.
        selection: the choice made from them; it leads the page.
        previews: patch features for the maps; see :func:`preview_names` for the checkpoints
            that are shown.
        run: settings and provenance; ``run["title"]`` names the run.
        alternatives: choices by other definitions or layers, shown below.
        extras: further series by checkpoint name, e.g. mIoU of a probe.
        cluster: replaces the k-means of the cluster maps: points and a number to labels.

    Returns:
        The data of one page, for :func:`~densescope.report.page.render_report`.
    """
    ordered = sorted(records, key=lambda record: (record.step, record.name))
    scored = [record for record in ordered if record.status == "scored"]
    maps: tuple[MapPanel, ...] = ()
    if previews is not None and scored:
        shown = _shown(scored, selection)
        maps = build_maps(previews, shown, reference=selection.pick or "", cluster=cluster)
    settings = dict(run or {})
    return ReportData(
        title=str(settings.pop("title", "Untitled run")),
        unit=ordered[0].unit if ordered else "step",
        view=_view(ordered, selection),
        alternatives=tuple(_view(ordered, other) for other in alternatives),
        baselines=_baselines(ordered, selection.layer),
        extras=tuple(
            Curve(column, tuple(Reading.of(values.get(record.name)) for record in ordered))
            for column, values in (extras or {}).items()
        ),
        stored=_stored(ordered),
        maps=maps,
        run=_groups(settings),
    )


def preview_names(records: Sequence[ScoreRecord], selection: Selection) -> tuple[str, ...]:
    """The checkpoints whose previews are shown: the first scored one, the pick and the last."""
    scored = [record for record in records if record.status == "scored"]
    scored.sort(key=lambda record: (record.step, record.name))
    return tuple(_shown(scored, selection)) if scored else ()


def _shown(scored: Sequence[ScoreRecord], selection: Selection) -> dict[str, str]:
    by_name = {record.name: record for record in scored}
    roles: dict[str, list[str]] = {scored[0].name: ["first"]}
    for role, name in (("pick", selection.pick), ("last", selection.last)):
        if name in by_name:
            roles.setdefault(str(name), []).append(role)
    steps = {name: f"{by_name[name].unit} {by_name[name].step}" for name in roles}
    named = {name: f"{' and '.join(words)}, {steps[name]}" for name, words in roles.items()}
    return dict(sorted(named.items(), key=lambda item: by_name[item[0]].step))


def _view(records: Sequence[ScoreRecord], selection: Selection) -> View:
    rows = {row.name: row for row in selection.rows}
    definition = selection.definition
    estimates: dict[str, list[Estimate | None]] = {part: [] for part in PARTS}
    checkpoints = []
    for record in records:
        row = rows.get(record.name)
        estimates["dse"].append(row.dse if row else None)
        estimates["separability"].append(row.separability if row else None)
        estimates["dim"].append(row.dim if row else None)
        failed = record.error or "no reason was recorded"
        checkpoints.append(
            Checkpoint(
                name=record.name,
                step=record.step,
                unit=record.unit,
                error=None if record.status == "scored" else failed,
                rank=row.rank_in_shortlist if row else None,
                is_candidate=bool(row and row.is_candidate),
                is_pick=bool(row and row.is_pick),
                is_last=bool(row and record.name == selection.last),
                within_noise=bool(row and row.below_noise_of_pick and not row.is_pick),
            )
        )
    curves = {
        part: Curve(part_column(definition, part), tuple(Reading.of(e) for e in estimates[part]))
        for part in PARTS
    }
    return View(
        definition=definition,
        layer=selection.layer,
        equation=_equation(selection),
        weight_note=selection.weight_note,
        verdict=selection.verdict,
        dse=curves["dse"],
        separability=curves["separability"],
        dim=curves["dim"],
        checkpoints=tuple(checkpoints),
        moved=selection.change.moved if selection.change else None,
        changes=_changes(selection, curves, [record.name for record in records]),
    )


def _equation(selection: Selection) -> str:
    weight = plain(selection.weight, 4 if abs(selection.weight) < 0.1 else 2)
    return f"DSE = separability + {weight} × dimension"


def _changes(
    selection: Selection, curves: Mapping[str, Curve], names: Sequence[str]
) -> tuple[PartChange, ...]:
    change = selection.change
    if change is None or selection.pick not in names or selection.last not in names:
        return ()
    moved = {
        "dimension": {"dim"},
        "separability": {"separability"},
        "both": {"separability", "dim"},
        "neither": set(),
    }[change.moved]
    differences = {"dse": change.dse, "separability": change.separability, "dim": change.dim}
    rows = []
    for part in ("separability", "dim", "dse"):
        curve = curves[part]
        pick = curve.readings[names.index(selection.pick)]
        last = curve.readings[names.index(selection.last)]
        difference = Reading.of(differences[part])
        if pick is not None and last is not None and difference is not None:
            rows.append(PartChange(curve, pick, last, difference, part in moved))
    return tuple(rows)


def _baselines(records: Sequence[ScoreRecord], layer: int) -> tuple[Curve, ...]:
    curves = (_stored_curve(records, column, str(layer), column.key) for column in BASELINES)
    return tuple(curve for curve in curves if not curve.empty)


def _stored(records: Sequence[ScoreRecord]) -> tuple[Curve, ...]:
    keys: dict[tuple[str, str], None] = {}
    for record in records:
        for layer, row in record.scores.items():
            keys.update(((layer, metric), None) for metric in row)
    several = len({layer for layer, _ in keys}) > 1
    curves = []
    for layer, metric in keys:
        title = f"{metric} (layer {layer})" if several else metric
        curves.append(_stored_curve(records, Column(title, title, title), layer, metric))
    return tuple(curves)


def _stored_curve(records: Sequence[ScoreRecord], column: Column, layer: str, metric: str) -> Curve:
    estimates = (record.scores.get(layer, {}).get(metric) for record in records)
    return Curve(column, tuple(Reading.of(estimate) for estimate in estimates))


def _groups(
    settings: Mapping[str, Any], heading: str = "Run"
) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    own = tuple(
        (str(key).replace("_", " "), _words(value))
        for key, value in settings.items()
        if not isinstance(value, Mapping)
    )
    groups = [(heading, own)] if own else []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            groups.extend(_groups(value, str(key).replace("_", " ").capitalize()))
    return tuple(groups)


def _words(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_words(item) for item in value)
    return str(value)
