"""One test for all rows of a table, where a check of a row takes no time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import pytest

Row = TypeVar("Row")


def failures(check: Callable[[Row], None], rows: Mapping[str, Row]) -> dict[str, str]:
    """Name of each row for which a check fails -> why; a test wants none, and shows them all."""
    found = {}
    for name, row in rows.items():
        try:
            check(row)
        except (AssertionError, pytest.fail.Exception) as failed:
            found[name] = str(failed)
    return found
