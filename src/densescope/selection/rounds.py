"""Numbers of rounds of images become one number per checkpoint, all at one level."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from densescope.estimate import Estimate
from densescope.records import ScoreRecord

Scores = Mapping[str, Mapping[str, Estimate]]


def pooled_scores(rounds: Sequence[Sequence[Scores]]) -> list[dict[str, dict[str, Estimate]]]:
    """Scores of each checkpoint over its rounds; :func:`pooled` number by number.

    Args:
        rounds: for each checkpoint, the scores (layer -> number -> estimate) of its rounds, of
            which it has the first few or all.

    Returns:
        In the same form. A number that some rounds have and others do not (LiDAR, which is
        taken in the first) is pooled over those that have it.
    """
    result: list[dict[str, dict[str, Estimate]]] = [{} for _ in rounds]
    keys = {
        (layer, name): None for row in rounds for scores in row for layer, name in _keys(scores)
    }
    for layer, name in keys:
        table = [[s[layer][name] for s in row if name in s.get(layer, {})] for row in rounds]
        for place, estimate in enumerate(pooled(table)):
            if estimate is not None:
                result[place].setdefault(layer, {})[name] = estimate
    return result


def pooled(table: Sequence[Sequence[Estimate]]) -> list[Estimate | None]:
    """One number per checkpoint: the mean of its rounds, at the level of all rounds.

    Where a checkpoint lacks rounds that others have, its mean is moved by what these rounds changed
    in the mean of the checkpoints that have them all: images common to all checkpoints move
    their numbers together, and would otherwise part it from its neighbors. The mean of a checkpoint
    with all rounds is left as it is.

    Block ``b`` stands for the blocks ``b`` of all rounds: replicates are pooled like values, each
    with its own change, so that those of two checkpoints can still be paired. ``seed_spread`` is
    that of a mean of rounds clustered independently, ``sample`` that of the first round, which all
    have.

    Args:
        table: of each checkpoint its rounds, of which it has the first few, all or none.

    Returns:
        ``None`` for a checkpoint without rounds.
    """
    most = max((len(row) for row in table), default=0)
    whole = [row for row in table if row and len(row) == most and math.isfinite(_mean(row)[0])]
    changes = {few: _change(whole, few) for few in {len(row) for row in table if row}}
    return [_pooled(row, changes[len(row)]) if row else None for row in table]


def _change(whole: Sequence[Sequence[Estimate]], few: int) -> list[float] | None:
    """What the rounds after the first few changed in the mean of those that have all."""
    moved = [_minus(_mean(row), _mean(row[:few])) for row in whole if few < len(row)]
    return [fmean(column) for column in zip(*moved, strict=True)] if moved else None


def _pooled(row: Sequence[Estimate], change: Sequence[float] | None) -> Estimate:
    numbers = _mean(row)
    if change is not None:
        numbers = [number + moved for number, moved in zip(numbers, change, strict=True)]
    spreads = [one.seed_spread for one in row if one.seed_spread is not None]
    notes = dict.fromkeys(one.note for one in row if one.note)
    return Estimate(
        numbers[0],
        tuple(numbers[1:]),
        math.hypot(*spreads) / len(row) if spreads else None,
        "; ".join(notes) or None,
        row[0].sample,
    )


def _mean(row: Sequence[Estimate]) -> list[float]:
    """The value and then the replicates, each the mean over rounds."""
    columns = zip(*((one.value, *one.replicates) for one in row), strict=True)
    return [fmean(column) for column in columns]


def _minus(first: Sequence[float], second: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(first, second, strict=True)]


def _keys(scores: Scores) -> Iterator[tuple[str, str]]:
    return ((layer, name) for layer, row in scores.items() for name in row)


def images_of(record: ScoreRecord) -> int | None:
    """How many images a checkpoint was scored on, where its record says so."""
    race = record.provenance.get("race")
    if race:
        return int(race["done"]) * int(race["round_size"])
    count = record.provenance.get("images", {}).get("count")
    return None if count is None else int(count)


def saving(records: Sequence[ScoreRecord]) -> str | None:
    """What a race saved, as a sentence; ``None`` for records of no race.

    Forward passes are those of the images and, where LiDAR was scored, of their augmented views,
    which a race takes in the first round and a full sweep once.
    """
    raced = [record for record in records if record.provenance.get("race")]
    if not raced:
        return None
    race = raced[0].provenance["race"]
    rounds, size = int(race["rounds"]), int(race["round_size"])
    done = [int(record.provenance["race"]["done"]) for record in raced]
    views, full_views = (_views(raced[0], images) for images in (size, rounds * size))
    images = fmean(done) / rounds
    passes = (fmean(done) * size + views) / (rounds * size + full_views)
    finished = done.count(rounds)
    sentence = (
        f"{finished} of {len(done)} checkpoints went through all {rounds} rounds of {size:,} "
        f"images: {images:.0%} of the images of a full sweep"
    )
    return f"{sentence} ({passes:.0%} of its forward passes)." if views else f"{sentence}."


def _views(record: ScoreRecord, images: int) -> int:
    """Augmented views of a checkpoint scored on so many images."""
    settings = record.provenance.get("settings", {})
    shown = min(int(settings.get("lidar_images", 0)), images)
    return shown * int(settings.get("lidar_views", 0)) if shown >= 2 else 0


def rank_limit(record: ScoreRecord) -> str | None:
    """A sentence where the effective rank is limited by the number of images, else ``None``.

    A matrix of so many images has no higher rank than there are images: at or below the dimension
    of the features the number says more of the sample than of the model.
    """
    made = record.provenance
    shape = next(iter(made.get("shapes", {}).values()), None)
    race, settings = made.get("race") or {}, made.get("settings") or {}
    count = race.get("round_size") or made.get("images", {}).get("count")
    if not shape or count is None:
        return None
    width, batch = int(shape[-1]), int(settings.get("images_per_batch", count))
    together = min(int(count), batch)
    if together > width:
        return None
    cure = "--set images_per_batch=COUNT" if int(count) > width else "--images-count COUNT"
    return (
        f"The effective rank is limited by the number of images: {together:,} are measured "
        f"together and the features have {width:,} dimensions. To lift the limit sweep with "
        f"{'--round-size COUNT' if race else cure}, COUNT above {width:,}, into another --output."
    )
