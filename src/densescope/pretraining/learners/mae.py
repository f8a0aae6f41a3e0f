"""MAE: see a quarter of an image's patches and paint the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from densescope.pretraining.encoders import Encoder
from densescope.pretraining.learner import Learner, Method, Outcome, renamed_state
from densescope.pretraining.masking import random_keep
from densescope.pretraining.recipe import (
    CROP_AND_FLIP,
    SMALL_RUN,
    AugmentationSettings,
    Recipe,
    check_heads,
)
from densescope.pretraining.settings import PretrainSettings


@dataclass(frozen=True, kw_only=True)
class MaeRecipe(Recipe):
    """MAE's own settings; the defaults are those of its ViT-B/16.

    Attributes:
        hidden: part of the patches that is left out.
        decoder_dim: width of the decoder.
        decoder_depth: its blocks.
        decoder_heads: its heads; must divide the width.
        normalized: whether the pixels of each patch are to be painted in units of their own mean
            and standard deviation.
    """

    learning_rate: float = 1.5e-4
    warmup: float = 40 / 800
    weight_decay: tuple[float, float] = (0.05, 0.05)
    betas: tuple[float, float] = (0.9, 0.95)
    first: AugmentationSettings = CROP_AND_FLIP
    second: AugmentationSettings = CROP_AND_FLIP
    hidden: float = 0.75
    decoder_dim: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    normalized: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.decoder_dim, self.decoder_heads, "decoder")


class Mae(Learner[MaeRecipe]):
    """The networks and loss of MAE.

    With ``normalized`` the loss is 1 (short of 1 over the pixels of a patch) for a painter that
    paints gray: targets then have mean 0 and variance 1.

    Source: He et al. 2021, arXiv 2111.06377; decoder, positions and patch cutting are lightly's.
    """

    fixed_positions = True

    def __init__(self, settings: PretrainSettings, recipe: MaeRecipe) -> None:
        from lightly.models.modules.masked_vision_transformer_decoder_timm import (
            MaskedVisionTransformerDecoderTIMM,
        )

        super().__init__(settings, recipe)
        self.student = self.encoder()
        shape = self.student.geometry
        self.decoder_embed = nn.Linear(shape.dim, recipe.decoder_dim)
        self.decoder = MaskedVisionTransformerDecoderTIMM(
            num_patches=shape.patches,
            embed_dim=recipe.decoder_dim,
            depth=recipe.decoder_depth,
            num_heads=recipe.decoder_heads,
            num_prefix_tokens=self.student.prefix_tokens,
        )
        self.decoder_pred = nn.Linear(recipe.decoder_dim, shape.patch_size**2 * 3)

    def loss(self, images: Tensor, step: int, generator: torch.Generator) -> Outcome:
        """Mean squared error of the painted patches."""
        views = self.views(images, generator, count=1)[0]
        shape = self.student.geometry
        kept = max(int(shape.patches * (1 - self.recipe.hidden)), 1)
        keep, hide = random_keep(len(views), shape.patches, kept=kept, generator=generator)
        keep, hide = keep.to(views.device), hide.to(views.device)
        seen, tokens = self._encoded(views, keep)
        painted = self._painted(seen, keep, hide)
        wanted = torch.take_along_dim(self.targets(views), hide[:, :, None], dim=1)
        return Outcome((painted - wanted).square().mean(), tokens, views, keep)

    def targets(self, views: Tensor) -> Tensor:
        """The pixels of every patch, ``images patches pixels``."""
        from lightly.models.utils import normalize_mean_var, patchify

        pixels: Tensor = patchify(views, self.student.geometry.patch_size)
        if self.recipe.normalized:
            pixels = normalize_mean_var(pixels, dim=-1)
        return pixels

    def _encoded(self, views: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.student.visible(views, keep)
        if self.student.prefix_tokens == 0:
            return tokens.patches, tokens.patches
        return torch.cat([tokens.image[:, None], tokens.patches], dim=1), tokens.patches

    def _painted(self, seen: Tensor, keep: Tensor, hide: Tensor) -> Tensor:
        prefix = self.student.prefix_tokens
        embedded = self.decoder_embed(seen)
        images, patches = len(keep), keep.shape[1] + hide.shape[1]
        line = self.decoder.mask_token.to(embedded.dtype).repeat(images, prefix + patches, 1)
        begin = torch.arange(prefix, device=keep.device).expand(images, -1)
        places = torch.cat([begin, keep + prefix], dim=1)[:, :, None]
        line = line.scatter(1, places.expand_as(embedded), embedded)
        painted = self.decoder(line)
        behind = torch.take_along_dim(painted, (hide + prefix)[:, :, None], dim=1)
        output: Tensor = self.decoder_pred(behind)
        return output

    @property
    def trained(self) -> Encoder:
        """The encoder."""
        encoder: Encoder = self.student
        return encoder

    def backbones(self) -> dict[str, Encoder]:
        """The encoder."""
        return {"encoder": self.student}

    def content(self, counter: int, optimizer: dict[str, Any]) -> dict[str, Any]:
        """The content of ``checkpoint-%d.pth``."""
        renames = {
            "mask_token": "mask_token",
            "pos_embed": "decoder_pos_embed",
            "blocks__": "decoder_blocks.",
            "norm__": "decoder_norm.",
        }
        return {
            "model": {
                **renamed_state(self.student),
                **renamed_state(self.decoder_embed, "decoder_embed."),
                **renamed_state(self.decoder, **renames),
                **renamed_state(self.decoder_pred, "decoder_pred."),
            },
            "optimizer": optimizer,
            "epoch": counter,
            "scaler": {},
            "args": self.namespace(),
        }


METHOD = Method(
    name="mae",
    title="MAE",
    source="He et al. 2021, Masked Autoencoders Are Scalable Vision Learners, arXiv 2111.06377",
    kind="masks",
    families=("vit",),
    build=Mae,
    published=MaeRecipe(),
    small=MaeRecipe(
        **{**SMALL_RUN, "first": CROP_AND_FLIP, "second": CROP_AND_FLIP, "betas": (0.9, 0.95)},
        decoder_dim=64,
        decoder_depth=2,
        decoder_heads=4,
    ),
    batch_size=4096,
    epochs=800,
    file_name="checkpoint-{}.pth",
    chance_loss=lambda recipe, images: 1.0,
    changed=(),
)
