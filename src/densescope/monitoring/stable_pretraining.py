"""The Lightning callback as stable-pretraining configures its callbacks: by plain values."""

from __future__ import annotations

import os
from typing import Any

from densescope.metrics import ScoreSettings
from densescope.monitoring.lightning import DenseCallback
from densescope.monitoring.monitor import DenseMonitor


class DenseStructureCallback(DenseCallback):
    """A :class:`DenseMonitor` and its callback in one, for a list of callbacks or a YAML file.

    stable-pretraining's modules hold their network as ``backbone`` or ``encoder``, alone or as a
    ``TeacherStudentWrapper`` with ``student`` and ``teacher``, and some wrap a timm model in a
    ``MaskedEncoder`` with ``vit``: the search of
    :func:`~densescope.monitoring.models.find_backbone` ends at the timm model of the teacher. Its
    ``TeacherStudentCallback`` moves the teacher at the end of a batch; listed after this
    one, it is one step behind at observations between epochs.

    Args:
        images: held-out images, a path.
        every_n_epochs: see :class:`~densescope.monitoring.lightning.DenseCallback`.
        every_n_steps: see there.
        settings: fields of :class:`~densescope.metrics.ScoreSettings`.
        options: any other argument of :class:`~densescope.monitoring.monitor.DenseMonitor`.
    """

    def __init__(
        self,
        images: str | os.PathLike[str],
        *,
        every_n_epochs: int = 1,
        every_n_steps: int | None = None,
        settings: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        monitor = DenseMonitor(images, settings=ScoreSettings(**(settings or {})), **options)
        super().__init__(monitor, every_n_epochs=every_n_epochs, every_n_steps=every_n_steps)
