"""The two ranks of the regularizer over seeds: ``python -m benchmarks.rank_study [STUDY]``.

With the folder of a finished ``studies/rank`` its numbers go to its ``results.json`` first.
Prints the mean of each arm, and the mean difference of each pair of arms with Student's 95 %
interval over the seeds. The runs of a seed share their start.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from benchmarks.estimator import table
from densescope.estimate import student_quantile

RESULTS = Path(__file__).parents[1] / "studies" / "rank" / "results.json"
ARMS = {"none": "simsiam-none", "dse": "simsiam-dse", "dse-pooled": "simsiam-dse-pooled"}
START = {"start": "mae-start"}
METRICS = {
    "released.effective_rank": "effective rank",
    "released.dse_lambda_1": "DSE (lambda = 1)",
    "token_cosine": "token cosine",
}
PROBES = {"linear": "CamVid, `linear`, %", "linear-sgd": "CamVid, `linear-sgd`, %"}
Numbers = dict[str, float]


def read(study: Path) -> dict[str, list[Numbers]]:
    """Arm -> numbers of each seed, of the seeds of which all runs have been probed."""
    found: dict[str, list[Numbers]] = {}
    seed = 0
    while all(_finished(study / f"{run}-seed{seed}") for run in (START | ARMS).values()):
        for arm, run in (START | ARMS).items():
            found.setdefault(arm, []).append(_numbers(study / f"{run}-seed{seed}" / "scores"))
        seed += 1
    return found


def _finished(run: Path) -> bool:
    return len(list(run.glob("scores/probes/*/*.json"))) == len(PROBES)


def _numbers(scores: Path) -> Numbers:
    (record,) = (json.loads(path.read_text()) for path in (scores / "records").glob("*.json"))
    numbers = {name: record["scores"]["-1"][name]["value"] for name in METRICS}
    for path in sorted((scores / "probes").glob("*/*.json")):
        probe = json.loads(path.read_text())
        numbers[probe["protocol"]] = 100 * statistics.fmean(probe["values"])
    return {name: round(value, 4) for name, value in numbers.items()}


def interval(values: Sequence[float]) -> str:
    """Mean and half width of Student's interval."""
    half = student_quantile(0.95, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.fmean(values):+.2f} +- {half:.2f}"


def rows(found: dict[str, list[Numbers]]) -> list[dict[str, object]]:
    titles = METRICS | PROBES
    made: list[dict[str, object]] = []
    for arm in (*START, *ARMS):
        means = {t: f"{statistics.fmean(s[n] for s in found[arm]):.2f}" for n, t in titles.items()}
        made.append({"": arm, **means})
    for first, second in combinations(ARMS, 2):
        pairs = list(zip(found[second], found[first], strict=True))
        made.append(
            {"": f"{second} - {first}"}
            | {
                title: interval([a[name] - b[name] for a, b in pairs])
                for name, title in titles.items()
            }
        )
    return made


def main() -> None:
    if len(sys.argv) > 1:
        RESULTS.write_text(json.dumps(read(Path(sys.argv[1])), indent=1) + "\n")
    found = json.loads(RESULTS.read_text())
    print(f"{len(found['none'])} seeds\n\n{table(rows(found))}")


if __name__ == "__main__":
    main()
