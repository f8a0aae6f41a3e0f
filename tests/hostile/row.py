"""One input, what is done with it, and what must happen."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cli.running import Said, densescope
from tests.tiny_run import ARCHITECTURE, OPTIONS

TINY = [
    *("--format", "dino", "--architecture", ARCHITECTURE),
    *(f"--architecture-option={key}={value}" for key, value in OPTIONS.items()),
]


class Lost(AssertionError):
    """A record or a result is lost, doubled or half written."""


@dataclass(frozen=True)
class Must:
    """What has to happen.

    Attributes:
        codes: exit codes of the command that are right.
        says: regular expression found in what is printed where the input is refused.
        shows: the same where it is read.
    """

    codes: tuple[int, ...]
    says: str = ""
    shows: str = ""

    def disappointed(self, code: int, text: str) -> str:
        """What is wrong with an exit code and the printed text; ``""`` where nothing is."""
        if code not in self.codes:
            return f"exit code {code} instead of {' or '.join(map(str, self.codes))}"
        wanted = self.says if code else self.shows
        flat = " ".join(text.split())
        return "" if re.search(wanted, flat) else f"does not say {wanted!r}"


def refused(says: str, code: int = 1) -> Must:
    """A sentence that has this in it, and the exit code."""
    return Must((code,), says)


def read(shows: str = "") -> Must:
    """A result."""
    return Must((0,), shows=shows)


def either(says: str, shows: str = "", code: int = 1) -> Must:
    """A result or a sentence."""
    return Must((0, code), says, shows)


def command(*words: object) -> Said:
    """The ``densescope`` command in this process."""
    return densescope(*words)


def check(given: Any) -> Said:
    """``densescope check`` of a file, as one of the tiny vision transformer in DINO's layout."""
    return command("check", given, *TINY)


@dataclass(frozen=True)
class Row:
    """One input; see :mod:`tests.hostile` for the fields."""

    name: str
    make: Callable[[Path], Any]
    must: Must
    run: Callable[[Any], Said | str | None] = check
    bounded: bool = True
    allows: tuple[str, ...] = ()


def sentinel(folder: Path) -> Path:
    """The file that code out of an input writes, if it is ever run."""
    return folder.parent / "executed"


def touch(folder: Path) -> str:
    """Such code, in Python."""
    return f"open({os.fspath(sentinel(folder))!r}, 'w').close()"
