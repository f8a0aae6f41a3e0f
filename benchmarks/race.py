"""What a race costs and saves: simulated runs through its rule, against a full sweep.

    python -m benchmarks.race [--runs 200]

Separability and dimension of 21 checkpoints follow a curve. Every block of images of every round
adds noise common to all checkpoints, noise that drifts along the run (neighbors share most of it)
and noise of each checkpoint's own; every round adds noise of its own clusterings, which no
jackknife sees. A full sweep sees all rounds; a race sees those its rule asks for.

Columns: "worse", the runs in which the full sweep calls the race's pick significantly different
from its own; "lost", those in which the pick of the full sweep was stopped and another one is
picked, the error that alpha bounds; "regret", the DSE of the full sweep's pick minus that of the
race's by the full sweep's numbers, as a fraction of the curve's range; "images", of a full sweep's;
"finished", checkpoints that went through all rounds.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from statistics import fmean

from densescope.estimate import Estimate
from densescope.metrics.lambdas import lambda_rule, linear_combination
from densescope.selection import pick_peak, shortlist
from densescope.selection.change import exceeds_noise
from densescope.selection.race import Race, undecided
from densescope.selection.rounds import pooled

BLOCKS, CHECKPOINTS = 16, 21
Rounds = list[list[Estimate]]  # of each checkpoint


def _bump(x: float, center: float, width: float) -> float:
    return math.exp(-(((x - center) / width) ** 2))


SHAPES: dict[str, Callable[[float], float]] = {
    "peak in the middle": lambda x: _bump(x, 0.45, 0.3),
    "rise to a plateau": lambda x: min(1.0, 2.5 * x),
    "still rising": lambda x: x**0.5,
    "early peak, then a fall": lambda x: min(6 * x, 1.0) - 0.8 * max(0.0, x - 0.2),
    "two peaks": lambda x: _bump(x, 0.25, 0.12) + 0.93 * _bump(x, 0.75, 0.15),
    "all equal": lambda x: 0.0,
}
NOISES = {"0.02": 0.02, "0.08": 0.08, "0.25": 0.25}  # of a round, as a part of the range


@dataclass(frozen=True)
class Outcome:
    """Of one race against the full sweep of the same images."""

    worse: bool
    lost: bool
    same_pick: bool
    same_shortlist: bool
    regret: float
    images: float
    finished: float


def simulated(
    shape: Callable[[float], float], noise: float, race: Race, generator: random.Random
) -> tuple[Rounds, Rounds]:
    """Separability and dimension of every checkpoint in every round."""
    places = [i / (CHECKPOINTS - 1) for i in range(CHECKPOINTS)]
    separability = [shape(x) + 0.15 * x for x in places]
    effective_rank = [0.1 * (shape(x) - 0.15 * x) for x in places]
    return _noisy(separability, noise, race, generator), _noisy(
        effective_rank, 0.1 * noise, race, generator
    )


def _noisy(truth: list[float], noise: float, race: Race, generator: random.Random) -> Rounds:
    """``noise`` is the standard deviation of one round's number beyond what all share."""
    block = noise * math.sqrt(BLOCKS)
    rounds: Rounds = [[] for _ in truth]
    for _ in range(race.rounds):
        common = [generator.gauss(0, 2 * block) for _ in range(BLOCKS)]
        drift = [0.0] * BLOCKS
        for place, value in enumerate(truth):
            keep = 0.9 if place else 0.0
            drift = [keep * d + generator.gauss(0, math.sqrt(1 - keep**2)) for d in drift]
            own = [
                value + c + block * (0.8 * d + generator.gauss(0, 0.6))
                for c, d in zip(common, drift, strict=True)
            ]
            rounds[place].append(_jackknifed(own, generator.gauss(0, 0.4 * noise)))
    return rounds


def _jackknifed(blocks: list[float], clustering: float) -> Estimate:
    total = sum(blocks)
    left = tuple((total - value) / (BLOCKS - 1) + clustering for value in blocks)
    return Estimate(total / BLOCKS + clustering, left)


def pooled_all(rounds: Rounds) -> list[Estimate]:
    """Every checkpoint has at least one round."""
    return [estimate for estimate in pooled(rounds) if estimate is not None]


def raced(separability: Rounds, effective_rank: Rounds, race: Race) -> list[int]:
    """How many rounds each checkpoint goes through."""
    done = [1] * len(effective_rank)
    for number in range(1, race.rounds):
        still = undecided(_first(separability, done), _first(effective_rank, done), race)
        going = [place for place in still if done[place] == number]
        if not going:
            break
        for place in going:
            done[place] += 1
    return done


def _first(rounds: Rounds, done: list[int]) -> Rounds:
    return [row[:count] for row, count in zip(rounds, done, strict=True)]


def curve(separability: list[Estimate], effective_rank: list[Estimate]) -> list[Estimate]:
    """DSE as a selection has it."""
    find = lambda_rule("released").find
    lambda_, _ = find([s.value for s in separability], [d.value for d in effective_rank])
    assert lambda_ is not None
    return [
        linear_combination(s, d, lambda_) for s, d in zip(separability, effective_rank, strict=True)
    ]


def compared(full: list[Estimate], seen: list[Estimate], done: list[int], race: Race) -> Outcome:
    """What the race's curve leads to, judged by the full sweep's."""
    values, raced_values = ([one.value for one in column] for column in (full, seen))
    best, pick = pick_peak(values), pick_peak(raced_values)
    level = 1 - 0.05 / (len(full) - 1)
    span = max(values) - min(values)
    return Outcome(
        worse=pick != best and exceeds_noise(full[best].minus(full[pick]), level),
        lost=pick != best and done[best] < race.rounds,
        same_pick=pick == best,
        same_shortlist=shortlist(values) == shortlist(raced_values),
        regret=(values[best] - values[pick]) / span,
        images=sum(done) / (race.rounds * len(done)),
        finished=sum(count == race.rounds for count in done) / len(done),
    )


def outcome_of(separability: Rounds, effective_rank: Rounds, race: Race) -> Outcome:
    """One race."""
    done = raced(separability, effective_rank, race)
    full = curve(pooled_all(separability), pooled_all(effective_rank))
    seen = curve(*(pooled_all(_first(part, done)) for part in (separability, effective_rank)))
    return compared(full, seen, done, race)


def outcomes(shape: str, noise: float, race: Race, runs: int, seed: int = 0) -> list[Outcome]:
    """Races of simulated runs."""
    generator = random.Random(seed)
    made = (simulated(SHAPES[shape], noise, race, generator) for _ in range(runs))
    return [outcome_of(separability, effective_rank, race) for separability, effective_rank in made]


def row(shape: str, noise: str, found: list[Outcome]) -> str:
    """Means of every column, as a line of the table."""
    means = {f.name: fmean(getattr(one, f.name) for one in found) for f in fields(Outcome)}
    cells = [f"{mean:.1%}" if name != "regret" else f"{mean:.4f}" for name, mean in means.items()]
    return f"| {shape} | {noise} | " + " | ".join(cells) + " |"


def table(runs: int, race: Race) -> Iterable[str]:
    """The lines of the result."""
    names = [f.name.replace("_", " ") for f in fields(Outcome)]
    yield "| shape | noise | " + " | ".join(names) + " |"
    yield "| --- " * (len(names) + 2) + "|"
    for shape in SHAPES:
        for noise, size in NOISES.items():
            yield row(shape, noise, outcomes(shape, size, race, runs))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=200)
    given = parser.parse_args()
    for line in table(given.runs, Race()):
        print(line, flush=True)


if __name__ == "__main__":
    main()
