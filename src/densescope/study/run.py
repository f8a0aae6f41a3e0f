"""Train, score and probe every run of a study; what is done already is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from densescope.errors import DataError, InputError, RecordError
from densescope.features.discovery import find_checkpoints
from densescope.features.images import decode_subset, draw_subset, open_images
from densescope.features.spec import BackboneSpec
from densescope.pretraining.recorder import TrainingCallback
from densescope.pretraining.resume import stored_state
from densescope.pretraining.trainer import Start, pretrain
from densescope.records import kinds, plain, read_json, write_json
from densescope.runs.cluster import Ray
from densescope.runs.differences import differences
from densescope.runs.probe import probe_run
from densescope.runs.scorer import Compute
from densescope.runs.sweep import sweep
from densescope.study.checks import runs_before
from densescope.study.spec import Cell, Labels, StudySpec, Training

MANIFEST = "study.json"


@dataclass(frozen=True)
class StudyEvent:
    """What a study says while it goes on.

    Attributes:
        cell: name of the run.
        stage: ``"pretrain"``, ``"sweep"``, ``"probe"`` or ``"done"``.
        index: how many runs are behind it.
        total: how many there are.
    """

    cell: str
    stage: str
    index: int
    total: int


def run_study(
    spec: StudySpec,
    output: Path | str,
    *,
    compute: Compute | None = None,
    ray: Ray | None = None,
    on_event: Callable[[StudyEvent], None] | None = None,
) -> list[Path]:
    """Train, sweep and probe every run, one after the other or on a cluster.

    A second call goes on where a first one was stopped: a run that was killed resumes from its
    last checkpoint, and checkpoints that were scored or probed are not scored or probed again.

    Args:
        spec: of the study.
        output: folder with a folder per run, which holds ``run`` and ``scores``.
        compute: device, batch size and threads of scoring and probing.
        ray: a cluster to run on, one task per run.
        on_event: called as the work goes on.

    Returns:
        The folders of the runs, in the order of ``spec.cells()``.

    Raises:
        RecordError: the folder holds another study.
        InputError, DataError, CheckpointError: as training, scoring and probing raise them.
    """
    folder, cells = Path(output), spec.cells()
    report = on_event or (lambda event: None)
    _claim(folder, spec)
    compute = compute or Compute()
    jobs = [(cell, spec, folder / cell.name, compute) for cell in cells]
    if ray is None:
        for index, (cell, job) in enumerate(zip(cells, jobs, strict=True)):
            for stage in run_cell(*job):
                report(StudyEvent(cell.name, stage, index + (stage == "done"), len(cells)))
    else:
        there = [(cell, spec, path.resolve(), compute) for cell, _, path, _ in jobs]
        before = runs_before(cells)
        done = 0
        for count in sorted(set(before.values())):
            part = [job for job in there if before[job[0].name] == count]
            for index, name in ray.each(_whole_cell, part):
                if name is None:
                    raise InputError(
                        f"the run {part[index][0].name} lost its worker again and again: give its "
                        "tasks more memory, or run it alone"
                    )
                done += 1
                report(StudyEvent(name, "done", done, len(cells)))
    return [folder / cell.name for cell in cells]


def run_cell(cell: Cell, spec: StudySpec, folder: Path, compute: Compute) -> Iterator[str]:
    """The stages of one run, each named as it begins, and ``"done"``."""
    yield "pretrain"
    train_cell(cell, folder)
    yield "sweep"
    sweep_cell(cell, spec, folder, compute)
    for labels in spec.labels:
        yield "probe"
        probe_cell(labels, folder, compute)
    yield "done"


def train_cell(cell: Cell, folder: Path, callbacks: Sequence[TrainingCallback] = ()) -> None:
    """Train one run, or go on where it was stopped.

    Raises:
        DataError: the run it begins from has no such checkpoint.
        InputError, CheckpointError: as training raises them.
    """
    run = folder / "run"
    start = Start(resume=True) if find_steps(run, cell.method) else _start(cell, folder)
    pretrain(cell.settings, _pixels(cell.training), run, start=start, callbacks=callbacks)


def sweep_cell(cell: Cell, spec: StudySpec, folder: Path, compute: Compute) -> None:
    """Score every checkpoint of a run."""
    shape = cell.settings.backbone
    sweep(
        folder / "run",
        BackboneSpec(cell.method, shape.architecture, shape.loader_options),
        images=spec.scoring.images,
        output=folder / "scores",
        images_count=spec.scoring.images_count,
        settings=spec.score_settings(),
        compute=compute,
        moved=True,
    )


def probe_cell(labels: Labels, folder: Path, compute: Compute) -> None:
    """Probe the checkpoints of a run that the labels are for."""
    probe_run(folder / "scores", labels.data, labels.request, only=labels.only, compute=compute)


def _whole_cell(cell: Cell, spec: StudySpec, folder: Path, compute: Compute) -> str:
    for _ in run_cell(cell, spec, folder, compute):
        pass
    return cell.name


_decoded: dict[tuple[str, int, int], Tensor] = {}


def _pixels(training: Training) -> Tensor:
    """The training images; those of the last run are kept for the next one."""
    key = (training.images, training.images_count, training.image_size)
    if key not in _decoded:
        subset = draw_subset(open_images(training.images), training.images_count, 0)
        size = training.image_size
        _decoded.clear()
        _decoded[key] = decode_subset(subset, image_size=size, resize_size=size)
    return _decoded[key]


def find_steps(folder: Path, method: str) -> dict[int, Path]:
    """The checkpoints of a run that ``densescope pretrain`` wrote, by their steps."""
    try:
        found = find_checkpoints(folder, method).checkpoints
    except DataError:
        return {}
    states = ((stored_state(one.path), one.path) for one in found)
    return {state.step: path for state, path in states if state is not None}


def find_start(cell: Cell, folder: Path) -> Path | None:
    """The checkpoint of the other run that this one begins with, once it is there."""
    run = str(cell.start_run)
    steps = find_steps(folder.parent / run / "run", run.split("-")[0])
    least = cell.arm.start_step or max(steps, default=0)
    return next((steps[step] for step in sorted(steps) if step >= least), None)


def _start(cell: Cell, folder: Path) -> Start:
    if cell.arm.start_run is None:
        path, training = cell.training.start_from, cell.training
        return Start(
            weights=None if path is None else Path(path), weights_format=training.start_format
        )
    found = find_start(cell, folder)
    if found is None:
        raise DataError(
            f"{cell.name} begins with step {cell.arm.start_step} of {cell.start_run}, which has "
            "not come so far"
        )
    return Start(weights=found, weights_format=str(cell.start_run).split("-")[0])


def _claim(folder: Path, spec: StudySpec) -> None:
    """Keep one study to a folder; more seeds, methods, arms and probes may be added."""
    document = {
        "pretrain": plain(vars(spec.training)),
        "methods": {name: plain(vars(spec.by_method[name])) for name in spec.by_method},
        "score": plain(vars(spec.scoring)),
        "arms": {arm.name: plain(vars(arm)) for arm in spec.arms},
    }
    path = folder / MANIFEST
    stored = read_json(path) if path.is_file() else document
    try:
        kinds(stored, dict.fromkeys(document, dict))
    except (KeyError, TypeError) as cause:
        raise RecordError(f"{path} is damaged ({cause}): use another --output") from cause
    for grows in ("arms", "methods"):
        stored[grows] = {**document[grows], **stored[grows]}
        document[grows] = {**stored[grows], **document[grows]}
    changed = differences(stored, document)
    if changed:
        raise RecordError(
            f"{folder} holds a study with other settings ({'; '.join(changed)}); use another "
            "--output, or the same settings"
        )
    write_json(document, path)


def cells_done(spec: StudySpec, output: Path | str) -> list[tuple[Cell, Path]]:
    """The runs of a study that have been scored so far, and their folders of records."""
    found = [(cell, Path(output) / cell.name / "scores") for cell in spec.cells()]
    return [(cell, path) for cell, path in found if (path / "run.json").is_file()]
