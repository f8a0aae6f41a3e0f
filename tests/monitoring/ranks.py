"""What the ranks of the distributed tests do, where spawned processes find it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from densescope.errors import DensescopeError
from densescope.monitoring.metric import DenseMetric
from densescope.monitoring.monitor import DenseMonitor
from tests.monitoring.scenes import SETTINGS, features, pixels, vit
from tests.processes import begin, ended

SECONDS = 180


def spawn(work: Any, folder: Path, count: int = 2) -> list[Any]:
    """Run ``work(rank, folder)`` on several ranks; what each returned."""
    begun = [begin(_rank, rank, work, str(folder), count) for rank in range(count)]
    assert [ended(process, SECONDS) for process in begun] == [0] * count, "None: a rank hangs"
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(count)]


def _rank(rank: int, work: Any, folder: str, count: int) -> None:
    logging.disable()
    place = f"file://{folder}/meeting"
    distributed.init_process_group("gloo", init_method=place, rank=rank, world_size=count)
    answer = work(rank, Path(folder))
    (Path(folder) / f"rank{rank}.json").write_text(json.dumps(answer))
    distributed.barrier()
    distributed.destroy_process_group()


def told(metric: DenseMetric) -> Any:
    try:
        return metric.compute().to_json()
    except DensescopeError as error:
        return str(error)


def with_torchmetrics(ids: Any) -> Any:
    from densescope.monitoring.torchmetrics import DenseStructureMetric

    metric = DenseStructureMetric(SETTINGS)
    if len(ids):
        metric.update(features()[list(ids)], ids, features()[list(ids), 0])
    try:
        return {name: float(value) for name, value in metric.compute().items()}
    except DensescopeError as error:
        return str(error)


def shares(rank: int, folder: Path) -> dict[str, Any]:
    """Several ways to spread 32 images over two ranks."""
    mine = {
        "unequal": (range(31, 10, -1), range(11))[rank],
        "copies": (range(0, 32, 2), [*range(1, 32, 2), 0, 2])[rank],
        "nothing on the second": (range(32), ())[rank],
        "nothing on the first": ((), range(32))[rank],
        "nothing at all": (),
    }
    answers: dict[str, Any] = {}
    for name, ids in mine.items():
        metric = DenseMetric(SETTINGS)
        if len(ids):
            metric.update(features()[list(ids)], ids, features()[list(ids), 0])
        answers[name] = told(metric)
    metric = DenseMetric(SETTINGS)
    metric.update(features(16, dim=8 + rank), range(16 * rank, 16 * rank + 16))
    answers["two shapes"] = told(metric)
    metric.reset()
    metric.update(features(16), range(16))
    if rank == 1:
        metric.update(features(16, dim=9), range(16))
    answers["one rank fails"] = told(metric)
    answers["torchmetrics"] = {name: with_torchmetrics(ids) for name, ids in mine.items()}
    alone = DenseMetric(SETTINGS, distributed=False)
    if rank == 0:
        alone.update(features(), range(32), features()[:, 0])
        answers["alone"] = told(alone)
    return answers


class Spoiled(nn.Module):
    """A backbone that fails on one rank only."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("the device is lost")


class Masking(nn.Module):
    """A backbone that draws even in evaluation mode, as MAE does."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = vit()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.vit.forward_features(images)[:, 1:]
        return tokens[:, torch.randperm(16)] + 0.1 * torch.rand(tokens.shape)


def masked() -> Any:
    """What one look at such a model gives, whatever was drawn before."""
    monitor = DenseMonitor(
        pixels(36),
        settings=SETTINGS,
        batch_size=8,
        backbone=lambda model: model,
        tokens=lambda model, images: model(images),
    )
    look = monitor.observe(Masking(), step=1)
    assert look is not None
    assert look.values is not None
    return look.values.to_json()


def watched(rank: int, folder: Path) -> dict[str, Any]:
    """A monitor on a model in DDP: 5 batches on two ranks, then a rank that fails."""
    model = DistributedDataParallel(vit())
    lines: list[Any] = []
    monitor = DenseMonitor(
        pixels(36),
        settings=SETTINGS,
        batch_size=8,
        output=folder / "run",
        loggers=[lambda step, numbers: lines.append(step)],
    )
    good = monitor.observe(model, step=1)
    bad = monitor.observe(Spoiled() if rank == 1 else model, step=2)
    again = monitor.observe(model, step=3)
    assert good is not None
    assert good.values is not None
    assert bad is not None
    assert again is not None
    return {
        "reading": good.values.to_json(),
        "masked": masked(),
        "same": again.values == good.values,
        "problems": bad.problems,
        "logged": lines,
        "numbers": sorted(good.numbers),
        "records": len(monitor.records),
    }


def everything(rank: int, folder: Path) -> dict[str, Any]:
    """All of it, as starting processes takes longer than the work."""
    return {"shares": shares(rank, folder), "watched": watched(rank, folder)}
