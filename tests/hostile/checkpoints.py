"""Checkpoint files: code, bombs of memory and time, damage, odd weights."""

from __future__ import annotations

from tests.hostile import bombs

ROWS = (*bombs.ROWS,)
