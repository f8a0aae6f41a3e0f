"""Sweeps in several processes that begin at once."""

from __future__ import annotations

import pytest

from densescope.runs import executors
from tests.processes import FORKED


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of a sweep begin with all libraries loaded; its own load them for seconds."""
    monkeypatch.setattr(executors.multiprocessing, "get_context", lambda kind: FORKED)
