"""What methods share that compare places of an image, not only whole images."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from densescope.pretraining.encoders import Encoder, EncoderOutput


class DenseOutput(NamedTuple):
    """What a branch says of images.

    Attributes:
        image: of each image, ``images width``.
        patches: of each patch, ``images patches width``.
        tokens: of the backbone.
    """

    image: Tensor
    patches: Tensor
    tokens: EncoderOutput


class DenseBranch(nn.Module):
    """A backbone with a head for the image vector and one for the patches."""

    def __init__(self, encoder: Encoder, head: nn.Module, local_head: nn.Module) -> None:
        super().__init__()
        self.backbone = encoder
        self.head = head
        self.local_head = local_head

    def forward(self, images: Tensor) -> DenseOutput:
        """Both heads' outputs and the backbone's tokens."""
        tokens: EncoderOutput = self.backbone(images)
        patches = tokens.patches
        places = self.local_head(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])
        return DenseOutput(self.head(tokens.image), places, tokens)
