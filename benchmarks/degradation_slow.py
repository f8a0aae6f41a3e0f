"""Parts 8 and 9 of the study of degradation: a decline at a constant rate, and what holds it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.degradation_rulers import HELD_SETS, HeldRun, against_plain, ends, shown
from densescope.metrics import METRICS
from densescope.runs.run import read_run
from densescope.selection import first_alarm
from densescope.selection.change import is_beyond_noise
from densescope.selection.run_table import RunTable
from densescope.study.spec import Cell, StudySpec

PLAIN = "fast"
UP = "rising"
LOOK = ("onward", "decay")  # where runs of the look may rise
RISING = "constant"  # the arm of part 3 whose runs rise on scenes
LEVEL = 0.95
COSINE, HALF, LATE = "fast-cosine", "brisk", "late-gram-100"  # of part 9
EARLY = "fast-gram-100"
# Arm of part 16 or 17 that its regularizers are compared with -> what the part asks.
AFTER = {
    "late": "Regularizers from a run that has begun to fall (part 16 of the plan)",
    "early": "Other regularizers from a good checkpoint of runs that break (part 17 of the plan)",
}
PROBES = {"linear": "points", "linear-sgd": "trained", "capi-knn": "neighbors"}
CLEAR = {"scenes": 2.0, "folders": 0.5}  # points: a smaller fall is none
WAYS = ("worse", "better", "not told apart")


def slow_text(spec: StudySpec, folder: Path, rising: Sequence[Path]) -> str:
    """The tables of part 8, and those of part 9 but the contrasts.

    Args:
        spec: of part 8.
        folder: its runs; those that are not there are left out.
        rising: scores of runs that rise on scenes to their end.
    """
    cells = [cell for cell in spec.cells() if cell.start_run and _whole(folder / cell.name)]
    runs = {cell.name: [HeldRun(cell, folder, name) for name in HELD_SETS] for cell in cells}
    tested = [
        cell
        for cell in cells
        if cell.arm.name.partition("-")[0] == PLAIN and cell.settings.seed > 1
    ]
    plain = [cell for cell in tested if cell.arm.name == PLAIN]
    tables = {cell.name: read_run(folder / cell.name / "scores") for cell in plain}
    parts = [
        "## A decline at a constant rate (part 8 of the plan)",
        ends(runs),
        _declines({cell.name: runs[cell.name] for cell in plain}),
        _alarms(tables),
        "### What holds it",
        against_plain(tested, runs),
        _held(tested, runs),
        _neighbors(tested, runs),
        "### What sees it",
        _seen(
            {
                "`fast`: scenes fall": list(tables.values()),
                "`rising`: scenes rise, same start": [
                    read_run(folder / cell.name / "scores")
                    for cell in cells
                    if cell.arm.name == UP and runs[cell.name][0].rises
                ],
                "the look: scenes rise, seed 1": [
                    read_run(folder / cell.name / "scores")
                    for cell in cells
                    if cell.arm.name in LOOK and runs[cell.name][0].rises
                ],
                "part 3: scenes rise, fresh weights": [read_run(path) for path in rising],
            }
        ),
    ]
    parts += ["### A cosine, half the rate, a late teacher (part 9 of the plan)", _cosine(runs)]
    parts += [_rank_test([c for c in cells if c.arm.name in (COSINE, HALF)], runs, folder)]
    return "\n\n".join([*parts, _late(runs)])


def after_text(spec: StudySpec, folder: Path, plain: str) -> str:
    """The tables of part 16 or 17: regularizers from a step of a run, under three probes.

    Args:
        spec: of the part.
        folder: its runs; those that are not there are left out.
        plain: the arm without a regularizer, one of ``AFTER``.
    """
    cells = [cell for cell in spec.cells() if cell.start_run and _whole(folder / cell.name)]
    runs = {cell.name: [HeldRun(cell, folder, name) for name in HELD_SETS] for cell in cells}
    after = [cell for cell in cells if cell.arm.name.startswith(plain)]
    parts = [f"## {AFTER[plain]}", ends(runs), against_plain(after, runs)]
    parts += [_held(after, runs, plain), _probes_agree(after, runs, plain)]
    if plain == "early":  # whose first runs were stopped where the others begin
        parts.append(_against_start(after, runs, folder))
    return "\n\n".join(parts)


def _against_start(
    cells: Sequence[Cell], runs: Mapping[str, Sequence[HeldRun]], folder: Path
) -> str:
    """The last checkpoint against the last one of the run that it began with."""
    lines = ["| on scenes | it began with | last | last minus that |", "|" + " --- |" * 4]
    for arm, method in dict.fromkeys((cell.arm.name, cell.method) for cell in cells):
        own = [cell for cell in cells if (cell.arm.name, cell.method) == (arm, method)]
        first = []
        for cell in own:
            (probes,) = read_run(folder / str(cell.start_run) / "scores").probes.values()
            first.append(100 * probes[-1].value)
        last = [runs[cell.name][0].points[-1] for cell in own]
        more = shown([a - b for a, b in zip(last, first, strict=True)], sign=True)
        ends = " | ".join(f"{shown(values, sign=False)}" for values in (first, last))
        lines.append(f"| {arm}, {method} ({len(own)} runs) | {ends} | {more} |")
    return "\n".join(lines)


def _probes_agree(cells: Sequence[Cell], runs: Mapping[str, Sequence[HeldRun]], plain: str) -> str:
    """The last checkpoint against that without a regularizer, on scenes, by three probes."""
    lines = ["| last minus without, on scenes | " + " | ".join(f"`{p}`" for p in PROBES) + " |"]
    lines.append("|" + " --- |" * 4)
    signs = []
    for arm in dict.fromkeys(cell.arm.name for cell in cells if cell.arm.regularizer is not None):
        own = [cell.name for cell in cells if cell.arm.name == arm]
        pairs = [(runs[n][0], runs[n.replace(f"-{arm}-", f"-{plain}-")][0]) for n in own]
        more = [
            [getattr(a, name)[-1] - getattr(b, name)[-1] for a, b in pairs]
            for name in PROBES.values()
        ]
        signs += list(zip(*([value > 0 for value in column] for column in more), strict=True))
        texts = [f"{shown(column, sign=True)} ({len(column)} runs)" for column in more]
        lines.append(f"| {arm.removeprefix(f'{plain}-')} | {' | '.join(texts)} |")
    alike = [sum(one[0] == one[place] for one in signs) for place in (1, 2)]
    return "\n".join(lines) + (
        f"\n\nThe sign is that of `linear` in {alike[0]} of {len(signs)} pairs by `linear-sgd` and "
        f"in {alike[1]} by `capi-knn`."
    )


def _whole(run: Path) -> bool:
    """Whether a run was trained, scored and probed on both sets."""
    probes = {path.name.split("-linear-image")[0] for path in (run / "scores" / "probes").glob("*")}
    return probes >= set(HELD_SETS)


def _declines(runs: Mapping[str, Sequence[HeldRun]]) -> str:
    """Which of the runs without a regularizer decline by the rule of the plan."""
    fell = [
        name
        for name, found in runs.items()
        if all(
            one.points[0] - one.points[-1] > limit
            for one, limit in zip(found, CLEAR.values(), strict=True)
        )
    ]
    return (
        f"Runs without a regularizer that decline on both sets: {len(fell)} of {len(runs)} "
        f"({', '.join(fell) or 'none'})."
    )


def _alarms(tables: Mapping[str, RunTable]) -> str:
    told = []
    for name, table in tables.items():
        alarm = first_alarm(table)
        where = "no alarm" if alarm is None else f"alarm at {alarm.last.name}"
        picked = table.selection()
        told.append(f"- {name}: {where}; pick of DSE {picked.pick}")
    return "\n".join(told)


def _held(cells: Sequence[Cell], runs: Mapping[str, Sequence[HeldRun]], plain: str = PLAIN) -> str:
    """Whether a regularizer holds the decline of a method, or keeps the features."""
    lines = [
        "| regularizer | method | scenes, last minus without | clothing, last minus without "
        "| scenes, last minus first | seeds | holds | keeps |",
        "|" + " --- |" * 8,
    ]
    for arm in dict.fromkeys(cell.arm.name for cell in cells if cell.arm.regularizer is not None):
        for method in dict.fromkeys(cell.method for cell in cells):
            own = [cell for cell in cells if (cell.arm.name, cell.method) == (arm, method)]
            pairs = [
                (runs[cell.name], runs[cell.name.replace(f"-{arm}-", f"-{plain}-")]) for cell in own
            ]
            if not pairs:
                continue
            more = [[a[n].points[-1] - b[n].points[-1] for a, b in pairs] for n in (0, 1)]
            moved = [a[0].points[-1] - a[0].points[0] for a, _ in pairs]
            mean = sum(more[0]) / len(pairs)
            holds = min(more[0] + more[1]) > 0 and mean > CLEAR["scenes"]
            keeps = holds and sum(moved) / len(pairs) > -CLEAR["scenes"]
            numbers = " | ".join(shown(values, sign=True) for values in (*more, moved))
            told = " | ".join("yes" if one else "no" for one in (holds, keeps))
            title = arm.removeprefix(f"{plain}-")
            lines.append(f"| {title} | {method} | {numbers} | {len(pairs)} | {told} |")
    return "\n".join(lines)


def _neighbors(cells: Sequence[Cell], runs: Mapping[str, Sequence[HeldRun]]) -> str:
    """What nearest neighbours say of the first and the last checkpoint."""
    lines = ["| `capi-knn` on scenes, last minus first | dino | mocov3 |", "|" + " --- |" * 3]
    for arm in dict.fromkeys(cell.arm.name for cell in cells):
        texts = []
        for method in ("dino", "mocov3"):
            found = [
                runs[cell.name][0].neighbors
                for cell in cells
                if (cell.arm.name, cell.method) == (arm, method)
            ]
            moved = [points[-1] - points[0] for points in found if points]
            texts.append(f"{shown(moved, sign=True)} ({len(moved)} runs)" if moved else "")
        if any(texts):
            lines.append(f"| {arm} | {' | '.join(texts)} |")
    return "\n".join(lines)


def _cosine(runs: Mapping[str, Sequence[HeldRun]]) -> str:
    """Whether a rate that goes to 0 hides or undoes the decline."""
    lines = [
        "| run | rate held: first, lowest, last | on a cosine to 0: first, lowest, last |",
        "|" + " --- |" * 3,
    ]
    held, ended = [], []
    for name in _of(runs, COSINE):
        both = [runs[name.replace(COSINE, PLAIN)][0].points, runs[name][0].points]
        held.append(both[0][-1] - both[0][0])
        ended.append(both[1][-1] - both[1][0])
        texts = [f"{points[0]:.1f}, {min(points):.1f}, {points[-1]:.1f}" for points in both]
        lines.append(f"| {name} | {' | '.join(texts)} |")
    more = [b - a for a, b in zip(held, ended, strict=True)]
    return "\n".join(lines) + (
        f"\n\nScenes, last minus first: held {shown(held, sign=True)}, on a cosine "
        f"{shown(ended, sign=True)}, difference {shown(more, sign=True)} ({len(more)} runs)."
    )


def _rank_test(cells: Sequence[Cell], runs: Mapping[str, Sequence[HeldRun]], folder: Path) -> str:
    """Whether the effective rank moves as scenes do, in runs it was not chosen on."""
    lines = [
        "| run | scenes, last minus first | effective rank | DSE (lambda 1) | alarm |",
        "|" + " --- |" * 5,
    ]
    right = wrong = 0
    for cell in cells:
        points = runs[cell.name][0].points
        change = points[-1] - points[0]
        table = read_run(folder / cell.name / "scores")
        rank, dse = (moved(table, f"released.{one}") for one in ("effective_rank", "dse_lambda_1"))
        if abs(change) > CLEAR["scenes"]:
            right += rank == WAYS[int(change > 0)]
            wrong += rank != WAYS[int(change > 0)]
        alarm = "no" if first_alarm(table) is None else "yes"
        lines.append(f"| {cell.name} | {change:+.1f} | {rank} | {dse} | {alarm} |")
    return "\n".join(lines) + (
        f"\n\nOf the runs whose scenes move by more than {CLEAR['scenes']:.0f} points, the "
        f"effective rank moves the same way in {right} and not in {wrong}."
    )


def _late(runs: Mapping[str, Sequence[HeldRun]]) -> str:
    """Gram anchoring to a network that has begun to decline."""
    lines = [
        "| late Gram anchoring | first | last | last, anchored from the start | last, without |",
        "|" + " --- |" * 5,
    ]
    moved = []
    for name in _of(runs, LATE):
        own = runs[name][0].points
        early, plain = (runs[name.replace(LATE, arm)][0].points[-1] for arm in (EARLY, PLAIN))
        moved.append(own[-1] - own[0])
        lines.append(f"| {name} | {own[0]:.1f} | {own[-1]:.1f} | {early:.1f} | {plain:.1f} |")
    return "\n".join(lines) + f"\n\nScenes, last minus first: {shown(moved, sign=True)}."


def _of(runs: Mapping[str, Sequence[HeldRun]], arm: str) -> list[str]:
    return [name for name in runs if f"-{arm}-seed" in name]


def moved(table: RunTable, name: str) -> str | None:
    """Whether the last value of a metric is worse than the first beyond the noise of the images."""
    values = list(table.column(name).finite.values())
    better = METRICS[name].better
    if len(values) < 2 or better not in ("higher", "lower"):
        return None
    change = values[-1].minus(values[0])
    if not is_beyond_noise(change, LEVEL):
        return WAYS[2]
    return WAYS[int((change.value > 0) == (better == "higher"))]


def _seen(groups: Mapping[str, Sequence[RunTable]]) -> str:
    """What every metric says of runs of several kinds."""
    rows = []
    for name, metric in METRICS.items():
        counts = [Counter(moved(table, name) for table in group) for group in groups.values()]
        if None not in counts[0] and metric.judged:
            rows.append((name, metric.better, counts))
    rows.sort(key=lambda row: (-row[2][0]["worse"], *(count["worse"] for count in row[2][1:])))
    heads = " | ".join(f"{title} ({len(group)})" for title, group in groups.items())
    lines = [
        "Last against first checkpoint beyond the paired 95 % interval of the images, in the "
        "metric's own direction: runs in which it gets worse / better / is not told apart.",
        f"| metric | good is | {heads} |\n" + "|" + " --- |" * (2 + len(groups)),
    ]
    for name, better, counts in rows:
        numbers = " | ".join(" / ".join(str(count[way]) for way in WAYS) for count in counts)
        lines[1] += f"\n| {name} | {better} | {numbers} |"
    return "\n\n".join(lines)
