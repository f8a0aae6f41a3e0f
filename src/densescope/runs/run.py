"""A run folder as one table: what a script or a notebook reads."""

from __future__ import annotations

from pathlib import Path

from densescope.runs.store import RunStore
from densescope.selection import RunTable


def read_run(folder: Path | str, *, probes: bool = True) -> RunTable:
    """Read the folder that ``sweep``, ``watch`` or a monitor wrote.

    Args:
        folder: the run folder (the ``--output`` of the sweep).
        probes: whether the labelled probes are read; a choice needs none of them.

    Returns:
        Its records and probes in order of step.

    Raises:
        RecordError: the folder holds no run, no records, or a damaged one.

    Example:
        >>> read_run("scores").to_pandas()[["step", "dse"]]  # doctest: +SKIP
    """
    store = RunStore(folder)
    return RunTable.of(
        store.records(),
        store.probes() if probes else None,
        settings=store.manifest(),
        folder=store.folder,
    )
