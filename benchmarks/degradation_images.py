"""Part 13 of the study of degradation: DSE of few and of many scored images.

    python -m benchmarks.degradation_images RUNS IMAGES FOLDER

RUNS: the runs of part 3, with checkpoints and probes; IMAGES: the scoring scenes; FOLDER: where the
new scores go, which a second call continues. What was found of each run goes to
scenes-images.json.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.degradation_rulers import shown
from densescope.correlation import kendall_tau
from densescope.records import write_json
from densescope.runs.scorer import Compute
from densescope.study.run import sweep_cell
from densescope.study.spec import StudySpec, read_spec
from densescope.study.summary import StudySummary, summarize

STUDY = Path(__file__).resolve().parents[1] / "studies" / "degradation"
IMAGES = STUDY / "scenes-images.json"
COUNTS, USUAL = (32, 128, 512), 128
SCENES, RAISED = "scenes", "raised"
CLOSE = 2  # checkpoints


def scored(spec: StudySpec, runs: Path, folder: Path) -> StudySummary:
    """The runs under the images of a specification, with the probes that they have."""
    for cell in spec.cells():
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
    """Of each run: tau of DSE (lambda 1) with scenes, regret of its pick there, its alarm.

    The regret is a fraction, the alarm the number of a checkpoint or ``None``.
    """
    taus = {
        f"{one.method}-{one.arm}-seed{one.seed}": kendall_tau(one.values["dse"], one.values["miou"])
        for one in summary.series
        if one.probe_set.startswith(SCENES)
    }
    return {
        answer.run: {
            "tau": math.nan if (tau := taus[answer.run]) is None else tau,
            "regret": regrets["released.pick"],
            "alarm": answer.alarm_step,
        }
        for answer in summary.answers
        for name, regrets in answer.regrets.items()
        if name.startswith(SCENES)
    }


def images_text(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """The table of part 13: number of images -> run -> what was found."""
    lines = ["| runs | images | tau of DSE | minus that with 128 | regret | minus that with 128 |"]
    lines.append("|" + " --- |" * 6)
    usual = found[str(USUAL)]
    for title, part in (("constant", "-constant-"), ("raised", "-raised-"), ("all", "-")):
        names = [name for name in usual if part in name]
        for count in COUNTS:
            own = found[str(count)]
            cells = []
            for key, scale in (("tau", 1), ("regret", 100)):
                values = [scale * own[name][key] for name in names]
                more = [scale * (own[name][key] - usual[name][key]) for name in names]
                cells += [shown(values, sign=key == "tau")]
                cells += ["" if count == USUAL else shown(more, sign=True)]
            lines.append(f"| {title} ({len(names)}) | {count} | {' | '.join(cells)} |")
    alarms = []
    raised = [name for name in usual if f"-{RAISED}-" in name]
    for count in COUNTS:
        own = found[str(count)]
        steps = {name: own[name]["alarm"] for name in raised}
        close = sum(_close(steps[name], usual[name]["alarm"]) for name in raised)
        false = sum(own[name]["alarm"] is not None for name in usual if name not in raised)
        stood = sum(step is not None for step in steps.values())
        alarms.append(
            f"- {count} images: in {stood} of {len(raised)} raised runs, within two checkpoints of "
            f"that with 128 images in {close}; in {false} of {len(usual) - len(raised)} others."
        )
    head = "## How many scored images? (part 13 of the plan)"
    return "\n\n".join([head, "\n".join(lines), "The alarm:\n\n" + "\n".join(alarms)])


def _close(step: int | None, other: int | None) -> bool:
    if step is None or other is None:
        return step is other
    return abs(step - other) <= CLOSE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("runs", "images", "folder"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    whole = read_spec(STUDY / "scenes.toml")
    spec = replace(whole, arms=tuple(arm for arm in whole.arms if arm.regularizer is None))
    found = {}
    for count in COUNTS:
        settings = {**spec.scoring.settings, "metrics": ("released.dse_lambda_1",)}
        scoring = replace(
            spec.scoring, images=str(options.images), images_count=count, settings=settings
        )
        counted = replace(spec, scoring=scoring)
        folder = options.runs if count == USUAL else options.folder / str(count)
        usual = count == USUAL
        summary = summarize(spec, folder) if usual else scored(counted, options.runs, folder)
        found[str(count)] = in_domain(summary)
    write_json(found, IMAGES)
    print(images_text(json.loads(IMAGES.read_text())))


if __name__ == "__main__":
    main()
