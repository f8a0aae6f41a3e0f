"""A timm model as a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from densescope.features.protocol import Features
from densescope.layers import block_of


class TimmBackbone(nn.Module):
    """A timm model as a :class:`Backbone`; one forward pass gives patches and image vector.

    It shares the model's weights, mode and ``requires_grad``.
    """

    def __init__(
        self,
        model: Any,
        *,
        image_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.model = model
        self.image_size = image_size
        self.mean = mean
        self.std = std
        stages: list[dict[str, Any]] = self.model.feature_info
        self.patch_size = int(stages[-1]["reduction"])
        self.depth = len(stages)
        self.prefix = int(getattr(model, "num_prefix_tokens", 0))
        self.channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
        convolutions = sum(isinstance(part, nn.Conv2d) for part in self.model.modules())
        # One is a patch embedding. Of more, oneDNN and cuDNN are faster with channels last.
        self.memory_format = torch.channels_last if convolutions > 1 else torch.contiguous_format
        self.training = model.training

    def features(self, images: Tensor, layers: Sequence[int] = (-1,)) -> Features:
        """Patch grids of the requested blocks (or stages), and the image vector.

        Args:
            images: ``images channels height width``, normalized with ``mean`` and ``std``.
            layers: block indices, negative from the end; for ResNets 0 is the stem, for Swin
                they are stages and only the last has been through the final norm.

        Raises:
            OptionError: a layer does not exist.
        """
        wanted = [block_of(layer, self.depth) for layer in layers]
        taken = sorted(set(wanted))
        final, grids = self.model.forward_intermediates(
            images, indices=taken, norm=True, output_fmt="NCHW"
        )
        by_index = dict(zip(taken, grids, strict=True))
        return Features(tuple(by_index[index] for index in wanted), self._image_vector(final))

    def forward(self, images: Tensor) -> Tensor:
        """The last patch grid, so that the module can be wrapped like any other."""
        return self.features(images).patches[0]

    def _image_vector(self, final: Tensor) -> Tensor:
        if final.ndim == 3:
            if getattr(self.model, "cls_token", None) is not None:
                return final[:, 0]
            return final[:, self.prefix :].mean(1)
        return final.mean((1, 2) if self.channels_last else (2, 3))
