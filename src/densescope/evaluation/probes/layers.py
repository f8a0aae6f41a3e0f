"""Probes of single layers, whose features all come from one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from densescope.errors import InputError
from densescope.evaluation.probes.repeated import run_engine
from densescope.evaluation.probes.row import EngineResult, ProbeTask
from densescope.evaluation.probes.splits import split_features


def with_features(task: ProbeTask, layers: Sequence[int]) -> ProbeTask:
    """The same task with the features of these layers and its own, each image read once.

    Raises:
        InputError: the protocol does not read patches that are computed once.
    """
    row = task.row
    if row.task == "classification":
        raise InputError(
            f"protocol {row.name} reads image vectors, which a backbone has once and not at every "
            "layer: leave out the layers, or use a protocol for masks or depth"
        )
    if not row.cached:
        raise InputError(
            f"protocol {row.name} computes features anew for every crop, so its layers would need "
            "as many trainings: use linear, or a protocol that is listed as cached"
        )
    everything = tuple(dict.fromkeys((*row.layers, *layers)))
    wide = replace(task, row=replace(row, layers=everything))
    parts = ("train",) if task.data.folds else ("train", "test")
    known = {part: split_features(wide, part) for part in parts}
    return replace(task, known=known)


def probe_of_layer(task: ProbeTask, layer: int, own: EngineResult) -> dict[str, Any]:
    """What a probe that reads one layer alone finds; for a record.

    Args:
        task: of :func:`with_features`.
        layer: one of its layers.
        own: what the protocol found with its own layers, which need not be probed twice.
    """
    alone = replace(task, row=replace(task.row, layers=(layer,)))
    found = own if task.row.layers == (layer,) else run_engine(alone)
    return {"values": list(found.values), "counts": [part.to_json() for part in found.counts]}
