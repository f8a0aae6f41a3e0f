"""All that needs a GPU, in one command of at most nine minutes: ``make gpu``.

Each part is a process of its own with a time limit, so that what one part leaves is there even if
the next one is cut off: the tests marked ``gpu``, the tables of the estimator, the regularizer and
the sweep, and the runs of ``studies/gpu``, which are trained and scored side by side until their
time is up, and then probed. ``--tiny`` rehearses all of it on any machine in about a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.estimator import environment

if TYPE_CHECKING:
    from densescope.pretraining.recorder import Progress
    from densescope.study.spec import Training

ROOT = Path(__file__).resolve().parents[1]
SPEC = ROOT / "studies" / "gpu" / "spec.toml"
RECORDS = "records.tar.gz"


@dataclass(frozen=True)
class Part:
    """One process.

    Attributes:
        name: of its log.
        limit_seconds: after which it is stopped.
        command: what follows the Python interpreter.
    """

    name: str
    limit_seconds: float
    command: tuple[str, ...]


def table_parts(device: str, output: Path, tiny: bool) -> list[Part]:
    """The GPU-marked tests and the tables; small ones for a rehearsal."""
    where = ("--device", device, "--output", str(output))
    tests = ("pytest", "-q", "-m", "gpu", "-W", "ignore", "-p", "no:cacheprovider")
    # A library that only another test needs may be missing on such a machine.
    chosen = "tests/numerics" if tiny else "tests"
    tests = (*tests, "--continue-on-collection-errors", chosen)
    small = {
        "sweep": ("--images-count", "16", "--lidar-images", "0", "--checkpoints", "1"),
        "regularizer": ("--small", "--batch", "2", "--repeats", "1"),
        "estimator": ("--small",),
    }
    limit = 600 if tiny else 60  # a rehearsal may run beside other programs
    parts = [Part("tests", limit, ("-m", *tests))]
    for name, changes in small.items():
        more = changes if tiny else ()
        parts.append(Part(name, limit, ("-m", f"benchmarks.{name}", *where, *more)))
    return parts


def study_phases(options: argparse.Namespace) -> list[list[Part]]:
    """All runs are trained and scored side by side, then all of their probes are made."""
    spec = tomllib.loads(SPEC.read_text())
    methods, probes = spec["study"]["methods"], spec["probe"]
    methods = methods[:1] if options.tiny else methods
    same = ["--data", str(options.data), "--output", str(options.output)]
    same += ["--device", options.device, "--training-seconds", str(options.training_seconds)]
    same += ["--tiny"] if options.tiny else []
    begin = ("-m", "benchmarks.gpu", *same, "--run")
    limit = options.training_seconds + options.scoring_seconds
    training = [Part(name, limit, (*begin, name)) for name in methods]
    probing = [
        Part(f"{name}-probe-{number}", options.probing_seconds, (*begin, name, "--probe", number))
        for name in methods
        for number in map(str, range(len(probes)))
    ]
    return [training, probing]


class TimeIsUp(Exception):
    """Ends a run after a checkpoint."""


class Deadline:
    """Ends a run at the first checkpoint after a moment."""

    def __init__(self, moment: float) -> None:
        self.moment = moment

    def on_start(self, learner: object, step: int) -> None:
        """A run may begin."""

    def after_step(self, learner: object, progress: Progress) -> None:
        """Only checkpoints count."""

    def on_checkpoint(self, learner: object, progress: Progress) -> None:
        """Raise once it is late."""
        if time.monotonic() > self.moment:
            raise TimeIsUp


def together(parts: list[Part], output: Path) -> bool:
    """Run processes side by side, each with its log and its share of the cores."""
    threads = max((os.cpu_count() or 1) // len(parts), 1)
    surroundings = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    begun, running = time.monotonic(), []
    for part in parts:
        log = (output / f"{part.name}.log").open("w")
        command = [sys.executable, *part.command]
        running.append(
            subprocess.Popen(command, cwd=ROOT, env=surroundings, stdout=log, stderr=log)
        )
    fine = True
    for part, process in zip(parts, running, strict=True):
        try:
            code = process.wait(max(part.limit_seconds - (time.monotonic() - begun), 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        spent = time.monotonic() - begun
        print(f"{part.name}: exit code {code} after {spent:.0f} s")
        if code:
            print("\n".join((output / f"{part.name}.log").read_text().splitlines()[-15:]))
            fine = False
    return fine


def run_method(options: argparse.Namespace) -> None:
    """Train and score one method of the study, or probe what was scored."""
    from densescope.features.images import decode_subset, draw_subset, open_images
    from densescope.features.spec import BackboneSpec
    from densescope.pretraining.trainer import pretrain
    from densescope.runs.probe import probe_run
    from densescope.runs.scorer import Compute
    from densescope.runs.sweep import sweep
    from densescope.study.spec import read_spec

    began, compute = time.monotonic(), Compute(options.device)

    def told(event: object) -> None:
        print(f"{time.monotonic() - began:.1f} s: {event}")

    # Paths of a specification are relative to its folder.
    place = options.output / "study" / options.run
    place.mkdir(parents=True, exist_ok=True)
    if not (place / "data").exists():
        (place / "data").symlink_to(options.data.resolve())
    shutil.copy(SPEC, place / SPEC.name)
    spec = read_spec(place / SPEC.name)
    if options.probe is not None:
        labels = spec.labels[options.probe]
        request = labels.request
        probe_run(place / "scores", labels.data, request, compute=compute, on_event=told)
        return
    training, scoring = spec.by_method.get(options.run, spec.training), spec.scoring
    if options.tiny:
        training, scoring = tiny_training(training), replace(scoring, images_count=16)
    spec = replace(spec, methods=(options.run,), by_method={options.run: training})
    (cell,) = spec.cells()
    side = training.image_size
    subset = draw_subset(open_images(training.images), training.images_count, 0)
    pixels = decode_subset(subset, image_size=side, resize_size=side)
    told(f"{len(pixels)} training images are decoded")
    settings = replace(cell.settings, device=options.device)
    deadline = Deadline(began + options.training_seconds)
    try:
        pretrain(settings, pixels, place / "run", callbacks=[deadline])
    except TimeIsUp:
        told("the time of training is up")
    sweep(
        place / "run",
        BackboneSpec(format=options.run),
        images=scoring.images,
        output=place / "scores",
        images_count=scoring.images_count,
        settings=spec.score_settings(),
        compute=compute,
        on_event=told,
    )


def tiny_training(training: Training) -> Training:
    """The same run with four steps of a small network."""
    return replace(
        training,
        steps=4,
        batch_size=8,
        checkpoint_every=2,
        images_count=16,
        options={"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4},
        precision="float32",
    )


def pack(output: Path) -> None:
    """All records and logs of training in one file, without weights and previews."""
    with tarfile.open(output / RECORDS, "w:gz") as archive:
        for path in sorted((output / "study").rglob("*")):
            if path.suffix in (".json", ".txt") and path.is_file():
                archive.add(path, path.relative_to(output))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    shared = Path(os.environ.get("DENSESCOPE_SHARED", ROOT.parent / "shared"))
    parser.add_argument("--data", type=Path, default=shared / "data")
    parser.add_argument("--output", type=Path, default=ROOT / "gpu-records")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", choices=("all", "tables", "study"), default="all")
    parser.add_argument("--training-seconds", type=float, default=200, help="before scoring begins")
    parser.add_argument("--scoring-seconds", type=float, default=60, help="at most")
    parser.add_argument("--probing-seconds", type=float, default=120, help="at most")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal of all parts")
    parser.add_argument("--run", help="one method of the study, in this process")
    parser.add_argument("--probe", type=int, help="with --run: only its probe of this number")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.run:
        run_method(options)
        return
    about = {**environment(), "date": time.strftime("%Y-%m-%d")}
    (options.output / "environment.json").write_text(json.dumps(about, indent=1) + "\n")
    fine = True
    if options.parts != "study":
        for part in table_parts(options.device, options.output, options.tiny):
            fine &= together([part], options.output)
    if options.parts != "tables":
        for phase in study_phases(options):
            fine &= together(phase, options.output)
        pack(options.output)
    raise SystemExit(0 if fine else 1)


if __name__ == "__main__":
    main()
