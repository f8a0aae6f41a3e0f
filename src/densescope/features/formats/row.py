"""The row of a format: where a training code keeps its backbone, and how it was trained."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from densescope.errors import CheckpointError
from densescope.features.conversions import Conversion, Registration
from densescope.features.names import Numbers, read_numbers
from densescope.features.normalization import IMAGENET, Normalization

RELEASED = ("timm:", "hf-hub:")  # beginnings that stand for released weights in a file's place


def is_released(location: object) -> bool:
    """Whether a checkpoint is not a file but weights that timm finds: ``timm:NAME``, ..."""
    return str(location).startswith(RELEASED)


@dataclass(frozen=True)
class FileNames:
    """Names of numbered files.

    Attributes:
        pattern: regular expression of a name; group 1 is the number, unless they are loose.
        written: the name as the training code writes it, an ``N`` for each digit of a number of
            fixed width, one ``N`` for any number: ``"checkpointNNNN.pth"``. Longer numbers fit too.
        loose: users choose these names, so the number is that of
            :func:`~densescope.features.names.read_numbers`.
    """

    pattern: str
    written: str
    loose: bool = False

    def numbers(self, path: str) -> Numbers:
        """What a path that is named like this says of its place in the run.

        Args:
            path: below the run's folder; further parts above are let be.
        """
        parts = path.split("/")
        for count in range(self.pattern.count("/") + 1, 0, -1):
            tail = "/".join(parts[-count:])
            if found := re.fullmatch(self.pattern, tail):
                read = read_numbers(tail)
                number = None if self.loose else int(found.group(1))
                is_read = number in (None, read.epoch, read.step)
                return read if is_read else Numbers(plain=number)
        return Numbers()

    @property
    def example(self) -> str:
        """One such name, that of number 7: ``"checkpoint0007.pth"``."""
        return re.sub("N+", lambda found: "7".zfill(len(found[0])), self.written)


@dataclass(frozen=True)
class Weights:
    """One set of weights in a file.

    Attributes:
        name: what a user asks for: ``"teacher"``, ``"student"``, ``"online"``, ...
        path: keys to walk from the top of the file.
        prefixes: beginnings of tensor names, most specific first; the first one found is kept
            and stripped. ``""`` takes every tensor. Names are matched without wrappers
            (:mod:`~densescope.features.wrappers`), whether a prefix is written with them or not.
        nested: keys one of which may or may not wrap what the path leads to.
        needed: one of ``nested`` must be there.
        anywhere: where no name there has the prefix, it counts from the top of the file, keys and
            names with dots between.
    """

    name: str
    path: tuple[str, ...]
    prefixes: tuple[str, ...] = ("",)
    nested: tuple[str, ...] = ()
    needed: bool = False
    anywhere: bool = False


EMA = Weights("ema", (), nested=("state_dict_ema", "model_ema", "ema"), needed=True)


@dataclass(frozen=True)
class Architecture:
    """Another network that a training code trains.

    Attributes:
        name: timm model name.
        options, drop, conversion: as in :class:`Format`; ``drop`` comes in addition.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    drop: tuple[tuple[str, str], ...] = ()
    conversion: Conversion | None = None


@dataclass(frozen=True)
class Format:
    """One training code base, or its release layout.

    Attributes:
        name: what the user writes.
        title: method and layout in words.
        source: public code and paper.
        weights: sets of weights in the file; the first is the default.
        architecture: timm model name, ``""`` when the user must name one.
        options: options of that architecture that the training code fixes.
        drop: (pattern, reason) of tensors inside the prefix that are left out on purpose.
        renames: (regular expression, replacement), applied in order after the prefix is gone.
        conversion: what renaming cannot say, or ``None``.
        others: other networks that the code trains. Their names in a file tell them apart from
            the default one, so they are taken where no architecture is named.
        without: (tensor, options): options that hold too where no such tensor is in the file.
        beside: beginning of the names of a part that the code always writes beside the backbone,
            where it tells the files from those of other codes.
        by_prefix: ``"backbone"`` without a dot is the beginning of names too.
        registration: names and shapes of the backbone's parameters in the order in which they
            were registered, for codes that write the flat parameters of FSDP; else ``None``.
        files: names of numbered files below the run's folder, best first.
        latest: names (with ``*``) of files that are overwritten while training goes on.
        unit: what the number counts, ``"epoch"`` or ``"step"``.
        offset: number + offset = finished epochs (or steps).
        counter: key of the file's own counter, ``""`` where it has none.
        counter_offset: number + counter_offset = the file's own counter; ``None`` where not known.
        foreign: objects other than tensors and plain values that such a file holds.
        normalization: what the training used, ImageNet's for rows of no training code; ``None``
            where it comes with the model.
        reader: ``"weights"``, or ``"huggingface"``, ``"released"`` and ``"custom"`` for models
            made elsewhere.
        verified: ``True`` when key names were read in the public code or its released file.
    """

    name: str
    title: str
    source: str
    weights: tuple[Weights, ...]
    architecture: str = ""
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    drop: tuple[tuple[str, str], ...] = ()
    renames: tuple[tuple[str, str], ...] = ()
    conversion: Conversion | None = None
    others: tuple[Architecture, ...] = ()
    without: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    beside: str = ""
    by_prefix: bool = False
    registration: Registration | None = None
    files: tuple[FileNames, ...] = ()
    latest: tuple[str, ...] = ()
    unit: str = "epoch"
    offset: int = 1
    counter: str = "epoch"
    counter_offset: int | None = 1
    foreign: str = "none"
    normalization: Normalization | None = IMAGENET
    reader: str = "weights"
    verified: bool = True

    @property
    def architectures(self) -> tuple[str, ...]:
        """The networks that the code is known to train, the default one first."""
        return (self.architecture, *(other.name for other in self.others))

    def choose(self, weights: str | None) -> Weights:
        """The named set of weights, or the default one.

        Every format knows ``"ema"``: the averaged weights that many training loops keep beside
        the plain ones, under names that are those of the default set. And weights may be named
        by the beginning of their names, ``"teacher.backbone."``, which ends or goes on with a dot.

        Raises:
            CheckpointError: this format has no set of that name.
        """
        if weights is None:
            return self.weights[0]
        for row in self.weights:
            if row.name == weights:
                return row
        if weights == EMA.name:
            return replace(EMA, prefixes=self.weights[0].prefixes)
        if self.by_prefix or "." in weights:
            prefix = weights if not weights or weights.endswith(".") else f"{weights}."
            return replace(self.weights[0], name=prefix, prefixes=(prefix,), anywhere=True)
        known = ", ".join(row.name for row in self.weights)
        raise CheckpointError(f"format {self.name} has no weights {weights!r}; it has: {known}")

    def writes(self, path: str) -> bool:
        """Whether a path below the run's folder is one that the code itself gives a checkpoint."""
        return any(files.numbers(path) for files in self.files if not files.loose)

    def trains(self, architecture: str) -> bool:
        """Whether the code is known to train networks of this kind; any, for no training code."""
        own = (self.architecture, *(other.name for other in self.others))
        return not self.architecture or _kind(architecture) in map(_kind, own)

    def of(self, architecture: str) -> Format:
        """This row as it is for another architecture.

        Options, drops and conversion are those of the network of the same family that the code
        is known to train; for a family that it does not train there are no options.
        """
        for other in self.others:
            if _family(other.name) == _family(architecture):
                return replace(
                    self,
                    architecture=architecture,
                    options=other.options,
                    drop=(*self.drop, *other.drop),
                    conversion=other.conversion,
                )
        known = _family(architecture) == _family(self.architecture)
        return replace(self, architecture=architecture, options=self.options if known else {})


def _kind(architecture: str) -> str:
    """The family, in which DINOv2's and DINOv3's transformers are others than the plain one."""
    special = re.search(r"dinov\d", architecture)
    return special[0] if special else _family(architecture)


def _family(architecture: str) -> str:
    return re.split(r"[_\d]", architecture)[0]


# Patterns and places that several code bases share.
PTH_TAR = (FileNames(r"checkpoint_(\d+)\.pth\.tar", "checkpoint_NNNN.pth.tar"),)
PTH = (FileNames(r"checkpoint(\d+)\.pth", "checkpointNNNN.pth"),)
WHOLE = (Weights("backbone", ()),)
# A ResNet after ``Sequential(*list(resnet.children())[:-1])``, which numbers its parts.
NUMBERED_RESNET = (
    (r"^0\.", "conv1."),
    (r"^1\.", "bn1."),
    (r"^4\.", "layer1."),
    (r"^5\.", "layer2."),
    (r"^6\.", "layer3."),
    (r"^7\.", "layer4."),
)
CLASSIFIER = ("fc.*", "projector in place of the classifier")


def any_number(written: str, endings: str = r"pth|pt|bin|tar|pth\.tar") -> tuple[FileNames]:
    """Any name with a number of its own; the code writes one such as ``written``."""
    return (FileNames(rf".+\.(?:{endings})", written, loose=True),)
