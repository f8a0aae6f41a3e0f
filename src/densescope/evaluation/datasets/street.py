"""Cityscapes and CamVid labels: street scenes."""

from __future__ import annotations

# Official ids 0-33 in order; ``*`` marks the 19 classes that the benchmark evaluates.
_CITYSCAPES = """
unlabeled, ego vehicle, rectification border, out of roi, static, dynamic, ground, road*,
sidewalk*, parking, rail track, building*, wall*, fence*, guard rail, bridge, tunnel, pole*,
polegroup, traffic light*, traffic sign*, vegetation*, terrain*, sky*, person*, rider*, car*,
truck*, bus*, caravan, trailer, train*, motorcycle*, bicycle*
"""
FIRST_NON_VOID = 7
CITYSCAPES = tuple(_CITYSCAPES.strip().replace("\n", " ").split(", "))

_CAMVID = (
    "sky, building, pole, road, pavement, tree, sign symbol, fence, car, pedestrian, bicyclist"
)
CAMVID = tuple(_CAMVID.split(", "))
CAMVID_VOID = 11


def cityscapes_19() -> tuple[tuple[str, ...], dict[int, int]]:
    """Names and ``id -> train id`` of the benchmark's classes."""
    kept = [label for label, name in enumerate(CITYSCAPES) if name.endswith("*")]
    names = tuple(CITYSCAPES[label].rstrip("*") for label in kept)
    return names, {label: index for index, label in enumerate(kept)}


def cityscapes_27() -> tuple[tuple[str, ...], dict[int, int]]:
    """Names and ``id -> class`` of all classes but the seven void ones."""
    names = tuple(name.rstrip("*") for name in CITYSCAPES[FIRST_NON_VOID:])
    return names, {FIRST_NON_VOID + index: index for index in range(len(names))}
