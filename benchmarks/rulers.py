"""Protocols and metrics on the same twenty checkpoints of two methods, as tables.

    python -m benchmarks.rulers

Reads studies/degradation/rulers.tar.xz: ten checkpoints each of the long runs of SimSiam and DINO
(part 19 of the study, seed 1), scored with every metric and probed on scenes by several protocols.
Writes benchmarks/results/rulers.md.
"""

from __future__ import annotations

import argparse
import math
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from densescope.correlation.kendall import tau_interval, tau_over_checkpoints
from densescope.evaluation.uncertainty import block_resamples, probed_images, resampled_miou
from densescope.records import ProbeRecord
from densescope.runs.store import RunStore
from densescope.selection import RunTable
from densescope.writing import replacing

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "studies" / "degradation" / "rulers.tar.xz"
TARGET = ROOT / "benchmarks" / "results" / "rulers.md"
TRUE, TRAINED = "linear", "linear-sgd"
HEAD = (
    "The long runs of SimSiam and DINO, seed 1, of "
    "[the study](../../studies/degradation/README.md) (part 19): ten checkpoints each, their "
    "weights rounded to 16 bits. Scenes at 64 pixels (8 x 8 patches),\n400 training and 200 test "
    "scenes, drawn as the training images are. Made by `python -m benchmarks.rulers` from the "
    "records.\n\n"
    "mIoU in percent, ± its standard error over test scenes, at each step. Seconds are "
    "the median of the ten, of one thread on a busy machine."
)
TAUS = (
    "Kendall's tau of each protocol with each other one, and its 95 % interval over blocks of "
    "checkpoints. Ten checkpoints are few: where an interval holds 0, it is not shown that two "
    "protocols agree."
)
METRICS = (
    "Every metric at the first checkpoint, at the best by `linear`, and at the last, and its tau "
    "with both linear probes. A blank tau: the metric has one value at all checkpoints, or none. "
    "LiDAR: 64 images. Both runs mostly rise, hence the number of the checkpoint as the first row."
)
Runs = Mapping[str, tuple[RunTable, Mapping[str, Sequence[ProbeRecord]]]]


def read(folder: Path) -> Runs:
    """Method -> its table, and its probes by protocol in order of step."""
    found = {}
    for path in sorted(folder.glob("*/run.json")):
        store = RunStore(path.parent)
        probes = {of_set[0].protocol: of_set for of_set in store.probes().values()}
        table = RunTable.of(store.records(), store.probes())
        found[path.parent.name.split("-")[0]] = table, probes
    return found


def tau_text(first: Sequence[float], second: Sequence[float]) -> str:
    """Tau with its interval over blocks of checkpoints."""
    known = [pair for pair in zip(first, second, strict=True) if all(map(math.isfinite, pair))]
    tau = tau_over_checkpoints([a for a, _ in known], [b for _, b in known])
    if tau is None:
        return ""
    around = tau_interval(tau, 0.95)
    text = f"{tau.value:+.2f}"
    return text if around is None else f"{text} [{around[0]:+.2f}, {around[1]:+.2f}]"


def protocols_table(method: str, probes: Mapping[str, Sequence[ProbeRecord]]) -> list[str]:
    """mIoU and its error at every checkpoint, and seconds, of every protocol."""
    steps = [str(probe.step) for probe in probes[TRUE]]
    lines = [f"| {method} | {' | '.join(steps)} | seconds |", "|" + " --- |" * (2 + len(steps))]
    for protocol, of_set in probes.items():
        cells = [f"{100 * probe.value:.1f} ± {_image_error(probe)}" for probe in of_set]
        seconds = sorted(float(probe.timing["probe_seconds"]) for probe in of_set)
        lines.append(f"| `{protocol}` | {' | '.join(cells)} | {seconds[len(seconds) // 2]:.0f} |")
    return lines


def taus_table(method: str, probes: Mapping[str, Sequence[ProbeRecord]]) -> list[str]:
    """Kendall's tau of every protocol with every other one."""
    values = {name: [probe.value for probe in of_set] for name, of_set in probes.items()}
    heads = [f"`{name}`" for name in values]
    lines = [f"| {method} | {' | '.join(heads)} |", "|" + " --- |" * (1 + len(values))]
    for row, head in zip(values, heads, strict=True):
        cells = ["" if row == other else tau_text(values[row], values[other]) for other in values]
        lines.append(f"| {head} | {' | '.join(cells)} |")
    return lines


def _image_error(probe: ProbeRecord) -> str:
    """Standard error of mIoU over the blocks of test images, in points."""
    images = probed_images(probe)
    if images is None:
        return ""
    generator = torch.Generator().manual_seed(0)
    resamples = block_resamples(images.blocks, generator=generator)
    error = float(resampled_miou(images.counts, resamples).std())
    return f"{100 * error:.1f}"


def metrics_table(runs: Runs) -> list[str]:
    """Every metric at the first, the best and the last checkpoint, and tau with both rulers."""
    heads = [f"{method}: first, best, last | with `{TRUE}` | with `{TRAINED}`" for method in runs]
    lines = [f"| metric | {' | '.join(heads)} |", "| --- |" + " --- | --- | --- |" * len(runs)]
    first, *_ = runs.values()
    clock = ["*number of the checkpoint*"]
    for _, probes in runs.values():
        series = [[probe.value for probe in probes[key]] for key in (TRUE, TRAINED)]
        clock += ["", *(tau_text(range(len(values)), values) for values in series)]
    lines.append(f"| {' | '.join(clock)} |")
    for metric in first[0].metrics(-1):
        cells = [metric.title]
        for table, probes in runs.values():
            series = table.column(metric.name, -1).series
            names = [probe.name for probe in probes[TRUE]]
            values = [series[name].value if name in series else math.nan for name in names]
            true, trained = ([p.value for p in probes[key]] for key in (TRUE, TRAINED))
            best = true.index(max(true))
            cells.append(", ".join(f"{values[i]:.3g}" for i in (0, best, -1)))
            cells += [tau_text(values, true), tau_text(values, trained)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        with tarfile.open(RECORDS) as archive:
            archive.extractall(temporary, filter="data")
        runs = read(Path(temporary))
    each = [(method, probes) for method, (_, probes) in runs.items()]
    parts = [
        "# Twenty checkpoints, every protocol and every metric",
        HEAD,
        *("\n".join(protocols_table(*one)) for one in each),
        TAUS,
        *("\n".join(taus_table(*one)) for one in each),
        METRICS,
        "\n".join(metrics_table(runs)),
    ]
    text = "\n\n".join(parts) + "\n"
    with replacing(TARGET) as place:
        place.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
