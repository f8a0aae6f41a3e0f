"""Which metrics are computed: rows of ``METRICS`` or groups of them, by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from densescope.errors import InputError
from densescope.metrics.metric import Computation, Metric
from densescope.metrics.rows import METRICS

STRUCTURE = "dense_structure"  # the group that choices, alarms and kept checkpoints rest on


def groups() -> dict[str, tuple[str, ...]]:
    """Group -> the stored metrics that are computed together, where these are several."""
    made: dict[str, tuple[str, ...]] = {}
    for metric in METRICS.values():
        if isinstance(metric.made_by, Computation):
            name = metric.made_by.name
            made[name] = (*made.get(name, ()), metric.name)
    return {name: metrics for name, metrics in made.items() if metrics != (name,)}


def stored_metrics(names: Sequence[str] | None) -> tuple[str, ...]:
    """The stored metrics that some rows and groups need, in the order of ``METRICS``.

    What is computed together is stored together: a row brings its whole group.

    Args:
        names: rows of ``METRICS`` or groups; ``None`` is everything.

    Raises:
        InputError: there is no such row or group, no name at all, or one text in place of a list.
    """
    if names is None:
        return tuple(metric.name for metric in METRICS.values() if metric.is_stored)
    if isinstance(names, str):
        raise InputError(f"metrics is {names!r}; give a list of names, such as [{names!r}]")
    if not names:
        raise InputError("no metric is named; name at least one, or leave metrics away for all")
    made_by = {id(METRICS[row].made_by) for name in names for row in _parts(name, groups())}
    return tuple(metric.name for metric in METRICS.values() if id(metric.made_by) in made_by)


def computations(names: Sequence[str] | None) -> list[Computation]:
    """What computes the metrics of :func:`stored_metrics`, each once."""
    made = (METRICS[name].made_by for name in stored_metrics(names))
    return list({id(one): one for one in made if isinstance(one, Computation)}.values())


def find_metric(name: str) -> Metric:
    """The row of a metric.

    Raises:
        InputError: there is none of that name.
    """
    if name not in METRICS:
        raise InputError(_no_such(name, groups()))
    return METRICS[name]


def _parts(name: str, known: Mapping[str, Sequence[str]]) -> list[str]:
    """The stored rows that a row or a group is made of."""
    if name in known:
        return list(known[name])
    metric = find_metric(name)
    if metric.is_stored:
        return [name]
    return [part for row in metric.reads for part in _parts(row, known)]


def _no_such(name: str, known: Mapping[str, Sequence[str]]) -> str:
    titled = [row.name for row in METRICS.values() if row.title.lower() == name.lower()]
    parts = [row for row in METRICS if row.startswith(f"{name}_") or f".{name}_" in f"{row}_"]
    close = titled or parts or difflib.get_close_matches(name, [*METRICS, *known], n=1, cutoff=0.4)
    meant = f"; did you mean {close[0]}?" if close else "."
    return (
        f"no metric is named {name!r}{meant} There are the groups {', '.join(known)}, and the rows "
        "that densescope metrics lists"
    )
