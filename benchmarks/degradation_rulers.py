"""Parts 5 to 7 of the study of degradation: other rulers, and the regularizer later on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from densescope.correlation import kendall_tau
from densescope.metrics import METRICS
from densescope.runs.run import read_run
from densescope.runs.store import RunStore
from densescope.study.spec import Cell, StudySpec
from densescope.study.spread import Spread

LINEAR = "scenes-linear"
PROBES = {
    LINEAR: "`linear` on scenes",
    "scenes-linear-sgd": "`linear-sgd` on scenes",
    "scenes-capi-knn": "`capi-knn` on scenes",
    "camvid-linear": "`linear` on CamVid",
}
CLOCK = "number of the checkpoint"
HELD_SETS = {"scenes": "scenes", "folders": "clothing"}  # parts 6 and 7
ENOUGH = 0.5  # points: a smaller fall is none


@dataclass(frozen=True)
class RulerRun:
    """The probed checkpoints of one run.

    Attributes:
        points: probe -> its accuracy at each checkpoint, in percent.
        metrics: metric -> its value at the same checkpoints.
        layers: of the last checkpoint: block -> accuracy by ``linear`` on scenes, in percent.
    """

    points: Mapping[str, Sequence[float]]
    metrics: Mapping[str, Sequence[float]]
    layers: Mapping[str, float]

    def fall(self, probe: str) -> float:
        """The highest before the last, minus the last."""
        *before, last = self.points[probe]
        return max(before) - last

    def best(self, probe: str) -> int:
        """Position of the highest."""
        values = self.points[probe]
        return max(range(len(values)), key=values.__getitem__)

    def tau(self, metric: str, probe: str) -> float:
        """Kendall's tau over the checkpoints; NaN where a number does not vary."""
        tau = kendall_tau(self.metrics[metric], self.points[probe])
        return float("nan") if tau is None else tau

    @property
    def in_a_layer(self) -> float:
        """What the best block of the last checkpoint has more than the last block."""
        return max(self.layers.values()) - self.points[LINEAR][-1]


def ruler_run(probes: Path, scores: Path) -> RulerRun:
    """Read one run: its probes of this part, and its scores of part 3."""
    sets = {
        name.rpartition("-image")[0]: found for name, found in RunStore(probes).probes().items()
    }
    names = [probe.name for probe in sets[LINEAR]]
    table = read_run(scores)
    clothing = {"folders-linear": table.probes["folders-linear-image-size64"]}
    columns = {metric.name: table.column(metric.name).series for metric in table.metrics()}
    metrics = {name: [series[one].value for one in names] for name, series in columns.items()}
    layers = sets[LINEAR][-1].layers
    return RulerRun(
        {
            name: [100 * probe.value for probe in found]
            for name, found in {**sets, **clothing}.items()
        },
        {"": list(range(len(names))), **metrics},
        {layer: 100 * _mean(found["values"]) for layer, found in layers.items()},
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def rulers_text(spec: StudySpec, folder: Path, scores: Path, untrained: Path) -> str:
    """The tables of part 5: what each probe says of the same five checkpoints."""
    parts = ["## Other rulers and other layers (part 5 of the plan)"]
    for arm in spec.arms:
        cells = [cell for cell in spec.cells() if cell.arm is arm]
        named = {
            c.name: ruler_run(folder / c.name / "scores", scores / c.name / "scores") for c in cells
        }
        runs = list(named.values())
        parts += [f"### The arm {arm.name} ({len(runs)} runs)", _falls(runs), _taus(runs)]
        parts += [_on_clothing(runs), _beside_untrained(cells, named, untrained)]
        in_a_layer, fall = (
            Spread.of([of(run) for run in runs])
            for of in (lambda run: run.in_a_layer, lambda run: run.fall(LINEAR))
        )
        assert in_a_layer is not None
        assert fall is not None
        parts.append(
            "The best block of the last checkpoint reads "
            f"{in_a_layer.text()} points more than the last block; the fall of the last block is "
            f"{fall.text(sign=True)}."
        )
    return "\n\n".join(parts)


def _on_clothing(runs: Sequence[RulerRun]) -> str:
    """Added after the tables above were read: the first and the last checkpoint on another set."""
    said = []
    for probe in ("folders-capi-knn", "folders-linear"):
        moved = [run.points[probe][-1] - run.points[probe][0] for run in runs]
        fell = sum(change < -ENOUGH for change in moved)
        said.append(
            f"`{probe.partition('-')[2]}` {shown(moved, sign=True)} ({fell} of {len(runs)} fell)"
        )
    return f"On clothing, last minus first checkpoint (added later): {', '.join(said)}."


def _beside_untrained(cells: Sequence[Cell], runs: Mapping[str, RulerRun], untrained: Path) -> str:
    """What the network of each method reads before training, at its highest, and at the end."""
    probes = [probe for probe in PROBES if probe != "scenes-linear-sgd"]
    before: dict[tuple[str, str], float] = {}
    for method in dict.fromkeys(cell.method for cell in cells):
        stored = RunStore(untrained / f"{method}-untrained-seed1" / "scores").probes()
        for name, (probe, *_) in stored.items():
            before[method, name.rpartition("-image")[0]] = 100 * _mean(probe.values)
    heads = [f"{PROBES[probe]}: untrained, highest before the last, last" for probe in probes]
    lines = [f"| method | {' | '.join(heads)} |", "|" + " --- |" * (1 + len(probes))]
    for method in dict.fromkeys(cell.method for cell in cells):
        own = [runs[cell.name] for cell in cells if cell.method == method]
        texts = [
            f"{before[method, probe]:.1f}, "
            f"{_mean([max(run.points[probe][:-1]) for run in own]):.1f}, "
            f"{_mean([run.points[probe][-1] for run in own]):.1f}"
            for probe in probes
        ]
        lines.append(f"| {method} | {' | '.join(texts)} |")
    return "Means over seeds, and the network before training (one seed):\n\n" + "\n".join(lines)


def _falls(runs: Sequence[RulerRun]) -> str:
    lines = [
        "| probe | first | highest before the last | last | fall | more than `linear` on scenes "
        "| runs that fell | same best checkpoint as `linear` |",
        "|" + " --- |" * 8,
    ]
    for probe, title in PROBES.items():
        ways: tuple[Callable[[RulerRun], float], ...] = (
            lambda run, at=probe: run.points[at][0],
            lambda run, at=probe: max(run.points[at][:-1]),
            lambda run, at=probe: run.points[at][-1],
            lambda run, at=probe: run.fall(at),
            lambda run, at=probe: run.fall(at) - run.fall(LINEAR),
        )
        cells = [
            shown([way(run) for run in runs], sign=place > 2) for place, way in enumerate(ways)
        ]
        fell = sum(run.fall(probe) > ENOUGH for run in runs)
        same = sum(run.best(probe) == run.best(LINEAR) for run in runs)
        counts = [f"{fell} of {len(runs)}", f"{same} of {len(runs)}"]
        lines.append(f"| {title} | {' | '.join([*cells, *counts])} |")
    return "\n".join(lines)


def _taus(runs: Sequence[RulerRun]) -> str:
    head = "| tau over five checkpoints | " + " | ".join(PROBES.values()) + " |"
    lines = [head, "|" + " --- |" * (len(PROBES) + 1)]
    for metric in runs[0].metrics:
        title = METRICS[metric].title if metric else CLOCK
        cells = [shown([run.tau(metric, probe) for run in runs], sign=True) for probe in PROBES]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(values: Sequence[float], *, sign: bool) -> str:
    """Mean of some runs, with its interval."""
    spread = Spread.of(values)
    return "" if spread is None else spread.text(1, 2, sign=sign)


def hold_text(spec: StudySpec, folder: Path) -> str:
    """The tables of parts 6 and 7: with and without the regularizer, from two steps."""
    parts = [
        "## The regularizer from steps 112 and 64 of runs that break (parts 6 and 7 of the plan)"
    ]
    for step in dict.fromkeys(arm.start_step for arm in spec.arms if arm.start_run is not None):
        cells = [cell for cell in spec.cells() if cell.arm.start_step == step and cell.start_run]
        runs = {
            cell.name: [HeldRun(cell, folder, dataset) for dataset in HELD_SETS] for cell in cells
        }
        parts += [f"### From step {step}", ends(runs), against_plain(cells, runs)]
    return "\n\n".join(parts)


class HeldRun:
    """One run on one labelled set.

    Attributes:
        points: accuracy by ``linear`` at each probed checkpoint, in percent.
        neighbors: the same by ``capi-knn``, at the first and the last; empty where not probed.
        trained: the same by ``linear-sgd``.
        rises: whether the last is higher than the first.
        dse: DSE (lambda = 1) of the last one.
    """

    def __init__(self, cell: Cell, folder: Path, dataset: str) -> None:
        at = folder / cell.name / "scores"
        found = RunStore(at).probes()
        points: dict[str, list[float]] = {"linear": [], "capi-knn": [], "linear-sgd": []}
        for probes in found.values():
            if probes[0].dataset == dataset:
                points[probes[0].protocol] = [100 * _mean(probe.values) for probe in probes]
        self.points, self.neighbors, self.trained = points.values()
        self.rises = self.points[-1] > self.points[0]
        self.dse = list(read_run(at).column("released.dse_lambda_1").series.values())[-1].value


def ends(runs: Mapping[str, Sequence[HeldRun]]) -> str:
    """A row per run: where it begins and ends, and its highest point between."""
    sets = " | ".join(f"{name}: first, highest, last" for name in HELD_SETS.values())
    lines = [f"| run | {sets} | DSE: last |", "|" + " --- |" * (2 + len(HELD_SETS))]
    for name, found in runs.items():
        texts = [f"{r.points[0]:.1f}, {max(r.points):.1f}, {r.points[-1]:.1f}" for r in found]
        lines.append(f"| {name} | {' | '.join(texts)} | {found[0].dse:.3f} |")
    return "\n".join(lines)


def against_plain(cells: Sequence[Cell], runs: Mapping[str, Sequence[HeldRun]]) -> str:
    """Differences from the runs without a regularizer, over all methods and seeds."""
    plain = next(cell.arm.name for cell in cells if cell.arm.regularizer is None)
    lines = []
    for arm in dict.fromkeys(cell.arm.name for cell in cells if cell.arm.regularizer is not None):
        pairs = [
            (runs[cell.name], runs[cell.name.replace(f"-{arm}-", f"-{plain}-")])
            for cell in cells
            if cell.arm.name == arm
        ]
        for place, title in enumerate(HELD_SETS.values()):
            last = [a[place].points[-1] - b[place].points[-1] for a, b in pairs]
            top = [max(a[place].points) - max(b[place].points) for a, b in pairs]
            lines.append(
                f"- {arm} minus {plain} on {title}: last {shown(last, sign=True)}, highest "
                f"{shown(top, sign=True)} ({len(pairs)} runs, points)"
            )
    return "\n".join(lines)
