"""Mean and standard deviation of the images of a backbone, and the one rule that chooses them.

What ``--normalization`` (or ``BackboneSpec.normalization``) says comes first; then what is stored
with the weights (the preprocessor of a Transformers folder, the settings of ``densescope
pretrain``); then what the training code of the
format used; and ImageNet's for a format that belongs to no training code. The default of a timm
architecture is used only where it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from densescope.errors import CheckpointError

_FORMS = (
    "imagenet, architecture (the timm architecture's own), or MEAN/STD of three channels such as "
    "0.5,0.5,0.5/0.5,0.5,0.5"
)
ARCHITECTURE = "architecture"


@dataclass(frozen=True)
class Normalization:
    """Images are ``(pixels - mean) / std`` per channel, pixels from 0 to 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __str__(self) -> str:
        """As ``--normalization`` takes it: ``0.485,0.456,0.406/0.229,0.224,0.225``."""
        return "/".join(",".join(f"{value:g}" for value in part) for part in (self.mean, self.std))

    def to_json(self) -> dict[str, list[float]]:
        """Plain values for a record."""
        return {"mean": list(self.mean), "std": list(self.std)}


IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def parse_normalization(text: str) -> Normalization | None:
    """A normalization as a user writes it; ``None`` for ``"architecture"``.

    Raises:
        CheckpointError: it is none of the three forms.

    Example:
        >>> parse_normalization("0.5,0.5,0.5/0.5,0.5,0.5").std
        (0.5, 0.5, 0.5)
    """
    if text in ("imagenet", ARCHITECTURE):
        return IMAGENET if text == "imagenet" else None
    try:
        mean, std = (tuple(map(float, part.split(","))) for part in text.split("/"))
    except ValueError:
        mean, std = (), ()
    if len(mean) != 3 or len(std) != 3 or not all(0 < value < math.inf for value in std):
        raise CheckpointError(f"normalization {text!r} is none of: {_FORMS}")
    if not all(0 <= value <= 1 for value in mean) or max(std) > 1:
        in_units = Normalization(*(tuple(value / 255 for value in part) for part in (mean, std)))
        cure = f": for pixels up to 255 give {in_units}" if 2 < max(mean) <= 255 else ""
        raise CheckpointError(
            f"normalization {text!r} is not for pixels from 0 to 1, whose mean lies between 0 and "
            f"1 and whose standard deviation is at most 1{cure}"
        )
    return Normalization(mean, std)


def of_architecture(config: Mapping[str, Any]) -> Normalization:
    """The normalization of a timm architecture's pretrained configuration."""
    return Normalization(_floats(config["mean"]), _floats(config["std"]))


def of_preprocessor(stored: Mapping[str, Any]) -> Normalization | None:
    """Mean and deviation of the image processor in a Transformers folder, or ``None``."""
    if stored.get("do_normalize") is False:
        return Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    mean, std = stored.get("image_mean"), stored.get("image_std")
    return Normalization(_floats(mean), _floats(std)) if mean and std else None


def _floats(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(map(float, values))
