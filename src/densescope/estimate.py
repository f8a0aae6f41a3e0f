"""A number with what is needed to say how far it can be trusted."""

from __future__ import annotations

import math
import operator
import struct
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, cast

from densescope.errors import InputError

LARGEST = 1e100  # of a stored number


@dataclass(frozen=True)
class Sample:
    """Some of the values that a number is the mean of; another number is made of them.

    Attributes:
        of: which values they are, in words; two samples compare only where it is the same.
        values: equally many of each block of images, block after block, in half precision.
    """

    of: str
    values: tuple[float, ...]

    def to_json(self) -> dict[str, str]:
        """Plain values for a JSON document: half-precision numbers in base64."""
        packed = struct.pack(f"<{len(self.values)}e", *self.values)
        return {"of": self.of, "values": b64encode(packed).decode("ascii")}

    @classmethod
    def from_json(cls, document: Mapping[str, str]) -> Sample:
        """The inverse of :meth:`to_json`.

        Raises:
            TypeError, ValueError: it is no such document.
        """
        packed = b64decode(document["values"], validate=True)
        if len(packed) % 2:
            raise ValueError(f"{len(packed)} bytes are no half-precision numbers")
        values = struct.unpack(f"<{len(packed) // 2}e", packed)
        if not isinstance(document["of"], str) or not all(map(math.isfinite, values)):
            raise ValueError("a sample lacks its name, or its values are not finite")
        return cls(document["of"], values)


@dataclass(frozen=True)
class Estimate:
    """A number of one checkpoint with its leave-one-block-out replicates.

    The images are cut into ``G`` disjoint blocks; replicate ``i`` is the number without block
    ``i``. As all checkpoints of a run see the same images and the same blocks, replicates of
    two checkpoints can be paired, which removes the noise they share.

    Attributes:
        value: the number on all images.
        replicates: its ``G`` leave-one-block-out values; empty when there are too few images.
        seed_spread: standard deviation of the number over clustering seeds; ``None`` where
            no clustering enters or one seed was used.
        note: a warning that travels with the number, or ``None``.
        sample: values of which it is the mean, kept for other numbers, or ``None``.

    Source: delete-a-group jackknife, Kott (2001), "The Delete-a-Group Jackknife".

    Example:
        >>> a = Estimate(1.0, (0.9, 1.0, 1.1))
        >>> round(a.standard_error, 4)
        0.1155
    """

    value: float
    replicates: tuple[float, ...] = ()
    seed_spread: float | None = None
    note: str | None = None
    sample: Sample | None = None

    @cached_property
    def standard_error(self) -> float | None:
        """Jackknife standard error, ``sqrt((G - 1) / G * sum (r_i - mean r)^2)``, or ``None``."""
        return jackknife_standard_error(self.replicates)

    def interval(self, level: float = 0.95) -> tuple[float, float] | None:
        """Student-t interval with ``G - 1`` degrees of freedom, or ``None`` without replicates."""
        error = self.standard_error
        if error is None:
            return None
        half = student_quantile(level, len(self.replicates) - 1) * error
        return self.value - half, self.value + half

    def minus(self, other: Estimate) -> Estimate:
        """Difference of two estimates on the same blocks of images, replicate by replicate.

        Raises:
            InputError: the two were computed on different numbers of blocks.
        """
        if len(self.replicates) != len(other.replicates):
            raise InputError(
                f"cannot pair {len(self.replicates)} with {len(other.replicates)} replicates: "
                "score both checkpoints on the same images with the same settings"
            )
        paired = tuple(map(operator.sub, self.replicates, other.replicates))
        return Estimate(self.value - other.value, paired)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON document; empty fields are left out."""
        document: dict[str, Any] = {"value": self.value}
        if self.replicates:
            document["replicates"] = list(self.replicates)
        if self.seed_spread is not None:
            document["seed_spread"] = self.seed_spread
        if self.note is not None:
            document["note"] = self.note
        if self.sample is not None:
            document["sample"] = self.sample.to_json()
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Estimate:
        """The inverse of :meth:`to_json`.

        Raises:
            TypeError, ValueError, KeyError: a field is missing, of another type, or a number that
                no features have.
        """
        spread, note = document.get("seed_spread"), document.get("note")
        if note is not None and not isinstance(note, str):
            raise TypeError(f"note is {type(note).__name__}")
        return cls(
            value=number(document["value"]),
            replicates=_numbers(document.get("replicates", ())),
            seed_spread=None if spread is None else number(spread),
            note=note,
            sample=Sample.from_json(document["sample"]) if "sample" in document else None,
        )


def _numbers(values: Sequence[float | None]) -> tuple[float, ...]:
    """Many of them; records of a long run hold millions."""
    if set(map(type, values)) == {float}:
        found = cast("Sequence[float]", values)
        if min(found) >= -LARGEST and max(found) <= LARGEST:
            return tuple(found)
    return tuple(map(number, values))


def number(value: float | None) -> float:
    """A stored number; ``None`` stands for NaN.

    Raises:
        TypeError: it is none.
        ValueError: it is so large that its square is infinite: no features have such numbers.
    """
    if type(value) is float and -LARGEST <= value <= LARGEST:
        return value
    if value is None:
        return math.nan
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"a number is {type(value).__name__}")
    if abs(value) > LARGEST:
        raise ValueError(f"the number {value:.3g} is too large")
    return float(value)


def jackknife_standard_error(replicates: tuple[float, ...]) -> float | None:
    """Standard error from leave-one-block-out values; ``None`` for fewer than two of them."""
    count = len(replicates)
    if count < 2:
        return None
    center = math.fsum(replicates) / count
    return math.sqrt((count - 1) / count * sum([(value - center) ** 2 for value in replicates]))


@lru_cache(maxsize=4096)
def student_quantile(level: float, degrees_of_freedom: float) -> float:
    """Two-sided Student-t quantile, e.g. 2.13 for ``level=0.95`` and 15 degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees_of_freedom, (1 + level) / 2))
