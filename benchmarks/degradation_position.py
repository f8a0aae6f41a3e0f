"""Part 10 of the study of degradation: is it position or appearance that a run loses?

    python -m benchmarks.degradation_position RAISED FAST SCENES CLOTHING

RAISED, FAST: folders of ``densescope study`` with the runs of parts 3 and 8; SCENES, CLOTHING: the
labelled sets. Each run is probed by ``linear`` at two checkpoints, with and without the place of
each patch beside its features; what is found is written to position.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.degradation_rulers import shown
from densescope.evaluation.probes import ProbeData, run_protocol
from densescope.features.backbones import BackboneSpec, Features, load_backbone
from densescope.records import write_json
from densescope.runs.labels import LabelledData
from densescope.runs.run import read_run
from densescope.study.run import find_steps
from densescope.study.spec import read_spec

STUDY = Path(__file__).resolve().parents[1] / "studies" / "degradation"
POSITION = STUDY / "position.json"
PIXELS = 64
KINDS = {  # arm -> specification, steps of the two checkpoints
    "raised": ("scenes", 64, 400),
    "fast": ("scenes-slow", 16, 400),
}
SETS = {"scenes": "scenes", "folders": "clothing"}
WAYS = ("features", "with the place")


class Nothing(nn.Module):
    """A backbone that tells nothing of an image."""

    patch_size, image_size = 8, PIXELS
    mean = std = (0.5, 0.5, 0.5)

    def features(self, images: Tensor, layers: Sequence[int] = (-1,)) -> Features:
        """Zeros."""
        side = images.shape[-1] // self.patch_size
        grid = images.new_zeros(len(images), 1, side, side)
        return Features((grid,) * len(layers), grid.mean((2, 3)))


class WithPlace(nn.Module):
    """A backbone whose patches also say in which row and which column they stand."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.patch_size, self.image_size = backbone.patch_size, backbone.image_size
        self.mean, self.std = backbone.mean, backbone.std

    def features(self, images: Tensor, layers: Sequence[int] = (-1,)) -> Features:
        """The features, and one channel for each row and each column."""
        found = self.backbone.features(images, layers)
        return replace(found, patches=tuple(with_place(grid) for grid in found.patches))


def with_place(grid: Tensor) -> Tensor:
    """``images dim rows columns`` -> ``images (dim + rows + columns) rows columns``.

    Example:
        >>> with_place(torch.zeros(1, 1, 2, 2))[0, :, 1, 0].tolist()
        [0.0, 0.0, 1.0, 1.0, 0.0]
    """
    images, _, rows, columns = grid.shape
    row = torch.eye(rows)[:, :, None].expand(rows, rows, columns)
    column = torch.eye(columns)[:, None].expand(columns, rows, columns)
    place = torch.cat([row, column]).to(grid)
    return torch.cat([grid, place.expand(images, *place.shape)], 1)


def measured(
    kind: str, folder: Path, data: Mapping[str, LabelledData]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The runs of one kind: mIoU in percent, ``set -> way -> checkpoint``."""
    name, *steps = KINDS[kind]
    opened = {title: one.open("segmentation") for title, one in data.items()}
    for cell in read_spec(STUDY / f"{name}.toml").cells():
        run = folder / cell.name / "run"
        if cell.arm.name != kind or not run.exists():
            continue
        files = find_steps(run, cell.method)
        shape = cell.settings.backbone
        found: dict[str, Any] = {title: {way: [] for way in WAYS} for title in data}
        for step in steps:
            spec = BackboneSpec(cell.method, shape.architecture, shape.loader_options)
            backbone = load_backbone(files[step], spec).backbone
            for title, labels in opened.items():
                for way, one in zip(WAYS, (backbone, WithPlace(backbone)), strict=True):
                    found[title][way].append(round(100 * miou(one, labels), 3))
        shares = read_run(folder / cell.name / "scores").column("positional_share").series
        values = [value.value for value in shares.values()]
        found["positional_share"] = [round(values[at], 5) for at in (steps[0] // 16 - 1, -1)]
        yield cell.name, found


def place_alone(data: Mapping[str, LabelledData]) -> dict[str, float]:
    """What ``linear`` reads of the row and the column of each patch, in percent."""
    return {
        title: 100 * miou(WithPlace(Nothing()), labels.open("segmentation"))
        for title, labels in data.items()
    }


def miou(backbone: Any, data: ProbeData) -> float:
    return run_protocol("linear", backbone, data, changes={"image_size": PIXELS}).value


def position_text(document: Mapping[str, Any]) -> str:
    """The table of part 10."""
    runs = document["runs"]
    lines = [
        "| runs | set | fall of the features | fall with the place | difference | "
        "what the place adds before, after |",
        "|" + " --- |" * 6,
    ]
    shares = []
    for kind in KINDS:
        own = [found for name, found in runs.items() if f"-{kind}-seed" in name]
        for data, title in SETS.items():
            falls = [[one[data][way][0] - one[data][way][1] for one in own] for way in WAYS]
            more = [a - b for a, b in zip(*falls, strict=True)]
            adds = [
                shown([one[data][WAYS[1]][at] - one[data][WAYS[0]][at] for one in own], sign=True)
                for at in (0, 1)
            ]
            cells = [
                *(shown(fall, sign=False) for fall in falls),
                shown(more, sign=True),
                ", ".join(adds),
            ]
            lines.append(f"| {kind} ({len(own)}) | {title} | {' | '.join(cells)} |")
        before, after = (
            shown([100 * f["positional_share"][at] for f in own], sign=False) for at in (0, 1)
        )
        rises = sum(one["positional_share"][1] > one["positional_share"][0] for one in own)
        shares.append(
            f"`positional_share` in {kind} runs, in percent: {before} before, {after} after; it "
            f"rises in {rises} of {len(own)}."
        )
    return "\n\n".join(
        [
            "## Position or appearance (part 10 of the plan)",
            "`linear` of the features, and of the features with the row and the column of each "
            "patch; points of mIoU, ± over runs. The place alone reads "
            + " and ".join(f"{document['place'][k]:.1f} % of {SETS[k]}" for k in SETS)
            + ".",
            "\n".join(lines),
            *shares,
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("raised", "fast", "scenes", "clothing"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    data = {
        "scenes": LabelledData("scenes", options.scenes),
        "folders": LabelledData("folders", options.clothing, test_split="test"),
    }
    runs = {}
    for kind in KINDS:
        for name, found in measured(kind, getattr(options, kind), data):
            runs[name] = found
            print(name, json.dumps(found), flush=True)
    document = {"place": place_alone(data), "runs": runs}
    write_json(document, POSITION)
    print(position_text(document))


if __name__ == "__main__":
    main()
