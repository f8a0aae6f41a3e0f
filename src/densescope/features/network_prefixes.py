"""Where in a file networks of a known kind lie, whatever its layout."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from densescope.features.inert import Inert, module_state
from densescope.features.wrappers import without_wrappers

# One tensor per family that a network of it has, and other families' parts have not.
_SIGNS = re.compile(
    r"(|.*\.)(?:(?<!layers\.\d\.)blocks\.0\.attn\.qkv\.weight"
    r"|layer1\.0\.conv1\.weight"
    r"|transformer\.resblocks\.0\.attn\.in_proj_weight"
    r"|encoder\.layers\.encoder_layer_0\.ln_1\.weight"
    r"|4\.0\.conv1\.weight"  # the same in a Sequential
    r"|layers\.0\.blocks\.0\.attn\.qkv\.weight"
    r"|stages\.0\.(?:blocks\.)?0\.(?:dwconv|conv_dw)\.weight)"
)
MOST_VISITED, DEEPEST, LONGEST_NAME = 200_000, 32, 1000
# The slow copies of a network come first: they are what is evaluated.
_SLOW = re.compile(r"(?:^|[._])(?:ema|teacher|target|momentum)", re.IGNORECASE)


def flattened(content: Any) -> dict[str, Tensor]:
    """All tensors in nested dictionaries and modules, each named by its keys with dots between."""
    found: dict[str, Tensor] = {}
    waiting: list[tuple[str, int, Any]] = [("", 0, content)]
    visited = 0
    while waiting:
        place, depth, here = waiting.pop()
        inside = here if isinstance(here, Mapping) else module_state(here) or {}
        visited += 1 + len(inside)
        if visited > MOST_VISITED or depth > DEEPEST:  # dictionaries may hold each other
            continue
        for key, value in inside.items():
            name = f"{place}{key}"
            if isinstance(value, Tensor):
                found[name] = value
            elif isinstance(value, Mapping | Inert) and len(name) < LONGEST_NAME:
                waiting.append((f"{name}.", depth + 1, value))
    return found


def network_prefixes(names: Iterable[str]) -> list[str]:
    """Beginnings of names behind which a vision network of a known family follows.

    Example:
        >>> names = ["module.student.layer1.0.conv1.weight", "ema.layer1.0.conv1.weight"]
        >>> network_prefixes(names)
        ['ema.', 'student.']
    """
    found = {
        match.group(1) for name in names if (match := _SIGNS.fullmatch(without_wrappers(name)))
    }
    return sorted(found, key=lambda place: (not _SLOW.search(place), place))
