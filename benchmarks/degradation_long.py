"""Parts 18 and 19 of the study of degradation: photos under more probes, and long runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.degradation_more import RULES, regrets_on_scenes
from benchmarks.degradation_rulers import CLOCK, ENOUGH, shown
from densescope.metrics import METRICS
from densescope.records import ProbeRecord
from densescope.runs.store import RunStore
from densescope.study.spec import StudySpec
from densescope.study.summary import StudySummary

PHOTO_SETS = {"camvid": "CamVid", "folders": "clothing"}
SETS = {"scenes": "scenes", "folders": "clothing", "camvid": "CamVid"}
PROBES = ("linear", "linear-sgd", "capi-knn")
FEW = "labels20-linear"


def points(run: Path) -> dict[str, list[float]]:
    """Set and protocol, such as ``"camvid-linear"`` -> percent at each checkpoint, in order."""
    found: Mapping[str, Sequence[ProbeRecord]] = RunStore(run / "scores").probes()
    return {
        name.rpartition("-image")[0]: [100 * sum(p.values) / len(p.values) for p in probes]
        for name, probes in found.items()
    }


def photo_probes_text(spec: StudySpec, folder: Path) -> str:
    """The tables of part 18; runs that are not there are left out."""
    cells = [cell.name for cell in spec.cells() if (folder / cell.name / "scores").is_dir()]
    runs = {name: points(folder / name) for name in cells}
    heads = [f"{title} by `{p}`" for title in PHOTO_SETS.values() for p in PROBES[:2]]
    lines = [f"| run | {' | '.join(heads)} |", "|" + " --- |" * (1 + len(heads))]
    losses: dict[str, list[bool]] = {protocol: [] for protocol in PROBES[:2]}
    for name, of in runs.items():
        falls = {
            (one, protocol): of[f"{one}-{protocol}"][-1] - max(of[f"{one}-{protocol}"][:-1])
            for one in PHOTO_SETS
            for protocol in losses
        }
        for protocol, told in losses.items():
            told.append(all(falls[one, protocol] < -ENOUGH for one in PHOTO_SETS))
        lines.append(f"| {name} | {' | '.join(f'{fall:+.1f}' for fall in falls.values())} |")
    both = sum(a and b for a, b in zip(*losses.values(), strict=True))
    counts = ", ".join(f"by `{protocol}` {sum(told)}" for protocol, told in losses.items())
    chosen = [
        "| regret by `linear` of | last | the best by 20 labelled images | difference |",
        "|" + " --- |" * 4,
    ]
    for one, title in PHOTO_SETS.items():
        last, few = [], []
        for of in runs.values():
            values, guide = of[f"{one}-linear"], of[f"{one}-{FEW}"]
            last.append(max(values) - values[-1])
            few.append(max(values) - values[guide.index(max(guide))])
        more = shown([a - b for a, b in zip(few, last, strict=True)], sign=True)
        texts = [shown(last, sign=False), shown(few, sign=False), more]
        chosen.append(f"| {title} ({len(last)} runs) | {' | '.join(texts)} |")
    return "\n\n".join(
        [
            "## Photos under a trained probe and few labels (part 18 of the plan)",
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
