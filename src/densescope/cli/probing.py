"""``probe`` and ``protocols``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from densescope.cli import headings as h
from densescope.cli import options as o
from densescope.cli.failures import FAILED_CHECKPOINTS, UsageError, print_failures
from densescope.cli.parsing import (
    ConfigOption,
    Only,
    Place,
    file,
    from_options,
    layers_option,
    option,
    place,
    whole_numbers,
)
from densescope.cli.probe_tables import doubts, print_outcome, print_probes
from densescope.cli.screen import console as make_console
from densescope.layers import Layers
from densescope.records import ProbeRecord

if TYPE_CHECKING:
    from densescope.evaluation.datasets import DrawnSplit
    from densescope.runs.labels import LabelledData
    from densescope.runs.probe import ProbeRequest

FOLDERS = "folders"
AUTO = "auto"


_OWN = Only("--dataset", FOLDERS)


@Parameter(name="*", group=h.LABELS)
@dataclass(frozen=True)
class ProbeOptions:
    """What is asked of the features, and of which labels."""

    dataset: Annotated[
        str,
        option(
            "Labelled data: camvid, voc2012, ade20k, cityscapes-19, coco-stuff-27, ...; folders "
            "for images and masks of your own; for depth maps and classes of images any name.",
            h.MAIN,
        ),
    ]
    root: Annotated[
        Path,
        file("Folder of that data; for image-level labels tar shards too.", h.MAIN),
    ]
    protocol: Annotated[
        str, option("Protocol of the probe (list: densescope protocols).", h.MAIN)
    ] = "linear"
    train_split: Annotated[str, option("Split that the probe is fitted on.")] = "train"
    test_split: Annotated[
        str | None, option("Split that is reported (default: test, else val).")
    ] = None
    classes: Annotated[
        str | None,
        option(
            "Number of classes, or a file with a name a line (default: ROOT/classes.txt, else the "
            "values in the masks).",
            metavar="COUNT|FILE",
        ),
        _OWN,
    ] = None
    ignore: Annotated[
        tuple[int, ...],
        option(
            "Pixel values without a label, such as 0,11; 255 is always one.",
            metavar="INT,INT,...",
            converter=whole_numbers,
        ),
        _OWN,
    ] = ()
    test_fraction: Annotated[
        float | None,
        option("Fraction drawn as the test split where folders have none (default: 0.25)."),
        _OWN,
    ] = None
    split_seed: Annotated[
        int | None,
        option("Seed of that draw (default: 0)."),
        _OWN,
    ] = None
    test_root: Annotated[
        Path | None, file("Folder of the test split, for image-level labels and depth.")
    ] = None
    depth_unit: Annotated[
        str | None,
        option("Unit of integer depth maps: millimeters, centimeters, meters or 1/256 meters."),
    ] = None
    blocks: Annotated[
        str | None,
        option(
            "Regular expression whose groups, found in the name of an image, say which images "
            "belong together (default: the data set's rule, else folders).",
            metavar="REGEX",
        ),
    ] = None
    folds: Annotated[
        int | None,
        option("Cross-validate over all images in so many folds; blocks stay whole.", least=2),
    ] = None
    labels: Annotated[
        int | None,
        option(
            "Fit on this many training images, drawn anew for each seed; all test images are read.",
            least=2,
        ),
    ] = None
    probe_size: Annotated[
        int | None,
        option(
            "Side of the images in pixels (default: the published one of a protocol; the model's "
            "own where the protocol is linear or linear-sgd).",
            h.PROBE,
            least=1,
        ),
    ] = None
    steps: Annotated[
        int | None, option("Optimizer steps (default: the protocol's).", h.PROBE, least=1)
    ] = None
    seeds: Annotated[
        tuple[int, ...],
        option(
            "Seeds of the probe, such as 0,1,2 (default: the protocol's).",
            h.PROBE,
            metavar="INT,INT,...",
            converter=whole_numbers,
        ),
    ] = ()
    layers: Annotated[
        Layers,
        layers_option(
            "Blocks that are probed one by one, too, such as -4,-1; all probes every block.",
            h.PROBE,
        ),
    ] = ()
    cache: Annotated[
        Path | None, file("Folder that keeps extracted features for later calls.", h.COMPUTE)
    ] = None
    device: o.DeviceOption = "auto"
    batch_size: o.BatchSizeOption = "auto"
    workers: o.WorkersOption = 4

    @from_options
    def data(self) -> LabelledData:
        """Where the labels come from."""
        from densescope.evaluation.probes import find_protocol
        from densescope.runs.labels import LabelledData

        data = LabelledData(
            self.dataset,
            self.root,
            self.train_split,
            self.test_split,
            self.test_root,
            self.depth_unit,
            classes=self._classes(),
            ignored=self.ignore,
            drawn=self._drawn(),
            blocks=self.blocks,
            folds=self.folds,
            labels=self.labels,
        )
        data.check(find_protocol(self.protocol).task)
        return data

    def _classes(self) -> int | Path | None:
        if self.classes is None:
            return None
        return int(self.classes) if self.classes.isdecimal() else Path(self.classes)

    def _drawn(self) -> DrawnSplit | None:
        from densescope.evaluation.datasets import DrawnSplit

        given = {"fraction": self.test_fraction, "seed": self.split_seed}
        known = {name: value for name, value in given.items() if value is not None}
        return DrawnSplit(**known) if known else None  # type: ignore[arg-type]

    @from_options
    def request(self) -> ProbeRequest:
        """How the features are asked."""
        from densescope.evaluation.probes import find_protocol
        from densescope.runs.probe import ProbeRequest

        request = ProbeRequest(
            self.protocol,
            self.seeds or None,
            self.steps,
            self.probe_size,
            self.cache,
            self.layers,
        )
        # Refuses steps where nothing is trained by steps.
        find_protocol(self.protocol).adapted(**request.changes)
        return request


def probe(
    target: Annotated[
        Place, place("Folder that a sweep wrote, or one checkpoint.", h.MAIN, name="TARGET")
    ],
    /,
    *,
    probing: ProbeOptions,
    only: Annotated[
        str,
        option(
            "Checkpoints of a scored run: all, shortlist (with the last), every-4 (each fourth, "
            "counted back from the last), or some by name or step.",
            h.MAIN,
            metavar="all|shortlist|every-N|NAME,...",
        ),
    ] = "all",
    backbone: Annotated[o.BackboneOptions, Parameter(group=h.ONE_FILE)] = o.BackboneOptions(),
    config: ConfigOption = None,
) -> int:
    """Measure with labels what features are worth."""
    from densescope.cli.progress import SweepProgress
    from densescope.runs.probe import probe_file, probe_run
    from densescope.runs.scorer import Compute
    from densescope.runs.store import MANIFEST

    data, request = probing.data(), probing.request()
    device, batch_size = o.device_name(probing.device), o.images_at_once(probing.batch_size)
    compute = Compute(device, batch_size, probing.workers)
    console = make_console()
    say = partial(console.print, soft_wrap=True)
    scored = (target / MANIFEST).is_file()
    is_model = any((target / name).is_file() for name in ("config.json", ".metadata"))
    if scored or (target.is_dir() and not is_model and backbone.format == AUTO):
        if scored:
            _refuse_backbone(backbone, target)
        with SweepProgress(console, done="probed") as progress:
            records = probe_run(
                target, data, request, only=only, compute=compute, on_event=progress, say=say
            )
        for sentence in doubts(records):
            console.print(sentence, soft_wrap=True)
        print_probes(console, records)
        return _finish(records, target)
    if only != "all":
        raise UsageError(f"{target} is one file: --only {only} is for a scored run")
    outcome = probe_file(target, backbone.spec(), data, request, compute=compute, say=say)
    print_outcome(console, target.name, outcome)
    return 0


def _refuse_backbone(backbone: o.BackboneOptions, run: Path) -> None:
    """Say which options of a backbone were given in vain for a scored run, which knows its own."""
    given = [
        f"--{name.replace('_', '-')}"
        for name, value in vars(backbone).items()
        if value and value != AUTO
    ]
    if given:
        size = "; the size of the probe's images is --probe-size" if backbone.image_size else ""
        raise UsageError(
            f"{run} is a scored run, which knows its format and its model: leave out "
            f"{', '.join(given)}{size}"
        )


def _finish(records: Sequence[ProbeRecord], target: Path) -> int:
    folder = quote(str(target))
    print(f"next: densescope correlate {folder}; densescope report {folder}")
    failed = [record for record in records if record.status == "failed"]
    print_failures(failed)
    return FAILED_CHECKPOINTS if failed else 0
