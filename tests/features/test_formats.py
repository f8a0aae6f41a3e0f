"""Every row of FORMATS loads a file of its layout and gives the features of the trained network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from densescope.features.backbones import load_backbone
from tests.features.plain_models import random_images
from tests.features.written_layouts import LAYOUTS


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_row_gives_the_features_of_the_trained_network(
    name: str, tmp_path: Path, generator: torch.Generator
) -> None:
    written = LAYOUTS[name](tmp_path, generator)
    images = random_images(generator, written.size)
    seen = []
    for weights, network in written.expected.items():
        loaded = load_backbone(
            written.path,
            format=name,
            architecture=written.architecture,
            architecture_options=written.options,
            weights=weights,
        )
        found, expected = loaded.backbone.features(images), network(images)
        torch.testing.assert_close(found.patches[0], expected.patches[0], rtol=2e-4, atol=2e-4)
        torch.testing.assert_close(found.image, expected.image, rtol=2e-4, atol=2e-4)
        seen.append(found.image)
