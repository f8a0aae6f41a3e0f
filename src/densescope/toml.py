"""A TOML file that a user wrote, or one sentence on why it cannot be used."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from densescope.errors import InputError


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
