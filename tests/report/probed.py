"""Made-up probes for the synthetic run: labels that follow its DSE, with the noise of two seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from densescope.records import ProbeRecord, ScoreRecord
from densescope.report import ReportData, build_report_data
from densescope.report.labels import ProbedSet
from densescope.report.masks import Masks
from densescope.runs.correlate import judge_run
from densescope.runs.store import RunStore
from tests.report.synthetic import choose

CLASSES = ("void of <b>matter</b>", "sky", "road", "tree")


def probe(record: ScoreRecord, *values: float, **changes: Any) -> ProbeRecord:
    fields: dict[str, Any] = {
        "name": record.name,
        "step": record.step,
        "unit": record.unit,
        "protocol": "linear",
        "dataset": "voc2012",
        "measure": "miou",
        "values": values,
        "details": {
            "classes": list(CLASSES),
            "class_iou": [0.125, 0.25, None, 0.75],
            "notes": ["frames of a few videos"],
        },
        "timing": {"probe_seconds": 100.0},
    }
    return ProbeRecord(**{**fields, **changes})


def probes(run: Sequence[ScoreRecord], **changes: Any) -> list[ProbeRecord]:
    """mIoU near 40 % that rises and falls with the released parts of DSE."""
    found = []
    for record in run:
        if record.status == "scored":
            row = record.scores["-1"]
            value = (
                0.2
                + 0.2
                * (row["released.inter"].value - 0.3 + row["released.effective_rank"].value)
                / 2
            )
            found.append(probe(record, value - 0.001, value + 0.001 + record.step / 1e6, **changes))
    return found


def masks(names: Sequence[str], *, images: int = 2, size: int = 24, classes: int = 4) -> Masks:
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int, below: int) -> torch.Tensor:
        return torch.randint(below, shape, generator=generator).to(torch.uint8)

    truth = draw(images, size, size, below=classes)
    truth[:, :3] = 255
    predicted = {name: draw(images, size, size, below=classes) for name in names}
    return Masks(draw(images, 3, 32, 32, below=256), truth, predicted)


def probe_set(
    run: list[ScoreRecord], found: list[ProbeRecord] | None = None, *, drawn: bool = False
) -> ProbedSet:
    found = probes(run) if found is None else found
    selection = choose(run)
    names = [name for name in (selection.pick, selection.last) if name]
    return ProbedSet(
        f"{found[0].dataset}-{found[0].protocol}",
        found,
        judge_run(run, found),
        masks=masks(names) if drawn else None,
    )


def probed_report(run: list[ScoreRecord], *probe_sets: ProbedSet) -> ReportData:
    return build_report_data(run, choose(run), run={"title": "a run"}, probe_sets=probe_sets)


def probed_store(
    folder: Path, run: Sequence[ScoreRecord], name: str = "voc2012-linear"
) -> RunStore:
    """A run folder with probes in one probe_set."""
    store = RunStore(folder)
    store.open({"backbone": {"format": "dino"}})
    for record in run:
        store.write(record)
    for found in probes(run):
        store.write_probe(name, found)
    return store
