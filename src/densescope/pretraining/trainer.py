"""Pretrain a backbone and leave checkpoints as the method's public code would."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densescope.errors import DataError, InputError
from densescope.features.discovery import find_checkpoints
from densescope.features.extraction import resolve_device
from densescope.files import make_folder
from densescope.pretraining.learner import Learner, Method
from densescope.pretraining.methods import find_method, resolve_settings
from densescope.pretraining.recorder import Progress as Progress
from densescope.pretraining.recorder import RunRecorder, TrainingCallback
from densescope.pretraining.regularizers import Regularizer, build_regularizer
from densescope.pretraining.resume import IMAGES, ORIGIN, RunState, newest_state, start_from
from densescope.pretraining.settings import PRECISIONS, PretrainSettings


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    Attributes:
        resume: go on from the last checkpoint in the output folder.
        weights: a checkpoint whose weights a new run begins with.
        weights_format: row of ``FORMATS`` that reads it, if it is not one of the run's method;
            its backbone is taken, and heads stay fresh. ``"auto"``: the file decides.
    """

    resume: bool = False
    weights: Path | None = None
    weights_format: str | None = None

    def __post_init__(self) -> None:
        if self.weights_format is not None and self.weights is None:
            raise InputError(
                f"--start-format {self.weights_format} names the format of a checkpoint: name the "
                "file with --start-from"
            )
        if self.resume and self.weights is not None:
            raise InputError("a run is resumed or started from other weights, not both")


def pretrain(
    settings: PretrainSettings,
    images: Tensor,
    output_folder: str | os.PathLike[str],
    progress: Callable[[Progress], None] | None = None,
    *,
    start: Start | None = None,
    callbacks: Sequence[TrainingCallback] = (),
    loggers: Sequence[Any] = (),
) -> tuple[Path, ...]:
    """Pretrain and write a checkpoint every ``checkpoint_every`` steps and after the last.

    Files have the layout of the method's public code (``checkpoint0000.pth``, ... for DINO) and
    appear whole or not at all. Beside that layout a file holds, under the key ``densescope``, what
    its run needs to go on: a run that was killed and resumed ends with the weights of one that was
    not. ``log.txt`` gets a line of JSON per checkpoint: ``epoch`` (the number in the file name),
    ``step``, ``train_loss`` (mean since the one before), ``seconds``.

    Args:
        settings: everything that decides the run.
        images: uint8, ``images 3 size size`` with the size the settings name; at least a batch.
        output_folder: made if need be; holds checkpoints only of a run that is resumed.
        progress: called after every step.
        start: from fresh weights by default.
        callbacks: told of every step and checkpoint.
        loggers: of Lightning; they get the loss.

    Returns:
        The run's checkpoints in order. On one machine and number of threads the same settings
        and images give the same bits (CPU). The global random state is left as it was.

    Raises:
        InputError: images, settings or folder do not fit, a package is missing, the loss is not
            finite, or the run to be resumed had other settings.
        CheckpointError: the checkpoint to begin from cannot be read or does not fit.
    """
    start = start or Start()
    settings = resolve_settings(settings)
    method = find_method(settings.method)
    device = resolve_device(settings.device)
    _check(images, settings)
    folder = Path(output_folder)
    check_folder(folder, method, start)
    make_folder(folder)
    document = {**settings.to_json(), IMAGES: _fingerprint(images)}
    with torch.random.fork_rng(), _quiet():
        torch.default_generator.manual_seed(settings.seed)
        learner = _build(method, settings)
        if start.weights is not None:
            document[ORIGIN] = start_from(start.weights, learner, method, start.weights_format)
        # Of a resumed run, what it anchors to lies in its state.
        fresh = start.weights is None and not start.resume
        regularizer = build_regularizer(settings.regularizer, learner, fresh=fresh)
        state = newest_state(folder, method, document) if start.resume else None
        if state is not None:
            _restore(state, learner, regularizer)
            document = state.settings
        first = 0 if state is None else state.step
        journal = RunRecorder(method, settings, document, folder, progress, callbacks, first)
        _fit(settings, images, learner, regularizer, state, journal, device, loggers)
    return tuple(one.path for one in find_checkpoints(folder, method.name).checkpoints)


def is_first_process() -> bool:
    """Whether this process is the first of those that Lightning starts on one machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def check_libraries() -> None:
    """Refuse to pretrain without the libraries that only pretraining needs.

    Raises:
        InputError: one of them is missing.
    """
    try:
        import lightly  # noqa: F401
        import pytorch_lightning  # noqa: F401
    except ImportError as cause:
        raise InputError(
            f"pretraining needs {cause.name}: pip install lightly pytorch-lightning"
        ) from cause


def _build(method: Method, settings: PretrainSettings) -> Learner[Any]:
    check_libraries()
    learner = method.build(settings, settings.recipe)
    learner.check_views()
    return learner


def _restore(state: RunState, learner: Learner[Any], regularizer: Regularizer | None) -> None:
    learner.load_state_dict(state.learner, strict=True)
    if regularizer is not None:
        regularizer.load_state_dict(state.regularizer, strict=True)


def _fit(
    settings: PretrainSettings,
    images: Tensor,
    learner: Learner[Any],
    regularizer: Regularizer | None,
    state: RunState | None,
    journal: RunRecorder,
    device: torch.device,
    loggers: Sequence[Any],
) -> None:
    import pytorch_lightning as lightning

    from densescope.pretraining.loop import TrainingLoop

    if journal.first >= settings.steps:
        return
    loop = TrainingLoop(
        learner,
        settings,
        images,
        journal.after_step,
        begin=journal.on_start,
        regularizer=regularizer,
        first=journal.first,
        optimizer_state=None if state is None else state.optimizer,
    )
    trainer = lightning.Trainer(
        max_steps=settings.steps - journal.first,
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=_devices(settings, device),
        strategy="auto" if settings.devices == 1 else "ddp_find_unused_parameters_true",
        sync_batchnorm=settings.devices > 1 and device.type == "cuda",
        precision=PRECISIONS[settings.precision],
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=learner.recipe.clip_norm or None,
        logger=list(loggers) or False,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    if state is not None:
        trainer.precision_plugin.load_state_dict(state.precision)
    before = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(loop)
    except SystemExit as left:
        # Lightning ends the whole process when it is interrupted, and stays deaf from then on.
        if not isinstance(left.__context__, KeyboardInterrupt):
            raise
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)
        raise KeyboardInterrupt from None


def _devices(settings: PretrainSettings, device: torch.device) -> int | list[int]:
    if device.type == "cuda" and settings.devices == 1:
        return [device.index or 0]
    return settings.devices


def _fingerprint(images: Tensor) -> str:
    return hashlib.sha256(images.contiguous().numpy().data).hexdigest()


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
            # What a regularizer anchors to is in evaluation mode on purpose.
            warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode")
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


def check_folder(folder: Path, method: Method, start: Start) -> Path | None:
    """Refuse a folder that a new run would spoil, or that holds no run to go on with.

    Returns:
        The checkpoint that a resumed run goes on from; ``None`` of a new one.

    Raises:
        InputError: it holds checkpoints though the run is new, none though it is resumed, or
            is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder for the checkpoints")
    try:
        newest = find_checkpoints(folder, method.name).checkpoints[-1].path
    except DataError as cause:
        if start.resume:
            raise InputError(f"nothing to resume: {cause}") from cause
        return None
    if start.resume:
        return newest
    # The other processes of a run on several devices come here when the first is at work.
    if not is_first_process():
        return None
    raise InputError(
        f"{folder} already holds checkpoints: choose an empty folder, or go on with --resume"
    )
