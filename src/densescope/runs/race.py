"""A sweep in rounds of images that stops the checkpoints which no longer matter for the choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from densescope.errors import DataError, InputError
from densescope.features.discovery import RunCheckpoint
from densescope.features.images import ImageSubset, draw_subset, part_of
from densescope.features.sources import ImageSource
from densescope.metrics import ScoreSettings
from densescope.records import ScoreRecord
from densescope.runs.differences import PLACE
from densescope.runs.extension import summed_timing
from densescope.runs.passes import Sweep, SweepEvent, score_pass
from densescope.runs.store import RunStore
from densescope.selection.race import Race, undecided
from densescope.selection.rounds import pooled_scores
from densescope.selection.run_table import RunTable

CHANGED = "its file changed between two rounds of images; sweep again to score it as it is now"


def race_run(
    run: Sweep,
    checkpoints: Sequence[RunCheckpoint],
    source: ImageSource,
    store: RunStore,
    race: Race,
) -> list[ScoreRecord]:
    """Score the checkpoints round by round until :func:`undecided` leaves none.

    The records of round ``n`` lie in ``rounds/n`` below the store and are all the state there is: a
    second call walks through the same rounds, keeps what is there, decides the same and goes
    on. After every round the records of all checkpoints, pooled over their rounds, are written
    into the store. LiDAR is taken in the first round only.

    Args:
        run: made for rounds by :func:`of_rounds`.
        checkpoints: of the run, in order.
        source: of the images.
        store: of the pooled records.
        race: how many rounds of how many images.

    Returns:
        The pooled records in order of step.

    Raises:
        InputError: a round that is no whole number of groups.
        DataError: fewer images than one round has, or one cannot be read.
        RecordError: the store holds a run made with other settings.
    """
    race, subset = _drawn(run.settings, source, race)
    run.note_images(subset)
    manifest = {**run.manifest(subset), "race": race.to_json()}
    store.open(manifest, moved=run.moved)
    jobs = going = list(checkpoints)
    rounds: dict[str, list[ScoreRecord]] = {job.name: [] for job in jobs}
    records: list[ScoreRecord] = []
    for number in range(1, race.rounds + 1):
        found = _round(run, going, subset, store, race, number)
        for job in going:
            rounds[job.name].append(found[job.name])
        records = _pooled([rounds[job.name] for job in jobs], manifest)
        for record in records:
            store.write(record)
        left = _undecided(rounds, run.settings.leading_layer, race)
        going = [job for job in going if job.name in left]
        if not going:
            break
    return records


def of_rounds(run: Sweep, race: Race) -> Sweep:
    """The same sweep, with a value of the effective rank per round, which the race judges."""
    settings = replace(run.settings.with_structure(), images_per_batch=race.round_size)
    return replace(run, settings=settings)


def _drawn(settings: ScoreSettings, source: ImageSource, race: Race) -> tuple[Race, ImageSubset]:
    """The images of all rounds, and as many rounds as there are images for."""
    if race.round_size % settings.group_size:
        raise InputError(
            f"a round of {race.round_size} images is no whole number of groups of "
            f"{settings.group_size}: make --round-size or Race(round_size=...) a multiple of it"
        )
    rounds = min(race.rounds, len(source) // race.round_size)
    if rounds < 1:
        raise DataError(
            f"{source.location} holds {len(source)} images, fewer than one round of "
            f"{race.round_size}: make the rounds smaller, --round-size or Race(round_size=...), or "
            "give more images"
        )
    subset = draw_subset(source, replace(race, rounds=rounds).images, settings.seed)
    rounds = len(subset) // race.round_size  # fewer where broken images are skipped
    if rounds < 1:
        raise DataError(f"{len(subset)} images can be decoded, fewer than one round of images")
    race = replace(race, rounds=rounds)
    return race, part_of(subset, 0, race.images)


def _round(
    run: Sweep,
    going: Sequence[RunCheckpoint],
    subset: ImageSubset,
    store: RunStore,
    race: Race,
    number: int,
) -> dict[str, ScoreRecord]:
    def report(event: SweepEvent) -> None:
        run.report(replace(event, stage=f"round {number} of {race.rounds}"))

    first = (number - 1) * race.round_size
    part = part_of(subset, first, first + race.round_size)
    lidar = run.settings.lidar_images if number == 1 else 0
    settings = replace(run.settings, lidar_images=lidar)
    below = RunStore(store.folder / "rounds" / str(number))
    found = score_pass(replace(run, settings=settings, report=report), going, part, below)
    if number == 1:
        store.take_previews(below)
    else:
        below.drop_previews()
    return found


def _pooled(
    rounds: Sequence[Sequence[ScoreRecord]], manifest: Mapping[str, Any]
) -> list[ScoreRecord]:
    """One record per checkpoint; of a checkpoint that failed in a round, the failed one."""
    failed = [_failure(row) for row in rounds]
    pooled = pooled_scores(
        [
            [] if bad else [one.scores for one in row]
            for row, bad in zip(rounds, failed, strict=True)
        ]
    )
    shared = {key: value for key, value in manifest.items() if key != PLACE}
    records = []
    for row, bad, scores in zip(rounds, failed, pooled, strict=True):
        last = bad or row[-1]
        done = {**shared["race"], "done": len(row)}
        provenance = {**last.provenance, **shared, "race": done}
        timing = summed_timing([one.timing for one in row])
        records.append(replace(last, scores=scores, provenance=provenance, timing=timing))
    return records


def _failure(row: Sequence[ScoreRecord]) -> ScoreRecord | None:
    for record in row:
        if record.status != "scored":
            return record
    if len({record.checkpoint.get("sha256") for record in row}) > 1:
        return replace(row[-1], status="failed", error=CHANGED, checkpoint={})
    return None


def _undecided(rounds: Mapping[str, Sequence[ScoreRecord]], layer: int, race: Race) -> set[str]:
    """Names of the checkpoints that go on if they have come this far."""
    whole = {name: row for name, row in rounds.items() if _failure(row) is None}
    points = {
        name: [RunTable.of([one]).points("released", layer)[0] for one in row]
        for name, row in whole.items()
    }
    curve = {name: row for name, row in points.items() if all(one.is_finite for one in row)}
    if not curve:
        return set()
    separability = [[one.separability for one in row] for row in curve.values()]
    rank = [[one.effective_rank for one in row] for row in curve.values()]
    return {list(curve)[place] for place in undecided(separability, rank, race)}
