"""What was observed so far, as the records a sweep makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densescope.errors import RecordError
from densescope.records import ScoreRecord, plain
from densescope.runs.store import RunStore
from densescope.selection.traits import check_same_run


class History:
    """Records in order of step, in memory and, where there is a folder, on disk.

    A step that comes again (a job that was restarted from an older checkpoint) replaces its record.

    Args:
        folder: a run folder as a sweep writes it; ``None`` keeps records in memory only.
    """

    def __init__(self, folder: Path | None) -> None:
        self.store = None if folder is None else RunStore(folder)
        self.is_open = folder is None
        self._by_step: dict[int, ScoreRecord] = {}

    @property
    def records(self) -> list[ScoreRecord]:
        """All of them in order of step."""
        return [self._by_step[step] for step in sorted(self._by_step)]

    def open(self, manifest: Mapping[str, Any], image_size: int | None = None) -> None:
        """Start the run, or go on with what an earlier job wrote.

        Args:
            manifest: what all records share.
            image_size: side of the images in pixels, where it is known before the first look.

        Raises:
            RecordError: the folder holds a run on other images, of another size or with other
                settings.
        """
        if self.store is None:
            return
        self.store.open(plain(manifest))
        self.is_open = True
        folder = self.store.folder / "records"
        if any(not path.name.startswith(".") for path in folder.glob("*.json")):
            records = self.store.records()
            _check_size(records, image_size, self.store.folder)
            self.take(records)

    def take(self, records: list[ScoreRecord]) -> None:
        """Take over records of an earlier job; what is here already stays."""
        self._by_step = {**{record.step: record for record in records}, **self._by_step}

    def up_to(self, step: int) -> list[ScoreRecord]:
        """Records of the run as it stands at a step, without what a lost future left behind."""
        return [record for record in self.records if record.step <= step]

    def add(self, record: ScoreRecord) -> None:
        """Keep a record, also where it cannot be written.

        Raises:
            RecordError: its numbers do not compare with those before it; it is not kept.
            OSError: it is kept in memory, but the disk did not take it.
        """
        others = [old for old in self.records if old.step != record.step]
        scored = [old for old in others if old.status == "scored"]
        if scored and record.status == "scored":
            check_same_run([scored[0], record])
        replaced = self._by_step.get(record.step, record)
        self._by_step[record.step] = record
        if self.store is not None and replaced.name != record.name:
            self.store.remove(replaced.name)
        if self.store is not None and self.is_open:
            self.store.write(record)

    def add_preview(self, name: str, images: Tensor, patches: Tensor) -> None:
        """Keep the features of a few images, to be looked at in the report."""
        if self.store is None or not self.is_open:
            return
        if self.store.preview("images") is None:
            self.store.write_preview("images", {"images": images})
        self.store.write_preview(name, {"patches": patches.to(torch.float16)})

    def to_json(self) -> dict[str, Any]:
        """All records, for a checkpoint of the training job."""
        return dict(plain({"records": [record.to_json() for record in self.records]}))

    def take_json(self, document: Mapping[str, Any]) -> None:
        """Take over what :meth:`to_json` gave.

        Raises:
            RecordError: it is not such a document.
        """
        if "records" not in document:
            raise RecordError("the state holds no records of a monitor")
        self.take([ScoreRecord.from_json(record) for record in document["records"]])


def _check_size(records: Sequence[ScoreRecord], asked: int | None, folder: Path) -> None:
    """The manifest of live weights names no size; the records do."""
    for record in records:
        held = record.provenance.get("image_size") if record.status == "scored" else None
        if None not in (asked, held) and held != asked:
            raise RecordError(
                f"{folder} holds a run on images of {held} pixels, and these have {asked}; "
                "numbers of two sizes do not compare. Give another output, or images of "
                f"{held} pixels"
            )
