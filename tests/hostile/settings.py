"""Settings that somebody wrote: study files, --config files, logs of training, names of outputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.cli.running import SCORING, Said
from tests.hostile.row import TINY, Must, Row, command, either, refused
from tests.tiny_run import write_checkpoints, write_images
from tests.tiny_study import ONE_RUN


def text(content: str | bytes, name: str = "study.toml") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


def study(given: Path) -> Said:
    """What a study of this file would do, without training: its summary."""
    return command("study", given, "--output", given.parent / "out", "--summary-only")


def config(given: Path) -> Said:
    return command("select", given.parent, "--config", given)


def changed(old: str, new: str) -> Callable[[Path], Path]:
    assert old in ONE_RUN
    return text(ONE_RUN.replace(old, new))


ARM = refused("an arm is named .* and its runs lie in folders of that name")
STUDIES: dict[str, tuple[Callable[[Path], Path], Must]] = {
    **{
        f"an arm named {name!r}": (changed('"plain"', f"'{name}'"), ARM)
        for name in ("../../../esc", "/etc/x", ".", "..", ".hidden", "", "a/b", "x" * 300, "-o")
    },
    "an arm with a line end": (changed('"plain"', '"a\\nb"'), ARM),
    "an arm with an escape sequence": (changed('"plain"', '"\\u001b[31m"'), ARM),
    "an arm that is a number": (changed('"plain"', "3"), refused("name cannot be 3")),
    "a method that leads out": (changed('"simsiam"', '"../x"'), refused("no method '../x'")),
    "methods a text": (changed('["simsiam"]', '"simsiam"'), refused("methods cannot be")),
    "methods of numbers": (changed('["simsiam"]', "[1]"), refused("methods cannot be")),
    "steps a text": (changed("steps = 4", 'steps = "2"'), refused("steps cannot be '2'")),
    "steps infinite": (changed("steps = 4", "steps = inf"), refused("steps cannot be inf")),
    "steps negative": (changed("steps = 4", "steps = -2"), refused("steps")),
    "steps 10**400": (changed("steps = 4", f"steps = {10**400}"), either("")),
    "images a number": (
        changed('images = "images"\nimage_size', "images = 3\nimage_size"),
        refused("images"),
    ),
    "a table in place of an arm": (changed("[[arm]]", "[arm]"), refused("make it tables")),
    "a number in place of a table": (text("study = 1\npretrain = 2\nscore = 3"), refused("table")),
    "nested 100,000 deep": (text("a = " + "[" * 100_000), refused("is not TOML")),
    "no UTF-8": (text(b"\xff\xfe"), refused("is not UTF-8")),
    "nulls": (text(b"\0" * 100), refused("is not TOML")),
    "empty": (text(""), refused("no table")),
    "an unknown key with an escape sequence": (
        text(ONE_RUN + '"\\u001b[2J" = 1\n'),
        refused("unknown keys"),
    ),
}
CONFIGS = {
    "nested 100,000 deep": text("a = " + "[" * 100_000, "c.toml"),
    "an unknown key": text("mine = 1", "c.toml"),
    "a table": text("[layer]\na = 1", "c.toml"),
    "no TOML": text("layer", "c.toml"),
    "no UTF-8": text(b"\xff", "c.toml"),
}


def _run(folder: Path) -> Path:
    write_images(folder / "images", 16)
    return write_checkpoints(folder / "run", range(2))


def onto(output: Callable[[Path], object]) -> Callable[[Path], Said]:
    """A sweep whose output is an odd place."""

    def run(given: Path) -> Said:
        images = given.parent / "images"
        words = ["sweep", given, *TINY, *SCORING, "--images", images, "--output"]
        return command(*words, output(given.parent))

    return run


def _file(folder: Path) -> Path:
    (folder / "file").write_text("mine")
    return folder / "file"


OUTPUTS: dict[str, tuple[Callable[[Path], object], Must]] = {
    "a file": (_file, refused("a file where a folder is needed|part of the path is a file")),
    "below a file": (lambda f: _file(f) / "below", refused("part of the path is a file")),
    "a name of 300 letters": (lambda f: f / ("x" * 300), refused("name is too long")),
    "a path of 5,000 letters": (lambda f: f / ("/".join(["d" * 50] * 100)), refused("too long")),
    "/dev/null": (lambda f: "/dev/null/out", refused("part of the path is a file")),
    "/proc": (lambda f: "/proc/out", refused("cannot read or write /proc/out")),
    "a link to itself": (lambda f: _circle(f), refused("lead in a circle|a file where")),
}


def _circle(folder: Path) -> Path:
    (folder / "loop").symlink_to("loop")
    return folder / "loop"


ROWS = (
    *(Row(f"study: {name}", make, must, study) for name, (make, must) in STUDIES.items()),
    *(Row(f"config: {n}", make, refused("", 2), config) for n, make in CONFIGS.items()),
    *(Row(f"output: {n}", _run, must, onto(place)) for n, (place, must) in OUTPUTS.items()),
)
