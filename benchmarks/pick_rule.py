"""How the rule behind the single pick was chosen: regret on the paper's normalized curves.

    python benchmarks/pick_rule.py path/to/figure_curves.csv

The file has the columns ``method, epoch, miou_norm, dse_norm``. Regret is the best mIoU of a curve
minus the mIoU of the picked checkpoint, in units of the method's normalized mIoU range.
docs/explanation/selection.md quotes the tables this prints.
"""

from __future__ import annotations

import argparse
import csv
import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from densescope.selection import local_maxima, pick_peak, shortlist

Values = Sequence[float]
Rule = Callable[[Values], int]
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
STRIDES = (2, 3, 4, 5, 8)
NOISES = (0.01, 0.02, 0.05)


@dataclass(frozen=True)
class Curve:
    method: str
    miou: tuple[float, ...]
    dse: tuple[float, ...]

    def regret(self, rule: Rule) -> float:
        return max(self.miou) - self.miou[rule(self.dse)]

    def least_regret(self) -> float:
        """Regret of the best member of the shortlist: what labels of three would find."""
        return max(self.miou) - max(self.miou[i] for i in shortlist(self.dse))

    def thinned(self, stride: int, offset: int) -> Curve:
        return Curve(self.method, self.miou[offset::stride], self.dse[offset::stride])

    def noisy(self, sd: float, seed: int) -> Curve:
        generator = random.Random(seed)
        return Curve(self.method, self.miou, tuple(v + generator.gauss(0, sd) for v in self.dse))


@dataclass(frozen=True)
class Family:
    """A rule with at most one parameter; ``rule(parameter)`` is the rule."""

    name: str
    rule: Callable[[float], Rule]
    parameters: tuple[float, ...] = (0.0,)


def read_curves(path: Path) -> list[Curve]:
    rows: dict[str, list[tuple[int, float, float]]] = {}
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            point = (int(row["epoch"]), float(row["miou_norm"]), float(row["dse_norm"]))
            rows.setdefault(row["method"], []).append(point)
    return [
        Curve(method, tuple(p[1] for p in sorted(points)), tuple(p[2] for p in sorted(points)))
        for method, points in rows.items()
    ]


def spread(values: Values) -> float:
    return max(values) - min(values)


def within(values: Values, fraction: float) -> list[int]:
    """Candidates within a fraction of the curve's range of its highest value."""
    bar = max(values) - fraction * spread(values)
    return [i for i in local_maxima(values) if values[i] >= bar]


def highest_then_fall(values: Values, fraction: float) -> int:
    """Highest candidate after which DSE falls by a fraction of its range, else the highest."""
    fell = [
        i
        for i in local_maxima(values)
        if values[i] - min(values[i:]) >= fraction * spread(values) > 0
    ]
    return max(fell or local_maxima(values), key=lambda i: (values[i], -i))


def smoothed(values: Values, radius: int) -> list[float]:
    windows = (values[max(0, i - radius) : i + radius + 1] for i in range(len(values)))
    return [statistics.fmean(window) for window in windows]


def latest_peak(values: Values, fraction: float) -> int:
    """Latest candidate seen to fall within a fraction of the range of the pick."""
    pick = pick_peak(values)
    bar = values[pick] - fraction * spread(values)
    falls = (i for i in local_maxima(values) if i + 2 < len(values) and values[i] >= bar)
    return max(falls, default=pick)


def plateau_middle(values: Values, fraction: float) -> int:
    """Middle of the stretch around the pick where DSE stays within a fraction of its range."""
    first = last = pick_peak(values)
    if first == len(values) - 1:
        return first
    bar = values[first] - fraction * spread(values)
    while first > 0 and values[first - 1] >= bar:
        first -= 1
    while last < len(values) - 1 and values[last + 1] >= bar:
        last += 1
    return (first + last + 1) // 2


FAMILIES = (
    Family("last checkpoint", lambda _: lambda v: len(v) - 1),
    Family("raw maximum", lambda _: lambda v: v.index(max(v))),
    Family("earliest of the shortlist", lambda _: lambda v: min(shortlist(v))),
    Family("earliest candidate within x", lambda x: lambda v: min(within(v, x)), FRACTIONS),
    Family("latest candidate within x", lambda x: lambda v: max(within(v, x)), FRACTIONS),
    Family(
        "highest candidate before a fall of x",
        lambda x: lambda v: highest_then_fall(v, x),
        FRACTIONS[:-1],
    ),
    Family(
        "maximum after smoothing, radius x",
        lambda x: lambda v: smoothed(v, int(x)).index(max(smoothed(v, int(x)))),
        (1, 2, 3, 4),
    ),
    Family(
        "pick_peak after smoothing, radius x",
        lambda x: lambda v: pick_peak(smoothed(v, int(x))),
        (1, 2, 3, 4),
    ),
    Family("latest peak within x of pick_peak", lambda x: lambda v: latest_peak(v, x), FRACTIONS),
    Family(
        "middle of the plateau of width x",
        lambda x: lambda v: plateau_middle(v, x),
        FRACTIONS[:-2],
    ),
    Family("pick_peak, tolerance x", lambda x: lambda v: pick_peak(v, tolerance=x), FRACTIONS),
)


def mean_regret(curves: Iterable[Curve], rule: Rule) -> float:
    return statistics.fmean(curve.regret(rule) for curve in curves)


def best_parameter(family: Family, curves: Sequence[Curve]) -> float:
    """The parameter of least mean regret; the middle one of a tie."""
    scores = {x: round(mean_regret(curves, family.rule(x)), 9) for x in family.parameters}
    tied = [x for x, score in scores.items() if score == min(scores.values())]
    return tied[len(tied) // 2]


def left_out_regrets(family: Family, curves: Sequence[Curve]) -> list[float]:
    """Regret on each curve with the parameter chosen on the others."""
    regrets = []
    for curve in curves:
        others = [other for other in curves if other is not curve]
        regrets.append(curve.regret(family.rule(best_parameter(family, others))))
    return regrets


def thinned_regret(curves: Sequence[Curve], regret: Callable[[Curve], float], stride: int) -> float:
    parts = (curve.thinned(stride, offset) for curve in curves for offset in range(stride))
    return statistics.fmean(regret(part) for part in parts if len(part.dse) > 3)


def noisy_regret(curves: Sequence[Curve], regret: Callable[[Curve], float], sd: float) -> float:
    return statistics.fmean(regret(c.noisy(sd, seed)) for c in curves for seed in range(100))


def print_row(*cells: str | float) -> None:
    texts = (cell if isinstance(cell, str) else f"{cell:.3f}" for cell in cells)
    print("| " + " | ".join(texts) + " |")


def print_head(*cells: str) -> None:
    print_row(*cells)
    print("|" + " --- |" * len(cells))


def print_regrets(curves: Sequence[Curve]) -> None:
    print("\nRegret per method; x fitted on all six, or on the other five (left out)\n")
    print_head("rule", "x", *(c.method for c in curves), "mean", "mean, left out")
    floor = [curve.least_regret() for curve in curves]
    print_row("best of the shortlist (needs labels)", "", *floor, statistics.fmean(floor), "")
    for family in FAMILIES:
        x = best_parameter(family, curves)
        regrets = [curve.regret(family.rule(x)) for curve in curves]
        left_out = statistics.fmean(left_out_regrets(family, curves))
        shown = f"{x:g}" if len(family.parameters) > 1 else ""
        print_row(family.name, shown, *regrets, statistics.fmean(regrets), left_out)


def print_without_each(curves: Sequence[Curve]) -> None:
    print("\nMean regret in sample when one method is not counted\n")
    print_head("rule", "x", *(f"without {c.method}" for c in curves))
    for family in FAMILIES:
        x = best_parameter(family, curves)
        rest = ([other for other in curves if other is not curve] for curve in curves)
        print_row(family.name, f"{x:g}", *(mean_regret(kept, family.rule(x)) for kept in rest))


def print_sensitivity(curves: Sequence[Curve]) -> None:
    print("\nMean regret against x\n")
    print_head("rule", *(f"{x:g}" for x in FRACTIONS))
    for family in FAMILIES:
        if family.parameters[0] == FRACTIONS[0]:
            scores = [mean_regret(curves, family.rule(x)) for x in family.parameters]
            print_row(family.name, *scores, *[""] * (len(FRACTIONS) - len(scores)))


def print_robustness(curves: Sequence[Curve]) -> None:
    print("\nMean regret with every n-th checkpoint (all offsets), or noise added to DSE\n")
    heads = [f"every {n}" for n in STRIDES] + [f"noise {sd:g}" for sd in NOISES]
    print_head("rule", "x", *heads)
    for family in FAMILIES:
        x = best_parameter(family, curves)
        tried = {x, 0.2} if family.name.startswith("pick_peak, ") else {x}
        for parameter in sorted(tried):
            regret = partial(Curve.regret, rule=family.rule(parameter))
            print_row(family.name, f"{parameter:g}", *robustness(curves, regret))
    print_row("best of the shortlist (needs labels)", "", *robustness(curves, Curve.least_regret))


def robustness(curves: Sequence[Curve], regret: Callable[[Curve], float]) -> list[float]:
    thinned = [thinned_regret(curves, regret, stride) for stride in STRIDES]
    return thinned + [noisy_regret(curves, regret, sd) for sd in NOISES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("curves", type=Path, help="CSV with method, epoch, miou_norm, dse_norm")
    curves = read_curves(parser.parse_args().curves)
    print_regrets(curves)
    print_without_each(curves)
    print_sensitivity(curves)
    print_robustness(curves)


if __name__ == "__main__":
    main()
