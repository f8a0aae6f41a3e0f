"""From what a file holds to the tensors of its backbone: walk, keep, strip, drop, rename."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor

from densescope.errors import CheckpointError
from densescope.features.checkpoints import Container
from densescope.features.formats import Format, Weights
from densescope.features.formats.row import EMA
from densescope.features.inert import module_state
from densescope.features.network_prefixes import flattened
from densescope.features.wrappers import keys_without_wrappers, without_wrappers

_SHOWN = 4
STEPS = ("read", "path", "prefix", "architecture", "load")
LAYOUT_STEPS = ("path", "prefix")  # an error of these names the formats that would fit
# DeepSpeed keeps the state of what it trains under this key, beside its own settings.
_ENGINE = "module"
_STATE = ("state_dict", "model")


class StepError(CheckpointError):
    """A checkpoint does not fit its format; ``step`` names the stage that found nothing."""

    def __init__(self, step: str, message: str, *, is_of_option: bool = False) -> None:
        super().__init__(message)
        self.step = step
        self.is_of_option = is_of_option or step == "architecture"

    def with_advice(self, advice: str) -> StepError:
        """The same with more to say."""
        return StepError(self.step, f"{self}{advice}", is_of_option=self.is_of_option)


@dataclass(frozen=True)
class Coverage:
    """What of a file was used, and what was left out.

    Attributes:
        weights: the chosen set of weights.
        path: keys walked to it.
        prefix: beginning of the names that was kept and stripped.
        matched: tensors loaded into the architecture, which has exactly as many.
        dropped: (pattern, reason, tensors) left out on purpose inside the prefix.
        outside: tensors beside the prefix, such as heads, predictors and other networks.
        positions: ``None``, or (trained size, evaluation size) in pixels when position embeddings
            were resampled between them.
        averaged: key of averaged weights that lie beside those used; ``""`` where there are none.
    """

    weights: str
    path: tuple[str, ...]
    prefix: str
    matched: int
    dropped: tuple[tuple[str, str, int], ...] = ()
    outside: int = 0
    positions: tuple[int, int] | None = None
    averaged: str = ""

    def beginning_of(self, row: Format) -> str:
        """The prefix that was removed from names, as ``--weights`` of a format takes it."""
        others = {EMA.name, *(chosen.name for chosen in row.weights[1:])}
        return ".".join((*self.path, self.prefix)) if self.weights in others else self.prefix

    def to_json(self) -> dict[str, Any]:
        """Plain values for a record."""
        return asdict(self)


def unpack(
    container: Container, row: Format, chosen: Weights
) -> tuple[dict[str, Tensor], Coverage]:
    """Take the tensors of one backbone out of a file.

    Args:
        container: what was read.
        row: the format the user named.
        chosen: which of its sets of weights.

    Returns:
        Tensors under the names of the row's architecture (before its conversion), and what was
        left out; ``matched`` counts the tensors kept.

    Raises:
        StepError: a key of the path is missing, or no tensor has the prefix.
    """
    found, place = _descend(container, row, chosen)
    found = keys_without_wrappers(found)
    tensors = _tensors(found)
    prefix = find_prefix(found, container, row, chosen)
    inside = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    kept, dropped = _drop(inside, row)
    if not kept:
        raise StepError("prefix", f"{container.path}: every tensor at {_place(chosen)} is dropped")
    if _ENGINE in place and all(tensor.numel() == 0 for tensor in kept.values()):
        raise StepError(
            "read",
            f"{container.path} holds names without values: ZeRO stage 3 of DeepSpeed left them in "
            "the files of its ranks (zero_pp_rank_*); make one file with its zero_to_fp32.py",
        )
    coverage = Coverage(
        weights=chosen.name,
        path=place,
        prefix=prefix,
        matched=len(kept),
        dropped=dropped,
        outside=len(tensors) - len(inside),
        averaged=_averaged(container) if chosen.name != EMA.name else "",
    )
    return _rename(kept, row), coverage


def listing(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(names[:_SHOWN])
    rest = len(names) - _SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown


def prefix_in_the_way(names: Collection[str], wanted: Collection[str]) -> str:
    """A beginning without which these names hold most of those that are wanted, or ``""``."""
    found = set(names)
    begun = {name[: dot.end()] for name in names for dot in re.finditer(r"\.", name)}
    hits = {prefix: sum(prefix + name in found for name in wanted) for prefix in sorted(begun)}
    best = max(hits, key=hits.__getitem__, default="")
    return best if best and 2 * hits[best] > len(wanted) else ""


def _place(chosen: Weights) -> str:
    return "/".join(chosen.path) if chosen.path else "the top of the file"


def _averaged(container: Container) -> str:
    content = container.content if isinstance(container.content, Mapping) else {}
    return next((key for key in EMA.nested if isinstance(content.get(key), Mapping)), "")


def tensors_at(container: Container, row: Format, chosen: Weights) -> Mapping[str, Any]:
    """The dictionary that a set of weights lies in, under names without wrappers.

    Raises:
        StepError: a key of its path is missing, or something else lies there.
    """
    return keys_without_wrappers(found_at(container, row, chosen))


def found_at(container: Container, row: Format, chosen: Weights) -> dict[str, Any]:
    """The same under the names that stand in the file."""
    return _descend(container, row, chosen)[0]


def _descend(
    container: Container, row: Format, chosen: Weights
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Where the prefix of a set of weights is looked for, and the keys that led there."""
    if not chosen.anywhere:
        return _at(container, row, chosen)
    (prefix,) = map(without_wrappers, chosen.prefixes)
    try:
        found, place = _at(container, row, chosen)
    except StepError:
        found, place = {}, ()
    if any(without_wrappers(name).startswith(prefix) for name in found):
        return found, place
    return flattened(container.content), ()


def _at(
    container: Container, row: Format, chosen: Weights
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The object at the end of the path, and the keys that led to it."""
    here: Any = _opened(container.content)
    walked: list[str] = []
    for key in chosen.path:
        inside = _engine(here)
        if inside is not None and key not in here:
            here, walked = inside, [*walked, _ENGINE]
            if key in _STATE and key not in inside:
                continue
        if not isinstance(here, Mapping) or key not in here:
            raise StepError("path", _lacks(container, row, chosen, [key], walked, here))
        here = _opened(here[key])
        walked.append(key)
    if isinstance(here, Mapping):
        inner = {key: _opened(here.get(key)) for key in chosen.nested}
        wrapped = [key for key in chosen.nested if isinstance(inner[key], Mapping)]
        if chosen.needed and not wrapped:
            raise StepError("path", _lacks(container, row, chosen, chosen.nested, walked, here))
        here, walked = (inner[wrapped[0]], [*walked, wrapped[0]]) if wrapped else (here, walked)
    while (inside := _engine(here)) is not None:
        here, walked = inside, [*walked, _ENGINE]
    if not isinstance(here, Mapping):
        raise StepError(
            "path",
            f"{container.path} does not fit format {row.name}: {_place(chosen)} is a "
            f"{type(here).__name__}, not a dictionary of tensors",
        )
    return {str(name): value for name, value in here.items()}, tuple(walked)


def _opened(here: Any) -> Any:
    """A pickled module as the dictionary of its tensors."""
    found = module_state(here)
    return here if found is None else found


def _engine(here: Any) -> Mapping[str, Any] | None:
    inside = here.get(_ENGINE) if isinstance(here, Mapping) else None
    return inside if isinstance(inside, Mapping) else None


def _lacks(
    container: Container,
    row: Format,
    chosen: Weights,
    keys: Sequence[str],
    walked: Sequence[str],
    here: Any,
) -> str:
    return (
        f"{container.path} does not fit format {row.name} (weights {chosen.name}): there is no "
        f"{' or '.join(map(repr, keys))} at {'/'.join(walked) or 'the top of the file'}, which "
        f"holds {_contents(here)}"
    )


def _contents(here: Any) -> str:
    if not isinstance(here, Mapping):
        return f"a {type(here).__name__}"
    return listing([str(key) for key in here]) or "nothing"


def _tensors(found: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def find_prefix(
    found: Mapping[str, Any], container: Container, row: Format, chosen: Weights
) -> str:
    """The first prefix of a set of weights with which a tensor's name begins.

    Raises:
        StepError: there is none, or there are no tensors.
    """
    tensors = _tensors(found)
    prefixes = list(dict.fromkeys(without_wrappers(prefix) for prefix in chosen.prefixes))
    for prefix in prefixes:
        if any(name.startswith(prefix) for name in tensors):
            return prefix
    if not tensors:
        raise StepError(
            "prefix",
            f"{container.path} does not fit format {row.name} (weights {chosen.name}): there are "
            f"no tensors at {_place(chosen)}, which holds {_contents(found)}",
        )
    wanted = " or ".join(map(repr, prefixes))
    raise StepError(
        "prefix",
        f"{container.path} does not fit format {row.name} (weights {chosen.name}): no tensor at "
        f"{_place(chosen)} begins with {wanted}; there are {listing(list(tensors))}",
        is_of_option=chosen.anywhere,  # a beginning that was asked for by name
    )


def _drop(
    inside: dict[str, Tensor], row: Format
) -> tuple[dict[str, Tensor], tuple[tuple[str, str, int], ...]]:
    kept, dropped = dict(inside), []
    for pattern, reason in row.drop:
        names = [name for name in kept if fnmatchcase(name, pattern)]
        for name in names:
            del kept[name]
        if names:
            dropped.append((pattern, reason, len(names)))
    return kept, tuple(dropped)


def _rename(tensors: Mapping[str, Tensor], row: Format) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in row.renames:
            changed = re.sub(pattern, replacement, name)
            if changed != name:
                name = changed
                break
        renamed[name] = tensor
    return renamed


def with_positions(coverage: Coverage, trained: int, evaluated: int) -> Coverage:
    """The same coverage, with a note that position embeddings were resampled."""
    return replace(coverage, positions=(trained, evaluated))
