"""How often the alarm cries wolf, and how soon it sees a fall: simulated runs of estimates.

    python benchmarks/alarm.py [runs]

A reading has the truth of its checkpoint, a wobble of training (independent, or with a memory of
phi per checkpoint), and per block of images a noise of its own and one shared by all. Sizes of
falls are in standard deviations of what is not shared.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Sequence

from densescope.estimate import Estimate
from densescope.records import ScoreRecord
from densescope.selection import AlarmSettings, find_alarm

BLOCKS = 16
WOBBLE = 0.01
IMAGE_NOISE = 0.02  # of one block, so 0.005 of a reading


def estimate(truth: float, common: Sequence[float], generator: random.Random) -> Estimate:
    values = [truth + shared + generator.gauss(0, IMAGE_NOISE) for shared in common]
    total = math.fsum(values)
    return Estimate(total / BLOCKS, tuple((total - value) / (BLOCKS - 1) for value in values))


def observed(step: int, separability: Estimate, effective_rank: Estimate) -> ScoreRecord:
    """A record with these parts: ``M_intra`` is 0."""
    scores = {
        "released.inter": separability,
        "released.intra": Estimate(0.0, (0.0,) * BLOCKS),
        "released.effective_rank": effective_rank,
    }
    return ScoreRecord(f"e{step}", step, scores={"-1": scores})


def simulated(
    separability: Callable[[int], float],
    effective_rank: Callable[[int], float],
    *,
    count: int,
    memory: float,
    seed: int,
) -> list[ScoreRecord]:
    generator = random.Random(seed)
    common = [[generator.gauss(0, 0.1) for _ in range(BLOCKS)] for _ in range(2)]
    state = [generator.gauss(0, WOBBLE), generator.gauss(0, WOBBLE)]
    records = []
    for step in range(count):
        state = [
            memory * value + math.sqrt(1 - memory**2) * generator.gauss(0, WOBBLE)
            for value in state
        ]
        parts = (
            estimate(truth(step) + wobble, shared, generator)
            for truth, wobble, shared in zip(
                (separability, effective_rank), state, common, strict=True
            )
        )
        records.append(observed(step, *parts))
    return records


def first_alarm(
    records: Sequence[ScoreRecord], settings: AlarmSettings | None = None
) -> int | None:
    """How many checkpoints there were when the alarm first came."""
    for count in range(3, len(records) + 1):
        if find_alarm(records[:count], settings) is not None:
            return count
    return None


def flat(step: int) -> float:
    return 0.5


def improving(step: int) -> float:
    return 0.5 * (1 - math.exp(-step / 20))


def traded(step: int) -> float:
    return 0.9 - improving(step)


HEALTHY = {
    "flat": (flat, flat),
    "improving": (improving, flat),
    "one part traded for the other": (improving, traded),
}


def print_false_alarms(runs: int, count: int) -> None:
    print(f"runs with an alarm, of {runs} healthy ones of {count} checkpoints")
    for name, parts in HEALTHY.items():
        for memory in (0.0, 0.5, 0.8):
            alarms = sum(
                first_alarm(simulated(*parts, count=count, memory=memory, seed=seed)) is not None
                for seed in range(runs)
            )
            print(f"{name:32s} memory {memory}: {alarms}")


def print_power(runs: int) -> None:
    unit = math.hypot(WOBBLE, IMAGE_NOISE / math.sqrt(BLOCKS))
    print(f"falls at once, of {runs} improving runs: alarm within two checkpoints of the fall")
    for before in (6, 8, 12, 20, 50, 150):
        shares = []
        for size in (6, 8, 10, 15, 20, 30):
            hits = 0
            for seed in range(runs):
                records = simulated(
                    lambda s, size=size, before=before: improving(s) - unit * size * (s >= before),
                    flat,
                    count=before + 3,
                    memory=0.0,
                    seed=seed,
                )
                found = find_alarm(records) or find_alarm(records[:-1])
                hits += found is not None
            shares.append(f"{size}: {hits / runs:.2f}")
        print(f"{before:4d} checkpoints before  {'  '.join(shares)}")


def print_delay(runs: int) -> None:
    unit = math.hypot(WOBBLE, IMAGE_NOISE / math.sqrt(BLOCKS))
    print(f"slow falls from checkpoint 40 on, of {runs} runs: checkpoints until the alarm")
    for slope in (0.5, 1.0, 2.0, 4.0):
        delays = sorted(
            first_alarm(
                simulated(
                    lambda s, slope=slope: improving(s) - unit * slope * max(0, s - 39),
                    flat,
                    count=100,
                    memory=0.0,
                    seed=seed,
                )
            )
            or 999
            for seed in range(runs)
        )
        print(
            f"{slope} per checkpoint: median {delays[len(delays) // 2] - 40}, "
            f"most {delays[-1] - 40}"
        )


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    print_power(wanted)
    print_delay(min(wanted, 30))
    print_false_alarms(wanted, 120)
