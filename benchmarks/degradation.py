"""Tables and figures of the study of degradation, from its records: ``make study``.

    python -m benchmarks.degradation

Writes first-look.md, results.md, scenes-results.md, scenes-more-results.md, photos-results.md and
scenes-long-results.md in studies/degradation, and the figures of docs/images.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.degradation_contrast import CONTRASTS, Found, contrast_text
from benchmarks.degradation_figures import FIGURES, drawn
from benchmarks.degradation_long import (
    PHOTO_SETS,
    SCENE_SETS,
    again_text,
    kept_text,
    long_text,
    more_probes_text,
)
from benchmarks.degradation_more import (
    back_text,
    choice_text,
    cosine_text,
    methods_text,
    seeds_text,
)
from benchmarks.degradation_position import POSITION, position_text
from benchmarks.degradation_rulers import hold_text, rulers_text
from benchmarks.degradation_scored import BLOCKS, blocks_text, images_text, in_domain
from benchmarks.degradation_scored import IMAGES as COUNTED
from benchmarks.degradation_slow import RISING, after_text, slow_text
from densescope.records import write_json
from densescope.study.answers import RunAnswer
from densescope.study.spec import StudySpec, read_spec
from densescope.study.spread import Spread
from densescope.study.summary import StudySummary, summarize
from densescope.study.tables import markdown
from densescope.writing import replacing

ROOT = Path(__file__).resolve().parents[1]
STUDY = ROOT / "studies" / "degradation"
IMAGES = ROOT / "docs" / "images"
PARTS = {
    "explore": "first-look",
    "spec": "results",
    "scenes": "scenes-results",
    "scenes-more": "scenes-more-results",
    "scenes-long": "scenes-long-results",
    "photos": "photos-results",
}
SCENES = "scenes"  # whose arms are tabled one by one
MORE = "scenes-more"  # as these
LONG = "scenes-long"  # and these
KEPT = "scenes-long-kept"  # their backbones under other probes
DINO = "scenes-dino"  # one of their methods with other seeds
IJEPA = "scenes-ijepa"  # one of the methods of SCENES with other seeds
AGAIN = "photos"
PHOTO_RULERS = "photos-rulers"  # these, trained again
MORE_RULERS = "scenes-more-rulers"  # those of MORE, trained again
PHOTOS = "scenes-on-photos"  # the same runs, scored on other images
RULERS = "scenes-rulers"  # the same runs under other probes
UNTRAINED = "scenes-untrained"  # their networks before training
HOLD = "scenes-hold"  # runs that go on from others
SLOW = "scenes-slow"  # runs that go on from MAE
LATE = "scenes-late"  # runs that go on from some of these, trained again
EARLY = "scenes-early"  # runs that go on from some of part 3, trained again
REPEATED = "scenes-again"  # of part 3, trained again, and with another seed
LAMBDAS = {"released.pick_lambda_run": "of the run", "released.pick": "1"}


def by_arm(spec: StudySpec, folder: Path) -> str:
    """The tables of each arm by itself, and which lambda chose better over all runs."""
    parts = []
    for arm in spec.arms:
        alone = summarize(replace(spec, arms=(arm,)), folder)
        text = markdown(alone).replace("\n## ", "\n### ").replace("## ", "### ", 1)
        parts += [f"## The arm {arm.name}", text]
    free = tuple(arm for arm in spec.arms if arm.regularizer is None)
    answers = summarize(replace(spec, arms=free), folder).answers
    return "\n\n".join([*parts, lambda_text(answers), guarded_text(answers)])


def lambda_text(answers: Sequence[RunAnswer], domain: str = SCENES) -> str:
    """The regret of the pick with each lambda in the domain of the training images."""
    regrets = [
        found for answer in answers for name, found in answer.regrets.items() if domain in name
    ]
    values = {way: [found[way] for found in regrets] for way in LAMBDAS}
    means = {way: Spread.of(one) for way, one in values.items()}
    lines = [
        f"- lambda {LAMBDAS[way]}: {mean.text(100, 2)}"
        for way, mean in means.items()
        if mean is not None
    ]
    pairs = zip(*values.values(), strict=True)
    more = Spread.of([first - second for first, second in pairs])
    if more is not None:
        lines.append(
            f"- more with the lambda of the run: {more.text(100, 2, sign=True)} ({more.runs} runs)"
        )
    return f"## Which lambda? Regret of the pick (released) on {domain}\n\n" + "\n".join(lines)


def guarded_text(answers: Sequence[RunAnswer]) -> str:
    """The rule of part 4 of the plan, on the runs it was found on and on the others."""
    lines = []
    for title, seen, arm in (
        ("found on, constant", True, "constant"),
        ("found on, raised", True, "raised"),
        ("others, constant", False, "constant"),
        ("others, raised", False, "raised"),
        ("others, all", False, ""),
    ):
        runs = [one for one in answers if arm in one.run and _seen(one.run) == seen]
        cells = []
        for way in ("last", "guarded", "released.pick"):
            values = [
                statistics.fmean(found[way] for found in one.regrets.values()) for one in runs
            ]
            cells.append(values)
        cells.append([a - b for a, b in zip(cells[1], cells[0], strict=True)])
        spreads = [Spread.of(values) for values in cells]
        texts = ["" if one is None else one.text(100, 2) for one in spreads]
        alarms = sum(one.alarm is not None for one in runs)
        lines.append(f"| {title} | {' | '.join(texts)} | {alarms} of {len(runs)} |")
    head = "| runs | last | guarded | DSE pick (lambda 1) | guarded - last | alarms |\n|"
    return "\n".join(["## The guarded choice: regret", "", head + " --- |" * 6, *lines])


def _seen(run: str) -> bool:
    return run.endswith("seed1") and run.split("-")[0] in ("mae", "vicreg", "mocov3", "simsiam")


def photos_text(on_scenes: StudySummary) -> str:
    """What scoring on photos changes, run by run, judged in the domain of the training images.

    The records of the photos are not kept, only these two numbers of each run.
    """
    scenes, photos = in_domain(on_scenes), json.loads((STUDY / f"{PHOTOS}.json").read_text())
    lines = []
    for title, key, scale in (
        ("tau of DSE (lambda = 1)", "tau", 1),
        ("regret of the pick with lambda 1, in points", "regret", 100),
    ):
        both = [(photos[run][key], scenes[run][key]) for run in scenes if run in photos]
        columns = ([a for a, _ in both], [b for _, b in both], [a - b for a, b in both])
        spreads = [Spread.of(values) for values in columns]
        texts = ["" if one is None else one.text(scale, 2, sign=True) for one in spreads]
        lines.append(f"| {title} | {' | '.join(texts)} | {len(both)} |")
    head = "| | scored on photos | scored on scenes | difference | runs |\n|" + " --- |" * 5
    return "\n".join(["## Other images for scoring", "", head, *lines])


def unpacked(name: str, folder: Path) -> tuple[StudySpec, Path]:
    """The records of one part of the study, and its specification."""
    return read_spec(STUDY / f"{name}.toml"), records_of(name, folder)


def records_of(name: str, folder: Path) -> Path:
    """The records of one part, without its specification."""
    with tarfile.open(STUDY / f"{PARTS.get(name, name)}.tar.xz") as records:
        records.extractall(folder / name, filter="data")
    return folder / name / "study"


def long_parts(spec: StudySpec, folder: Path, found: StudySummary, temporary: Path) -> list[str]:
    """The tables of parts 19 and 20, beside those of the short runs of part 3."""
    scenes = read_spec(STUDY / f"{SCENES}.toml")
    short = replace(scenes, arms=tuple(arm for arm in scenes.arms if arm.name == "constant"))
    before = temporary / SCENES / "study"
    parts = [by_arm(spec, folder), seeds_text(spec, folder)]
    parts.append(long_text(found, summarize(short, before), (folder, before)))
    seeds = again_text(
        of_parts(LONG, DINO),
        [
            run
            for own in (folder, records_of(DINO, temporary))
            for run in sorted(own.glob("dino-long-seed*"))
        ],
        "DINO with four seeds (part 20 of the plan)",
        "With seeds 1 and 2 there is one every 100 steps, with 3 and 4 every 400.",
    )
    kept = kept_text(records_of(KEPT, temporary))
    return [*parts, kept, seeds, methods_text(spec, folder, 19)]


def of_parts(*names: str) -> dict[str, Found]:
    """Name of a run -> its contrasts, over some parts of the study."""
    parts: dict[str, dict[str, Found]] = json.loads(CONTRASTS.read_text())
    return {run: found for name in names for run, found in parts[name].items()}


def ijepa_text(scenes: Path, temporary: Path) -> str:
    """The tables of part 24, beside I-JEPA of part 3 (whose runs ``scenes`` holds)."""
    return again_text(
        of_parts(SCENES, IJEPA),
        [
            *sorted(scenes.glob("ijepa-constant-seed*")),
            *sorted(records_of(IJEPA, temporary).glob("ijepa-*")),
        ],
        "I-JEPA at its own rate with seven seeds (parts 3 and 24 of the plan)",
        "There is one every 16 steps, in the longer run every 64.",
    )


def probed_again(name: str, temporary: Path) -> str:
    """The tables of part 18 or 21: runs that were trained again, under more probes."""
    sets, what = {
        PHOTO_RULERS: (PHOTO_SETS, "Photos under a trained probe and few labels (part 18"),
        MORE_RULERS: (SCENE_SETS, "The same under a trained probe and few labels (part 21"),
    }[name]
    return more_probes_text(*unpacked(name, temporary), sets, f"{what} of the plan)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, title in PARTS.items():
            spec, folder = unpacked(name, Path(temporary))
            found[name] = summarize(spec, folder)
            if name == SCENES:
                _, untrained = unpacked(UNTRAINED, Path(temporary))
                rulers = rulers_text(*unpacked(RULERS, Path(temporary)), folder, untrained)
                hold = hold_text(*unpacked(HOLD, Path(temporary)))
                rising = [folder / c.name / "scores" for c in spec.cells() if c.arm.name == RISING]
                slow = slow_text(*unpacked(SLOW, Path(temporary)), rising)
                best = contrast_text(json.loads(CONTRASTS.read_text()))
                place = position_text(json.loads(POSITION.read_text()))
                parts = [by_arm(spec, folder), seeds_text(spec, folder), photos_text(found[name])]
                late = after_text(*unpacked(LATE, Path(temporary)), "late")
                early = after_text(*unpacked(EARLY, Path(temporary)), "early")
                parts += [methods_text(spec, folder), rulers, hold, slow]
                counted = images_text(json.loads(COUNTED.read_text()))
                blocks = blocks_text(json.loads(BLOCKS.read_text()))
                back = back_text(folder, records_of(REPEATED, Path(temporary)))
                falling = ijepa_text(folder, Path(temporary))
                tables = "\n\n".join(
                    [*parts, best, place, counted, blocks, back, late, early, falling]
                )
            elif name == MORE:
                cosine = cosine_text(found[name].answers, found[SCENES].answers, folder)
                tables = "\n\n".join(
                    [by_arm(spec, folder), cosine, probed_again(MORE_RULERS, Path(temporary))]
                )
            elif name == LONG:
                tables = "\n\n".join(long_parts(spec, folder, found[name], Path(temporary)))
            else:
                tables = markdown(found[name])
            if name == AGAIN:
                again = [seeds_text(spec, folder, one) for one in ("camvid", "folders")]
                probed = probed_again(PHOTO_RULERS, Path(temporary))
                tables = "\n\n".join([tables, choice_text(found[name].answers), *again, probed])
            head = title.replace("-", " ").capitalize()
            with replacing(STUDY / f"{title}.md") as place:
                place.write_text(f"# {head}\n\n{tables}\n", encoding="utf-8")
            sentences = {answer.run: dict(answer.sentences) for answer in found[name].answers}
            if any(sentences.values()):  # where the archive holds pixel counts
                write_json(sentences, STUDY / f"{title}-verdicts.json")
    for figure in FIGURES:
        with replacing(IMAGES / figure.file) as place:
            place.write_text(drawn(figure, found[figure.part]) + "\n", encoding="utf-8")
    print(json.dumps({name: len(summary.answers) for name, summary in found.items()}))


if __name__ == "__main__":
    main()
