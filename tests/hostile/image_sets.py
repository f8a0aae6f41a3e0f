"""Hugging Face image sets on disk, damaged or crafted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
from PIL import Image

from tests.hostile.images_written import BY_KIND, PIPE, SOUND, Make, rows_of_table
from tests.hostile.row import read, refused


def hugging_face(change: Callable[[Path], object]) -> Make:
    def make(folder: Path) -> Path:
        rows = {"image": [Image.new("RGB", (40, 30))] * 4, "label": [0, 1, 2, 3]}
        kinds = {"image": datasets.Image(), "label": datasets.Value("int64")}
        saved = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))
        datasets.disable_progress_bars()
        saved.save_to_disk(str(folder / "set"))
        change(folder / "set")
        return folder / "set"

    return make


ARROW = "data-00000-of-00001.arrow"


def _cells(rows: list[Any]) -> Make:
    def change(path: Path) -> None:  # the library itself would read what a cell names
        import pyarrow as pa

        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"image": pa.array(rows, kind)})
        with pa.ipc.new_stream(str(path / ARROW), table.schema) as stream:
            stream.write_table(table)
        info = json.loads((path / "dataset_info.json").read_text())
        info["features"].pop("label")
        (path / "dataset_info.json").write_text(json.dumps(info))

    return hugging_face(change)


def _replaced(name: str, old: str, new: str) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        text = (path / name).read_text()
        assert old in text
        (path / name).write_text(text.replace(old, new))

    return change


def _cell(**values: Any) -> dict[str, Any]:
    return {"bytes": None, "path": None, **values}


BROKEN_SET = refused("is not a whole Hugging Face data set|holds no image|image columns|splits")
GOOD_CELL = _cell(bytes=SOUND["PNG"])
SETS = {
    "a sound set": (hugging_face(lambda p: None), read("4 images")),
    **{
        f"{name} {how}": (hugging_face(lambda p, n=name, d=damage: d(p / n)), BROKEN_SET)
        for name in ("state.json", "dataset_info.json", ARROW)
        for how, damage in {
            "is gone": lambda path: path.unlink(),
            "is cut off": lambda path: os.truncate(path, path.stat().st_size // 2),
            "is garbage": lambda path: path.write_bytes(bytes(range(256)) * 9),
            "is empty": lambda path: path.write_bytes(b""),
            "is a folder": lambda path: (path.unlink(), path.mkdir()),
        }.items()
    },
    "state.json is a list": (
        hugging_face(lambda p: (p / "state.json").write_text("[]")),
        BROKEN_SET,
    ),
    "state.json nested 100,000 deep": (
        hugging_face(lambda p: (p / "state.json").write_text("[" * 100_000)),
        BROKEN_SET,
    ),
    "files that lead out of the folder": (
        hugging_face(_replaced("state.json", ARROW, "../../../../etc/passwd")),
        BROKEN_SET,
    ),
    "no column of images": (
        hugging_face(_replaced("dataset_info.json", '"Image"', '"Nothing"')),
        BROKEN_SET,
    ),
    "an empty cell": (_cells([GOOD_CELL, GOOD_CELL, None]), refused("has no image")),
    "a cell that names a pipe": (
        _cells([GOOD_CELL, GOOD_CELL, _cell(path="/dev/zero")]),
        refused(PIPE),
    ),
    "a cell that names a file of the system": (
        _cells([GOOD_CELL, GOOD_CELL, _cell(path="/etc/passwd")]),
        BY_KIND,
    ),
    "a cell that is no image": (_cells([GOOD_CELL, GOOD_CELL, _cell(bytes=b"no")]), BY_KIND),
}


ROWS = rows_of_table(SETS)
