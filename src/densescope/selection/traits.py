"""Which records may stand in one table: those whose numbers compare."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from densescope.errors import RecordError
from densescope.records import ProbeRecord, ScoreRecord

SCORE_AGAIN = "their numbers do not compare: score all on the same images with the same settings"
SELECT_ALONE = "DSE ranks only checkpoints of one run: select each run alone"


Record = ScoreRecord | ProbeRecord


@dataclass(frozen=True)
class Trait:
    """Something that records must share for their numbers to compare.

    Attributes:
        name: what it is, in words.
        path: keys from the record's fields down to it.
        cure: what to do when two records differ in it.
    """

    name: str
    path: tuple[str, ...]
    cure: str

    def of(self, record: Record) -> Any:
        """What a record says of it; ``None`` where it says nothing."""
        value: Any = getattr(record, self.path[0])
        for key in self.path[1:]:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


TRAITS = (
    Trait("format", ("provenance", "backbone", "format"), SELECT_ALONE),
    Trait("format", ("checkpoint", "format"), SELECT_ALONE),
    Trait("architecture", ("provenance", "backbone", "architecture"), SELECT_ALONE),
    Trait("architecture", ("checkpoint", "architecture"), SELECT_ALONE),
    Trait("architecture options", ("provenance", "backbone", "architecture_options"), SELECT_ALONE),
    Trait("weights", ("provenance", "backbone", "weights"), SELECT_ALONE),
    Trait("weights", ("checkpoint", "weights"), SELECT_ALONE),
    Trait("loader", ("provenance", "backbone", "loader"), SELECT_ALONE),
    Trait("unit of steps", ("unit",), SELECT_ALONE),
    Trait("set of images", ("provenance", "images", "fingerprint"), SCORE_AGAIN),
    Trait("image size", ("provenance", "image_size"), SCORE_AGAIN),
    Trait("normalization", ("checkpoint", "normalization"), SCORE_AGAIN),
    Trait("settings", ("provenance", "settings"), SCORE_AGAIN),
)


def check_same_run(records: Sequence[ScoreRecord]) -> None:
    """Refuse score records that do not belong into one table.

    Raises:
        RecordError: two records of one name, or records that differ in a row of ``TRAITS``.
    """
    names: set[str] = set()
    for record in records:
        if record.name in names:
            raise RecordError(
                f"two records are named {record.name}; select each run alone, with one record "
                "per checkpoint"
            )
        names.add(record.name)
    for record in records[1:]:
        check_alike(TRAITS, records[0], record, f"{records[0].name} and {record.name}")


def check_alike(
    traits: Sequence[Trait], first: Record, other: Record, whose: str, *, stated: bool = False
) -> None:
    """Refuse two records that differ in a trait.

    Args:
        traits: what they must share.
        first: one record.
        other: the other.
        whose: the two records in words, for the sentence.
        stated: compare only where both records state the trait.

    Raises:
        RecordError: they differ.
    """
    for trait in traits:
        ours, theirs = trait.of(first), trait.of(other)
        if stated and (ours is None or theirs is None):
            continue
        if ours != theirs and _plain(ours) != _plain(theirs):
            name, ours, theirs = _narrowed(trait.name, ours, theirs)
            raise RecordError(
                f"{whose} differ in their {name}: {_words(ours)} and {_words(theirs)}; {trait.cure}"
            )


def _narrowed(name: str, ours: Any, theirs: Any) -> tuple[str, Any, Any]:
    """Of two mappings the first entry that differs, with its name."""
    if not (isinstance(ours, Mapping) and isinstance(theirs, Mapping)):
        return name, ours, theirs
    keys = sorted(ours.keys() | theirs.keys())
    key = next(key for key in keys if _plain(ours.get(key)) != _plain(theirs.get(key)))
    return f"{name} ({key})", ours.get(key), theirs.get(key)


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _words(value: Any) -> str:
    return "not stated" if value is None else str(value)
