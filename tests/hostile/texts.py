"""Text in files that a terminal, a page or a regular expression would stumble over."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch

from tests.hostile.row import TINY, Lost, Must, Row, check, command, either, read, refused
from tests.hostile.written import archive, call, changed, dictionary, named, number, program, text
from tests.tiny_run import write_images

NAME = "checkpoint0000.pth"
SIZES = ["--images-count", "24", "--set", "global_clusters=6,lidar_images=8,lidar_views=2"]
ODD = {
    "escape sequences": "\x1b[2J\x1b]0;owned\x07",
    "C1 control characters": "\x9b31m\x90\x9c",
    "a bell and a backspace": "a\x07\x08\x08\x08b",
    "line ends": "a\nb\r\nc\x0bd\x85e\u2028f",
    "right to left": "abc\u202efdp.exe\u2066",
    "nothing": "",
    "a zero": "a\0b",
    "lone surrogates": "\ud800\udfff",
    "a percent of formats": "%s%n{0}{name!r:>10}$(x)`x`",
    "square brackets": "[red]a[/red][/][bold",
    "a page's tags": "<script>alert(1)</script>",
    "10 MB": "x" * 10_000_000,
    "10 MB of dots": "a." * 5_000_000,
    "10 MB of blanks": " " * 10_000_000,
    "combining marks": "e" + "\u0301" * 5000,
    "emoji": "\U0001f469\u200d\U0001f4bb",
    "a path": "../../../../etc/passwd",
}


def as_top_key(odd: str) -> Callable[[Path], Path]:
    """A file without a teacher, whose keys the refusal lists."""

    def make(folder: Path) -> Path:
        body = dictionary({}) + text(odd) + number(1) + b"s"
        return archive(folder / NAME, program(body))

    return make


def as_tensor(odd: str) -> Callable[[Path], Path]:
    """A tensor with that name among those of the network."""
    return changed(
        lambda content: content["teacher"].update({f"backbone.{_plain(odd)}": torch.ones(1)})
    )


def as_class(odd: str) -> Callable[[Path], Path]:
    """A class with that name, which the table of ``check`` lists."""
    line = odd.replace("\n", "")[:15_000]

    def make(folder: Path) -> Path:
        body = dictionary({"x": named("my", line) + b")\x81"})
        return archive(folder / NAME, program(body))

    return make


def as_setting(odd: str) -> Callable[[Path], Path]:
    """A setting of the training with that name and that value, which the record keeps."""
    settings = argparse.Namespace(**{_plain(odd): 1, "optimizer": _plain(odd)})
    return changed(lambda content: content.update(args=settings, config={_plain(odd): 3}))


def _plain(odd: str) -> str:
    """The text as ``torch.save`` can write it."""
    return odd.encode("utf-8", "ignore").decode()


def as_note(odd: str) -> Callable[[Path], Path]:
    """The name of a network that a file notes."""
    settings = json.dumps({"backbone": {"architecture": odd, "image_size": 32, "options": {}}})
    return changed(lambda content: content.update(densescope={"settings": settings}))


def _by_itself(given: Path) -> object:
    return command("check", given, "--format", "dino")


def as_file(odd: str) -> Callable[[Path], Path]:
    """A file with that name in a folder of checkpoints."""

    def make(folder: Path) -> Path:
        path = changed(lambda content: None)(folder)
        coded = odd.encode("utf-8", "surrogatepass")
        name = os.fsdecode(coded.replace(b"/", b"").replace(b"\0", b"")[:100]) + NAME
        path.rename(folder / name)
        return folder / name

    return make


def swept(given: Path) -> str:
    """Sweep, choose and report, and look at what was stored."""
    folder = given.parent
    images, output = write_images(folder.parent / "images"), folder.parent / "scores"
    said = [
        command("sweep", folder, "--images", images, "--output", output, *TINY, *SIZES),
        command("select", output),
        command("report", output),
    ]
    for record in (output / "records").glob("*.json"):
        _check_stored(record.read_text(encoding="utf-8"))
    page = output / "report.html"
    if said[0].returncode in (0, 3):
        if not page.is_file():
            raise Lost(f"no report: {said[2].stderr}")
        if not page.read_text(encoding="utf-8").replace("\n", " ").isprintable():
            raise Lost("the report holds characters that cannot be shown")
    return "".join(one.stdout + one.stderr for one in said)


def _check_stored(document: str) -> None:
    found = json.dumps(json.loads(document), ensure_ascii=False)
    if not found.isprintable():
        raise Lost("a record holds characters that cannot be shown")
    if len(document) > 1_000_000:
        raise Lost(f"a record of {len(document):,} characters")


def failing(odd: str) -> Callable[[Path], Path]:
    """A good checkpoint and one that fails with the odd text in its reason."""

    def make(folder: Path) -> Path:
        changed(lambda content: None)(folder)
        body = dictionary({}) + text(odd) + number(1) + b"s"
        archive(folder / "checkpoint0001.pth", program(body))
        return folder / NAME

    return make


def metadata(odd: str) -> Callable[[Path], Path]:
    """An index of a distributed checkpoint that points to a file of that name."""

    def make(folder: Path) -> Path:
        place = (
            named("my", "Info")
            + b")\x81"
            + dictionary({"relative_path": text(odd), "offset": number(0), "length": number(9)})
        )
        key = named("my", "Key") + b")\x81" + dictionary({"fqn": text(odd)}) + b"b"
        storage = b"}" + key + place + b"bs"
        fields = {"state_dict_metadata": dictionary({"w": number(1)}), "storage_data": storage}
        body = named("my", "Index") + b")\x81" + dictionary(fields) + b"b"
        (folder / ".metadata").write_bytes(program(body))
        return folder

    return make


def integers() -> list[Row]:
    big = b"\x8b" + (500).to_bytes(4, "little") + b"\x7f" * 500
    body = dictionary({"epoch": big, "args": call("argparse", "Namespace")})
    return [Row("an epoch of 1,200 digits", lambda f: archive(f / NAME, program(body)), KEYS)]


def _args(content: dict[str, Any]) -> None:
    content["args"] = argparse.Namespace(seed=10**1000, epochs=float("1e308"), lr=float("nan"))
    content["epoch"] = 10**1000


LACKS = refused("lacks|cannot be read|is no")
KEYS = refused("there is no 'teacher'")
FEW = ("escape sequences", "lone surrogates", "right to left", "10 MB", "10 MB of dots")


def rows(
    where: str,
    make: Callable[[str], Callable[[Path], Path]],
    must: Must,
    run: Callable[[Any], Any] = check,
    bounded: Collection[str] = FEW,
) -> list[Row]:
    """A row for each odd text at one place."""
    return [
        Row(f"{where}: {name}", make(odd), must, run, bounded=name in bounded)
        for name, odd in ODD.items()
    ]


ROWS = (
    *rows("key", as_top_key, KEYS, bounded=ODD),
    *rows("tensor", as_tensor, either("no place in it|both named", "ok")),
    *rows("class", as_class, KEYS),
    *rows("setting", as_setting, read("ok")),
    *rows("note", as_note, refused("notes a network|does not fill"), _by_itself),
    *rows("file", as_file, either("", "ok")),
    *rows("index", metadata, LACKS),
    *rows("swept, a failing key", failing, read(), swept, ("10 MB", "lone surrogates")),
    *rows("swept, a setting", as_setting, read(), swept, ("escape sequences",)),
    *rows("swept, a file", as_file, read(), swept, ()),
    *integers(),
    Row("numbers beyond any", changed(_args), read("ok")),
    Row("numbers beyond any, swept", changed(_args), read(), swept, bounded=False),
)
