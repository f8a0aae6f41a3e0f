"""DINO: a student learns to predict what its own moving average says of other views."""

from __future__ import annotations

import math

from densescope.pretraining.learner import Method
from densescope.pretraining.learners.distillation import (
    SMALL_DISTILLATION,
    DinoRecipe,
    Distillation,
)

SMALL_DINO = DinoRecipe(**SMALL_DISTILLATION)


class Dino(Distillation[DinoRecipe]):
    """The networks, loss and schedules of DINO.

    At chance, with a uniform teacher, the loss is ``ln(prototypes)``.

    Source: Caron et al. 2021, arXiv 2104.14294; loss, head and moving average are lightly's.
    Deviations: no drop path, schedules in steps. The center starts at the mean output of the first
    batch instead of zero: from zero, the first thing a student learns is that mean.
    """


METHOD = Method(
    name="dino",
    title="DINO",
    source="Caron et al. 2021, Emerging Properties in Self-Supervised Vision Transformers, "
    "arXiv 2104.14294",
    kind="prediction",
    families=("vit", "resnet"),
    build=Dino,
    published=DinoRecipe(),
    small=SMALL_DINO,
    batch_size=1024,
    epochs=800,
    file_name="checkpoint{:04d}.pth",
    chance_loss=lambda recipe, images: math.log(recipe.prototypes),
    changed=(
        "The center starts at the mean output of the first batch instead of zero.",
        "There is no drop path.",
        "Gradients are clipped by the norm of all weights together, not of each weight.",
        "Not verified against public code: the number of small views, the scales of crops and the "
        "final learning rate of the run of 800 epochs are as others report them, and the limit "
        "of the gradient is the default of the code. The arguments of that run are published with "
        "its weights.",
    ),
)
