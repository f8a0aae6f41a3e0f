"""The options a pretraining run was begun with, kept beside its checkpoints for --resume."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from densescope.errors import InputError
from densescope.records import plain, read_json, write_json

if TYPE_CHECKING:
    from densescope.pretraining.journal import Progress
    from densescope.pretraining.learner import Learner

OPTIONS = "pretrain.json"
_NOTED = "densescope.resume"
# They belong to one call; what a run began with stands in its checkpoints.
_OF_A_CALL = ("output", "resume", "config", "start_from")


def _note(context: typer.Context, **noted: Any) -> None:
    """Once both options are known, let the run fill what the line leaves out."""
    known = context.meta.setdefault(_NOTED, {})
    known |= noted
    if not (known.get("resume") and known.get("output")):
        return
    folder = known["output"]
    if not folder.is_dir():
        raise InputError(f"nothing to resume: there is no folder {folder}")
    if (folder / OPTIONS).is_file():
        context.default_map = {**read_json(folder / OPTIONS), **(context.default_map or {})}


def _note_output(context: typer.Context, output: Path) -> Path:
    _note(context, output=output)
    return output


def _note_resume(context: typer.Context, resume: bool) -> bool:
    _note(context, resume=resume)
    return resume


OutputOption = Annotated[
    Path, typer.Option(help="Folder for the checkpoints.", is_eager=True, callback=_note_output)
]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on from the last checkpoint in --output, with the options the run has.",
        is_eager=True,
        callback=_note_resume,
    ),
]


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
        given = {name: value for name, value in self.values.items() if value is not None}
        kept = {
            name: str(value.resolve()) if isinstance(value, Path) else value
            for name, value in given.items()
            if name not in _OF_A_CALL
        }
        write_json(plain(kept), self.folder / OPTIONS)

    def after_step(self, learner: Learner[Any], progress: Progress) -> None:
        """Nothing."""

    def on_checkpoint(self, learner: Learner[Any], progress: Progress) -> None:
        """Nothing."""
