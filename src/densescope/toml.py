"""A TOML file that a user wrote, or one sentence on why it cannot be used."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from densescope.errors import InputError

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
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as cause:
        raise InputError(f"{what} {path} does not exist: check the path") from cause
    except OSError as cause:
        raise InputError(f"{what} {path} cannot be read: {cause.strerror}") from cause
    except UnicodeDecodeError as cause:
        raise InputError(
            f"{what} {path} is not UTF-8 text from byte {cause.start} on: save it as UTF-8"
        ) from cause
    except tomllib.TOMLDecodeError as cause:
        raise InputError(f"{what} {path} is not TOML: {cause}") from cause


def section_of(kind: type[Section], values: Mapping[str, Any], table: str) -> Section:
    """A dataclass filled from the keys of a table; lists become tuples.

    Args:
        kind: the dataclass.
        values: of the table.
        table: its name for messages, such as ``"[score]"``.

    Raises:
        InputError: a key is unknown, or one without a default is missing.
    """
    names = [part.name for part in fields(kind)]  # type: ignore[arg-type]
    refuse_unknown(values, names, table)
    try:
        return kind(**{key: _tupled(value) for key, value in values.items()})
    except TypeError as cause:
        missing = [
            part.name
            for part in fields(kind)  # type: ignore[arg-type]
            if part.name not in values and _is_required(part)
        ]
        raise InputError(f"{table} lacks {', '.join(missing) or cause}") from cause


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


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
