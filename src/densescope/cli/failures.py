"""What could not be done, each reason said in full once."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from densescope.errors import DensescopeError, OptionError
from densescope.records import ProbeRecord, ScoreRecord
from densescope.text import shown

REFUSED = 1
WRONG_USAGE = 2
FAILED_CHECKPOINTS = 3


def complain(what: object) -> None:
    """Say on standard error what is wrong."""
    print(f"densescope: {shown(what)}", file=sys.stderr)


class UsageError(OptionError):
    """What was typed cannot be done whatever the files hold."""


def exit_code(error: DensescopeError) -> int:
    """The code of an error: wrong usage, or a refusal."""
    return WRONG_USAGE if error.is_of_option else REFUSED


class Reasons:
    """Why checkpoints failed, as the work goes on: a wrong option fails all of them alike."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    def reason(self, name: str, text: str) -> str:
        """The reason in full where it is new, else where it was told."""
        reason = _without_name(name, text)
        if reason not in self._first:
            self._first[reason] = name
            return text
        first = self._first[reason]
        return "same reason as before" if first == name else f"same reason as {first}"


def print_failures(failed: Sequence[ScoreRecord | ProbeRecord]) -> None:
    """Name what failed, one line per reason."""
    reasons: dict[str, list[str]] = {}
    for record in failed:
        reasons.setdefault(_without_name(record.name, str(record.error)), []).append(record.name)
    for reason, names in reasons.items():
        some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        complain(f"{some}: {reason}")


def print_left_out(sentences: Sequence[str]) -> None:
    """Name what looks like a checkpoint of the run and was not scored."""
    for sentence in sentences:
        complain(sentence)


def _without_name(name: str, text: str) -> str:
    return re.sub(rf"\S*{re.escape(name)}", "the file", shown(text))
