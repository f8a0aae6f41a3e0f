"""Everything the page shows, gathered from the records of one run and the choice made from them."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from densescope.definitions import DEFINITIONS
from densescope.estimate import Estimate
from densescope.metrics import METRICS
from densescope.records import ScoreRecord
from densescope.report.labels import ProbedSet, ProbeSet, build_probe_set
from densescope.report.layers import LayerMaps, build_layer_maps
from densescope.report.values import LEVEL, Curve, Heading, ShownValue
from densescope.report.views import Checkpoint, DefinitionPanel, build_view
from densescope.selection import RunTable
from densescope.selection.headline import across_choices, pick_or_last

if TYPE_CHECKING:
    from densescope.report.maps import Cluster, MapPanel
    from densescope.report.previews import Previews
    from densescope.selection import Alarm, Selection

FEW_LAYERS = 4  # whose numbers still fit into one table
Group = tuple[str, tuple[tuple[str, str], ...]]

MOST_SHOWN = 300  # checkpoints of a page
MOST_COLUMNS = 60  # checkpoints of a map of layers


@dataclass(frozen=True)
class ReportData:
    """What one page shows; every number was computed before.

    Attributes:
        title: name of the run.
        unit: what a step is, e.g. ``"epoch"``.
        view: the run through the definition that was asked for.
        alternatives: the same through other definitions.
        baselines: other label-free metrics, those that were scored.
        extras: further series by the caller, such as mIoU.
        stored: every number in the records, for the table at the end.
        maps: component, cluster and similarity maps; empty without previews.
        run: groups of settings and provenance as (heading, ((key, text), ...)).
        probe_sets: what labelled probes say, one entry per data set and protocol.
        together: what several labelled sets say together, in words.
        alarm: what the alarm says of the run as a whole; empty where it is silent.
        by_dse: what the pick beside an alarm rests on, in words.
        go_back_to: the checkpoint the alarm names in place of a pick inside the fall; else empty.
        layers: maps of layers by checkpoints, where several layers were measured.
        across: whether the pick depends on the definition of DSE or the rule for lambda, in words.
        pick_or_last: what the alarm says for the pick or for the last checkpoint, in words.
        count: checkpoints of the run; of a long one the page shows a part.
    """

    title: str
    unit: str
    view: DefinitionPanel
    alternatives: tuple[DefinitionPanel, ...]
    baselines: tuple[Curve, ...]
    extras: tuple[Curve, ...]
    stored: tuple[Curve, ...]
    maps: tuple[MapPanel, ...]
    run: tuple[Group, ...]
    probe_sets: tuple[ProbeSet, ...] = ()
    together: tuple[str, ...] = ()
    alarm: str = ""
    by_dse: str = ""
    go_back_to: str = ""
    layers: LayerMaps = field(default_factory=LayerMaps)
    across: str = ""
    pick_or_last: str = ""
    count: int = 0

    @property
    def thinned(self) -> bool:
        """Whether the page shows a part of the checkpoints."""
        return len(self.checkpoints) < self.count

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """The checkpoints that are shown by step, the failed ones included."""
        return self.view.checkpoints

    @property
    def columns(self) -> tuple[Curve, ...]:
        """The series of the main table: those of the definition, then the others."""
        view = self.view
        others = (other.dse for other in self.alternatives)
        curves = (
            view.dse,
            view.separability,
            view.effective_rank,
            *self.extras,
            *others,
            *self.baselines,
        )
        return tuple(curve for curve in curves if not curve.empty)


def build_report_data(
    records: Sequence[ScoreRecord] | RunTable,
    selection: Selection | None,
    previews: Previews | None = None,
    run: Mapping[str, Any] | None = None,
    *,
    alternatives: Sequence[Selection] = (),
    extras: Mapping[Heading, Mapping[str, Estimate]] | None = None,
    cluster: Cluster | None = None,
    probe_sets: Sequence[ProbedSet] = (),
    together: Sequence[str] = (),
    alarm: Alarm | None = None,
) -> ReportData:
    """Gather what the page shows.

    Args:
        records: the run, in any order, or its table; failed checkpoints are named with their
            reason.
        selection: the choice made from them, which leads the page; ``None`` when no checkpoint
            has a score to choose by.
        previews: patch features for the maps; :func:`preview_names` says of which checkpoints.
        run: settings and provenance; ``run["title"]`` names the run, mappings become groups.
        alternatives: choices by other definitions or layers, shown below.
        extras: further series by checkpoint name, e.g. mIoU of a probe.
        cluster: replaces the k-means of the cluster maps: points and a number to labels.
        probe_sets: labelled probes of the run and what was found in them.
        together: sentences about several labelled sets together.
        alarm: the one that stands at the end of the run.

    Returns:
        The data of one page, for :func:`~densescope.report.page.render_report`.
    """
    table = RunTable.of(records)
    ordered = _shown(table.records, selection, alternatives)
    level = selection.level if selection else LEVEL
    settings = dict(run or {})
    return ReportData(
        title=str(settings.pop("title", "Untitled run")),
        unit=table.unit,
        view=build_view(ordered, selection),
        alternatives=tuple(build_view(ordered, other) for other in alternatives),
        baselines=_compared(table, ordered, selection.layer if selection else -1, level),
        extras=tuple(
            _curve(ordered, heading, series, level) for heading, series in (extras or {}).items()
        ),
        stored=_stored(ordered, level, selection.layer if selection else -1),
        maps=_maps(ordered, selection, previews, cluster),
        run=_groups(settings),
        probe_sets=_probe_sets(
            probe_sets,
            ordered,
            selection,
            {r.name for r in table.records} - {r.name for r in ordered},
        ),
        together=tuple(together),
        alarm="" if alarm is None else alarm.sentence,
        by_dse=_by_dse(alarm, selection),
        go_back_to=alarm.back_to if alarm and selection and alarm.overrules(selection) else "",
        layers=build_layer_maps(
            table, level, _shown(table.records, selection, alternatives, MOST_COLUMNS)
        ),
        count=len(table.records),
        across=(across_choices(table, layer=selection.layer) if selection else None) or "",
        pick_or_last=(pick_or_last(table, selection) if selection else None) or "",
    )


def _shown(
    records: Sequence[ScoreRecord],
    selection: Selection | None,
    alternatives: Sequence[Selection],
    most: int = MOST_SHOWN,
) -> Sequence[ScoreRecord]:
    """All records, or of a long run those the page speaks of and others at equal distances.

    A page of thousands takes a browser many seconds; the choice is made from all of them.
    """
    if len(records) <= most:
        return records
    named: set[str | None] = set()
    for chosen in filter(None, (selection, *alternatives)):
        named |= {chosen.pick, chosen.last, chosen.earliest_peak, *chosen.shortlist}
    step = -(-len(records) // (most - len(named)))
    return [record for i, record in enumerate(records) if i % step == 0 or record.name in named]


def preview_names(
    records: Sequence[ScoreRecord] | RunTable, selection: Selection
) -> tuple[str, ...]:
    """The checkpoints whose previews are shown: the first scored one, the pick and the last."""
    return tuple(_roles(RunTable.of(records).records, selection))


def _by_dse(alarm: Alarm | None, selection: Selection | None) -> str:
    if alarm and selection and alarm.weighs_in(selection):
        return "the whole run, the fallen checkpoints included"
    return "the scored checkpoints"


def _maps(
    records: Sequence[ScoreRecord],
    selection: Selection | None,
    previews: Previews | None,
    cluster: Cluster | None,
) -> tuple[MapPanel, ...]:
    if previews is None or selection is None:
        return ()
    from densescope.report.maps import build_maps

    roles = _roles(records, selection)
    return build_maps(previews, roles, reference=selection.pick or "", cluster=cluster)


def _probe_sets(
    probe_sets: Sequence[ProbedSet],
    records: Sequence[ScoreRecord],
    selection: Selection | None,
    hidden: Container[str],
) -> tuple[ProbeSet, ...]:
    """With the probes of the checkpoints that are shown, and those without a value."""
    labels = _roles(records, selection, first=False) if selection else {}
    definition = selection.definition if selection else "released"
    return tuple(
        build_probe_set(
            replace(
                probe_set,
                probes=[p for p in probe_set.probes if p.name not in hidden or p.error],
            ),
            records,
            definition=definition,
            labels=labels,
        )
        for probe_set in probe_sets
    )


def _roles(
    records: Sequence[ScoreRecord], selection: Selection, *, first: bool = True
) -> dict[str, str]:
    """Name of each checkpoint that is shown -> what its row of maps is called, by step."""
    scored = [record for record in records if record.status == "scored"]
    wanted = {"first": scored[0].name if scored and first else "", "pick": selection.pick}
    wanted["last"] = selection.last
    labels = {}
    for record in scored:
        words = [role for role, name in wanted.items() if name == record.name]
        if words:
            labels[record.name] = f"{' and '.join(words)}, {record.unit} {record.step}"
    return labels


def _compared(
    table: RunTable, records: Sequence[ScoreRecord], layer: int, level: float
) -> tuple[Curve, ...]:
    """Metrics of the overview that belong to no definition of DSE."""
    parts = tuple(f"{definition}." for definition in DEFINITIONS)
    metrics = (m for m in METRICS.values() if m.overview and not m.name.startswith(parts))
    curves = (
        _curve(records, Heading.of(metric), table.column(metric.name, layer).series, level)
        for metric in metrics
    )
    return tuple(curve for curve in curves if not curve.empty)


def _stored(records: Sequence[ScoreRecord], level: float, own: int) -> tuple[Curve, ...]:
    """Every number in the records; of many layers those of one, as the maps have the others."""
    keys = {
        (layer, metric): None
        for record in records
        for layer, row in record.scores.items()
        for metric in row
    }
    layers = dict.fromkeys(layer for layer, _ in keys)
    if len(layers) > FEW_LAYERS:
        keys = {(layer, metric): None for layer, metric in keys if layer == str(own)}
    several = len(layers) > 1
    curves = []
    for layer, metric in keys:
        title = f"{metric} (layer {layer})" if several else metric
        series = {r.name: r.scores[layer][metric] for r in records if metric in _row(r, layer)}
        curves.append(_curve(records, Heading(title, title, title), series, level))
    return tuple(curves)


def _row(record: ScoreRecord, layer: str) -> Mapping[str, Estimate]:
    return record.scores.get(layer, {})


def _curve(
    records: Sequence[ScoreRecord], heading: Heading, series: Mapping[str, Estimate], level: float
) -> Curve:
    return Curve(heading, tuple(ShownValue.of(series.get(r.name), level) for r in records))


def _groups(settings: Mapping[str, Any], heading: str = "Run") -> tuple[Group, ...]:
    own = tuple(
        (str(key).replace("_", " "), _words(value))
        for key, value in settings.items()
        if not isinstance(value, Mapping)
    )
    groups: list[Group] = [(heading, own)] if own else []
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
