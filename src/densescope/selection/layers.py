"""The layers of one checkpoint compared: how far the last one is from the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from densescope.estimate import Estimate
from densescope.evaluation.measures import MEASURES
from densescope.layers import sorted_layers
from densescope.metrics import METRICS, Derivation, Metric
from densescope.records import ProbeRecord, ScoreRecord

if TYPE_CHECKING:
    from densescope.selection.run_table import RunTable

LEVEL = 0.95
Interval = tuple[float, float]


@dataclass(frozen=True)
class LayerGap:
    """Last minus best layer of one checkpoint, by a metric or a probe.

    The last layer is the last that was measured. Both layers saw the same images, so the interval
    is that of a paired difference. The best layer is the best that was seen: the interval does not
    cover that it was looked for.

    Attributes:
        last: the last layer.
        best: the best layer, by the direction of the metric.
        value: value at the last layer minus value at the best; 0 where the last is the best.
        interval: of the value at 95 %; ``None`` where the noise is not known.
    """

    last: int
    best: int
    value: float
    interval: Interval | None = None

    def text(self, scale: float = 1.0) -> str:
        """The difference, half of its interval, and in brackets the best layer.

        Example:
            >>> LayerGap(-1, -3, -0.031, (-0.035, -0.027)).text()
            '-0.031 ± 0.004 (-3)'
            >>> LayerGap(-1, -1, 0.0).text()
            '0 (-1)'
        """
        if self.best == self.last:
            return f"0 ({self.best})"
        value = f"{scale * self.value:+.3g}"
        if self.interval is not None:
            value += f" ± {scale * (self.interval[1] - self.interval[0]) / 2:.2g}"
        return f"{value} ({self.best})"


def layers_of_record(record: ScoreRecord | ProbeRecord) -> tuple[int, ...]:
    """The layers of a record, from the first block to the last."""
    held = record.scores if isinstance(record, ScoreRecord) else record.layers
    depth = (record.checkpoint.get("network") or {}).get("depth")
    return sorted_layers(map(int, held), depth)


def compares_layers(metric: Metric) -> bool:
    """Whether a metric has a number of its own at every layer, which compares between layers.

    Not so where it reads image vectors, of which a backbone has one, and where it is made of the
    other checkpoints: DSE has another lambda at every layer.
    """
    made = metric.made_by
    if isinstance(made, Derivation):
        return not made.over_run and all(compares_layers(METRICS[name]) for name in made.of)
    return made.reads == "patches"


def same_shape(record: ScoreRecord) -> tuple[int, ...]:
    """The layers whose patch grid and width are those of the last, in order.

    Metrics depend on both, so the stages of a ResNet or a Swin do not compare.
    """
    layers = layers_of_record(record)
    shapes = record.provenance.get("shapes") or {}
    last = shapes.get(str(layers[-1])) if layers else None
    return tuple(layer for layer in layers if shapes.get(str(layer)) == last)


def layer_gaps(table: RunTable, name: str) -> dict[str, LayerGap]:
    """See :meth:`~densescope.selection.run_table.RunTable.layer_gaps`."""
    if name in table.probes:
        found = {record.name: gap_of_probe(record) for record in table.probes[name]}
    elif len(table.layers) < 2:
        found = dict.fromkeys(table.column(name).series)
    else:
        columns = {layer: table.column(name, layer) for layer in table.layers}
        metric = columns[table.last_layer].metric
        found = {
            record.name: gap_of_metric(
                metric,
                {
                    layer: columns[layer].series[record.name]
                    for layer in same_shape(record)
                    if record.name in columns[layer].series
                },
            )
            for record in table.scored
            if compares_layers(metric)
        }
    return {name: gap for name, gap in found.items() if gap is not None}


def gap_of_metric(metric: Metric, values: Mapping[int, Estimate]) -> LayerGap | None:
    """Last minus best layer of one checkpoint.

    Args:
        metric: says which value is best.
        values: layer -> value, the last layer last.

    Returns:
        ``None`` where fewer than two layers have a finite value, or the last has none.
    """

    def change(last: int, best: int) -> tuple[float, Interval | None]:
        difference = values[last].minus(values[best])
        return difference.value, difference.interval(LEVEL)

    finite = {layer: e.value for layer, e in values.items() if math.isfinite(e.value)}
    if not values or tuple(values)[-1] not in finite:
        return None
    return _gap({layer: metric.badness(value) for layer, value in finite.items()}, change)


def gap_of_probe(record: ProbeRecord) -> LayerGap | None:
    """Last minus best layer of one checkpoint, by probes that read one layer each.

    Returns:
        ``None`` where fewer than two layers were probed, or it is not known which way the measure
        is good.

    Raises:
        RecordError: the record is damaged.
    """
    values = {
        layer: fmean(record.layers[str(layer)]["values"]) for layer in layers_of_record(record)
    }

    def change(last: int, best: int) -> tuple[float, Interval | None]:
        difference = values[last] - values[best]
        if not record.images or not record.layers[str(last)].get("counts"):
            return difference, None
        from densescope.evaluation.uncertainty import ProbedImages, paired_difference

        first, second = (
            ProbedImages.from_json({**record.images, "counts": record.layers[str(layer)]["counts"]})
            for layer in (best, last)
        )
        return difference, paired_difference([first], [second], level=LEVEL).interval

    better = MEASURES[record.measure].better if record.measure in MEASURES else None
    if better is None:
        return None
    sign = -1 if better == "higher" else 1
    return _gap({layer: sign * value for layer, value in values.items()}, change)


def _gap(
    badness: Mapping[int, float], change: Callable[[int, int], tuple[float, Interval | None]]
) -> LayerGap | None:
    if len(badness) < 2:
        return None
    *_, last = badness
    best = min(reversed(tuple(badness)), key=lambda layer: badness[layer])
    if best == last:
        return LayerGap(last, best, 0.0)
    return LayerGap(last, best, *change(last, best))
