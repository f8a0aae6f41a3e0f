"""Folders of Transformers models: grids after the final norm, and the right image vector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from densescope.errors import CheckpointError, InputError
from densescope.features.backbones import load_backbone
from densescope.features.spec import BackboneSpec
from tests.features.plain_models import DEPTH, DIM, HEADS, PATCH, SIZE, random_images, vit_features

transformers = pytest.importorskip("transformers")

TOKENS = {
    "hidden_size": DIM,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "intermediate_size": 4 * DIM,
    "image_size": SIZE,
    "patch_size": PATCH,
}
MEAN, STD = [0.5, 0.4, 0.3], [0.3, 0.2, 0.1]
# class of the configuration, its options, size, cells, tokens before the patches
MODELS: dict[str, tuple[str, dict[str, Any], int, int, int]] = {
    "vit": ("ViTConfig", TOKENS, SIZE, 4, 1),
    "dinov2": ("Dinov2Config", TOKENS, SIZE, 4, 1),
    "dinov2 registers": (
        "Dinov2WithRegistersConfig",
        {**TOKENS, "num_register_tokens": 4},
        SIZE,
        4,
        5,
    ),
    "dinov3": ("DINOv3ViTConfig", {**TOKENS, "num_register_tokens": 4}, SIZE, 4, 5),
    "ijepa": ("IJepaConfig", TOKENS, SIZE, 4, 0),
    "swin": (
        "SwinConfig",
        {
            "image_size": 64,
            "patch_size": 4,
            "embed_dim": 24,
            "depths": [2, 2],
            "num_heads": [2, 4],
            "window_size": 4,
        },
        64,
        8,
        0,
    ),
    "resnet": (
        "ResNetConfig",
        {
            "embedding_size": 8,
            "hidden_sizes": [8, 16, 24, 32],
            "depths": [1, 1, 1, 1],
            "layer_type": "basic",
        },
        64,
        2,
        0,
    ),
}


def save(name: str, folder: Path) -> Any:
    kind, options, *_ = MODELS[name]
    model = transformers.AutoModel.from_config(getattr(transformers, kind)(**options)).eval()
    model.save_pretrained(folder)
    transformers.ViTImageProcessor(image_mean=MEAN, image_std=STD).save_pretrained(folder)
    return model


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", MODELS)
def test_a_folder_gives_grids_and_the_image_vector(
    name: str, tmp_path: Path, generator: torch.Generator
) -> None:
    *_, size, cells, prefix = MODELS[name]
    model = save(name, tmp_path)
    loaded = load_backbone(
        tmp_path, BackboneSpec(format="huggingface", image_size=size if name == "resnet" else None)
    )
    assert isinstance(loaded.backbone, torch.nn.Module)
    assert not any(module.training for module in loaded.backbone.modules())
    assert not any(parameter.requires_grad for parameter in loaded.backbone.parameters())
    assert loaded.backbone.image_size == size
    assert loaded.backbone.patch_size == size // cells
    images = random_images(generator, size)
    with torch.no_grad():
        expected = model(images).last_hidden_state
    found = loaded.backbone.features(images, (0, -1))
    if expected.ndim == 3:
        image = expected[:, 0] if prefix else expected.mean(1)
        expected = expected[:, prefix:].transpose(1, 2).unflatten(2, (cells, cells))
    else:
        image = expected.mean((2, 3))
    torch.testing.assert_close(found.patches[1], expected)
    torch.testing.assert_close(found.image, image)
    assert found.patches[0].shape[0] == 2
    with pytest.raises(InputError, match="layer 9 does not exist"):
        loaded.backbone.features(images, (9,))


# Transformers 4 names on the left, 5 on the right.
RENAMED = (
    ("encoder.layer.", "layers."),
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
)
SAME = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.o_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def plain_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names of ``plain_models`` for the tensors of a Transformers ViT."""
    held = {}
    for name, value in weights.items():
        for old, new in RENAMED:
            name = name.replace(old, new)
        held[name] = value
    plain = {
        "cls_token": held["embeddings.cls_token"],
        "pos_embed": held["embeddings.position_embeddings"],
    }
    for kind in ("weight", "bias"):
        plain[f"norm.{kind}"] = held[f"layernorm.{kind}"]
        plain[f"patch_embed.proj.{kind}"] = held[f"embeddings.patch_embeddings.projection.{kind}"]
        for block in range(DEPTH):
            stem = f"layers.{block}"
            joint = [held[f"{stem}.attention.{part}_proj.{kind}"] for part in "qkv"]
            plain[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat(joint)
            for ours, theirs in SAME.items():
                plain[f"blocks.{block}.{ours}.{kind}"] = held[f"{stem}.{theirs}.{kind}"]
    return plain


def test_a_vit_agrees_with_a_forward_pass_written_by_hand(
    tmp_path: Path, generator: torch.Generator
) -> None:
    model = save("vit", tmp_path)
    model.config.layer_norm_eps = 1e-6
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-6
    model.save_pretrained(tmp_path)
    images = random_images(generator)
    found = load_backbone(tmp_path, BackboneSpec(format="huggingface")).backbone.features(images)
    expected = vit_features(plain_names(model.state_dict()), images)
    torch.testing.assert_close(found.patches[0], expected.patches[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.image, expected.image, rtol=1e-4, atol=1e-4)


def test_positions_are_interpolated_at_another_size(
    tmp_path: Path, generator: torch.Generator
) -> None:
    save("dinov2", tmp_path)
    loaded = load_backbone(tmp_path, BackboneSpec(format="huggingface", image_size=48))
    features = loaded.backbone.features(random_images(generator, 48))
    assert features.patches[0].shape == (2, DIM, 6, 6)


def test_the_stored_normalization_is_used_unless_another_is_asked_for(tmp_path: Path) -> None:
    save("vit", tmp_path)

    def found(**asked: Any) -> tuple[Any, Any]:
        backbone = load_backbone(tmp_path, BackboneSpec("huggingface", **asked)).backbone
        return backbone.mean, backbone.std

    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert found() == (tuple(MEAN), tuple(STD))
    assert found(normalization="imagenet") == imagenet
    stored = tmp_path / "preprocessor_config.json"
    stored.write_text(json.dumps({"do_normalize": False, "image_mean": MEAN, "image_std": STD}))
    assert found() == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    stored.unlink()
    with pytest.raises(CheckpointError, match=r"no preprocessor_config\.json .*--normalization im"):
        found()
    assert found(normalization="imagenet") == imagenet
    with pytest.raises(CheckpointError, match="goes with timm architectures, not with format=hug"):
        found(normalization="architecture")


def test_a_missing_tensor_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save("vit", tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    del weights["layernorm.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"does not fill ViTModel: layernorm\.weight"):
        load_backbone(tmp_path, BackboneSpec(format="huggingface"))


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a Transformers folder: it has no config"):
        load_backbone(tmp_path, BackboneSpec(format="huggingface"))
    (tmp_path / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(CheckpointError, match="Transformers cannot load"):
        load_backbone(tmp_path, BackboneSpec(format="huggingface"))


def test_intermediate_blocks_go_through_the_final_norm(
    tmp_path: Path, generator: torch.Generator
) -> None:
    model, images = save("vit", tmp_path), random_images(generator)
    with torch.no_grad():
        hidden = model(images, output_hidden_states=True).hidden_states[1]
        expected = model.layernorm(hidden)[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    found = load_backbone(tmp_path, BackboneSpec(format="huggingface")).backbone.features(
        images, (0,)
    )
    torch.testing.assert_close(found.patches[0], expected)
    assert not torch.allclose(expected, hidden[:, 1:].transpose(1, 2).unflatten(2, (4, 4)))
