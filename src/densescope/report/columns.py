"""What every metric is called on the page, in which unit, and how it is read."""

from __future__ import annotations

from dataclasses import dataclass

from densescope.report.readings import Column

_DEFINITIONS = {
    "released": (
        ("dse", "DSE", "DSE (no unit)"),
        ("separability", "Separability", "distance / mean spread"),
        ("dim", "Dimension", "fraction of full rank"),
    ),
    "paper": (
        ("dse", "DSE", "DSE (distance)"),
        ("separability", "Separability", "distance (unit vectors)"),
        ("dim", "Dimension", "effective rank (dimensions)"),
    ),
}
_ABOUT = {
    "dse": "Separability plus weighted dimension. Higher is better, within one run.",
    "separability": (
        "How far pseudo-classes of patches lie apart, minus how wide they are. "
        "It falls when classes run into each other."
    ),
    "dim": (
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


def part_column(definition: str, part: str) -> Column:
    """The column of one part of DSE (``"dse"``, ``"separability"``, ``"dim"``) in a definition."""
    known = PARTS.get(definition)
    if known is not None:
        return known[part]
    released = PARTS["released"][part]
    return Column(f"{definition}.{part}", released.title, released.title, _ABOUT[part])


@dataclass(frozen=True)
class Measure:
    """How the measure of a labelled probe is shown.

    Attributes:
        name: as in the records, row of :data:`densescope.agreement.measures.MEASURES`.
        title: its name on the page.
        axis: the axis title, with the unit.
        unit: of a difference; empty where it has none.
        scale: what a recorded value is multiplied by.
        better: one sentence on which way it is good; empty where that is not known.
    """

    name: str
    title: str
    axis: str
    unit: str = ""
    scale: int = 1
    better: str = ""

    @property
    def column(self) -> Column:
        """The column of its curve."""
        return Column(self.name, self.title, self.axis, self.better)


_HIGHER = "Higher is better."
MEASURES: dict[str, Measure] = {
    row.name: row
    for row in (
        Measure("miou", "mIoU", "mIoU (%)", "points", 100, _HIGHER),
        Measure("accuracy", "Accuracy", "accuracy (%)", "points", 100, _HIGHER),
        Measure("pixel_accuracy", "Pixel accuracy", "pixel accuracy (%)", "points", 100, _HIGHER),
        Measure("delta_1", "δ₁", "δ₁ (%)", "points", 100, _HIGHER),
        Measure("rmse", "RMSE", "RMSE (m)", "m", 1, "Lower is better."),
    )
}


def measure_of(name: str) -> Measure:
    """How a measure is shown; one that is not known is shown as recorded."""
    return MEASURES.get(name) or Measure(name, name, name)
