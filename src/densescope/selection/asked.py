"""Which checkpoints of a scored run are meant by ``--only``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from densescope.errors import RecordError
from densescope.records import ScoreRecord
from densescope.selection.run_table import RunTable
from densescope.selection.words import is_called, no_such

ALL, SHORTLIST = "all", "shortlist"  # of what is probed; or every-N; or names and steps


def asked_for(scored: Sequence[ScoreRecord], only: str) -> Sequence[ScoreRecord]:
    """Some of the scored checkpoints of a run.

    Args:
        scored: in order of step, at least one.
        only: ``"all"``, ``"shortlist"`` (that of DSE and the last checkpoint), ``"every-4"`` (each
            fourth, counted back from the last), or names or steps with commas between them.

    Raises:
        RecordError: no checkpoint has such a name or step.
    """
    if only == ALL:
        return scored
    if only == SHORTLIST:
        selection = RunTable.of(scored).selection()
        names = {*selection.shortlist, selection.last}
        return [record for record in scored if record.name in names]
    if every := re.fullmatch(r"every-([1-9]\d{0,8})", only):
        return scored[::-1][:: int(every[1])][::-1]
    asked = [text.strip() for text in only.split(",")]
    for text in asked:
        if not any(is_called(record, text) for record in scored):
            raise RecordError(
                no_such(scored, text, "--only takes all, shortlist, every-4, or some checkpoints")
            )
    return [record for record in scored if any(is_called(record, text) for text in asked)]
