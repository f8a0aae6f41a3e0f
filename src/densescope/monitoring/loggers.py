"""Where the numbers go: JSON lines, TensorBoard, MLflow, Weights & Biases, under the same names.

Each library is imported where its logger is made, and is an extra of the package. Any function of
a step and a dictionary of numbers is a logger too.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from densescope.errors import InputError
from densescope.monitoring.observation import PREFIX
from densescope.records import plain
from densescope.writing import append_line

Numbers = Mapping[str, float]


@runtime_checkable
class Logger(Protocol):
    """Takes the numbers of one moment of a run."""

    def log(self, step: int, numbers: Numbers) -> None:
        """Keep ``numbers`` (name -> value) for ``step``."""
        ...


LogFunction = Callable[[int, Numbers], None]


def log_function(logger: Logger | LogFunction) -> LogFunction:
    """How to call a logger, be it an object or a function.

    Raises:
        InputError: it is neither.
    """
    if isinstance(logger, Logger):
        return logger.log
    if callable(logger):
        return logger
    raise InputError(
        f"{type(logger).__name__} is no logger: give an object with log(step, numbers), "
        "or a function of the two"
    )


class JsonLines:
    """One line of JSON per moment, appended: ``{"step": 100, "densescope/dse": 1.2, ...}``.

    A number that is not finite is ``null``. A restarted job appends: of two lines of one step, the
    later counts.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def log(self, step: int, numbers: Numbers) -> None:
        """Append one line in a single write, so that a reader sees whole lines only."""
        line = {"step": step, "time": round(time.time(), 3), **numbers}
        append_line(self.path, json.dumps(plain(line), allow_nan=False))


class TensorBoard:
    """Scalars in an event file; needs the ``tensorboard`` extra.

    Args:
        folder: where the event file is written, made when missing.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as cause:
            raise _missing("tensorboard") from cause
        self.writer = SummaryWriter(os.fspath(folder))

    def log(self, step: int, numbers: Numbers) -> None:
        """Write and flush."""
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        """Finish the event file."""
        self.writer.close()


class MLflow:
    """Metrics of an MLflow run; needs the ``mlflow`` extra.

    Args:
        tracking_uri: such as ``"sqlite:///mlflow.db"``; MLflow's own setting by default.
        experiment: name of the experiment; made when missing.
        run_id: run to log to; MLflow's active run by default, or a new one of the experiment.
    """

    def __init__(
        self,
        tracking_uri: str | None = None,
        *,
        experiment: str = "densescope",
        run_id: str | None = None,
    ) -> None:
        try:
            import mlflow
        except ImportError as cause:
            raise _missing("mlflow") from cause
        self.client = mlflow.MlflowClient(tracking_uri)
        active = mlflow.active_run() if run_id is None and tracking_uri is None else None
        self.run_id = run_id or (active.info.run_id if active else self._new_run(experiment))

    def log(self, step: int, numbers: Numbers) -> None:
        """One batch; numbers that are not finite are left out, as not all stores take them."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
        metrics = [Metric(name, value, now, step) for name, value in finite.items()]
        self.client.log_batch(self.run_id, metrics=metrics)

    def _new_run(self, experiment: str) -> str:
        found = self.client.get_experiment_by_name(experiment)
        place = self.client.create_experiment(experiment) if found is None else found.experiment_id
        return str(self.client.create_run(place).info.run_id)


class WeightsAndBiases:
    """Metrics of a W&B run; needs the ``wandb`` extra.

    The numbers are drawn over their own axis, ``densescope/step``, so that they do not disturb the
    step counter of the run, and a restarted job may come back to earlier steps.

    Args:
        run: a run that was begun; the active one by default, else ``wandb.init(**options)``.
        options: for ``wandb.init``, such as ``project`` or ``mode="offline"``.
    """

    def __init__(self, run: Any = None, **options: Any) -> None:
        try:
            import wandb
        except ImportError as cause:
            raise _missing("wandb") from cause
        self.run = run or wandb.run or wandb.init(**options)
        self.run.define_metric(f"{PREFIX}step")
        self.run.define_metric(f"{PREFIX}*", step_metric=f"{PREFIX}step")

    def log(self, step: int, numbers: Numbers) -> None:
        """One row of the run's history."""
        self.run.log({f"{PREFIX}step": step, **numbers})


def _missing(extra: str) -> InputError:
    return InputError(f"this logger needs {extra}: pip install 'densescope[{extra}]'")
