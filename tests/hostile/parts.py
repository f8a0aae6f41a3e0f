"""The parts of the table, each a module with ``ROWS``."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from tests.hostile.row import Row

PARTS = {
    "bombs": "tests.hostile.bombs",
    "code": "tests.hostile.code",
    "damage": "tests.hostile.damage",
    "weights": "tests.hostile.weights",
    "texts": "tests.hostile.texts",
    "images": "tests.hostile.image_files",
    "places": "tests.hostile.image_places",
    "shards": "tests.hostile.shards",
    "image sets": "tests.hostile.image_sets",
    "records": "tests.hostile.stored",
    "settings": "tests.hostile.settings",
    "names": "tests.hostile.names",
}


def rows_of(part: str) -> Sequence[Row]:
    """The rows of a part."""
    rows: Sequence[Row] = importlib.import_module(PARTS[part]).ROWS
    names = [row.name for row in rows]
    doubled = {name for name in names if names.count(name) > 1}
    assert not doubled, f"rows of {part} have one name: {doubled}"
    return rows
