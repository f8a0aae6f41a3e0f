"""PASCAL VOC labels."""

from __future__ import annotations

_NAMES = """
background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog,
horse, motorbike, person, pottedplant, sheep, sofa, train, tvmonitor
"""
VOC2012 = tuple(_NAMES.strip().replace("\n", " ").split(", "))
