"""What a study is made of: a TOML file, checked before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from densescope.errors import InputError
from densescope.layers import Layers
from densescope.metrics import ScoreSettings
from densescope.pretraining.methods import default_backbone, find_method, resolve_settings
from densescope.pretraining.recipe import change_recipe
from densescope.pretraining.settings import (
    BackboneSettings,
    PretrainSettings,
    RegularizerSettings,
)
from densescope.runs.labels import LabelledData
from densescope.runs.probe import ProbeRequest
from densescope.study.checks import check_spec, runs_before
from densescope.toml import read_toml, refuse_unknown, section_of, subtable, subtables


@dataclass(frozen=True)
class _Main:
    """Table ``[study]``."""

    methods: tuple[str, ...] = ("dino",)
    seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Arm:
    """One way to train, beside others.

    Attributes:
        name: in tables and folder names.
        regularizer: ``"dse"``, ``"dse-pooled"``, ``"paka"`` or ``"gram"``; none by default.
        beta: its weight; its authors' by default.
        images: views of a batch it sees, 0 for all.
        every: steps between two uses.
        set: changes of the recipe, ``key=value``.
        methods: trained this way; all of the study by default.
        seeds: of its runs; those of the study by default.
        start_run: ``METHOD-ARM`` of a run of the study with whose backbone (same seed) it begins;
            ``{method}`` stands for the method of the run itself.
        start_step: the first of its checkpoints with so many steps or more; 0: its last one.
    """

    name: str = "plain"
    regularizer: str | None = None
    beta: float | None = None
    images: int = 0
    every: int = 1
    set: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    start_run: str | None = None
    start_step: int = 0

    def has(self, method: str, seed: int) -> bool:
        """Whether a run of this method and seed is trained this way."""
        return method in (self.methods or (method,)) and seed in (self.seeds or (seed,))

    def settings(self) -> RegularizerSettings | None:
        """What the trainer is told."""
        if self.regularizer is None:
            return None
        return RegularizerSettings(self.regularizer, self.beta, self.images, self.every)


@dataclass(frozen=True)
class Training:
    """What all runs of a study share, or those of one method.

    Attributes:
        images: a folder, shards or a saved image set.
        images_count: how many of them at most.
        image_size: pixels.
        steps, batch_size, checkpoint_every, precision: as in
            :class:`~densescope.pretraining.settings.PretrainSettings`.
        architecture: a timm model; a small one of the method's family by default.
        options: of the architecture.
        recipe: ``"small"`` or ``"published"``.
        set: changes of the recipe, ``key=value``.
        start_from: a checkpoint whose weights all runs begin with.
        start_format: row of ``FORMATS`` that reads it, if it is not one of the method.
    """

    images: str = ""
    images_count: int = 100_000
    image_size: int = 64
    steps: int = 340
    batch_size: int = 64
    checkpoint_every: int = 20
    precision: str = "float32"
    architecture: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe: str = "small"
    set: tuple[str, ...] = ()
    start_from: str | None = None
    start_format: str | None = None


@dataclass(frozen=True)
class Scoring:
    """What the checkpoints are scored on.

    Attributes:
        images: a folder, shards or a saved image set; not the training images.
        images_count: size of the fixed subset.
        settings: fields of :class:`~densescope.metrics.ScoreSettings`.
    """

    images: str
    images_count: int = 2048
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Labels:
    """One labelled probe of every checkpoint.

    Attributes:
        dataset: row of ``DATASETS``.
        root: its folder.
        protocol: row of ``PROTOCOLS``.
        seeds: of the probe; the protocol's by default.
        steps, image_size: optimizer steps and pixels in place of the published numbers.
        test_root: for image-level labels and depth.
        train_split, test_split: for segmentation.
        labels: so many training images are drawn; such a probe chooses, and judges no run.
        only: which checkpoints, as in :func:`~densescope.runs.probe.probe_run`.
        layers: probed one by one beside the protocol's own: numbers, or ``"all"``.
    """

    dataset: str
    root: str
    protocol: str = "linear"
    seeds: tuple[int, ...] | None = None
    steps: int | None = None
    image_size: int | None = None
    test_root: str | None = None
    train_split: str = "train"
    test_split: str | None = None
    labels: int | None = None
    only: str = "all"
    layers: Layers = ()

    @property
    def data(self) -> LabelledData:
        """Where the labels come from."""
        root, split = Path(self.root), (self.train_split, self.test_split)
        test = None if self.test_root is None else Path(self.test_root)
        return LabelledData(self.dataset, root, *split, test_root=test, labels=self.labels)

    @property
    def request(self) -> ProbeRequest:
        """What is asked of every checkpoint."""
        return ProbeRequest(
            self.protocol, self.seeds, self.steps, self.image_size, layers=self.layers
        )


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        method: row of ``METHODS``.
        arm: how it is trained.
        settings: of the trainer.
        training: images, and the checkpoint it begins with.
    """

    method: str
    arm: Arm
    settings: PretrainSettings
    training: Training

    @property
    def name(self) -> str:
        """Its folder."""
        return f"{self.method}-{self.arm.name}-seed{self.settings.seed}"

    @property
    def start_run(self) -> str | None:
        """The folder of the run it begins from."""
        run = self.arm.start_run
        if run is None:
            return None
        return f"{run.replace('{method}', self.method)}-seed{self.settings.seed}"


@dataclass(frozen=True)
class StudySpec:
    """Methods x arms x seeds, and what is measured of each run.

    Attributes:
        methods: rows of ``METHODS``.
        seeds: of the training runs.
        arms: ways to train; the first is what the others are compared with.
        training: of all runs.
        by_method: of the runs of one method, over ``training``.
        scoring: of all checkpoints.
        labels: probes of all checkpoints; none for a study without labels.
    """

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    arms: tuple[Arm, ...]
    training: Training
    by_method: Mapping[str, Training]
    scoring: Scoring
    labels: tuple[Labels, ...] = ()

    def cells(self) -> list[Cell]:
        """Every run, seed by seed, so that a study that is stopped has whole comparisons.

        A run that begins from another one of the study comes after it.

        Raises:
            InputError: a method, an architecture or a recipe does not exist or does not fit.
        """
        found = []
        order = {seed: index for index, seed in enumerate(self.seeds)}
        for seed, method, arm in product(self.seeds, self.methods, self.arms):
            if not arm.has(method, seed):
                continue
            training = self.by_method.get(method, self.training)
            row = find_method(method)
            recipe = row.small if training.recipe == "small" else row.published
            settings = PretrainSettings(
                method=method,
                recipe=change_recipe(recipe, (*training.set, *arm.set)),
                backbone=_backbone(training, method),
                steps=training.steps,
                batch_size=training.batch_size,
                checkpoint_every=training.checkpoint_every,
                seed=seed,
                precision=training.precision,
                regularizer=arm.settings(),
            )
            found.append(Cell(method, arm, resolve_settings(settings), training))
        before = runs_before(found)
        return sorted(found, key=lambda cell: (order[cell.settings.seed], before[cell.name]))

    def score_settings(self) -> ScoreSettings:
        """What the numbers depend on."""
        return section_of(ScoreSettings, self.scoring.settings, "settings of [score]")


def read_spec(path: Path | str) -> StudySpec:
    """Read a study from TOML.

    Tables: ``[study]`` (``methods``, ``seeds``), ``[[arm]]``, ``[pretrain]``, ``[method.NAME]``
    (what differs from ``[pretrain]``), ``[score]``, ``[[probe]]``; their keys are the fields of
    :class:`Arm`, :class:`Training`, :class:`Scoring` and :class:`Labels`. Paths are relative to
    the file's folder.

    Raises:
        InputError: as :func:`~densescope.toml.read_toml`, an unknown name, an unknown or missing
            key, or a run that cannot be trained.
    """
    path = Path(path)
    document = read_toml(path, "the study")
    known = ("study", "arm", "pretrain", "method", "score", "probe")
    refuse_unknown(document, known, "the study")
    for name in ("study", "pretrain", "score"):
        if name not in document:
            raise InputError(f"the study {path} has no table [{name}]")
        subtable(document, name, None)
    main = section_of(_Main, document["study"], "[study]")
    training = _placed(document["pretrain"], path.parent, "images", "start_from")
    shared = section_of(Training, training, "[pretrain]")
    by_method = {}
    for name, changes in subtable(document, "method", {}).items():
        own = {**training, **_placed(changes, path.parent, "images", "start_from")}
        by_method[name] = section_of(Training, own, f"[method.{name}]")
    spec = StudySpec(
        methods=main.methods,
        seeds=main.seeds,
        arms=tuple(section_of(Arm, arm, "[[arm]]") for arm in subtables(document, "arm", [{}])),
        training=shared,
        by_method=by_method,
        scoring=section_of(Scoring, _placed(document["score"], path.parent, "images"), "[score]"),
        labels=tuple(
            section_of(Labels, _placed(one, path.parent, "root", "test_root"), "[[probe]]")
            for one in subtables(document, "probe", [])
        ),
    )
    check_spec(spec)
    return spec


def _placed(values: Mapping[str, Any], folder: Path, *names: str) -> dict[str, Any]:
    """Paths below the folder of the study, as absolute ones stay."""
    if not isinstance(values, Mapping):
        raise InputError(f"{values!r:.100} stands where the study needs a table")
    return {
        key: str(folder / value) if key in names and value and isinstance(value, str) else value
        for key, value in values.items()
    }


def _backbone(training: Training, method: str) -> BackboneSettings:
    if training.architecture is not None:
        return BackboneSettings(training.architecture, dict(training.options), training.image_size)
    small = default_backbone(find_method(method))
    options = {**small.options, **training.options}
    return BackboneSettings(small.architecture, options, training.image_size)
