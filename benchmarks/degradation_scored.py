"""Parts 13, 14 and 23 of the study: DSE of few and many images, and of each block.

    python -m benchmarks.degradation_scored {images,blocks} RUNS SCENES FOLDER

RUNS: runs of part 3 or with another seed, with checkpoints, scores and probes; SCENES: the
folder with the scenes of score and labelled; FOLDER: where the new scores go, and for blocks the
probes of each block, which a second call continues. What was found of each run is added to
scenes-images.json or scenes-blocks.json.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.degradation_rulers import shown
from densescope.correlation import kendall_tau
from densescope.records import write_json
from densescope.runs.scorer import Compute
from densescope.runs.store import RunStore
from densescope.study.run import probe_cell, sweep_cell
from densescope.study.spec import Cell, StudySpec, read_spec
from densescope.study.summary import StudySummary, summarize

STUDY = Path(__file__).resolve().parents[1] / "studies" / "degradation"
IMAGES, BLOCKS = STUDY / "scenes-images.json", STUDY / "scenes-blocks.json"
COUNTS, USUAL = (32, 128, 512), 128
SEEDS = (1, 2, 4)
LAYERS, LAST = (-3, -2, -1), -1  # the first, second and last block
PROBED = "probed"  # entry of the records of parts 14 and 23
SCENES, RAISED = "scenes", "raised"
CLOSE = 2  # checkpoints
KINDS = (("constant", "-constant-"), ("raised", "-raised-"), ("all", "-"))
Found = Mapping[str, Mapping[str, Any]]  # run -> what was found of it
Blocks = Mapping[int, float]  # block, counted from the last -> percent


def cells_there(spec: StudySpec, runs: Path) -> list[Cell]:
    """The runs of a specification that a folder holds."""
    return [cell for cell in spec.cells() if (runs / cell.name / "scores").is_dir()]


def scored(spec: StudySpec, runs: Path, folder: Path) -> StudySummary:
    """The runs under the images of a specification, with the probes that they have."""
    for cell in cells_there(spec, runs):
        own = folder / cell.name
        own.mkdir(parents=True, exist_ok=True)
        links = {own / "run": runs / cell.name / "run"}
        links[own / "scores" / "probes"] = runs / cell.name / "scores" / "probes"
        for place, target in links.items():
            place.parent.mkdir(exist_ok=True)
            if not place.is_symlink():
                place.symlink_to(target.resolve())
        sweep_cell(cell, spec, own, Compute())
    return summarize(spec, folder)


def in_domain(summary: StudySummary) -> dict[str, dict[str, Any]]:
    """Of each run: tau of DSE (lambda 1) with scenes, regret of its pick there, its alarm, DSE.

    The regret is a fraction, the alarm the number of a checkpoint or ``None``; DSE is that of every
    probed checkpoint.
    """
    series = {
        f"{one.method}-{one.arm}-seed{one.seed}": one.values
        for one in summary.series
        if one.probe_set.startswith(SCENES)
    }
    taus = {name: kendall_tau(values["dse"], values["miou"]) for name, values in series.items()}
    return {
        answer.run: {
            "tau": math.nan if (tau := taus[answer.run]) is None else tau,
            "dse": list(series[answer.run]["dse"]),
            "regret": regrets["released.pick"],
            "alarm": answer.alarm_step,
        }
        for answer in summary.answers
        for name, regrets in answer.regrets.items()
        if name.startswith(SCENES)
    }


def images_text(found: Mapping[str, Found]) -> str:
    """The tables of part 13: number of images -> run -> what was found."""
    head = "## How many scored images? (part 13 of the plan)"
    return "\n\n".join([head, *_compared(found, "images", str(USUAL))])


def blocks_text(found: Mapping[str, Any]) -> str:
    """The tables of parts 14 and 23.

    Args:
        found: block, counted from the last (-1) -> run -> what was found; and what
            :func:`blocks_probed` found.
    """
    probed = {
        run: [{int(layer): value for layer, value in one.items()} for one in blocks]
        for run, blocks in found[PROBED].items()
    }
    named = {str(len(LAYERS) + 1 + layer): found[str(layer)] for layer in LAYERS}
    usual = str(len(LAYERS) + 1 + LAST)
    head = "## DSE of which block? (parts 14 and 23 of the plan)"
    lines = ["| runs | checkpoints | DSE's block is the best | it reads less than the last |"]
    lines.append("|" + " --- |" * 4)
    for title, part in KINDS:
        named_best, less = 0, []
        names = [name for name in probed if part in name]
        for name in names:
            chosen = _chosen(found, name, len(probed[name]))
            reads = list(zip(chosen, probed[name], strict=True))
            named_best += sum(blocks[layer] == max(blocks.values()) for layer, blocks in reads)
            less.append(statistics.fmean(blocks[LAST] - blocks[layer] for layer, blocks in reads))
        checkpoints = sum(len(probed[name]) for name in names)
        cells = f"{checkpoints} | {named_best} | {shown(less, sign=True)}"
        lines.append(f"| {title} ({len(names)}) | {cells} |")
    return "\n\n".join([head, *_compared(named, "block", usual), "\n".join(lines)])


def _chosen(found: Mapping[str, Found], run: str, checkpoints: int) -> list[int]:
    """The block with the highest DSE, at some checkpoints that are equally far apart."""
    values = {layer: found[str(layer)][run]["dse"] for layer in LAYERS}
    step = (len(values[LAST]) - 1) // (checkpoints - 1)
    return [max(LAYERS, key=lambda layer: values[layer][step * i]) for i in range(checkpoints)]


def blocks_probed(
    spec: StudySpec, runs: Path, labelled: Path, folder: Path
) -> dict[str, list[Blocks]]:
    """Of every run what each block reads of scenes at five checkpoints, in percent."""
    rulers = read_spec(STUDY / "scenes-rulers.toml").labels
    (labels,) = (replace(one, root=str(labelled)) for one in rulers if one.layers)
    found = {}
    for cell in cells_there(spec, runs):
        own, scores = folder / cell.name, runs / cell.name / "scores"
        if not own.exists():
            shutil.copytree(scores, own / "scores", ignore=shutil.ignore_patterns("probes"))
        probe_cell(labels, own, Compute())
        (probes,) = RunStore(own / "scores").probes().values()
        found[cell.name] = [
            {
                int(layer): 100 * statistics.fmean(values["values"])
                for layer, values in probe.layers.items()
            }
            for probe in probes
        ]
    return found


def _compared(found: Mapping[str, Found], what: str, usual: str) -> list[str]:
    """A table and what the alarm did: a way to score -> run -> what was found."""
    lines = [f"| runs | {what} | tau of DSE | minus {usual} | regret | minus {usual} |"]
    lines.append("|" + " --- |" * 6)
    for title, part in KINDS:
        names = [name for name in found[usual] if part in name]
        for way, own in found.items():
            cells = []
            for key, scale in (("tau", 1), ("regret", 100)):
                values = [scale * own[name][key] for name in names]
                more = [scale * (own[name][key] - found[usual][name][key]) for name in names]
                cells += [shown(values, sign=key == "tau")]
                cells += ["" if way == usual else shown(more, sign=True)]
            lines.append(f"| {title} ({len(names)}) | {way} | {' | '.join(cells)} |")
    alarms = []
    raised = [name for name in found[usual] if f"-{RAISED}-" in name]
    for way, own in found.items():
        steps = {name: own[name]["alarm"] for name in raised}
        close = sum(_close(steps[name], found[usual][name]["alarm"]) for name in raised)
        false = sum(own[name]["alarm"] is not None for name in own if name not in raised)
        stood = sum(step is not None for step in steps.values())
        alarms.append(
            f"- {what} {way}: in {stood} of {len(raised)} raised runs, within two checkpoints of "
            f"that with {usual} in {close}; in {false} of {len(own) - len(raised)} others."
        )
    return ["\n".join(lines), "The alarm:\n\n" + "\n".join(alarms)]


def _close(step: int | None, other: int | None) -> bool:
    if step is None or other is None:
        return step is other
    return abs(step - other) <= CLOSE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("images", "blocks"))
    for name in ("runs", "scenes", "folder"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    whole = read_spec(STUDY / "scenes.toml")
    plain = tuple(arm for arm in whole.arms if arm.regularizer is None)
    spec = replace(whole, arms=plain, seeds=SEEDS)
    images, usual = str(options.scenes / "score" / "images"), spec.scoring.images_count
    if options.part == "images":
        ways = {str(count): (count, LAST) for count in COUNTS}
    else:
        ways = {str(layer): (usual, layer) for layer in LAYERS}
    found: dict[str, Any] = {}
    for way, (count, layer) in ways.items():
        if (count, layer) == (usual, LAST):
            found[way] = in_domain(summarize(spec, options.runs))
            continue
        settings = {
            **spec.scoring.settings,
            "metrics": ("released.dse_lambda_1",),
            "layers": (layer,),
        }
        scoring = replace(spec.scoring, images=images, images_count=count, settings=settings)
        counted = replace(spec, scoring=scoring)
        found[way] = in_domain(scored(counted, options.runs, options.folder / way))
    if options.part == "blocks":
        labelled, folder = options.scenes / "labelled", options.folder / "probed"
        found[PROBED] = blocks_probed(spec, options.runs, labelled, folder)
    records = IMAGES if options.part == "images" else BLOCKS
    before = json.loads(records.read_text())
    write_json({way: {**before.get(way, {}), **runs} for way, runs in found.items()}, records)
    print(json.dumps({way: len(runs) for way, runs in found.items()}))


if __name__ == "__main__":
    main()
