"""Truth and prediction of a labelled probe on a few images, with the classes they show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from densescope.errors import InputError
from densescope.report.maps import MapRow, Picture
from densescope.report.pictures import photo, png

IMAGES = 4
IGNORED = 255
MASK_PIXELS = 256
# Okabe and Ito (2008) without black, then each darker, then each lighter: neighbors in the list
# stay apart under the common color-vision deficiencies, and the most frequent classes come first.
_BASE = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (213, 94, 0),
    (86, 180, 233),
    (204, 121, 167),
    (240, 228, 66),
)
CLASS_COLORS = (
    *_BASE,
    (28, 33, 40),
    *(tuple(round(0.5 * part) for part in color) for color in _BASE),
    *(tuple(round(0.5 * part + 127.5) for part in color) for color in _BASE),
)
OTHER_COLOR = (150, 156, 164)
HATCH_COLOR = (196, 201, 208)


@dataclass(frozen=True)
class Masks:
    """What a probe drew on a few test images.

    Attributes:
        images: ``images 3 height width``, ``uint8``.
        truth: class numbers, ``images rows columns``, ``uint8``; 255 is ignored.
        predicted: checkpoint name -> the same of its prediction.

    Raises:
        InputError: shapes or dtypes are others than these, or do not fit each other.
    """

    images: Tensor
    truth: Tensor
    predicted: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        shape = tuple(self.images.shape)
        if self.images.dtype != torch.uint8 or len(shape) != 4 or shape[1] != 3 or 0 in shape:
            raise InputError(
                f"images under the masks are {self.images.dtype} of shape {shape}: "
                "give uint8 of shape (images, 3, height, width)"
            )
        expected = (shape[0], *self.truth.shape[1:])
        for name, mask in {"the truth": self.truth, **self.predicted}.items():
            found = tuple(mask.shape)
            if mask.dtype != torch.uint8 or len(found) != 3 or found != expected or 0 in found:
                raise InputError(
                    f"the masks of {name} are {mask.dtype} of shape {found}: give uint8 of shape "
                    "(images, rows, columns), as many and as large as the truth"
                )


@dataclass(frozen=True)
class LegendRow:
    """One class: its color, its name and its IoU at each checkpoint that is shown."""

    color: str
    name: str
    scores: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class MaskPanel:
    """Rows of pictures, the classes in them, and whose IoU the legend gives."""

    rows: tuple[MapRow, ...]
    legend: tuple[LegendRow, ...]
    heads: tuple[str, ...]
    ignored: bool
    others: int


def build_masks(
    masks: Masks,
    labels: Mapping[str, str],
    *,
    classes: Sequence[str] = (),
    scores: Mapping[str, Sequence[float | None]] | None = None,
) -> MaskPanel | None:
    """Image, truth and prediction of up to four images.

    Args:
        masks: what was drawn.
        labels: checkpoint name -> what its row is called; the order is that of the rows.
        classes: names by class number; classes beyond are shown by number.
        scores: checkpoint name -> IoU by class number, for the legend.

    Returns:
        The panel; ``None`` when no checkpoint of ``labels`` has a prediction.
    """
    shown = {name: masks.predicted[name][:IMAGES] for name in labels if name in masks.predicted}
    if not shown:
        return None
    truth = masks.truth[:IMAGES]
    order = _by_frequency(truth, *shown.values())
    palette = _palette(order)
    photos = (photo(image, grid=(1, 1)) for image in masks.images[:IMAGES])
    rows = [
        MapRow("image", tuple(Picture(uri, f"Test image {n}") for n, uri in enumerate(photos, 1))),
        _row("truth", truth, palette),
        *(_row(f"prediction, {labels[name]}", mask, palette) for name, mask in shown.items()),
    ]
    known = {name: (scores or {}).get(name, ()) for name in shown}
    heads = tuple(labels[name] for name in shown) if any(known.values()) else ()
    legend = tuple(
        LegendRow(
            "#{:02x}{:02x}{:02x}".format(*color),
            classes[number] if number < len(classes) else f"class {number}",
            tuple(_at(values, number) for values in known.values()) if heads else (),
        )
        for number, color in _colored(order)
    )
    return MaskPanel(
        rows=tuple(rows),
        legend=legend,
        heads=heads,
        ignored=bool((truth == IGNORED).any()),
        others=len(order) - len(legend),
    )


def _by_frequency(truth: Tensor, *predicted: Tensor) -> list[int]:
    """Class numbers that occur, those with most pixels of the truth first."""
    count, total = (
        torch.bincount(torch.cat([mask.flatten().long() for mask in group]), minlength=256)
        for group in ((truth,), (truth, *predicted))
    )
    present = [number for number in range(IGNORED) if total[number]]
    return sorted(present, key=lambda n: (-int(count[n]), -int(total[n]), n))


def _colored(order: Sequence[int]) -> Iterable[tuple[int, tuple[int, ...]]]:
    """The classes that have a color of their own; the gray of all others is the palette's."""
    return zip(order, CLASS_COLORS, strict=False)


def _palette(order: Sequence[int]) -> Tensor:
    palette = torch.tensor(OTHER_COLOR, dtype=torch.float32).repeat(256, 1)
    for number, color in _colored(order):
        palette[number] = torch.tensor(color, dtype=torch.float32)
    palette[IGNORED] = 255
    return palette


def _row(label: str, masks: Tensor, palette: Tensor) -> MapRow:
    stride = -(-max(masks.shape[1:]) // MASK_PIXELS)
    pictures = []
    for number, mask in enumerate(masks[:, ::stride, ::stride].long(), start=1):
        colors = palette[mask]
        rows, columns = (torch.arange(size) for size in mask.shape)
        hatch = (rows[:, None] + columns) % max(4, max(mask.shape) // 20) == 0
        colors[hatch & (mask == IGNORED)] = torch.tensor(HATCH_COLOR, dtype=torch.float32)
        pictures.append(Picture(png(colors), f"{label.capitalize()}, test image {number}"))
    return MapRow(label, tuple(pictures))


def _at(values: Sequence[float | None], number: int) -> float | None:
    return values[number] if number < len(values) else None
