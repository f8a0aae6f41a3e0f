"""Pretrain a small backbone and leave checkpoints as the method's public code would."""

from __future__ import annotations

import json
import logging
import math
import os
import statistics
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from densescope.errors import InputError
from densescope.features.extraction import resolve_device
from densescope.pretraining.methods import Method, find_method
from densescope.pretraining.settings import PretrainSettings

if TYPE_CHECKING:
    from densescope.pretraining.loop import Loop


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a step.

    Attributes:
        step: finished steps.
        steps: steps of the run.
        loss: of the last step.
        images_per_second: mean since the start.
        checkpoint: the file written after this step, or ``None``.
    """

    step: int
    steps: int
    loss: float
    images_per_second: float
    checkpoint: Path | None = None


def pretrain(
    settings: PretrainSettings,
    images: Tensor,
    output_folder: str | os.PathLike[str],
    progress: Callable[[Progress], None] | None = None,
) -> tuple[Path, ...]:
    """Pretrain and write a checkpoint every ``checkpoint_every`` steps and after the last.

    Files have the layout of the method's public code (``checkpoint0000.pth``, ... for DINO) and
    appear whole or not at all. ``log.txt`` gets a line of JSON per checkpoint: ``epoch`` (the
    number in the file name), ``step``, ``train_loss`` (mean since the one before), ``seconds``.

    Args:
        settings: everything that decides the run.
        images: uint8, ``images 3 size size`` with the size the settings name; at least a batch.
        output_folder: made if need be; must not hold checkpoints of another run.
        progress: called after every step.

    Returns:
        The checkpoints in order. On one machine and number of threads the same settings and
        images give the same bits (CPU). The global random state is left as it was.

    Raises:
        InputError: images, settings or folder do not fit, a package is missing, or the loss is
            not finite.
    """
    method = find_method(settings.method)
    device = resolve_device(settings.device)
    _check(images, settings)
    folder = _fresh(Path(output_folder))
    try:
        import pytorch_lightning as lightning

        from densescope.pretraining.loop import Batches, Loop
    except ImportError as cause:
        raise InputError(
            f"pretraining needs {cause.name}: pip install 'densescope[pretrain]'"
        ) from cause
    journal = _Journal(method, settings, folder, progress)
    with torch.random.fork_rng(), _quiet():
        torch.default_generator.manual_seed(settings.seed)
        loop = Loop(method.build(settings), settings, journal.after_step)
        trainer = lightning.Trainer(
            max_steps=settings.steps,
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=[device.index or 0] if device.type == "cuda" else 1,
            gradient_clip_val=settings.clip_norm,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(loop, Batches(images, settings.batch_size, settings.seed))
    return tuple(journal.written)


class _Journal:
    """Counts losses, writes checkpoints and the log, and tells the caller."""

    def __init__(
        self,
        method: Method,
        settings: PretrainSettings,
        folder: Path,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.method = method
        self.settings = settings
        self.folder = folder
        self.progress = progress
        self.losses: list[float] = []
        self.written: list[Path] = []
        self.began = perf_counter()

    def after_step(self, loop: Loop, step: int, loss: float) -> None:
        if not math.isfinite(loss):
            raise InputError(
                f"the loss is {loss} at step {step}: lower the learning rate "
                f"({self.settings.learning_rate:g}) or lengthen the warm-up"
            )
        self.losses.append(loss)
        path = None
        if step % self.settings.checkpoint_every == 0 or step == self.settings.steps:
            path = self._write(loop, step)
        if self.progress is not None:
            rate = step * self.settings.batch_size / (perf_counter() - self.began)
            self.progress(Progress(step, self.settings.steps, loss, rate, path))

    def _write(self, loop: Loop, step: int) -> Path:
        epoch = len(self.written)
        path = self.folder / self.method.file_name.format(epoch)
        write_checkpoint(loop.learner.checkpoint(epoch, loop.optimizer.state_dict()), path)
        self.written.append(path)
        line = {
            "train_loss": statistics.fmean(self.losses),
            "epoch": epoch,
            "step": step,
            "seconds": round(perf_counter() - self.began, 3),
        }
        self.losses.clear()
        with (self.folder / "log.txt").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        return path


def write_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Save so that a reader sees the whole file or none (a temporary file beside it, renamed)."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(f"pytorch_lightning.{part}") for part in ("utilities", "trainer")]
    loggers.append(logging.getLogger("pytorch_lightning"))
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            # Lightning's own use of torch, and its advice to use a GPU on top of what was asked.
            warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)
            warnings.filterwarnings("ignore", "GPU available but not used")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _check(images: Tensor, settings: PretrainSettings) -> None:
    size = settings.backbone.image_size
    if images.dtype != torch.uint8 or images.shape[1:] != (3, size, size):
        raise InputError(
            f"images are {tuple(images.shape)} of {images.dtype}: expected uint8 images x 3 x "
            f"{size} x {size}"
        )
    if len(images) < settings.batch_size:
        raise InputError(f"{len(images)} images do not fill a batch of {settings.batch_size}")


def _fresh(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.glob("checkpoint*")):
        raise InputError(f"{folder} already holds checkpoints: choose an empty folder")
    return folder
