"""Every label-free metric of the checkpoints of one run, as one table that all else reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densescope.definitions import check_definition
from densescope.errors import InputError, RecordError
from densescope.metrics import METRICS, Derivation, Metric
from densescope.metrics.lambdas import dse_name, lambda_rule, weighted_sum
from densescope.records import ProbeRecord, ScoreRecord
from densescope.selection.columns import Column, DensePoint, derived_column
from densescope.selection.layers import LayerGap, layer_gaps, layers_of_record
from densescope.selection.schedule import ScheduleBreak, schedule_breaks
from densescope.selection.traits import check_same_run

if TYPE_CHECKING:
    from pandas import DataFrame

    from densescope.selection.result import Selection

PARTS = ("inter", "intra", "effective_rank")  # of DSE


@dataclass(frozen=True, eq=False, repr=False)
class RunTable:
    """Everything measured of a run: a row per checkpoint, a column per metric, labelled probes.

    Made once from the records, checked once; selection, alarm, correlation, report and the tables
    of the command read it.

    Attributes:
        records: of all checkpoints in order of step, the failed ones included.
        probes: ``<dataset>-<protocol>`` -> one record per probed checkpoint, in order of step.
        settings: what all records share: backbone, images, settings of the metrics; empty where
            the table was not read from a run folder.
        folder: the run folder, or ``None``.

    Example:
        >>> table = densescope.read_run("scores")  # doctest: +SKIP
        >>> table.selection().pick  # doctest: +SKIP
        'checkpoint0030.pth'
        >>> table.column("rankme").finite["checkpoint0030.pth"].value  # doctest: +SKIP
        41.2
    """

    records: tuple[ScoreRecord, ...]
    probes: Mapping[str, tuple[ProbeRecord, ...]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    _points: dict[tuple[str, int], tuple[DensePoint, ...]] = field(default_factory=dict, repr=False)
    _columns: dict[tuple[str, int], Column] = field(default_factory=dict, repr=False)
    _sums: dict[tuple[str, int], Column] = field(default_factory=dict, repr=False)
    _selections: dict[tuple[str, int, str], Selection] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        records: Sequence[ScoreRecord] | RunTable,
        probes: Mapping[str, Sequence[ProbeRecord]] | None = None,
        *,
        settings: Mapping[str, Any] | None = None,
        folder: Path | None = None,
    ) -> RunTable:
        """The table of some records; a table is returned as it is.

        Args:
            records: of one run, in any order.
            probes: of the same run, by labelled set and protocol.
            settings: what all records share.
            folder: where the run lies.

        Raises:
            RecordError: two scored records of one name, or that differ in format, architecture,
                weights, images, image size or settings.
        """
        if isinstance(records, RunTable):
            return records
        ordered = tuple(sorted(records, key=_position))
        check_same_run([record for record in ordered if record.status == "scored"])
        labelled = {name: tuple(sorted(r, key=_position)) for name, r in (probes or {}).items()}
        return cls(ordered, labelled, settings or {}, folder)

    @cached_property
    def scored(self) -> tuple[ScoreRecord, ...]:
        """The records of the checkpoints that have numbers."""
        return tuple(record for record in self.records if record.status == "scored")

    @cached_property
    def schedule_breaks(self) -> tuple[ScheduleBreak, ...]:
        """Where the files stop telling of one training; see :func:`schedule_breaks`."""
        return schedule_breaks(self.records)

    @property
    def unit(self) -> str:
        """What a step is: ``"epoch"``, ``"step"``, or ``"checkpoint number"`` where not known."""
        return self.records[0].unit if self.records else "step"

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """The layers that were scored, from the first block to the last."""
        return layers_of_record(self.scored[0]) if self.scored else ()

    @property
    def last_layer(self) -> int:
        """The last block that was scored, ``-1`` where that is the last of the backbone."""
        return self.layers[-1] if self.layers else -1

    def layer_gaps(self, name: str) -> dict[str, LayerGap]:
        """Last minus best layer of every checkpoint, by one metric or one set of probes.

        Args:
            name: row of ``METRICS``, or key of ``probes``.

        Returns:
            Name of the checkpoint -> difference; empty where fewer than two layers were measured,
            or the metric does not compare between layers.

        Raises:
            RecordError: no such metric or set of probes.
        """
        return layer_gaps(self, name)

    def column(self, metric: str, layer: int = -1) -> Column:
        """One metric over the run.

        Args:
            metric: row of ``METRICS``.
            layer: the block whose features were scored.

        Returns:
            The column, empty and with a note where no checkpoint has this metric.

        Raises:
            RecordError: there is no such metric, or its parts have unequal numbers of replicates.
        """
        if metric not in METRICS:
            raise RecordError(f"no metric is named {metric!r}; there are: {', '.join(METRICS)}")
        if (metric, layer) not in self._columns:
            self._columns[metric, layer] = self._made(METRICS[metric], layer)
        return self._columns[metric, layer]

    def metrics(self, layer: int = -1) -> list[Metric]:
        """The rows of ``METRICS`` whose numbers, or whose parts, some checkpoint has."""
        return [metric for metric in METRICS.values() if self._is_scored(metric, layer)]

    def _is_scored(self, metric: Metric, layer: int) -> bool:
        if isinstance(metric.made_by, Derivation):
            return all(self._is_scored(METRICS[name], layer) for name in metric.made_by.of)
        return bool(self.column(metric.name, layer).series)

    def points(self, definition: str = "released", layer: int = -1) -> tuple[DensePoint, ...]:
        """The parts of DSE of every scored checkpoint, in order of step.

        Raises:
            InputError: an unknown definition.
            RecordError: a scored checkpoint lacks this definition or layer.
        """
        check_definition(definition)
        if (definition, layer) not in self._points:
            self._points[definition, layer] = self._found_points(definition, layer)
        return self._points[definition, layer]

    def _found_points(self, definition: str, layer: int) -> tuple[DensePoint, ...]:
        names, key = [f"{definition}.{part}" for part in PARTS], str(layer)
        for record in self.scored:
            for name in names:
                if record.scores.get(key) and name not in record.scores[key]:
                    raise RecordError(_no_parts(record, definition, layer))
                record.estimate(name, layer)
        separability = self.column(f"{definition}.separability", layer).series
        rank = self.column(f"{definition}.effective_rank", layer).series
        return tuple(
            DensePoint(r.name, r.step, r.unit, separability[r.name], rank[r.name])
            for r in self.scored
        )

    def dse(self, definition: str, layer: int = -1, lambda_choice: str | None = None) -> Column:
        """DSE by one definition and one rule for lambda; empty and with a note without a lambda.

        Raises:
            InputError: as :func:`~densescope.metrics.lambdas.lambda_rule`.
            RecordError: the parts have unequal numbers of replicates.
        """
        rule = lambda_rule(definition, lambda_choice).name
        whole = METRICS[dse_name(definition, rule)]
        if (whole.name, layer) not in self._sums:
            parts = (f"{definition}.separability", f"{definition}.effective_rank")
            made_by = Derivation(parts, partial(weighted_sum, definition, rule))
            columns = [self.column(part, layer) for part in parts]
            self._sums[whole.name, layer] = derived_column(whole, made_by, columns)
        return self._sums[whole.name, layer]

    def selection(
        self, *, definition: str = "released", layer: int = -1, lambda_choice: str | None = None
    ) -> Selection:
        """The choice among the checkpoints, made once; see :func:`select_checkpoints`.

        Raises:
            InputError: an unknown definition or rule for lambda.
            RecordError: nothing was scored, or not in this definition or at this layer.
        """
        from densescope.selection.select import select_checkpoints

        key = (definition, layer, lambda_rule(definition, lambda_choice).name)
        if key not in self._selections:
            self._selections[key] = select_checkpoints(
                self, definition=definition, layer=layer, lambda_choice=lambda_choice
            )
        return self._selections[key]

    def rows(self, *, definition: str = "released", layer: int = -1) -> list[dict[str, Any]]:
        """One flat row per scored checkpoint, as ``densescope select --write`` writes it.

        Args:
            definition: of ``dse``, ``separability`` and ``effective_rank``.
            layer: whose numbers.

        Returns:
            Column to value: place, lambda, DSE and its parts, marks of the choice, every stored
            number with ``_low`` and ``_high``, and a column per set of probes.

        Raises:
            RecordError: as :meth:`selection`.
        """
        from densescope.selection.table import flat_rows

        return flat_rows(self, self.selection(definition=definition, layer=layer))

    def to_pandas(self, *, definition: str = "released", layer: int = -1) -> DataFrame:
        """:meth:`rows` as a data frame.

        Raises:
            InputError: pandas is not installed.
            RecordError: as :meth:`selection`.
        """
        from densescope.selection.table import flat_columns, flat_rows

        try:
            import pandas
        except ImportError as cause:
            raise InputError(
                "a data frame needs pandas: pip install 'densescope[pandas]', or take rows()"
            ) from cause
        chosen = self.selection(definition=definition, layer=layer)
        columns = list(flat_columns(self, chosen))
        return pandas.DataFrame(flat_rows(self, chosen), columns=columns)

    def __repr__(self) -> str:
        return f"RunTable({len(self.records)} checkpoints, {len(self.scored)} scored)"

    def _repr_html_(self) -> str:
        from densescope.selection.notebook import html_table

        return html_table(self)

    def _made(self, metric: Metric, layer: int) -> Column:
        if isinstance(metric.made_by, Derivation):
            columns = [self.column(name, layer) for name in metric.made_by.of]
            return derived_column(metric, metric.made_by, columns)
        key = str(layer)
        series = {
            record.name: record.scores[key][metric.name]
            for record in self.scored
            if metric.name in record.scores.get(key, {})
        }
        note = None if series else f"{metric.name} was not scored at layer {layer}"
        return Column(metric, series, note)


def _no_parts(record: ScoreRecord, definition: str, layer: int) -> str:
    has = ", ".join(sorted(record.scores[str(layer)]))
    return (
        f"{record.name} has no {definition}.inter at layer {layer}; it has: {has}. A sweep with "
        "the same --output that computes dense_structure (--metrics) adds it"
    )


def _position(record: ScoreRecord | ProbeRecord) -> tuple[int, str]:
    return record.step, record.name
