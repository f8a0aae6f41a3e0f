"""Parts 18 to 21 and 24 of the study of degradation: more probes, and long runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from benchmarks.degradation_contrast import Found, cell
from benchmarks.degradation_more import RANK, RULES, on_scenes, regrets_on_scenes
from benchmarks.degradation_rulers import CLOCK, ENOUGH, shown
from densescope.correlation import kendall_tau
from densescope.metrics import METRICS
from densescope.records import ProbeRecord
from densescope.runs.store import RunStore
from densescope.selection import first_alarm
from densescope.study.spec import StudySpec
from densescope.study.summary import StudySummary

PHOTO_SETS = {"camvid": "CamVid", "folders": "clothing"}
SCENE_SETS = {"scenes": "scenes", "folders": "clothing"}
SETS = {"scenes": "scenes", "folders": "clothing", "camvid": "CamVid"}
PROBES = ("linear", "linear-sgd", "capi-knn")
FEW = "labels20-linear"
DSE, SEPARABILITY = "released.dse_lambda_1", "released.separability"


def points(run: Path) -> dict[str, list[float]]:
    """Set and protocol, such as ``"camvid-linear"`` -> percent at each checkpoint, in order."""
    found: Mapping[str, Sequence[ProbeRecord]] = RunStore(run / "scores").probes()
    return {
        name.rpartition("-image")[0]: [100 * sum(p.values) / len(p.values) for p in probes]
        for name, probes in found.items()
    }


def more_probes_text(spec: StudySpec, folder: Path, sets: Mapping[str, str], title: str) -> str:
    """The tables of part 18 or 21; runs that are not there are left out.

    Args:
        spec: of the part.
        folder: its runs.
        sets: labelled sets, with the names that are shown.
        title: of the section.
    """
    cells = [cell.name for cell in spec.cells() if (folder / cell.name / "scores").is_dir()]
    runs = {name: points(folder / name) for name in cells}
    heads = [f"{name} by `{p}`" for name in sets.values() for p in PROBES[:2]]
    lines = [f"| run | {' | '.join(heads)} |", "|" + " --- |" * (1 + len(heads))]
    losses: dict[str, list[bool]] = {protocol: [] for protocol in PROBES[:2]}
    for name, of in runs.items():
        falls = {
            (one, protocol): of[f"{one}-{protocol}"][-1] - max(of[f"{one}-{protocol}"][:-1])
            for one in sets
            for protocol in losses
        }
        for protocol, told in losses.items():
            told.append(all(falls[one, protocol] < -ENOUGH for one in sets))
        lines.append(f"| {name} | {' | '.join(f'{fall:+.1f}' for fall in falls.values())} |")
    both = sum(a and b for a, b in zip(*losses.values(), strict=True))
    counts = ", ".join(f"by `{protocol}` {sum(told)}" for protocol, told in losses.items())
    chosen = [
        "| regret by `linear` of | last | the best by 20 labelled images | difference |",
        "|" + " --- |" * 4,
    ]
    for one, head in sets.items():
        last, few = [], []
        for of in runs.values():
            values, guide = of[f"{one}-linear"], of[f"{one}-{FEW}"]
            last.append(max(values) - values[-1])
            few.append(max(values) - values[guide.index(max(guide))])
        more = shown([a - b for a, b in zip(few, last, strict=True)], sign=True)
        texts = [shown(last, sign=False), shown(few, sign=False), more]
        chosen.append(f"| {head} ({len(last)} runs) | {' | '.join(texts)} |")
    return "\n\n".join(
        [
            f"## {title}",
            "Last checkpoint minus the highest of the four before it, in points:",
            "\n".join(lines),
            f"Runs that lose more than {ENOUGH} points on both sets, of {len(runs)}: {counts}, "
            f"by both {both}.",
            "\n".join(chosen),
        ]
    )


def long_text(long: StudySummary, short: StudySummary, folders: tuple[Path, Path]) -> str:
    """Questions 2 and 3 of part 19: the same methods, seeds and rates, long and short.

    Args:
        long: of part 19.
        short: of the constant arm of part 3.
        folders: their runs.
    """
    names = ["", *(row.number for row in long.taus.metrics.rows)] if long.taus else []
    lines = ["| tau with scenes | 400 steps | 6,300 to 13,900 steps |", "|" + " --- |" * 3]
    for name in names:
        cells = []
        for summary in (short, long):
            assert summary.taus is not None
            known = {row.number: row.cells for row in summary.taus.metrics.rows}
            if name:
                found = known.get(name, {}).get("scenes")
                cells.append("" if found is None else _around(found.value, *found.interval))
            else:
                clock = summary.taus.clock["scenes"]
                assert clock is not None
                half = clock.half or 0.0
                cells.append(_around(clock.value, clock.value - half, clock.value + half))
        lines.append(f"| {METRICS[name].title if name else CLOCK} | {' | '.join(cells)} |")
    regrets = [f"| regret on scenes | {' | '.join(RULES.values())} |"]
    regrets.append("|" + " --- |" * (1 + len(RULES)))
    for title, summary, folder in zip(("long", "short"), (long, short), folders, strict=True):
        found = [regrets_on_scenes(folder / answer.run) for answer in summary.answers]
        cells = [shown([one[way] for one in found], sign=False) for way in RULES]
        regrets.append(f"| {title} ({len(found)} runs) | {' | '.join(cells)} |")
    alarms = [answer.run for answer in long.answers if answer.alarm is not None]
    return "\n\n".join(
        [
            "## Long runs beside short ones (part 19 of the plan)",
            "\n".join(lines),
            "\n".join(regrets),
            f"Alarms in the long runs: {len(alarms)} of {len(long.answers)}.",
        ]
    )


def _around(value: float, low: float, high: float) -> str:
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def again_text(contrasts: Mapping[str, Found], runs: Sequence[Path], title: str, what: str) -> str:
    """Runs of one method with several seeds: parts 20 and 24.

    Args:
        contrasts: name of a run -> its contrasts.
        runs: the folders of the runs.
        title: of the section.
        what: a sentence or two on these runs.
    """
    heads = [f"{SCENE_SETS[one]} by `{p}`" for p in PROBES[:2] for one in SCENE_SETS]
    first = [f"| run | {' | '.join(heads)} | scenes by `capi-knn` |", "|" + " --- |" * 6]
    scored = [{metric.name for metric in on_scenes(run)[0].metrics()} for run in runs]
    numbers = [
        one for one in (DSE, SEPARABILITY, RANK, "rankme") if one in set.intersection(*scored)
    ]
    tells = [f"tau of {METRICS[number].title}" for number in numbers]
    second = [
        f"| run | change of scenes between neighbours | {' | '.join(tells)} "
        "| effective rank, first and last | regret of the last | of DSE's pick | alarm |"
    ]
    second.append("|" + " --- |" * (len(numbers) + 6))
    for run in runs:
        of = points(run)
        sets = [f"{one}-{p}" for p in PROBES[:2] for one in SCENE_SETS]
        cells = [cell(contrasts[run.name].get(one)) or _course(of.get(one, ())) for one in sets]
        knn = of.get("scenes-capi-knn")
        cells.append("" if knn is None else f"{_best_three(knn):+.1f}, {_course(knn)}")
        first.append(f"| {run.name} | {' | '.join(cells)} |")
        table, probes = on_scenes(run)
        scenes = of["scenes-linear"]
        changes = [b - a for a, b in pairwise(scenes[len(scenes) // 2 :])]
        columns = {
            number: [table.column(number).series[probe.name].value for probe in probes]
            for number in (*numbers, RANK)
        }
        found_taus = (kendall_tau(columns[number], scenes) for number in numbers)
        taus = [math.nan if tau is None else tau for tau in found_taus]
        ranks, costs = columns[RANK], regrets_on_scenes(run)
        alarm = first_alarm(table, layer=table.last_layer)
        texts = [
            f"{math.sqrt(statistics.fmean(one * one for one in changes)):.1f}",
            *(f"{tau:+.2f}" for tau in taus),
            f"{ranks[0]:.2f}, {ranks[-1]:.2f}",
            *(f"{costs[way]:.1f}" for way in ("last", "released.pick")),
            "none" if alarm is None else alarm.last,
        ]
        second.append(f"| {run.name} | {' | '.join(texts)} |")
    return "\n\n".join(
        [
            f"## {title}",
            f"The contrast of part 9 under each probe, and the number of the checkpoint where the "
            f"best begin; where there is none, the course. {what} By `capi-knn` the mean of the "
            "best three checkpoints in a row minus that of the last three, and the course.",
            "\n".join(first),
            "The change is the root mean square over the second half of a run, in points; taus "
            "are with scenes by `linear`.",
            "\n".join(second),
        ]
    )


def _best_three(values: Sequence[float]) -> float:
    """Best mean of three in a row minus the mean of the last three."""
    means = [statistics.fmean(values[place : place + 3]) for place in range(len(values) - 2)]
    return max(means) - means[-1]


def kept_text(folder: Path) -> str:
    """Question 4 of part 19: backbones that were kept, under other probes and on CamVid."""
    runs = {path.name: points(path) for path in sorted(folder.glob("*-seed*"))}
    several = {name: of for name, of in runs.items() if "scenes-capi-knn" in of}
    heads = [f"{SETS[one]} by `{p}`" for one in ("scenes", "folders") for p in PROBES]
    lines = [f"| run | {' | '.join(heads)} |", "|" + " --- |" * (1 + len(heads))]
    for name, of in several.items():
        cells = [_course(of.get(f"{one}-{p}", ())) for one in ("scenes", "folders") for p in PROBES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    camvid = ["| method | CamVid by `linear`: seed 1 | seed 2 |", "|" + " --- |" * 3]
    for method in dict.fromkeys(name.split("-")[0] for name in runs):
        cells = [_course(runs[f"{method}-long-seed{seed}"]["camvid-linear"]) for seed in (1, 2)]
        camvid.append(f"| {method} | {' | '.join(cells)} |")
    return "\n\n".join(
        [
            "### Checkpoints whose backbones were kept, in 16-bit floats",
            "Evenly spaced from the first checkpoint to the last.",
            "\n".join(lines),
            "\n".join(camvid),
        ]
    )


def _course(values: Sequence[float]) -> str:
    """First, two between, last; nothing where it was not probed."""
    if not values:
        return ""
    places = [round(place * (len(values) - 1) / 3) for place in range(4)]
    return ", ".join(f"{values[place]:.1f}" for place in places)
