"""The options a pretraining run was begun with, kept beside its checkpoints for --resume."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import ArgumentCollection

from densescope.cli.parsing import asked, fill
from densescope.errors import InputError
from densescope.records import plain, read_json, write_json

if TYPE_CHECKING:
    from densescope.pretraining.learner import Learner
    from densescope.pretraining.recorder import Progress

OPTIONS = "pretrain.json"


def read_kept(app: Any, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Fill what the line and ``--config`` leave out from the run that ``--resume`` goes on with.

    Raises:
        InputError: there is no folder of such a run.
    """
    resume, output = asked(arguments, "--resume"), asked(arguments, "--output")
    if resume is None or output is None or not (output.tokens and resume.tokens):
        return
    folder = Path(output.tokens[-1].value)
    if not folder.is_dir():
        raise InputError(f"nothing to resume: there is no folder {folder}")
    if resume.convert() and (folder / OPTIONS).is_file():
        fill(app, arguments, read_json(folder / OPTIONS), f"the run in {folder}")


@dataclass
class KeptOptions:
    """Writes the options of a run into its folder when its first step is near.

    Not before: a call that is refused must not touch the run that is there.

    Attributes:
        folder: of the checkpoints.
        values: name of each option -> its value.
    """

    folder: Path
    values: dict[str, Any]

    def on_start(self, learner: Learner[Any], step: int) -> None:
        """Write them, in the first process; paths hold in every working directory."""
        from densescope.pretraining.trainer import is_first_process

        if not is_first_process():
            return
        kept = {
            name: str(value.resolve()) if isinstance(value, Path) else value
            for name, value in self.values.items()
            if value is not None
        }
        write_json(plain(kept), self.folder / OPTIONS)

    def after_step(self, learner: Learner[Any], progress: Progress) -> None:
        """Nothing."""

    def on_checkpoint(self, learner: Learner[Any], progress: Progress) -> None:
        """Nothing."""
