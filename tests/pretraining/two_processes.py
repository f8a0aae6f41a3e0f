"""The command, whose trainings in two processes leave in ``$LEFT`` what each ended with.

Lightning starts this file again, with the same words, as the second process.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


class Remembering:
    """Keeps this process's losses, files written and, at the end, weights."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.weights: dict[str, Any] = {}

    def on_start(self, learner: Any, step: int) -> None:
        self.start = {name: value.clone() for name, value in learner.state_dict().items()}

    def after_step(self, learner: Any, progress: Any) -> None:
        self.losses.append(progress.loss)
        self.weights = {name: value.clone() for name, value in learner.state_dict().items()}

    def on_checkpoint(self, learner: Any, progress: Any) -> None:
        pass


def main(folder: Path) -> None:
    from densescope import cli
    from densescope.pretraining import recorder, trainer

    seen, written = Remembering(), []
    pretrain, write = trainer.pretrain, recorder.write_checkpoint

    def remembered(*given: Any, callbacks: Any, **more: Any) -> Any:
        return pretrain(*given, callbacks=[*callbacks, seen], **more)

    def noted(content: dict[str, Any], path: Path) -> None:
        written.append(path.name)
        write(content, path)

    trainer.pretrain, recorder.write_checkpoint = remembered, noted
    try:
        cli.main()
    finally:
        left = {**vars(seen), "written": written}
        torch.save(left, folder / f"rank{os.environ.get('LOCAL_RANK', '0')}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(os.environ["LEFT"]))
