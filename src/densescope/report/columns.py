"""What every metric is called on the page, in which unit, and how it is read."""

from __future__ import annotations

from dataclasses import replace

from densescope.agreement.measures import Measure
from densescope.report.readings import Column

_DEFINITIONS = {
    "released": (
        ("dse", "DSE", "DSE (no unit)"),
        ("separability", "Separability", "distance / mean spread"),
        ("effective_rank", "Effective rank", "fraction of full rank"),
    ),
    "paper": (
        ("dse", "DSE", "DSE (distance)"),
        ("separability", "Separability", "distance (unit vectors)"),
        ("effective_rank", "Effective rank", "dimensions"),
    ),
}
_ABOUT = {
    "dse": "Separability plus lambda times effective rank. Higher is better, within one run.",
    "separability": (
        "How far pseudo-classes of patches lie apart, minus how wide they are. "
        "It falls when classes run into each other."
    ),
    "effective_rank": (
        "How many directions the patch features use. It falls when the representation collapses."
    ),
}
PARTS = {
    definition: {
        part: Column(f"{definition}.{part}", title, axis, _ABOUT[part])
        for part, title, axis in rows
    }
    for definition, rows in _DEFINITIONS.items()
}

BASELINES = (
    Column(
        "rankme",
        "RankMe",
        "dimensions",
        "Effective rank of one vector per image. Higher is held to be better.",
    ),
    Column(
        "dense_rankme",
        "Dense RankMe",
        "dimensions",
        "The same of patches: dimension without separability.",
    ),
    Column(
        "alpha_req",
        "α-ReQ",
        "decay exponent",
        "How fast the eigenvalues decay. Near 1 is held to be best, not high or low.",
    ),
    Column(
        "lidar",
        "LiDAR",
        "dimensions",
        "Effective rank of what tells images apart, beyond augmentation. Higher is held to be "
        "better.",
    ),
    Column(
        "outlier_fraction",
        "Outlier patches",
        "fraction of patches",
        "Patches with a norm far above the rest; a sign of artifacts. Lower is better.",
    ),
)


def dse_column(definition: str, lambda_: float | None) -> Column:
    """The column of DSE with the lambda it has."""
    column = part_column(definition, "dse")
    return column if lambda_ is None else replace(column, title=f"DSE (λ = {lambda_:.3g})")


def part_column(definition: str, part: str) -> Column:
    """The column of DSE, ``"separability"`` or ``"effective_rank"`` in a definition."""
    known = PARTS.get(definition)
    if known is not None:
        return known[part]
    released = PARTS["released"][part]
    return Column(f"{definition}.{part}", released.title, released.title, _ABOUT[part])


def measure_column(measure: Measure) -> Column:
    """The column of the curve of a labelled probe."""
    axis = f"{measure.title} ({measure.unit})" if measure.unit else measure.title
    better = f"{measure.better.capitalize()} is better." if measure.better else ""
    return Column(measure.name, measure.title, axis, better)
