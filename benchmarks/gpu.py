"""All that needs a GPU, in one command of at most nine minutes: ``make gpu``.

Each part is a process of its own with a time limit, so that what one part leaves is there even if
the next one is cut off: the tests marked ``gpu``, the tables of the estimator, the regularizer and
the sweep, and the runs of a study. These are trained side by side until their time is up, each in
a process of its own, which then scores and probes its checkpoints. ``--tiny`` rehearses all of it
on any machine in about a minute.
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.estimator import environment

if TYPE_CHECKING:
    from densescope.pretraining.recorder import Progress
    from densescope.study.spec import Cell, StudySpec, Training

ROOT = Path(__file__).resolve().parents[1]
SPEC = ROOT / "studies" / "degradation" / "vit-small.toml"
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
    # Other files may need libraries that such a machine lacks.
    found = sorted((ROOT / "tests/numerics" if tiny else ROOT / "tests").rglob("test_*.py"))
    marked = [str(path) for path in found if "mark.gpu" in path.read_text(encoding="utf-8")]
    tests = ("pytest", "-q", "-m", "gpu", "-W", "ignore", "-p", "no:cacheprovider", *marked)
    small = {
        "sweep": ("--images-count", "16", "--lidar-images", "0", "--checkpoints", "1"),
        "regularizer": ("--small", "--batch", "2", "--repeats", "1"),
        "estimator": ("--small",),
    }
    limit = 600 if tiny else 100  # a rehearsal may run beside other programs
    parts = [Part("tests", limit, ("-m", *tests))]
    for name, changes in small.items():
        more = changes if tiny else ()
        parts.append(Part(name, limit, ("-m", f"benchmarks.{name}", *where, *more)))
    return parts


def study_parts(options: argparse.Namespace) -> list[Part]:
    """One process for each run of the study: it trains, scores and probes."""
    same = ["--spec", str(options.spec), "--data", str(options.data), "--device", options.device]
    same += ["--output", str(options.output), "--began", str(time.time())]
    same += ["--training-seconds", str(options.training_seconds)]
    same += ["--checkpoints", str(options.checkpoints), "--weights", str(options.weights)]
    same += ["--reading-device", options.reading_device or options.device]
    same += ["--tiny"] if options.tiny else []
    names = [cell.name for cell in placed_spec(options).cells()]
    return [
        Part(name, options.study_seconds, ("-m", "benchmarks.gpu", *same, "--run", name))
        for name in names
    ]


class TimeIsUp(Exception):
    """Ends a run after a checkpoint."""


class Deadline:
    """Ends a run at the first checkpoint after a moment, in seconds since 1970."""

    def __init__(self, moment: float) -> None:
        self.moment = moment

    def on_start(self, learner: object, step: int) -> None:
        """A run may begin."""

    def after_step(self, learner: object, progress: Progress) -> None:
        """Only checkpoints count."""

    def on_checkpoint(self, learner: object, progress: Progress) -> None:
        """Raise once it is late."""
        if time.time() > self.moment:
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


def placed_spec(options: argparse.Namespace) -> StudySpec:
    """The specification with the data beside it; tiny for a rehearsal."""
    from densescope.study.spec import read_spec

    # Paths of a specification are relative to its folder.
    place = options.output / "study"
    place.mkdir(parents=True, exist_ok=True)
    if not (place / "data").exists():
        (place / "data").symlink_to(options.data.resolve())
    shutil.copy(options.spec, place / "spec.toml")
    spec = read_spec(place / "spec.toml")
    if not options.tiny:
        return spec
    later = [arm for arm in spec.arms if arm.start_run is not None and not arm.regularizer]
    arms, methods = (*spec.arms[:1], *later[:1]), spec.methods[:2]
    return replace(
        spec,
        methods=methods,
        seeds=spec.seeds[:1],
        arms=tuple(
            replace(
                arm,
                start_step=arm.start_step and 2,
                methods=tuple(name for name in methods if name in (arm.methods or methods)),
                seeds=(),
            )
            for arm in arms
        ),
        by_method={
            name: tiny_training(spec.by_method.get(name, spec.training)) for name in methods
        },
        scoring=replace(spec.scoring, images_count=16),
    )


def run_cell(options: argparse.Namespace) -> None:
    """Train one run of the study until the time is up, thin its checkpoints, score and probe."""
    from densescope.runs.scorer import Compute
    from densescope.study.run import (
        find_start,
        find_steps,
        probe_cell,
        sweep_cell,
        train_cell,
    )

    def told(event: object) -> None:
        print(f"{time.time() - options.began:.1f} s: {event}")

    spec, late = placed_spec(options), options.began + options.training_seconds
    cell = next(cell for cell in spec.cells() if cell.name == options.run)
    cell = replace(cell, settings=replace(cell.settings, device=options.device))
    folder = options.output / "study" / cell.name
    reading = Compute(options.reading_device)
    if options.probe is not None:
        probe_cell(spec.labels[options.probe], folder, reading)
        return
    while cell.start_run and find_start(cell, folder) is None and time.time() < late:
        time.sleep(0.5)
    told("begins")
    try:
        train_cell(cell, folder, callbacks=[Deadline(late)])
    except TimeIsUp:
        told("the time of training is up")
    steps = find_steps(folder / "run", cell.method)
    told(f"{max(steps)} steps, {len(steps)} checkpoints")
    for step in sorted(steps.keys() - set(spread(sorted(steps), options.checkpoints))):
        steps[step].unlink()
    told("sweep")
    sweep_cell(cell, spec, folder, reading)
    told("probes")
    again = [sys.executable, "-m", "benchmarks.gpu", *sys.argv[1:], "--probe"]
    probes = [subprocess.Popen([*again, str(place)]) for place in range(len(spec.labels))]
    keep_weights(cell, folder, options.weights)
    codes = [probe.wait() for probe in probes]
    if any(codes):
        raise SystemExit("a probe failed")
    told("done")


def keep_weights(cell: Cell, folder: Path, count: int) -> None:
    """Leave the backbones of some checkpoints in 16-bit floats, as files that timm loads."""
    from safetensors.torch import save_file

    from densescope.features.backbones import load_backbone
    from densescope.features.spec import BackboneSpec
    from densescope.features.timm_backbone import TimmBackbone
    from densescope.study.run import find_steps

    shape, place = cell.settings.backbone, folder / "weights"
    steps = find_steps(folder / "run", cell.method) if count else {}
    for step in spread(sorted(steps), count):
        spec = BackboneSpec(cell.method, shape.architecture, shape.loader_options)
        network = load_backbone(steps[step], spec).backbone
        assert isinstance(network, TimmBackbone)
        tensors = {name: value.half() for name, value in network.model.state_dict().items()}
        place.mkdir(exist_ok=True)
        save_file(tensors, place / f"step-{step:05d}.safetensors")


def spread(steps: list[int], count: int) -> list[int]:
    """At most so many of them, evenly, with the first and the last."""
    if len(steps) <= count:
        return steps
    return [steps[round(place * (len(steps) - 1) / (count - 1))] for place in range(count)]


def tiny_training(training: Training) -> Training:
    """The same run with four steps of a small network."""
    return replace(
        training,
        steps=4,
        batch_size=8,
        checkpoint_every=2,
        images_count=16,
        options={"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4},
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
    parser.add_argument(
        "--reading-device",
        help="of scores and probes; that of the training by default. With many small networks and "
        "many cores cpu is faster",
    )
    parser.add_argument("--parts", choices=("all", "tables", "study"), default="all")
    parser.add_argument("--spec", type=Path, default=SPEC)
    parser.add_argument("--training-seconds", type=float, default=120, help="before scoring begins")
    parser.add_argument("--study-seconds", type=float, default=300, help="of all its parts")
    parser.add_argument("--checkpoints", type=int, default=25, help="scored of a run, evenly")
    parser.add_argument("--weights", type=int, default=0, help="backbones to keep of a run")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal of all parts")
    parser.add_argument("--run", help="one run of the study, in this process")
    parser.add_argument("--probe", type=int, help="with --run: only its probe of this number")
    parser.add_argument("--began", type=float, help="with --run: seconds since 1970")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.run:
        run_cell(options)
        return
    about = {**environment(), "date": time.strftime("%Y-%m-%d")}
    (options.output / "environment.json").write_text(json.dumps(about, indent=1) + "\n")
    fine = True
    if options.parts != "study":
        for part in table_parts(options.device, options.output, options.tiny):
            fine &= together([part], options.output)
    if options.parts != "tables":
        fine &= together(study_parts(options), options.output)
        pack(options.output)
    raise SystemExit(0 if fine else 1)


if __name__ == "__main__":
    main()
