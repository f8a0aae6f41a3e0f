"""Parts 11 and 12 of the study of degradation, and part 3 with each seed by itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.degradation_rulers import shown
from benchmarks.degradation_slow import WAYS, moved
from densescope.runs.run import read_run
from densescope.study.answers import RunAnswer
from densescope.study.spec import StudySpec
from densescope.study.summary import summarize
from densescope.study.taus import MeanTaus

COSINE, CONSTANT = "cosine", "constant"
SCENES = "scenes"
RANK = "released.effective_rank"
CHOICES = {"last": "last checkpoint", "released.pick": "DSE pick (lambda 1)"}


def cosine_text(answers: Sequence[RunAnswer], constant: Sequence[RunAnswer], folder: Path) -> str:
    """Questions 2 and 3 of part 11: the choice and the effective rank, a rate held beside a cosine.

    Args:
        answers: of part 11.
        constant: of part 3, whose runs have the same methods and seeds.
        folder: the runs of part 11.
    """
    held = {answer.run: answer for answer in constant}
    pairs = [
        (answer, held[answer.run.replace(COSINE, CONSTANT)])
        for answer in answers
        if f"-{COSINE}-" in answer.run
    ]
    lines = ["| regret on scenes | rate held | on a cosine to 0 | difference |\n|" + " --- |" * 4]
    for way, title in CHOICES.items():
        ended, before = ([100 * _on(pair[k], SCENES)[way] for pair in pairs] for k in (0, 1))
        more = [a - b for a, b in zip(ended, before, strict=True)]
        texts = [shown(before, sign=False), shown(ended, sign=False), shown(more, sign=True)]
        lines.append(f"| {title} | {' | '.join(texts)} |")
    ranks = [moved(read_run(folder / one.run / "scores"), RANK) for one, _ in pairs]
    told = ", ".join(f"{way} in {ranks.count(way)}" for way in WAYS)
    return "\n".join(
        [
            "## A cosine beside a rate that is held (part 11 of the plan)\n",
            *lines,
            f"\nEffective rank, last checkpoint against first, {len(pairs)} runs: {told}.",
        ]
    )


def seeds_text(spec: StudySpec, folder: Path, domain: str = SCENES) -> str:
    """Which metrics follow labels better than the clock with each seed (parts 3 and 12)."""
    lines = ["| arm | runs of a seed | with each seed | with one of them |\n|" + " --- |" * 4]
    for arm in (one for one in spec.arms if one.regularizer is None):
        found = []
        for seed in spec.seeds:
            summary = summarize(replace(spec, arms=(replace(arm, seeds=(seed,)),)), folder)
            assert summary.taus is not None
            spreads = {name: sets[domain] for name, sets in summary.taus.beyond.items()}
            found.append(
                {n for n, one in spreads.items() if one and one.half and one.value > one.half}
            )
        every, some = set.intersection(*found), set.union(*found)
        texts = [_names(summary.taus, one) for one in (every, some - every)]
        lines.append(f"| {arm.name} | {len(summary.answers)} | {' | '.join(texts)} |")
    head = f"## Beyond the number of the checkpoint on {domain}, with each seed"
    what = (
        f"Metrics whose tau with {domain} minus that of the number of the checkpoint has a 95 % "
        "interval over the runs of a seed above 0."
    )
    return "\n\n".join([head, what, "\n".join(lines)])


def _names(taus: MeanTaus, numbers: Collection[str]) -> str:
    known = [row.number for row in taus.metrics.rows if row.number in numbers]
    return f"{len(known)}: {', '.join(known)}" if known else "none"


def choice_text(answers: Sequence[RunAnswer]) -> str:
    """Question 3 of part 12: regret of the last checkpoint and of DSE's pick on each set."""
    names = list(dict.fromkeys(name for answer in answers for name in answer.regrets))
    lines = ["| labels | last checkpoint | DSE pick (lambda 1) | difference | runs |"]
    lines.append("|" + " --- |" * 5)
    for name in names:
        found = [answer.regrets[name] for answer in answers if name in answer.regrets]
        columns = [[100 * one[way] for one in found] for way in CHOICES]
        more = [b - a for a, b in zip(*columns, strict=True)]
        texts = [*(shown(one, sign=False) for one in columns), shown(more, sign=True)]
        lines.append(f"| {name} | {' | '.join(texts)} | {len(found)} |")
    return "\n".join(["## Which checkpoint: the last or DSE's pick?\n", *lines])


def _on(answer: RunAnswer, domain: str) -> Mapping[str, float]:
    return next(found for name, found in answer.regrets.items() if name.startswith(domain))
