"""Which blocks of a backbone are meant: some by number, or all of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from densescope.errors import OptionError

ALL: Literal["all"] = "all"
Layers = tuple[int, ...] | Literal["all"]
"""Blocks by number, those below 0 counted from the last; or ``"all"``."""


def resolve_layers(layers: Layers, depth: int | None) -> tuple[int, ...]:
    """The blocks that are meant in a backbone with this many.

    Args:
        layers: as asked for; ``"all"`` becomes ``-depth`` to ``-1``, so that the last is always
            ``-1``.
        depth: number of blocks, or ``None`` where a backbone does not say: then the numbers are
            taken as they are.

    Raises:
        OptionError: a block does not exist or is named twice, or all are asked for and their
            number is not known.

    Example:
        >>> resolve_layers("all", 3), resolve_layers((0, -1), 3)
        ((-3, -2, -1), (0, -1))
    """
    if layers == ALL:
        if not depth:
            raise OptionError(
                "layers all is not possible: this backbone does not say how many blocks it has. "
                "Name the layers, such as -2,-1, or give the backbone an attribute depth"
            )
        return tuple(range(-depth, 0))
    asked = layers
    if depth is not None:
        found: dict[int, int] = {}
        for layer in asked:
            same = found.setdefault(block_of(layer, depth), layer)
            if same != layer:
                raise OptionError(
                    f"layers {same} and {layer} are the same block: this backbone has {depth}; "
                    "name it once"
                )
    return asked


def block_of(layer: int, depth: int) -> int:
    """The number of a block counted from 0.

    Raises:
        OptionError: there is no such block.
    """
    if not -depth <= layer < depth:
        raise OptionError(
            f"layer {layer} does not exist: this backbone has {depth} "
            f"(0 to {depth - 1}, or -1 to -{depth})"
        )
    return layer % depth


def sorted_layers(layers: Iterable[int], depth: int | None) -> tuple[int, ...]:
    """Layers from the first block to the last.

    Where the depth is not known, those that count from the last come after the others.

    Example:
        >>> sorted_layers((-1, 3, -12), 12), sorted_layers((-1, 3), None)
        ((-12, 3, -1), (3, -1))
    """

    def place(layer: int) -> tuple[bool, int]:
        return (layer < 0, layer) if depth is None else (False, layer % depth)

    return tuple(sorted(layers, key=place))
