"""Base of every method: views in, a loss and patch tokens out, and the content of checkpoints."""

from __future__ import annotations

import argparse
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from densescope.errors import InputError
from densescope.features.augmentation import AugmentationSettings, random_views
from densescope.features.formats import FORMATS, Format
from densescope.pretraining.encoders import Encoder, EncoderOutput, Geometry, build_encoder
from densescope.pretraining.optimizers import Groups, parameter_groups_of
from densescope.pretraining.recipe import AnyRecipe, MultiCropRecipe, Recipe
from densescope.pretraining.settings import PretrainSettings

AnyModule = TypeVar("AnyModule", bound=nn.Module)


@dataclass(frozen=True)
class Outcome:
    """What a method made of a batch.

    Attributes:
        loss: to be minimized.
        patches: the student's patch tokens from the forward pass behind the loss,
            ``views patches dim``; gradients flow through them.
        views: what they are of, normalized: ``views 3 rows columns``.
        kept: where the student saw only some patches, which: ``views patches``.
    """

    loss: Tensor
    patches: Tensor
    views: Tensor
    kept: Tensor | None = None


class Learner(nn.Module, ABC, Generic[AnyRecipe]):
    """The networks, loss and schedules of a method; the training loop drives it.

    Everything a run must remember beside the optimizer lies in the state dict: a subclass keeps
    networks as sub-modules and centers, queues and prototypes as buffers. Chance comes from the
    generator that ``loss`` is given, never from elsewhere.
    """

    mean: Tensor
    std: Tensor
    fixed_positions = False
    student: Any

    def __init__(self, settings: PretrainSettings, recipe: AnyRecipe) -> None:
        super().__init__()
        self.settings = settings
        self.recipe = recipe
        self.register_buffer("mean", torch.tensor(settings.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(settings.std).view(3, 1, 1), persistent=False)

    @abstractmethod
    def loss(self, images: Tensor, step: int, generator: torch.Generator) -> Outcome:
        """The loss of one batch of images in [0, 1], on views drawn here."""

    @abstractmethod
    def backbones(self) -> dict[str, Encoder]:
        """The networks a checkpoint holds, under the names of the weights in ``FORMATS``."""

    @property
    def trained(self) -> Encoder:
        """The network that gradients reach."""
        student: Branch = self.student
        return student.backbone

    @abstractmethod
    def content(self, counter: int, optimizer: dict[str, Any]) -> dict[str, Any]:
        """What the method's public training code would save.

        Args:
            counter: the number that code writes into the file.
            optimizer: the optimizer's state.
        """

    def parameter_groups(self) -> Groups:
        """Groups for the optimizer: ``decays`` tells whether weight decay applies."""
        return parameter_groups_of(self.parameters(), self.recipe)

    def before_step(self, step: int) -> None:
        """Called with all gradients at hand, before they are clipped and used."""

    def after_step(self, step: int) -> None:
        """Called with new weights."""

    def encoder(self) -> Encoder:
        """A network of the run's architecture with fresh weights."""
        return build_encoder(
            self.settings.method, self.settings.backbone, fixed_positions=self.fixed_positions
        )

    def views(self, images: Tensor, generator: torch.Generator, *, count: int = 2) -> Tensor:
        """Normalized global views, ``views images 3 size size``: the first, the second."""
        recipe, size = self.recipe, self.settings.backbone.image_size
        if count == 1 or recipe.first == recipe.second:
            return self._drawn(images, count, size, recipe.first, generator)
        halves = [
            self._drawn(images, 1, size, augmentation, generator)
            for augmentation in (recipe.first, recipe.second)
        ]
        return torch.cat(halves)

    def _drawn(
        self,
        images: Tensor,
        count: int,
        size: int,
        augmentation: AugmentationSettings,
        generator: torch.Generator,
    ) -> Tensor:
        drawn = random_views(
            images, views=count, size=size, settings=augmentation, generator=generator
        )
        return (drawn - self.mean) / self.std

    def local_views(self, images: Tensor, generator: torch.Generator) -> Tensor | None:
        """Normalized local views of a multi-crop recipe, or ``None`` where it has none."""
        recipe = self.recipe
        if not isinstance(recipe, MultiCropRecipe) or recipe.local_count == 0:
            return None
        return self._drawn(images, recipe.local_count, self.local_size, recipe.local, generator)

    def check_views(self) -> None:
        """Refuse a view size the network cannot take, before the run begins.

        Raises:
            InputError: a small view is no whole number of patches.
        """
        if isinstance(self.recipe, MultiCropRecipe) and self.recipe.local_count:
            assert self.local_size

    @property
    def local_size(self) -> int:
        """Side of the small views in pixels.

        Raises:
            InputError: it is no multiple of a patch.
        """
        assert isinstance(self.recipe, MultiCropRecipe)
        encoder = next(iter(self.backbones().values()))
        size, chosen = self.settings.backbone.image_size, self.recipe.local_size
        cell = 1 if encoder.family == "resnet" else encoder.geometry.patch_size
        if chosen == 0:
            return max(round(size * 96 / 224 / cell), 1) * cell
        if chosen % cell:
            raise InputError(f"local_size {chosen} is not a multiple of the patch size {cell}")
        return chosen

    def namespace(self, **more: Any) -> argparse.Namespace:
        """The settings as the command line that public training codes keep in their files."""
        document = self.settings.to_json()
        shape = self.settings.backbone
        plain = {
            "arch": shape.architecture,
            "patch_size": self.geometry.patch_size,
            "batch_size_per_gpu": self.settings.micro_batch_size,
            "seed": self.settings.seed,
        }
        return argparse.Namespace(**plain, **more, densescope=document)

    @property
    def geometry(self) -> Geometry:
        """Sizes of the networks."""
        return next(iter(self.backbones().values())).geometry


class Branch(nn.Module):
    """A backbone whose image vector goes through a head."""

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.backbone = encoder
        self.head = head

    def forward(self, images: Tensor) -> tuple[Tensor, EncoderOutput]:
        """The head's output, one row per image, and the backbone's tokens."""
        tokens = self.backbone(images)
        output: Tensor = self.head(tokens.image)
        return output, tokens


def student_and_teacher(build: Callable[[], AnyModule]) -> tuple[AnyModule, AnyModule]:
    """A student and a teacher with the same weights; the teacher gets no gradients."""
    student, teacher = build(), build()
    teacher.load_state_dict(student.state_dict())
    teacher.requires_grad_(False)
    return student, teacher


def update_ema(student: nn.Module, teacher: nn.Module, momentum: float) -> None:
    """``teacher = momentum * teacher + (1 - momentum) * student``, parameter by parameter."""
    from lightly.models.utils import update_momentum

    with torch.no_grad():
        update_momentum(student, teacher, momentum)


def renamed_state(module: nn.Module, prefix: str = "", **renames: str) -> dict[str, Tensor]:
    """A module's state under other names.

    Args:
        module: whose state; an :class:`Encoder` gives timm's names.
        prefix: put before every name, after renaming.
        renames: beginning of a name (dots written as ``__``) -> what stands there instead.

    Example:
        >>> sorted(renamed_state(nn.Linear(1, 1), "fc.", bias="shift"))
        ['fc.shift', 'fc.weight']
    """
    state = (module.model if isinstance(module, Encoder) else module).state_dict()
    found = {}
    for name, value in state.items():
        for old, new in renames.items():
            begins = re.escape(old.replace("__", "."))
            changed = re.sub(rf"^{begins}", new, name)
            if changed != name:
                name = changed
                break
        found[f"{prefix}{name}"] = value.detach()
    return found


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        name: as settings name it, and as ``FORMATS`` names the layout of its files.
        title: as its authors write it.
        source: the paper.
        kind: what it learns from: ``"contrast"``, ``"prediction"``, ``"clusters"``,
            ``"redundancy"``, ``"masks"``.
        families: kinds of backbone it works with, that of the paper first.
        build: resolved settings and recipe -> learner, with weights from torch's global generator.
        published: the paper's recipe.
        small: the recipe for a few thousand small images and batches of tens.
        batch_size: images of a step in the paper.
        epochs: length of the paper's run, over ImageNet.
        file_name: pattern of its checkpoints, with the number the format gives them.
        changed: what differs from the paper beside the values in which ``small`` differs from
            ``published``, one sentence each.
        chance_loss: (recipe, images at once) -> the loss of outputs that say nothing of the image,
            where it is known; some losses fall below it by collapsing too.
        least_micro_batch: images that one device must see at once.
        least_reason: why.
    """

    name: str
    title: str
    source: str
    kind: str
    families: tuple[str, ...]
    build: Callable[[PretrainSettings, Any], Learner[Any]]
    published: Recipe
    small: Recipe
    batch_size: int
    epochs: int
    file_name: str
    changed: tuple[str, ...]
    chance_loss: Callable[[Any, int], float] | None = None
    least_micro_batch: int = 1
    least_reason: str = ""

    @property
    def format(self) -> Format:
        """The layout of its checkpoints."""
        return FORMATS[self.name]

    def numbers(self, finished: int) -> tuple[int, int]:
        """Numbers in the name of a file and inside it after so many finished epochs."""
        number = finished - self.format.offset
        return number, number + (self.format.counter_offset or 0)
