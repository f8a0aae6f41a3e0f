"""A TOML file that a user wrote, or one sentence on why it cannot be used."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from densescope.errors import InputError
from densescope.files import read_bytes

MOST_BYTES = 1 << 24
Section = TypeVar("Section")


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Read a TOML file.

    Args:
        path: of the file.
        what: the file in an error, before its path: ``"the study"``.

    Returns:
        The document as plain values; its keys are not checked.

    Raises:
        InputError: the file does not exist, cannot be read, or is neither UTF-8 nor TOML.
    """
    try:
        return tomllib.loads(read_bytes(path, MOST_BYTES).decode())
    except FileNotFoundError as cause:
        raise InputError(f"{what} {path} does not exist: check the path") from cause
    except OSError as cause:
        raise InputError(
            f"{what} {path} cannot be read ({cause.strerror}): check the path"
        ) from cause
    except UnicodeDecodeError as cause:
        raise InputError(
            f"{what} {path} is not UTF-8 text from byte {cause.start} on: save it as UTF-8"
        ) from cause
    except (tomllib.TOMLDecodeError, RecursionError) as cause:
        raise InputError(f"{what} {path} is not TOML: {cause}") from cause


def section_of(kind: type[Section], values: Mapping[str, Any], table: str) -> Section:
    """A dataclass filled from the keys of a table; lists become tuples.

    Args:
        kind: the dataclass.
        values: of the table.
        table: its name for messages, such as ``"[score]"``.

    Raises:
        InputError: a key is unknown, or one without a default is missing, or a value is of
            another type than its field.
    """
    names = [part.name for part in fields(kind)]  # type: ignore[arg-type]
    refuse_unknown(values, names, table)
    given, hints = {key: _tupled(value) for key, value in values.items()}, get_type_hints(kind)
    for key, value in given.items():
        if not _fits(value, hints[key]):
            raise InputError(f"{table}: {key} cannot be {value!r:.100}")
    try:
        return kind(**given)
    except TypeError as cause:
        missing = [
            part.name
            for part in fields(kind)  # type: ignore[arg-type]
            if part.name not in values and _is_required(part)
        ]
        raise InputError(f"{table} lacks {', '.join(missing) or cause}") from cause


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value of TOML is of the type of a field."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in inner
    if origin in (UnionType, Union):
        return any(_fits(value, one) for one in inner)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(one, inner[0]) for one in value)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float if hint is float else origin or hint)


def _is_required(part: Any) -> bool:
    return part.default is MISSING and part.default_factory is MISSING


def refuse_unknown(values: Mapping[str, Any], known: Sequence[str], table: str) -> None:
    """Refuse keys that a table does not have.

    Raises:
        InputError: there is one.
    """
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise InputError(
            f"{table} has unknown keys: {', '.join(unknown)}; known: {', '.join(known)}"
        )


def subtable(document: Mapping[str, Any], name: str, default: Any) -> Mapping[str, Any]:
    """One table of a document.

    Raises:
        InputError: it is none.
    """
    found = document.get(name, default)
    if not isinstance(found, Mapping):
        raise InputError(f"{name} is {found!r:.100}: make it a table [{name}]")
    return found


def subtables(document: Mapping[str, Any], name: str, default: Any) -> list[Any]:
    """Some tables of one name.

    Raises:
        InputError: they are none.
    """
    found = document.get(name, default)
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise InputError(f"{name} is {found!r:.100}: make it tables [[{name}]]")
    return found


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
