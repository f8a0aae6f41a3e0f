"""Parts 9, 11, 12, 19, 20 and 24 of the study of degradation: the best of a run against its end.

    python -m benchmarks.degradation_contrast PART=RUNS [PART=RUNS ...]

RUNS: a folder of ``densescope study`` whose probes hold the pixel counts of their test images;
PART: first-look, results, scenes, scenes-rulers, scenes-contrast, scenes-more, scenes-long,
scenes-dino, scenes-ijepa or photos. The best is chosen on other images than it is compared on.
Those counts are too large to be kept, so this writes what was found to contrasts.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.degradation_rulers import shown
from densescope.evaluation.contrasts import split_contrast
from densescope.evaluation.uncertainty import probed_images
from densescope.records import write_json
from densescope.runs.store import RunStore

CONTRASTS = Path(__file__).resolve().parents[1] / "studies" / "degradation" / "contrasts.json"
CLOTHING = "folders-linear"
SETS = ("scenes-linear", "camvid-linear", CLOTHING)
TRAINED = "scenes-linear-sgd"
TRAINED_CLOTHING = "folders-linear-sgd"
LEAST = 0.5  # points: a smaller decline does not count
ROWS = {  # part and arm -> title
    ("first-look", ""): "photos, first look (part 1)",
    ("results", ""): "photos (part 2)",
    ("scenes", "constant"): "scenes, constant rate (part 3)",
    ("scenes", "raised"): "scenes, rate raised on purpose (part 3)",
    ("scenes-contrast", "rising"): "scenes, from MAE, rate 0.003 (part 8)",
    ("scenes-contrast", "brisk"): "scenes, from MAE, rate 0.005 (part 9)",
    ("scenes-contrast", "fast"): "scenes, from MAE, rate 0.01 (part 8)",
    ("scenes-contrast", "fast-cosine"): "scenes, from MAE, rate 0.01 on a cosine to 0 (part 9)",
    ("scenes-more", "cosine"): "scenes, from fresh weights on a cosine to 0 (part 11)",
    ("scenes-more", "narrow"): "scenes, a narrow ResNet-18, constant rate (part 11)",
    ("scenes-long", "long"): "scenes, constant rate, 6,300 to 13,900 steps (part 19)",
    ("scenes-dino", "long"): "scenes, DINO, 8,400 steps (part 20)",
    ("scenes-ijepa", "constant"): "scenes, I-JEPA, constant rate, other seeds (part 24)",
    ("scenes-ijepa", "longer"): "scenes, I-JEPA, 1,600 steps (part 24)",
    ("photos", "photos"): "photos, few and many epochs, constant rate (part 12)",
    ("scenes-rulers", "constant"): "the same five checkpoints, constant (part 5)",
    ("scenes-rulers", "raised"): "the same five checkpoints, raised (part 5)",
}
Found = Mapping[str, Mapping[str, Any]]  # set of probes -> contrast


def contrasts(run: Path) -> dict[str, dict[str, Any]]:
    """Each set of probes of a run -> its contrast in points, where it can be made.

    All sets are judged on the checkpoints that every one of them has probed.
    """
    sets = {}
    for name, probes in RunStore(run / "scores").probes().items():
        title = name.rpartition("-image")[0]
        if title in (*SETS, TRAINED, TRAINED_CLOTHING) and all(probe.images for probe in probes):
            sets[title] = {probe.name: probe for probe in probes}
    common = set.intersection(*map(set, sets.values())) if sets else set()
    found = {}
    for title, probed in sets.items():
        probes = [probe for name, probe in probed.items() if name in common]
        images = [image for probe in probes if (image := probed_images(probe)) is not None]
        contrast = split_contrast(images) if len(images) > 2 else None
        if contrast is not None:
            found[title] = {
                "points": round(100 * contrast.value, 3),
                "interval": [round(100 * bound, 3) for bound in contrast.interval],
                "best": [probes[place].step for place in contrast.best],
                "last": probes[-contrast.window].step,
                "checkpoints": len(probes),
            }
    return found


def declines(found: Mapping[str, Any]) -> bool:
    """Whether a contrast counts as a decline."""
    return bool(found["interval"][0] > 0 and found["points"] > LEAST)


def contrast_text(parts: Mapping[str, Mapping[str, Found]]) -> str:
    """The tables of part 9.

    Args:
        parts: part of the study -> name of a run -> what :func:`contrasts` found.
    """
    return "\n\n".join(
        [
            "## The best three checkpoints against the last three (part 9 of the plan)",
            "Chosen on one half of the test images and measured on the other, in points; 95 % "
            "intervals over blocks of test images, without the noise of the choice. With fewer "
            "than six checkpoints single ones are compared. In the first table ± is over runs, "
            "and a decline counts when the interval lies above 0 and the contrast exceeds "
            f"{LEAST} points. The first set is CamVid for runs on photos.",
            _summary(parts),
            "Each run, and the number of the checkpoint where the best begin, as each half chose:",
            _each(parts),
        ]
    )


def _summary(parts: Mapping[str, Mapping[str, Found]]) -> str:
    lines = [
        "| runs | number | contrast on scenes | declines on scenes | on clothing | on both "
        "| on scenes by `linear-sgd` | its contrast minus that of `linear` |",
        "|" + " --- |" * 8,
    ]
    for (part, arm), title in ROWS.items():
        own = [
            found
            for name, found in parts.get(part, {}).items()
            if arm in ("", arm_of(name)) and _first(found)
        ]
        if not own:
            continue
        first = [found[_first(found)] for found in own]
        clothing = [
            (one, found[CLOTHING])
            for one, found in zip(first, own, strict=True)
            if CLOTHING in found
        ]
        trained = [
            (found[TRAINED], one) for one, found in zip(first, own, strict=True) if TRAINED in found
        ]
        more = [a["points"] - b["points"] for a, b in trained]
        cells = [
            str(len(own)),
            shown([one["points"] for one in first], sign=True),
            f"{sum(map(declines, first))} of {len(own)}",
            _count([declines(other) for _, other in clothing]),
            _count([declines(one) and declines(other) for one, other in clothing]),
            _count([declines(one) for one, _ in trained]),
            shown(more, sign=True) if more else "",
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _count(told: Sequence[bool]) -> str:
    return f"{sum(told)} of {len(told)}" if told else ""


def _each(parts: Mapping[str, Mapping[str, Found]]) -> str:
    lines = [
        "| part | run | scenes (photos: CamVid) | clothing | scenes by `linear-sgd` |",
        "|" + " --- |" * 5,
    ]
    for part, runs in parts.items():
        for name, found in runs.items():
            texts = [cell(found.get(one)) for one in (_first(found), CLOTHING, TRAINED)]
            lines.append(f"| {part} | {name} | {' | '.join(texts)} |")
    return "\n".join(lines)


def _first(found: Found) -> str:
    """The labelled set beside clothing."""
    return next((one for one in SETS[:-1] if one in found), "")


def cell(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    if set(found["best"]) == {found["last"]}:
        return "the last are best"
    low, high = found["interval"]
    steps = " and ".join(str(step) for step in dict.fromkeys(found["best"]))
    return f"{found['points']:+.1f} [{low:+.1f}, {high:+.1f}], {steps}"


def arm_of(run: str) -> str:
    """The arm in the name of a run: ``METHOD-ARM-seedN``."""
    return run.partition("-")[2].rpartition("-")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="+", metavar="PART=RUNS")
    parts = json.loads(CONTRASTS.read_text()) if CONTRASTS.exists() else {}
    for given in parser.parse_args().parts:
        part, _, folder = given.partition("=")
        arms = {arm for known, arm in ROWS if known == part}
        parts[part] = {
            run.name: found
            for run in sorted(Path(folder).glob("*-seed*"))
            if ({"", arm_of(run.name)} & arms) and (found := contrasts(run))
        }
    order = {part: parts[part] for part in dict.fromkeys(p for p, _ in ROWS) if part in parts}
    write_json(order, CONTRASTS)
    print(contrast_text(order))


if __name__ == "__main__":
    main()
