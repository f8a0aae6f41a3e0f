"""Names of checkpoints, folders and files that are long, or that no terminal can show."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from densescope.evaluation.scenes import make_scenes, save_scenes
from densescope.runs.store import RunStore
from tests.cli.running import SCORING, Said
from tests.hostile.row import TINY, Lost, Row, command, read, refused
from tests.hostile.stored import stored
from tests.tiny_run import checkpoint, write_images
from tests.tiny_study import ONE_RUN

NUMBERS = r".*?([0-9]{3,6})b*\.pth"
LONGEST = 255  # bytes of a name, on most file systems
BELOW = "/".join(["d" * 200] * 6)
CHECKPOINTS: dict[str, Callable[[int], str]] = {
    "255 letters": lambda step: f"{'c' * 247}{step:04d}.pth",
    "62 emojis": lambda step: f"{chr(0x1F600) * 61}{step:06d}.pth",
    "that differ after 200 letters": lambda step: f"{'a' * 200}{step:04d}{'b' * 47}.pth",
    "100 bytes that are no UTF-8": lambda step: os.fsdecode(b"\xe9" * 92) + f"{step:04d}.pth",
    "escape sequences": lambda step: f"\x1b[31m\ta{step:04d}.pth",
    "that look like escape sequences": lambda step: f"\\x1b{step:04d}.pth",
    "1,200 letters down": lambda step: f"{BELOW}/checkpoint{step:04d}.pth",
}


def run_of(name: Callable[[int], str]) -> Callable[[Path], Path]:
    """A run of three checkpoints, with images and labels beside it."""

    def make(folder: Path) -> Path:
        for step in range(3):
            path = folder / "run" / name(step)
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(checkpoint(step), path)
        return _with_images(folder)

    return make


def _with_images(folder: Path) -> Path:
    write_images(folder / "images")
    for seed, split in enumerate(("train", "val")):
        save_scenes(make_scenes(8, size=32, seed=seed), folder / "scenes" / split)
    return folder


def followed(given: Path) -> str:
    """Sweep, sweep again, watch, probe, choose and report."""
    output = given / "scores"
    scored = [given / "run", "--images", given / "images", "--output", output, *TINY, *SCORING]
    scored += ["--recursive"] if (given / "run" / BELOW).is_dir() else ["--pattern", NUMBERS]
    labels = ["--dataset", "scenes", "--root", given / "scenes", "--probe-size", 32]
    said, times = [], []
    for words in (
        ["sweep", *scored],
        ["sweep", *scored],
        ["watch", *scored, "--once", "--settle", "0"],
        ["probe", output, *labels, "--seeds", "0"],
        *([verb, output] for verb in ("select", "correlate", "report")),
    ):
        said.append(command(*words))
        if said[-1].returncode:
            raise Lost(f"{words[0]}: {said[-1].stderr}")
        times.append([record.timing["written"] for record in RunStore(output).records()])
        if len(times[-1]) != 3 or times[-1] != times[0]:
            raise Lost(f"{len(times[-1])} records after {words[0]}, or written again")
    return "".join(one.stdout + one.stderr for one in said)


SWEEP = ["{run}", *TINY, *SCORING, "--images", "{images}", "--output", "{output}"]
NETWORK = [
    *("--method", "simsiam", "--architecture", "vit_tiny_patch16_224", "--image-size", "32"),
    *("--architecture-option", "patch_size=8,embed_dim=24,depth=2,num_heads=3", "--steps", "1"),
    *("--batch-size", "8", "--checkpoint-every", "1", "--device", "cpu"),
]
PLACES: dict[str, list[str]] = {
    "select --write": ["select", "{scores}", "--write", "{long}.csv"],
    "report --write": ["report", "{scores}", "--write", "{long}.html"],
    "sweep --output": ["sweep", *SWEEP[:-1], "{long}"],
    "sweep --image-cache": ["sweep", *SWEEP, "--image-cache", "{long}"],
    "pretrain --output": ["pretrain", *NETWORK, "--images", "{images}", "--output", "{long}"],
    "study --output": ["study", "{study}", "--device", "cpu", "--output", "{long}"],
}
MISSING: dict[str, list[str]] = {
    "sweep RUN": ["sweep", "{long}", *SWEEP[1:]],
    "sweep --images": ["sweep", *SWEEP[:-3], "{long}", *SWEEP[-2:]],
    "sweep --loader": ["sweep", "{run}", "--loader", "{long}.py", *SWEEP[-4:]],
    "sweep --config": ["sweep", *SWEEP, "--config", "{long}"],
    "check": ["check", "{long}"],
    "score": ["score", "{long}", "--images", "{images}"],
    "select": ["select", "{long}"],
    "report": ["report", "{long}"],
    "correlate --losses": ["correlate", "{scores}", "--losses", "{long}"],
    "probe --root": ["probe", "{scores}", "--dataset", "scenes", "--root", "{long}"],
    "pretrain --images": ["pretrain", *NETWORK, "--images", "{long}", "--output", "{output}"],
    "study": ["study", "{long}", "--output", "{output}"],
}


def _place(folder: Path) -> Path:
    run_of(lambda step: f"checkpoint{step:04d}.pth")(folder)
    stored(folder)
    (folder / "study.toml").write_text(ONE_RUN)
    return folder


def given_to(words: list[str], length: int) -> Callable[[Path], Said]:
    """A verb with a name of so many bytes in the place of ``{long}``."""

    def run(given: Path) -> Said:
        ending = next(word for word in words if "{long}" in word).removeprefix("{long}")
        places: dict[str, Any] = {"long": given / ("n" * (length - len(ending)))}
        for name in ("run", "images", "output", "scores"):
            places[name] = given / name
        places["study"] = given / "study.toml"
        return command(*(word.format(**places) for word in words))

    return run


def arm(length: int) -> Callable[[Path], Path]:
    """A study of an arm whose name has so many letters."""

    def make(folder: Path) -> Path:
        _place(folder)
        (folder / "study.toml").write_text(ONE_RUN.replace('"plain"', f'"{"a" * length}"'))
        return folder

    return make


def _study(given: Path) -> Said:
    return command("study", given / "study.toml", "--device", "cpu", "--output", given / "output")


LONG = "the name is too long for this file system. Choose a shorter name"
CURES = "Choose a shorter name|check the path|there is no|name a folder|is expected below"
ROWS = (
    *(
        Row(f"checkpoints: {name}", run_of(names), read(), followed, bounded="UTF-8" in name)
        for name, names in CHECKPOINTS.items()
    ),
    *(
        Row(f"{verb}: {LONGEST} bytes", _place, read(), given_to(words, LONGEST), bounded=False)
        for verb, words in PLACES.items()
    ),
    *(
        Row(f"{verb}: 256 bytes", _place, refused(LONG), given_to(words, LONGEST + 1))
        for verb, words in PLACES.items()
    ),
    *(
        Row(
            f"{verb}, not there: {length} bytes",
            _place,
            refused(CURES, 2 if verb in ("sweep --config", "sweep --loader") else 1),
            given_to(words, length),
            bounded=verb == "sweep --loader",
        )
        for verb, words in MISSING.items()
        for length in (LONGEST, LONGEST + 1)
    ),
    Row("study: an arm of 100 letters", arm(100), read(), _study, bounded=False),
    Row("study: an arm of 101 letters", arm(101), refused("at most 100 letters"), _study),
)
