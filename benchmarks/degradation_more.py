"""Parts 11, 12 and 15 of the study of degradation, and part 3 with each seed by itself."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.degradation_rulers import CLOCK, shown
from benchmarks.degradation_slow import WAYS, moved
from densescope.correlation import kendall_tau, regret_table
from densescope.correlation.paper import paper_tau
from densescope.metrics import METRICS
from densescope.records import ProbeRecord
from densescope.runs.run import read_run
from densescope.selection import RunTable
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


RULES = {**CHOICES, "guarded": "after an alarm the pick", "back": "after an alarm back"}
RAISED, HELD = "-raised-seed", "-constant-seed"
TESTED = ("raised, part 15", "raised, part 23")


def back_text(before: Path, again: Path) -> str:
    """Parts 15 and 23: regret on scenes of what to do after an alarm.

    Args:
        before: the runs of part 3.
        again: those of parts 14 (seed 1, trained again), 15 (seed 3) and 23 (seed 4).
    """
    groups = {
        "raised, part 15": (again, f"{RAISED}3"),
        "raised, part 23": (again, f"{RAISED}4"),
        "raised, part 14": (again, f"{RAISED}1"),
        "raised, part 3": (before, RAISED),
        "constant, part 23": (again, f"{HELD}4"),
        "constant, part 14": (again, f"{HELD}1"),
        "constant, part 3": (before, HELD),
    }
    found = {
        title: {run.name: regrets_on_scenes(run) for run in sorted(folder.glob(f"*{part}*"))}
        for title, (folder, part) in groups.items()
    }
    tested = {name: one for part in TESTED for name, one in found[part].items()}
    of_raised, of_constant = (
        {f"{t} {n}": one for t, runs in found.items() if kind in t for n, one in runs.items()}
        for kind in ("raised", "constant")
    )
    found = {"raised, parts 15 and 23": tested, **found}
    found |= {"raised, all": of_raised, "constant, all": of_constant}
    lines = [f"| runs | {' | '.join(RULES.values())} | back minus pick after an alarm |"]
    lines.append("|" + " --- |" * (len(RULES) + 2))
    for title, runs in found.items():
        cells = [shown([one[way] for one in runs.values()], sign=False) for way in RULES]
        more = shown([one["back"] - one["guarded"] for one in runs.values()], sign=True)
        lines.append(f"| {title} ({len(runs)}) | {' | '.join(cells)} | {more} |")
    worse = [name for name, one in of_raised.items() if one["back"] > one["guarded"]]
    better = [name for name, one in of_raised.items() if one["back"] < one["guarded"]]
    each = [f"| run | {' | '.join(RULES.values())} |", "|" + " --- |" * (len(RULES) + 1)]
    each += [
        f"| {name} | {' | '.join(f'{one[way]:.1f}' for way in RULES)} |"
        for name, one in tested.items()
    ]
    return "\n\n".join(
        [
            "## After an alarm, back to which checkpoint? (parts 15 and 23 of the plan)",
            "Regret on scenes in points. The rule was found on the runs of part 14; those of parts "
            "15 and 23 only tested it.",
            "\n".join(lines),
            f"Back is better in {len(better)} of {len(of_raised)} raised runs, worse in "
            f"{len(worse)}. Each run of parts 15 and 23:",
            "\n".join(each),
        ]
    )


def on_scenes(run: Path) -> tuple[RunTable, Sequence[ProbeRecord]]:
    """The scores of a run, and its probes by ``linear`` on scenes."""
    table = read_run(run / "scores")
    (probes,) = (of for name, of in table.probes.items() if name.startswith(f"{SCENES}-linear-im"))
    return table, probes


def regrets_on_scenes(run: Path) -> dict[str, float]:
    """What each rule costs in one run by ``linear`` on scenes, in points."""
    rows = regret_table(*on_scenes(run))
    return {way: 100 * float(rows.row(way).regret or 0.0) for way in RULES}


def methods_text(spec: StudySpec, folder: Path, part: int = 3) -> str:
    """Tau of every metric with scenes in each run of part 3 or 19, method by method."""
    parts = [f"## Kendall's tau with scenes, each metric and method (part {part})"]
    for arm in (one for one in spec.arms if one.regularizer is None):
        cells = [cell for cell in spec.cells() if cell.arm is arm]
        taus: dict[str, dict[str, list[float]]] = {}
        for cell in cells:
            table, probes = on_scenes(folder / cell.name)
            series = {one.name: table.column(one.name).series for one in table.metrics()}
            numbers = {name: [of[p.name].value for p in probes] for name, of in series.items()}
            for name, values in {"": list(range(len(probes))), **numbers}.items():
                tau = kendall_tau(values, [probe.value for probe in probes])
                by_method = taus.setdefault(name, {})
                by_method.setdefault(cell.method, []).append(math.nan if tau is None else tau)
        methods = list(dict.fromkeys(cell.method for cell in cells))
        lines = [f"| metric | {' | '.join(methods)} | all {len(cells)} | paper |"]
        lines.append("|" + " --- |" * (len(methods) + 3))
        for name, found in taus.items():
            each = [
                ", ".join("–" if math.isnan(tau) else f"{tau:+.2f}" for tau in found[method])
                for method in methods
            ]
            whole = shown([tau for of in found.values() for tau in of], sign=True)
            known = paper_tau(name).get("mean")
            paper = "" if known is None else f"{known:+.2f}"
            title = METRICS[name].title if name else CLOCK
            lines.append(f"| {title} | {' | '.join(each)} | {whole} | {paper} |")
        parts += [f"### The arm {arm.name}: seed 1, seed 2", "\n".join(lines)]
    return "\n\n".join(parts)
