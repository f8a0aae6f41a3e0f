"""``formats`` and ``check``."""

from __future__ import annotations
