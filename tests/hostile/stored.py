"""Records and previews of others: what select, report and correlate make of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from densescope.records import ProbeRecord
from densescope.runs.store import RunStore
from tests.cli.running import Said
from tests.hostile.row import Must, Row, command, either, read, refused
from tests.report.synthetic import records

Change = Callable[[dict[str, Any]], object]
MANIFEST = {"backbone": {"format": "dino"}, "settings": {}, "images": {"fingerprint": "0"}}
GARBLED = refused("lacks or garbles a field")


def stored(folder: Path) -> RunStore:
    """A sound run of twelve checkpoints with a probe of each."""
    store = RunStore(folder / "scores")
    store.open(MANIFEST)
    for record in records(12):
        store.write(record)
        probe = ProbeRecord(record.name, record.step, "epoch", "linear", "camvid", "miou", (0.3,))
        store.write_probe("camvid-linear", probe)
    return store


def edited(path: str, change: Change | str | bytes) -> Callable[[Path], Path]:
    """The run, with one document changed, or replaced by a text."""

    def make(folder: Path) -> Path:
        store = stored(folder)
        place = store.folder / path
        if callable(change):
            document = json.loads(place.read_text())
            change(document)
            place.write_text(json.dumps(document))
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(change if isinstance(change, bytes) else change.encode())
        return store.folder

    return make


def select(given: Path) -> Said:
    return command("select", given)


def report(given: Path) -> Said:
    return command("report", given)


def correlate(given: Path) -> Said:
    return command("correlate", given)


RECORD = "records/checkpoint0050.pth.json"
PROBE = "probes/camvid-linear/checkpoint0050.pth.json"


def _set(*keys: str, value: Any) -> Change:
    def change(document: dict[str, Any]) -> None:
        at: Any = document
        for key in keys[:-1]:
            at = at[key]
        at[keys[-1]] = value

    return change


RANK = ("scores", "-1", "released.effective_rank")
FIELDS: dict[str, tuple[Change, Must]] = {
    "name null": (_set("name", value=None), GARBLED),
    "name a list": (_set("name", value=["a", "b"]), GARBLED),
    "name empty": (_set("name", value=""), GARBLED),
    "name of another record": (_set("name", value="checkpoint0010.pth"), refused("two records")),
    "name with escape sequences": (_set("name", value="\x1b[2J\x1b[31mred.pth"), read()),
    "name with a lone surrogate": (_set("name", value="a\udce9.pth"), read()),
    "name of 100,000 letters": (_set("name", value="x" * 100_000), GARBLED),
    "step infinite": (_set("step", value=1e400), refused("no number of JSON")),
    "step 1e308": (_set("step", value=1e308), GARBLED),
    "step 10**400": (_set("step", value=10**400), GARBLED),
    "step a text": (_set("step", value="12"), GARBLED),
    "step true": (_set("step", value=True), GARBLED),
    "unit a number": (_set("unit", value=3), GARBLED),
    "unit another": (_set("unit", value="furlong"), refused("unit of steps")),
    "status odd": (_set("status", value="fine"), GARBLED),
    "failed without an error": (_set("status", value="failed"), GARBLED),
    "scores a list": (_set("scores", value=[]), GARBLED),
    "scores null": (_set("scores", value=None), GARBLED),
    "layer a word": (_set("scores", value={"last": {}}), GARBLED),
    "value 1e308": (_set(*RANK, "value", value=1e308), GARBLED),
    "value 1e400": (_set(*RANK, "value", value=1e400), refused("no number of JSON")),
    "value null": (_set(*RANK, "value", value=None), either("")),
    "value a text": (_set(*RANK, "value", value="0.5"), GARBLED),
    "value true": (_set(*RANK, "value", value=True), GARBLED),
    "replicates one": (_set(*RANK, "replicates", value=[0.5]), either("replicates")),
    "replicates none": (_set(*RANK, "replicates", value=[]), either("replicates")),
    "replicates 1e308": (_set(*RANK, "replicates", value=[1e308, -1e308]), GARBLED),
    "replicates of texts": (_set(*RANK, "replicates", value=["a"] * 8), GARBLED),
    "replicates a number": (_set(*RANK, "replicates", value=3), GARBLED),
    "note a list": (_set(*RANK, "note", value=[]), GARBLED),
    "a metric nobody knows": (_set("scores", "-1", "mine", value={"value": 1.0}), read()),
    "checkpoint null": (_set("checkpoint", value=None), GARBLED),
    "provenance a text": (_set("provenance", value="mine"), GARBLED),
    "timing a list": (_set("timing", value=[1]), GARBLED),
    "other images": (
        _set("provenance", value={"images": {"fingerprint": "1" * 64}}),
        refused("set of images"),
    ),
    "a later schema": (_set("schema", value=99), refused("a later version of densescope")),
    "an earlier schema": (_set("schema", value=1), refused("another version of densescope")),
    "schema null": (_set("schema", value=None), refused("another version of densescope")),
    "schema a dictionary": (_set("schema", value={"a": 1}), refused("another version")),
}
TEXTS: dict[str, tuple[str | bytes, Must]] = {
    "empty": ("", refused("is not a whole JSON document")),
    "cut off": ('{"schema": 2, "na', refused("is not a whole JSON document")),
    "a list": ("[1, 2]", refused("is not a JSON object")),
    "nested 200,000 deep": ("[" * 200_000, refused("nested too deep")),
    "objects nested 200,000 deep": ('{"a":' * 200_000, refused("nested too deep")),
    "no UTF-8": (b'{"schema": "\xff"}', refused("is not a whole JSON document")),
    "Infinity": ('{"schema": Infinity}', refused("which is no number of JSON")),
    "a number of 100,000 digits": ("9" * 100_000, refused("is not a whole JSON document")),
    "nulls": (b"\0" * 4096, refused("is not a whole JSON document")),
}
MANIFESTS: dict[str, tuple[Change | str, Must]] = {
    "cut off": ('{"backbone"', refused("is not a whole JSON document")),
    "backbone a list": (_set("backbone", value=[]), refused("run.json is damaged")),
    "settings null": (_set("settings", value=None), refused("run.json is damaged")),
    "images a text": (_set("images", value="mine"), refused("run.json is damaged")),
    "run_folder a number": (_set("run_folder", value=3), refused("run.json is damaged")),
    "nested 200,000 deep": ("[" * 200_000, refused("nested too deep")),
}
PROBES: dict[str, Change] = {
    "values 1e308": _set("values", value=[1e308]),
    "values texts": _set("values", value=["a"]),
    "values none": _set("values", value=[]),
    "name null": _set("name", value=None),
    "images a bomb": _set(
        "images", value={"images": 1, "classes": 2, "zlib": "eJztwTEBAAAAwqD1T+1pCaAAAAAAAAAA"}
    ),
    "images of lists": _set("images", value={"names": [[]], "blocks": 3}),
    "details null": _set("details", value=None),
    "classes garbled": _set("details", value={"classes": [1, None]}),
}


def _pipe(folder: Path) -> Path:
    store = stored(folder)
    (store.folder / RECORD).unlink()
    os.mkfifo(store.folder / RECORD)
    return store.folder


def _link(folder: Path) -> Path:
    store = stored(folder)
    (store.folder / RECORD).unlink()
    (store.folder / RECORD).symlink_to("/dev/zero")
    return store.folder


def _large(folder: Path) -> Path:
    store = stored(folder)
    with (store.folder / RECORD).open("ab") as stream:
        stream.truncate(2**40)
    return store.folder


def _previews(folder: Path) -> Path:
    import torch

    store = stored(folder)
    store.write_preview("images", {"images": torch.zeros(2, 3, 8, 8)})
    for record in store.records():
        store.write_preview(record.name, {"other": torch.zeros(1)})
    return store.folder


def _rows() -> list[Row]:
    return [
        *(Row(f"record: {n}", edited(RECORD, c), must, select) for n, (c, must) in FIELDS.items()),
        *(Row(f"record: {n}", edited(RECORD, c), must, select) for n, (c, must) in TEXTS.items()),
        *(
            Row(f"run.json: {n}", edited("run.json", c), must, select)
            for n, (c, must) in MANIFESTS.items()
        ),
        *(
            Row(
                f"probe: {name}, {verb.__name__}",
                edited(PROBE, change),
                either(""),
                verb,
                bounded=False,
            )
            for name, change in PROBES.items()
            for verb in (correlate, report)
        ),
        Row("record: a pipe", _pipe, refused("pipe, a device|No such"), select),
        Row("record: a link to /dev/zero", _link, refused("a pipe, a device"), select),
        Row("record: 1 TB", _large, refused("more than 67,108,864 bytes"), select),
        Row("previews of other shapes", _previews, read(), report),
        Row(
            "previews that are garbage",
            edited("previews/images.safetensors", b"\xff" * 100),
            read(),
            report,
        ),
        *(
            Row(
                f"report: {name}",
                edited(RECORD, FIELDS[name][0]),
                either(""),
                report,
                bounded=False,
            )
            for name in FIELDS
            if name.startswith(("name", "value null", "replicates"))
        ),
        *(
            Row(f"losses: {name}", edited("losses.json", text), either(""), correlate)
            for name, text in {"texts": '{"a": "b"}', "deep": "[" * 10**5, "null": "null"}.items()
        ),
    ]


ROWS = _rows()
