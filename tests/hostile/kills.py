"""Verbs that are killed at random moments: what is there is whole, and the end is the same.

``python -m tests.hostile.kills`` prints a table; ``--kills 8`` tries a few. Several verbs at once
on one output, also under equal process ids, and disks that fill up, are in the same table.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from densescope.cli import main as command
from densescope.evaluation.scenes import make_scenes, save_scenes
from tests.cli.running import BACKBONE, SCORING
from tests.tiny_run import write_checkpoints, write_images

TIMES = {"timing", "seconds", "written", "provenance", "checkpoint_modified", "run_folder"}
STUDY = """
[study]
methods = ["simsiam"]
[[arm]]
name = "plain"
[pretrain]
images = "images"
image_size = 32
steps = 4
batch_size = 8
checkpoint_every = 2
architecture = "vit_tiny_patch16_224"
options = { patch_size = 8, embed_dim = 24, depth = 2, num_heads = 3 }
[score]
images = "images"
images_count = 32
settings = { global_clusters = 6, lidar_images = 0 }
"""
FAULTS = ("damaged", "lost", "other numbers", "failed", "left behind")


@dataclass(frozen=True)
class Job:
    """A verb that is killed.

    Attributes:
        name: of the verb.
        share: of the kills.
        words: the command, given the folder of inputs and the output.
        again: the same for the calls after the first; as ``words`` by default.
        prepared: copied to the output before the first call.
    """

    name: str
    share: int
    words: Callable[[Path, Path], list[Any]]
    again: Callable[[Path, Path], list[Any]] | None = None
    prepared: str = ""


def _sweep(here: Path, out: Path) -> list[Any]:
    given = [*BACKBONE, *SCORING, "--images", here / "images"]
    return ["sweep", here / "run", *given, "--output", out]


def _watch(here: Path, out: Path) -> list[Any]:
    return ["watch", *_sweep(here, out)[1:], "--once", "--settle", "0"]


def _probe(here: Path, out: Path) -> list[Any]:
    labels = ["--dataset", "scenes", "--root", here / "scenes"]
    return ["probe", out, *labels, "--probe-size", 32, "--seeds", "0"]


def _pretrain(here: Path, out: Path) -> list[Any]:
    network = ["--architecture", "vit_tiny_patch16_224", "--image-size", 32]
    options = ["--architecture-option", "patch_size=8,embed_dim=24,depth=2,num_heads=3"]
    run = ["--steps", 8, "--batch-size", 8, "--checkpoint-every", 2, "--device", "cpu"]
    images = ["--images", here / "images", "--output", out]
    return ["pretrain", "--method", "simsiam", *images, *network, *options, *run]


def _resumed(here: Path, out: Path) -> list[Any]:
    begun = any(out.glob("checkpoint_*"))
    return ["pretrain", "--output", out, "--resume"] if begun else _pretrain(here, out)


def _study(here: Path, out: Path) -> list[Any]:
    return ["study", here / "study.toml", "--output", out, "--device", "cpu"]


JOBS = (
    Job("sweep", 70, _sweep),
    Job("watch", 45, _watch),
    Job("probe", 30, _probe, prepared="scores"),
    Job("pretrain", 40, _pretrain, _resumed),
    Job("study", 10, _study),
    Job("sweep --processes", 5, lambda here, out: [*_sweep(here, out), "--processes", 2]),
)


# Loaded once, before the first fork.
LIBRARIES = (
    *("densescope.runs.sweep", "densescope.runs.probe", "densescope.runs.watch", "scipy.stats"),
    *(
        "densescope.report.run",
        "densescope.study.run",
        "densescope.study.figure",
        "plotly.subplots",
    ),
    *("pytorch_lightning", "lightly.loss", "densescope.pretraining.loop", "densescope.cli.app"),
)


def inputs(here: Path) -> None:
    """All that the jobs read."""
    for library in LIBRARIES:
        importlib.import_module(library)
    write_images(here / "images", 32)
    write_checkpoints(here / "run", range(6))
    for seed, split in enumerate(("train", "val")):
        save_scenes(make_scenes(8, size=32, seed=seed), here / "scenes" / split)
    (here / "study.toml").write_text(STUDY)
    assert finished(_sweep(here, here / "scores")) == 0


def begun(words: list[Any], prepare: Callable[[], object] = lambda: None) -> int:
    """A verb in a forked process of its own group; the process id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        quiet = os.open(os.environ.get("KILLS_LOG", os.devnull), os.O_WRONLY | os.O_APPEND)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        torch.set_num_threads(1)
        prepare()
        sys.argv = ["densescope", *map(str, words)]
        command()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """How a process ended."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def finished(words: list[Any], prepare: Callable[[], object] = lambda: None) -> int:
    """The exit code of a verb."""
    return ended(begun(words, prepare))


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
            elif path.suffix in (".pth", ".tar"):
                torch.load(path, weights_only=True)
            elif path.suffix == ".html":
                assert path.read_text().rstrip().endswith("</html>")
        except Exception as error:
            found.append(f"{path.name}: {error!r:.200}")
    return found


def content(folder: Path) -> dict[str, Any]:
    """All numbers and weights below a folder, without times."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".json" and not any(p.startswith(".") for p in name.split("/")):
            found[name] = _timeless(json.loads(path.read_text()))
        elif path.suffix in (".pth", ".tar"):
            held = torch.load(path, weights_only=True)
            found[name] = {key: value.tolist() for key, value in held["state_dict"].items()}
        elif path.name == "log.txt":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = [[row["step"], row["train_loss"]] for row in rows]
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _timeless(one) for key, one in value.items() if key not in TIMES}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def killed(job: Job, kills: int, here: Path, chance: random.Random) -> Counter[str]:
    """Kill a verb again and again on one output, then let it end, and begin anew."""
    counts: Counter[str] = Counter()
    began = time.monotonic()
    _fresh(job, here, here / "reference")
    assert finished(job.words(here, here / "reference")) == 0, job.name
    longest = time.monotonic() - began
    expected, out = content(here / "reference"), here / "out"
    first = True
    while counts["killed"] < kills:
        if first:
            _fresh(job, here, out)
        words = job.words if first or job.again is None else job.again
        first = False
        child = begun(words(here, out))
        time.sleep(chance.uniform(0, 1.2) * longest)
        if os.waitpid(child, os.WNOHANG)[0] == 0:
            os.killpg(child, signal.SIGKILL)
            ended(child)
            counts["killed"] += 1
        counts["damaged"] += len(damaged(out)) if out.is_dir() else 0
        if chance.random() < 0.15 or counts["killed"] == kills:
            counts.update(_compared(job, here, out, expected))
            first = True
    counts["seconds"] = round(time.monotonic() - began)
    return counts


def _fresh(job: Job, here: Path, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    if job.prepared:
        shutil.copytree(here / job.prepared, out)


def _compared(job: Job, here: Path, out: Path, expected: dict[str, Any]) -> Iterator[str]:
    """What is wrong once the verb has ended by itself."""
    past = time.time() - 3600
    for part in [*out.rglob(".*.part"), *out.rglob(".images-*")]:
        os.utime(part, (past, past))
    if finished((job.again or job.words)(here, out)) != 0:
        yield "failed"
    found = content(out)
    if set(found) != set(expected):
        yield "lost"
    elif found != expected:
        yield "other numbers"
    if [*out.rglob(".*.part"), *out.rglob(".images-*")]:
        yield "left behind"


# --- several at once, and disks that fill up ---


def together(count: int, here: Path, prepare: Callable[[], object]) -> Counter[str]:
    """Several sweeps on one output at once."""
    expected, out = content(here / "scores"), here / "together"
    shutil.rmtree(out, ignore_errors=True)
    children = [begun(_sweep(here, out), prepare) for _ in range(count)]
    codes = [ended(child) for child in children]
    counts = Counter({"at once": count, "damaged": len(damaged(out))})
    counts["failed"] = sum(code != 0 for code in codes)
    found = content(out)
    counts["lost"] = int(set(found) != set(expected))
    counts["other numbers"] = int(not counts["lost"] and found != expected)
    return counts


def equal_ids() -> None:
    """What two containers on one volume see: the same process id."""
    os.getpid = lambda: 7


def without_locks() -> None:
    """A file system that has no locks."""
    import errno
    import fcntl

    def refuse(*given: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    fcntl.flock = refuse  # type: ignore[assignment]


def full(job: Job, limit: int, here: Path) -> Counter[str]:
    """A verb whose files may not be larger than a limit: as on a full disk, at another place."""
    import resource

    out = here / "full"
    _fresh(job, here, out)

    def prepare() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    log = here / "full.log"
    log.write_text("")
    os.environ["KILLS_LOG"] = str(log)
    try:
        code = finished(job.words(here, out), prepare)
    finally:
        del os.environ["KILLS_LOG"]
    said = log.read_text()
    counts = Counter({"full": 1, "damaged": len(damaged(out)) if out.is_dir() else 0})
    is_sentence = code in (0, 1) and "Traceback" not in said and "unexpected" not in said
    counts["failed"] = int(not is_sentence or (code == 1 and "Free some space" not in said))
    counts["left behind"] = len(list(out.rglob(".*.part")))
    return counts


LIMITS = (0, 300, 3_000, 30_000, 100_000)


def main() -> int:
    """Print the table; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--only", default="", help="jobs with this text in their name")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    sys.dont_write_bytecode = True
    torch.set_num_threads(1)
    total = sum(job.share for job in JOBS)
    jobs = [job for job in JOBS if asked.only in job.name]
    few = asked.kills < total
    table: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory(prefix="kills-", ignore_cleanup_errors=True) as scratch:
        here = Path(scratch)
        inputs(here)
        for job in [replace(job, share=max(job.share * asked.kills // total, 1)) for job in jobs]:
            if few and job.name not in ("sweep", "pretrain"):
                continue
            table[job.name] = killed(job, job.share, here, random.Random(asked.seed))
            print(job.name, dict(table[job.name]), file=sys.stderr, flush=True)
        if not asked.only:
            table["at once"] = together(2 if few else 6, here, lambda: None)
            table["equal ids"] = together(2 if few else 4, here, equal_ids)
            table["no locks"] = together(2, here, without_locks)
            for job in jobs[: 1 if few else 5]:
                limits = LIMITS[1:3] if few else LIMITS
                full_counts = (full(job, limit, here) for limit in limits)
                table[f"full disk, {job.name}"] = sum(full_counts, Counter())
    columns = ("killed", "at once", "full", *FAULTS, "seconds")
    print(" " * 24, *columns, sep="  ")
    for name, counts in [*table.items(), ("all", sum(table.values(), Counter()))]:
        print(f"{name:24}", *(f"{counts[one]:>{len(one)}}" for one in columns), sep="  ")
    return int(any(counts[fault] for counts in table.values() for fault in FAULTS))


if __name__ == "__main__":
    sys.exit(main())
