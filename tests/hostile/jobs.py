"""Verbs that are killed, meet each other, or run out of disk: what they are given, how they ended.

A verb begins as a fork of a process that has loaded all libraries, so that its time is that of its
work.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from densescope.cli import main as command
from densescope.evaluation.scenes import make_scenes, save_scenes
from tests.cli.running import BACKBONE, SCORING
from tests.tiny_run import write_checkpoints, write_images
from tests.tiny_study import ONE_RUN

# Times, places, and the size of a checkpoint: a resumed training pickles a pair of numbers that
# others share once more.
MAY_DIFFER = {"timing", "seconds", "written", "provenance", "checkpoint_modified", "run_folder"}
MAY_DIFFER |= {"bytes"}
WEIGHTS, LEFT = (".pth", ".tar"), (".*.part", ".images-*")
Words = Callable[[Path, Path], list[Any]]


def nothing() -> None:
    """Prepares nothing."""


@dataclass(frozen=True)
class Job:
    """A verb that is disturbed.

    Attributes:
        name: of the verb.
        kills: how often it is killed in a whole run of the table.
        words: the command, given the folder of inputs and the output.
        again: the same for the calls after the first; as ``words`` by default.
        prepared: copied to the output before the first call.
        prepare: called in the process before the verb begins.
    """

    name: str
    kills: int
    words: Words
    again: Words | None = None
    prepared: str = ""
    prepare: Callable[[], object] = nothing

    def call(self, here: Path, out: Path, said: int | None = None) -> int:
        """Begin the verb, or go on with it; the process id."""
        is_first = self.again is None or not any(out.glob("checkpoint_*"))
        words = self.words if is_first or self.again is None else self.again
        return begun(words(here, out), self.prepare, said)

    def fresh(self, here: Path, out: Path) -> None:
        """The output as it is before the first call."""
        shutil.rmtree(out, ignore_errors=True)
        if self.prepared:
            shutil.copytree(here / self.prepared, out)


def sweep(here: Path, out: Path) -> list[Any]:
    """Six checkpoints."""
    given = [*BACKBONE, *SCORING, "--images", here / "images"]
    return ["sweep", here / "run", *given, "--output", out]


def _watch(here: Path, out: Path) -> list[Any]:
    return ["watch", *sweep(here, out)[1:], "--once", "--settle", "0"]


def _probe(here: Path, out: Path) -> list[Any]:
    labels = ["--dataset", "scenes", "--root", here / "scenes"]
    return ["probe", out, *labels, "--probe-size", 32, "--seeds", "0"]


def _pretrain(here: Path, out: Path) -> list[Any]:
    network = ["--architecture", "vit_tiny_patch16_224", "--image-size", 32]
    options = ["--architecture-option", "patch_size=8,embed_dim=24,depth=2,num_heads=3"]
    run = ["--steps", 40, "--batch-size", 8, "--checkpoint-every", 5, "--device", "cpu"]
    images = ["--images", here / "images", "--output", out]
    return ["pretrain", "--method", "simsiam", *images, *network, *options, *run]


def _resumed(here: Path, out: Path) -> list[Any]:
    return ["pretrain", "--output", out, "--resume"]


def _study(here: Path, out: Path) -> list[Any]:
    return ["study", here / "study.toml", "--output", out, "--device", "cpu"]


def fork_workers() -> None:
    """Let the processes of a sweep begin as forks; new ones load the libraries for seconds."""
    from densescope.runs import executors

    forked = multiprocessing.get_context("fork")
    executors.multiprocessing.get_context = lambda kind: forked  # type: ignore[attr-defined]


JOBS = (
    Job("sweep", 60, sweep),
    Job("watch", 40, _watch),
    Job("probe", 35, _probe, prepared="scores"),
    Job("pretrain", 40, _pretrain, _resumed),
    Job("study", 30, _study),
    Job(
        "sweep --processes",
        30,
        lambda here, out: [*sweep(here, out), "--processes", 2],
        prepare=fork_workers,
    ),
)

# Loaded once, before the first fork.
LIBRARIES = (
    *("densescope.runs.sweep", "densescope.runs.probe", "densescope.runs.watch", "scipy.stats"),
    *("densescope.report.run", "densescope.study.run", "densescope.study.figure"),
    *("plotly.subplots", "pytorch_lightning", "lightly.loss", "densescope.pretraining.loop"),
    *("densescope.cli.app", "pyarrow.parquet"),
)


def inputs(here: Path) -> None:
    """All that the jobs read."""
    for library in LIBRARIES:
        importlib.import_module(library)
    write_images(here / "images", 32)
    write_checkpoints(here / "run", range(6))
    for seed, split in enumerate(("train", "val")):
        save_scenes(make_scenes(8, size=32, seed=seed), here / "scenes" / split)
    (here / "study.toml").write_text(ONE_RUN)
    assert ended(begun(sweep(here, here / "scores"))) == 0


def begun(
    words: list[Any], prepare: Callable[[], object] = nothing, said: int | None = None
) -> int:
    """A verb in a forked process of its own group; the process id.

    Args:
        words: of the command.
        prepare: called in the process before.
        said: an open file for what it prints.
    """
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        said = os.open(os.devnull, os.O_WRONLY) if said is None else said
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        torch.set_num_threads(1)
        prepare()
        sys.argv = ["densescope", *map(str, words)]
        command()
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(child: int) -> int:
    """How a process ended."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def damaged(folder: Path) -> list[str]:
    """Files that a reader would find half written."""
    found = []
    for path in folder.rglob("*"):
        if path.name.startswith(".") or not path.is_file():
            continue
        try:
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".safetensors":
                load_file(path)
            elif path.suffix in WEIGHTS:
                torch.load(path, weights_only=True)
            elif path.suffix == ".html":
                assert path.read_text().rstrip().endswith("</html>")
        except Exception as error:
            found.append(f"{path.name}: {error!r:.200}")
    return found


def content(folder: Path) -> dict[str, Any]:
    """All numbers and weights below a folder."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".json" and not any(p.startswith(".") for p in name.split("/")):
            found[name] = _comparable(json.loads(path.read_text()))
        elif path.suffix in WEIGHTS and not path.name.startswith("."):
            held = torch.load(path, weights_only=True)
            found[name] = {key: value.tolist() for key, value in held["state_dict"].items()}
        elif path.name == "log.txt":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = [[row["step"], row["train_loss"]] for row in rows]
    return found


def _comparable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _comparable(one) for key, one in value.items() if key not in MAY_DIFFER}
    return [_comparable(one) for one in value] if isinstance(value, list) else value


def left(folder: Path) -> list[Path]:
    """Temporary files and folders of writers that ended."""
    return [path for pattern in LEFT for path in folder.rglob(pattern)]
