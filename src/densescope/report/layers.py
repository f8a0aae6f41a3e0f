"""Maps of layers by checkpoints: one table of shaded cells per metric and per set of probes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from densescope.evaluation.measures import measure_of
from densescope.metrics import METRICS
from densescope.records import ProbeRecord, ScoreRecord
from densescope.report.pictures import shade
from densescope.report.values import (
    MISSING,
    ShownValue,
    decimals_for,
    decimals_of_error,
    plain_value,
)
from densescope.selection.layers import (
    LEVEL,
    LayerGap,
    compares_layers,
    layers_of_record,
    same_shape,
)
from densescope.selection.run_table import RunTable

SHADES = 10  # the darkest
LIGHT_TEXT = 7  # from this shade on, text is white, else black
MANY = 12  # checkpoints whose numbers still fit into the cells
FIRST = "released.dse_lambda_1"  # DSE that compares between layers
Place = tuple[str, int]  # name and step of a checkpoint


@dataclass(frozen=True)
class LayerCell:
    """One checkpoint at one layer.

    Attributes:
        text: the value.
        full: the value and half its interval.
        shade: 0 for the worst value of the map to ``SHADES`` for the best; ``None`` without a
            finite value.
        is_best: whether this is the best layer of the checkpoint.
    """

    text: str
    full: str
    shade: int | None
    is_best: bool


@dataclass(frozen=True)
class LayerMap:
    """One metric over layers and checkpoints.

    Attributes:
        name: of the metric or set of probes.
        title: what it is called, with its unit.
        about: what it measures, and which way it is good.
        labelled: whether labels were used.
        checkpoints: the columns.
        rows: layer and its cells, the last layer first.
        gaps: below the columns: last minus best layer, half its interval, the best layer; each
            with its title and a text per checkpoint.
        worst: the value of the lightest cell.
        best: the value of the darkest cell.
    """

    name: str
    title: str
    about: str
    labelled: bool
    checkpoints: tuple[Place, ...]
    rows: tuple[tuple[int, tuple[LayerCell, ...]], ...]
    gaps: tuple[tuple[str, tuple[str, ...]], ...]
    worst: str
    best: str

    @property
    def is_dense(self) -> bool:
        """Whether there are too many checkpoints for numbers in the cells."""
        return len(self.checkpoints) > MANY


@dataclass(frozen=True)
class LayerMaps:
    """All maps of a run.

    Attributes:
        maps: those of probes first.
        note: a sentence about layers that are left out; empty where none is.
    """

    maps: tuple[LayerMap, ...] = ()
    note: str = ""


def build_layer_maps(
    table: RunTable, level: float, shown: Sequence[ScoreRecord] | None = None
) -> LayerMaps:
    """A map for each set of probes and each metric of which several layers were measured.

    Args:
        table: of the run.
        level: confidence of the intervals.
        shown: the checkpoints that have a column; all by default.
    """
    names = sorted(METRICS, key=lambda name: name != FIRST)
    columns = [record for record in (shown or table.records) if record.status == "scored"]
    maps = [_of_probes(table, name, columns) for name, held in table.probes.items() if held]
    maps += [
        _of_metric(table, name, level, columns) for name in names if compares_layers(METRICS[name])
    ]
    left_out = {layer for r in table.scored for layer in layers_of_record(r)}
    left_out -= {layer for r in table.scored for layer in same_shape(r)}
    note = ""
    if left_out:
        listed = ", ".join(plain_value(layer, 0) for layer in sorted(left_out))
        note = (
            f"Without layers {listed}: their patch grid or width is not that of the last layer, "
            "and the metrics depend on both."
        )
    if len(columns) < len(table.scored):
        part = f"The maps show {len(columns)} of {len(table.scored)} checkpoints."
        note = f"{part} {note}".strip()
    return LayerMaps(tuple(one for one in maps if one is not None), note)


def shade_css() -> str:
    """The colors of the cells, a class per shade: one hue, evenly darker."""
    colors = shade([number / SHADES for number in range(SHADES + 1)]).round().astype(int).tolist()
    rules = [
        f".h{number} {{ background: rgb({red} {green} {blue}); "
        f"color: {'#fff' if number >= LIGHT_TEXT else '#000'}; }}"
        for number, (red, green, blue) in enumerate(colors)
    ]
    return "\n".join(rules)


def _of_metric(
    table: RunTable, name: str, level: float, shown: Sequence[ScoreRecord]
) -> LayerMap | None:
    if len(table.layers) < 2:
        return None
    metric = METRICS[name]
    columns = {layer: table.column(name, layer).series for layer in table.layers}
    values = {
        record.name: {
            layer: value
            for layer in same_shape(record)
            if (value := ShownValue.of(columns[layer].get(record.name), level)) is not None
        }
        for record in shown
    }
    title = metric.short[:1].upper() + metric.short[1:]
    if "." in name:
        title += f", {name.split('.')[0]}"
    return _map(
        name,
        f"{title} ({metric.unit})",
        f"{metric.summary} {metric.direction}",
        shown,
        values,
        table.layer_gaps(name),
        metric.badness,
    )


def _of_probes(table: RunTable, name: str, shown: Sequence[ScoreRecord]) -> LayerMap | None:
    kept = {record.name for record in shown}
    records = [record for record in table.probes[name] if record.name in kept]
    if not records:
        return None
    measure = measure_of(records[0].measure)
    values = {
        record.name: {
            int(layer): ShownValue(measure.scale * fmean(found["values"]))
            for layer, found in record.layers.items()
        }
        for record in records
    }
    return _map(
        name,
        f"{measure.title}, {records[0].protocol} on {records[0].dataset} ({measure.unit})",
        f"A probe with labels that reads this layer alone. {str(measure.better).capitalize()} is "
        "better.",
        records,
        values,
        table.layer_gaps(name),
        lambda value: -measure.sign * value,
        scale=measure.scale,
    )


def _map(
    name: str,
    title: str,
    about: str,
    records: Sequence[ScoreRecord | ProbeRecord],
    values: Mapping[str, Mapping[int, ShownValue]],
    gaps: Mapping[str, LayerGap],
    badness: Callable[[float], float],
    *,
    scale: float = 1.0,
) -> LayerMap | None:
    """``None`` where no checkpoint has two layers."""
    if not any(record.name in gaps for record in records):
        return None
    shown = [record for record in records if values[record.name]]
    flat = [v for row in values.values() for v in row.values() if v.finite]
    ranked = sorted((v.value for v in flat), key=badness)
    best, worst = ranked[0], ranked[-1]
    decimals = decimals_for(v.value for v in flat)
    halves = [value.half for value in flat if value.half]
    decimals = min(decimals, decimals_of_error(min(halves))) if halves else decimals
    span = badness(worst) - badness(best)

    def cell(record: ScoreRecord | ProbeRecord, layer: int) -> LayerCell:
        value = values[record.name].get(layer)
        if value is None or not value.finite:
            return LayerCell(MISSING, "no value", None, False)
        share = (badness(worst) - badness(value.value)) / span if span else 0.5
        gap = gaps.get(record.name)
        return LayerCell(
            value.number(decimals),
            value.text(decimals + 1),
            round(SHADES * share),
            gap is not None and gap.best == layer,
        )

    order = layers_of_record(shown[0])
    kept = [layer for layer in order if any(layer in values[record.name] for record in shown)]
    return LayerMap(
        name,
        title,
        about,
        isinstance(shown[0], ProbeRecord),
        tuple((record.name, record.step) for record in shown),
        tuple((layer, tuple(cell(record, layer) for record in shown)) for layer in kept[::-1]),
        _gap_rows([gaps.get(record.name) for record in shown], scale),
        plain_value(worst, decimals),
        plain_value(best, decimals),
    )


def _gap_rows(
    gaps: Sequence[LayerGap | None], scale: float
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    def half(gap: LayerGap) -> str:
        low, high = gap.interval or (0.0, 0.0)
        return f"{scale * (high - low) / 2:.2g}" if gap.interval else MISSING

    texts: dict[str, Callable[[LayerGap], str]] = {
        "Last − best": lambda gap: f"{scale * gap.value:+.3g}" if gap.value else "0",
        f"± ({LEVEL:.0%})": half,
        "Best layer": lambda gap: str(gap.best),
    }
    return tuple(
        (title, tuple(MISSING if gap is None else _minus(text(gap)) for gap in gaps))
        for title, text in texts.items()
    )


def _minus(text: str) -> str:
    return text.replace("-", "−")
