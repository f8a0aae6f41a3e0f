"""Pretrain with DINO in two processes: ``two_processes.py FOLDER``; each leaves what it ended with.

Lightning starts this file again as the second process.
"""

from __future__ import annotations

import os
import sys
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
    from densescope.pretraining import journal
    from densescope.pretraining.trainer import pretrain
    from tests.pretraining.tiny import images, tiny

    written: list[str] = []
    write = journal.write_checkpoint

    def noted(content: dict[str, Any], path: Path) -> None:
        written.append(path.name)
        write(content, path)

    journal.write_checkpoint = noted
    seen = Remembering()
    pretrain(tiny("dino", devices=2), images(), folder / "run", callbacks=[seen])
    left = {**vars(seen), "written": written}
    torch.save(left, folder / f"rank{os.environ.get('LOCAL_RANK', '0')}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    root = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(root), str(root / "src")]
    main(Path(sys.argv[1]))
