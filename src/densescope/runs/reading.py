"""A scored run as one object: what a script or a notebook reads of a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densescope.errors import InputError
from densescope.records import ProbeRecord, ScoreRecord
from densescope.runs.store import RunStore
from densescope.selection import Selection, select_checkpoints
from densescope.selection.table import selection_table, table_columns

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Run:
    """Everything a run folder holds, in order of step.

    Attributes:
        folder: where it lies.
        settings: what all records share: backbone, images, settings of the scores.
        records: one per checkpoint, the failed ones included.
        probes: room (``<dataset>-<protocol>``) to one record per probed checkpoint.
    """

    folder: Path
    settings: Mapping[str, Any]
    records: tuple[ScoreRecord, ...]
    probes: Mapping[str, tuple[ProbeRecord, ...]]

    def selection(self, *, definition: str = "released", layer: int = -1) -> Selection:
        """The choice among the checkpoints; see :func:`densescope.select_checkpoints`.

        Raises:
            RecordError: nothing was scored, or not in this definition or at this layer.
        """
        return select_checkpoints(self.records, definition=definition, layer=layer)

    def table(self, *, definition: str = "released", layer: int = -1) -> list[dict[str, Any]]:
        """One flat row per scored checkpoint, as ``densescope select --write`` writes it.

        Args:
            definition: of ``dse``, ``separability`` and ``dim``.
            layer: whose numbers.

        Returns:
            Column to value: place, lambda, DSE and its parts, marks of the choice, every stored
            number with ``_low`` and ``_high``, and a column per room of probes.

        Raises:
            RecordError: as :meth:`selection`.
        """
        chosen = self.selection(definition=definition, layer=layer)
        return selection_table(chosen, self.records, self.probes)

    def to_pandas(self, *, definition: str = "released", layer: int = -1) -> DataFrame:
        """:meth:`table` as a data frame.

        Raises:
            InputError: pandas is not installed.
            RecordError: as :meth:`selection`.
        """
        try:
            import pandas
        except ImportError as cause:
            raise InputError(
                "a data frame needs pandas: pip install 'densescope[pandas]', or take table()"
            ) from cause
        chosen = self.selection(definition=definition, layer=layer)
        columns = table_columns(chosen, self.records, self.probes)
        rows = selection_table(chosen, self.records, self.probes)
        return pandas.DataFrame(rows, columns=list(columns))


def read_run(folder: Path | str) -> Run:
    """Read the folder that ``sweep``, ``watch`` or a monitor wrote.

    Args:
        folder: the run folder (the ``--output`` of the sweep).

    Returns:
        Its records and probes in order of step.

    Raises:
        RecordError: the folder holds no run, no records, or a damaged one.

    Example:
        >>> read_run("scores").to_pandas()[["step", "dse"]]  # doctest: +SKIP
    """
    store = RunStore(folder)
    probes = {room: tuple(records) for room, records in store.probes().items()}
    return Run(store.folder, store.manifest(), tuple(store.records()), probes)
