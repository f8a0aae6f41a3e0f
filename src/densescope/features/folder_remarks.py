"""Remarks on the files of a folder that should hold the checkpoints of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from shlex import quote

from densescope.features.formats import FORMATS
from densescope.features.formats.descriptions import score_command
from densescope.features.formats.row import Format
from densescope.features.layouts import listing
from densescope.features.names import CheckpointNames, looks_like_checkpoint, read_numbers
from densescope.features.run_files import RunFiles, finished_paths, name_below

_DEEPEST, _MOST = 3, 2000  # folders down and files looked at for a hint


def nothing_found(folder: Path, row: Format | None, names: CheckpointNames) -> str:
    """Why no checkpoint was found: what was looked for, and what is there."""
    there = _there(folder, row, names.recursive)
    if row is not None and not (row.files or row.latest or names.pattern or there):
        return (
            f"{folder} cannot be taken for a run: format {row.name} is of single files without a "
            f"number; score one with: {score_command(row)}"
        )
    of = "" if row is None else f" of format {row.name}"
    empty = "nothing there looks like a checkpoint"
    return f"no checkpoint{of} in {folder}: {_wanted(row, names)}; {there or empty}"


@dataclass(frozen=True)
class Remark:
    """A sentence on names in a folder that a user may not expect.

    Attributes:
        text: the sentence.
        is_loss: something that looks like a checkpoint of the run is not taken.
    """

    text: str
    is_loss: bool = False


def folder_remarks(files: RunFiles, folder: Path, row: Format | None) -> list[Remark]:
    """Remarks on unexpected names in the folder of a run; often none."""
    remarks = []
    nested = _nested(_like(folder)) if files.rule == "overwritten" else ""
    if nested:
        name = files.checkpoints[0].name
        remarks.append(Remark(f"{name} has no number, and is all that is scored; {nested}", True))
    own = [] if row is None else [names for names in row.files if not names.loose]
    if files.rule == "general" and row is not None and own:
        taken = [one.name for one in files.checkpoints]
        written = " or ".join(names.example for names in own)
        text = (
            f"no name is one that {row.name} writes ({written}); others with a number are taken "
            f"for its checkpoints: {listing(taken)}{_formats_of(taken, row)}"
        )
        remarks.append(Remark(text))
    if files.left_out:
        text = (
            f"left out, though they look like checkpoints: {listing(list(files.left_out))}; say "
            "which names belong to the run with --pattern REGEX"
        )
        remarks.append(Remark(text, is_loss=True))
    if files.unnumbered:
        text = f"passed over, as they have no number: {listing(list(files.unnumbered))}"
        remarks.append(Remark(text))
    return remarks


def _wanted(row: Format | None, names: CheckpointNames) -> str:
    if names.pattern is not None:
        return f"--pattern {quote(names.pattern)} is found in no name"
    examples = [] if row is None else [*(files.example for files in row.files), *row.latest]
    return f"none is named like {' or '.join(examples) or 'step_100.pt'}"


def _there(folder: Path, row: Format | None, recursive: bool) -> str:
    """Files here and in sub-folders that look like checkpoints, and whose names they are."""
    like = _like(folder)
    here = [name for name in like if "/" not in name]
    said = []
    if here:
        may = "1 file there ends" if len(here) == 1 else f"{len(here)} files there end"
        said.append(f"{may} as checkpoints do: {listing(here)}{_formats_of(here, row)}")
    return "; ".join([*said, *([] if recursive else filter(None, [_nested(like)]))])


def _like(folder: Path) -> list[str]:
    """Names here and in sub-folders that look like checkpoints."""
    return [
        name_below(folder, path)
        for path in islice(finished_paths(folder, _DEEPEST), _MOST)
        if (read_numbers(path.name) if path.is_dir() else looks_like_checkpoint(path.name))
    ]


def _nested(like: Sequence[str]) -> str:
    """In which sub-folders they are, whose names they are, and what to do."""
    nested = [Path(name) for name in like if "/" in name]
    counts = Counter(path.parent.as_posix() for path in nested)
    folders = listing([f"{name}/ ({count})" for name, count in counts.items()])
    formats = _formats_of([path.name for path in nested])
    give = f"sub-folders hold some: {folders}{formats}; give one of them, or all with --recursive"
    return give if counts else ""


def _formats_of(names: Sequence[str], row: Format | None = None) -> str:
    """The formats, but for this one, whose training codes alone write such names."""
    formats = [
        other.name
        for other in FORMATS.values()
        if other is not row and any(other.writes(name) for name in names)
    ]
    return f" (names of these formats: {', '.join(formats)})" if formats else ""
