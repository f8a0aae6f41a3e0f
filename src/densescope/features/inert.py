"""Stand-ins for classes and functions that a checkpoint names: they hold data and run nothing."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Self

from torch import Tensor


class Inert:
    """Stands in for an object whose class belongs to somebody's code; it never runs any."""

    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __new__(cls, *arguments: Any) -> Inert:  # noqa: D102
        placeholder = object.__new__(cls)
        placeholder.arguments = arguments
        return placeholder

    def __init__(self, *arguments: Any) -> None: ...


class InertTensor(Tensor):
    """Stands in for a tensor whose values cannot be had here.

    Attributes:
        state: what the file says of it.
        reason: why there are no values, and what to do.
    """

    state: Any = None
    reason = ""

    @staticmethod
    def __new__(cls, *_: Any) -> Self:  # noqa: D102
        return Tensor._make_wrapper_subclass(cls, (0,))

    def __init__(self, *_: Any) -> None: ...

    @classmethod
    def without_values(cls, reason: str) -> InertTensor:
        """A tensor that says why it has none."""
        made = cls()
        made.reason = reason
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"InertTensor({self.reason})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise TypeError("a placeholder for a tensor has no values")


class InertAttribute(Inert):
    """Stands in for whatever a file takes out of a foreign class, such as a class inside it."""


class InertLookup:
    """Stands in for ``getattr``, by which some pickles name a class inside a class."""

    looked_up = InertAttribute


SHARDED = ".ShardedTensor"
_LOOKUPS = ("__builtin__.getattr", "builtins.getattr")


def stand_in_of(name: str) -> type:
    """The kind of placeholder that a name needs when nothing else is known of it."""
    if name in _LOOKUPS:
        return InertLookup
    return InertTensor if name.endswith(SHARDED) else Inert


@lru_cache(maxsize=1024)
def placeholder(name: str, base: type = Inert) -> type:
    """An inert class that carries the name of a foreign one."""
    module, _, qualified = name.rpartition(".")
    return type(qualified.replace("\0", "?"), (base,), {"__module__": module})


def stored_fields(thing: Any) -> dict[str, Any]:
    """The state that a placeholder was given: attributes, slots, or both."""
    state = thing.state if isinstance(thing, Inert) else None
    parts = state if isinstance(state, tuple) else (state,)
    return {str(k): v for part in parts if isinstance(part, dict) for k, v in part.items()}


MOST_PARTS, _DEEPEST = 20_000, 32  # of a module, which may hold others and even itself


def module_state(thing: Any) -> dict[str, Any] | None:
    """What ``state_dict()`` of a pickled ``nn.Module`` would give; ``None`` for anything else.

    Its class is a placeholder, so nothing of it is run: names and tensors are read off its fields.
    """
    if not _is_module(thing):
        return None
    found: dict[str, Any] = {}
    waiting = [("", thing)]
    for _ in range(MOST_PARTS):
        if not waiting:
            break
        place, part = waiting.pop()
        state = stored_fields(part)
        hidden = set(state.get("_non_persistent_buffers_set") or ())
        for name, value in {**dict(state["_parameters"]), **dict(state["_buffers"])}.items():
            if name not in hidden and value is not None:
                found[f"{place}{name}"] = value
        inside = [(f"{place}{name}.", inner) for name, inner in dict(state["_modules"]).items()]
        if place.count(".") < _DEEPEST:
            waiting += [(where, inner) for where, inner in reversed(inside) if _is_module(inner)]
    return found


def _is_module(thing: Any) -> bool:
    return {"_parameters", "_buffers", "_modules"} <= set(stored_fields(thing))
