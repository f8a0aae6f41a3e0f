"""``formats`` and ``check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from densescope.cli import options as o
from densescope.cli.tables import console as make_console
from densescope.cli.tables import table
