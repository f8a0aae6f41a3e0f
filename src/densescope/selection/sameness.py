"""Which records may stand in one table: those whose numbers compare."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from densescope.errors import RecordError
from densescope.records import ScoreRecord

SCORE_AGAIN = "their numbers do not compare: score all on the same images with the same settings"
SELECT_ALONE = "DSE ranks only checkpoints of one run: select each run alone"


@dataclass(frozen=True)
class Trait:
    """Something all records of one table share.

    Attributes:
        name: what it is, in words.
        path: keys from the record's fields down to it.
        cure: what to do when two records differ in it.
    """

    name: str
    path: tuple[str, ...]
    cure: str


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
    """Refuse records that do not belong into one table.

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
    for trait in TRAITS:
        for record in records[1:]:
            _check_trait(trait, records[0], record)


def trait_of(record: ScoreRecord, path: tuple[str, ...]) -> Any:
    """What a record says under a path of keys; ``None`` where it says nothing."""
    value: Any = getattr(record, path[0])
    for key in path[1:]:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _check_trait(trait: Trait, first: ScoreRecord, other: ScoreRecord) -> None:
    ours, theirs = trait_of(first, trait.path), trait_of(other, trait.path)
    if _plain(ours) == _plain(theirs):
        return
    name = trait.name
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        keys = sorted(ours.keys() | theirs.keys())
        key = next(key for key in keys if _plain(ours.get(key)) != _plain(theirs.get(key)))
        name, ours, theirs = f"{name} ({key})", ours.get(key), theirs.get(key)
    raise RecordError(
        f"{first.name} and {other.name} differ in their {name}: "
        f"{_words(ours)} and {_words(theirs)}; {trait.cure}"
    )


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _words(value: Any) -> str:
    return "not stated" if value is None else str(value)
