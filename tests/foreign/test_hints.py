"""Every hint, followed to its end: the backbone that comes out has the features of the network."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torchvision.models.swin_transformer import SwinTransformer

from densescope.errors import CheckpointError
from densescope.features.backbones import Features
from densescope.features.protocol import Backbone
from tests.features.plain_models import perturb, random_images, vit_features, vit_weights
from tests.features.written_layouts import SMALL_VIT, VIT_NAME, head, prefixed
from tests.foreign.hints import advised, follow
from tests.foreign.loading import load

VIT: dict[str, Any] = {"architecture": VIT_NAME, "architecture_options": SMALL_VIT}


def assert_same(backbone: Backbone, expected: Features, images: torch.Tensor) -> None:
    found = backbone.features(images)
    torch.testing.assert_close(found.patches[0], expected.patches[0], rtol=2e-4, atol=2e-4)
    torch.testing.assert_close(found.image, expected.image, rtol=2e-4, atol=2e-4)


@dataclass(frozen=True)
class Misread:
    """A file, what somebody tried with it, and what the first sentence has to say.

    ``content`` makes the file of the network that is meant and another one.
    """

    content: Callable[[dict[str, Any], dict[str, Any]], Any]
    tried: dict[str, Any]
    says: str
    heads: int = 4
    more: dict[str, Any] = field(default_factory=dict)


def lightning(**parts: Any) -> dict[str, Any]:
    tensors = {name: value for part in parts.values() for name, value in part.items()}
    return {"state_dict": tensors, "pytorch-lightning_version": "2.5.0", "epoch": 3}


MISREAD = {
    "a method's format for a Lightning file": Misread(
        lambda a, b: lightning(t=prefixed("teacher.backbone.", a)),
        {"format": "dino", **VIT},
        "would fit: timm (weights=teacher.backbone.), dino (weights=state_dict.teacher.backbone.)",
    ),
    "a sub-module that is called otherwise": Misread(
        lambda a, b: lightning(
            t=prefixed("model.encoder.", a), h=prefixed("head.", {"w": a["cls_token"]})
        ),
        {"format": "lightning", **VIT},
        "would fit: timm (weights=model.encoder.), lightning (weights=model.encoder.)",
    ),
    "lightly-train's last.ckpt": Misread(
        lambda a, b: lightning(
            t=prefixed("teacher_embedding_model.wrapped_model._model.", a),
            s=prefixed("student_embedding_model.wrapped_model._model.", b),
        ),
        {"format": "lightning", **VIT},
        "would fit: lightning (weights=teacher_embedding_model.wrapped_model._model. or student",
    ),
    "more in front of the names": Misread(
        lambda a, b: lightning(t=prefixed("backbone.vit.", a)),
        {"format": "lightning", **VIT},
        "begin with 'backbone.vit.': give --weights backbone.vit.",
    ),
    "more in front of names of a method": Misread(
        lambda a, b: {"teacher": prefixed("module.backbone.vit.", a)},
        {"format": "dino", **VIT},
        "begin with 'backbone.vit.': give --weights backbone.vit.",
    ),
    "more in front of another set of weights": Misread(
        lambda a, b: {
            "teacher": prefixed("backbone.vit.", b),
            "student": prefixed("module.backbone.vit.", a),
        },
        {"format": "dino", "weights": "student", **VIT},
        "begin with 'student.backbone.vit.': give --weights student.backbone.vit.",
    ),
    "twelve heads stay twelve": Misread(
        lambda a, b: {"state_dict": prefixed("module.momentum_encoder.vit.", a)},
        {
            "format": "mocov3",
            "architecture": VIT_NAME,
            "architecture_options": dict(SMALL_VIT, num_heads=12),
        },
        "give --weights momentum_encoder.vit.",
        heads=12,
    ),
    "a prefix in a plain file": Misread(
        lambda a, b: prefixed("backbone.", a),
        {"format": "timm", **VIT},
        "begin with 'backbone.': give --weights backbone.",
    ),
    "a key that nobody knows": Misread(
        lambda a, b: {"net": a, "step": 7},
        {"format": "timm", **VIT},
        "would fit: timm (weights=net.)",
    ),
    "an averaged copy alone": Misread(
        lambda a, b: {"model_ema": a, "epoch": 3},
        {"format": "mae", **VIT},
        "would fit: timm (weights=ema)",
    ),
    "an averaged copy with a prefix": Misread(
        lambda a, b: {"model": b, "ema": prefixed("encoder.", a)},
        {"format": "timm", "weights": "ema", **VIT},
        "begin with 'ema.encoder.': give --weights ema.encoder.",
    ),
    "another set of weights": Misread(
        lambda a, b: {"student": prefixed("module.backbone.", a)},
        {"format": "dino", **VIT},
        "would fit: dino (weights=student)",
    ),
    "another method": Misread(
        lambda a, b: {"state_dict": prefixed("module.base_encoder.", a)},
        {"format": "dino", **VIT},
        "would fit: mocov3-release, mocov3 (weights=base)",
    ),
    "a plain file": Misread(lambda a, b: a, {"format": "dino", **VIT}, "would fit: timm"),
    "a plain file under a key": Misread(
        lambda a, b: {"model": a}, {"format": "dino-release", **VIT}, "would fit: timm"
    ),
}


@pytest.mark.parametrize("name", MISREAD)
def test_every_way_a_sentence_names_leads_to_the_network(
    name: str, tmp_path: Path, generator: torch.Generator
) -> None:
    case = MISREAD[name]
    meant, other = vit_weights(generator), vit_weights(generator)
    path = tmp_path / "step_1000.pt"
    torch.save(case.content(meant, other), path)
    images = random_images(generator)
    with pytest.raises(CheckpointError) as refused:
        load(path, **case.tried)
    assert case.says in str(refused.value)
    assert "--loader LOADER" not in str(refused.value), "custom is not the only way"
    meant_at = 0
    for way, _ in enumerate(advised(str(refused.value))):
        followed = follow(path, case.tried, way=way)
        expected = vit_features(meant, images, heads=case.heads)
        found = followed.loaded.backbone.features(images)
        if torch.allclose(found.image, expected.image, atol=2e-4):
            meant_at += 1
        else:  # another network of the file, or of another code base: named, not slipped in
            assert way > 0
            assert followed.settings["weights"] != case.tried.get("weights") or (
                followed.settings["format"] != case.tried["format"]
            )
    assert meant_at


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("vit_tny", "vit_tiny_patch16_224"),
        ("vit_smal", "vit_small_patch16_224"),
        ("vit_small", "vit_small_patch16_224"),
        ("vit_base", "vit_base_patch16_224"),
        ("resent50", "resnet50"),
        ("swin_tiny", "swin_tiny_patch4_window7_224"),
        ("convnext_smal", "convnext_small"),
    ],
)
def test_the_first_name_that_is_suggested_is_the_plain_one(wrong: str, right: str) -> None:
    from densescope.features.architectures import build_architecture

    with pytest.raises(CheckpointError, match=rf"no architecture '{wrong}'; did you mean {right} "):
        build_architecture(wrong, {})


def test_a_misspelt_architecture_is_mended(tmp_path: Path, generator: torch.Generator) -> None:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=1, img_size=32).eval()
    path = tmp_path / "a.pth"
    torch.save(model.state_dict(), path)
    tried = {
        "format": "timm",
        "architecture": "vit_tny",
        "architecture_options": {"depth": 1, "img_size": 32},
    }
    followed = follow(path, tried)
    assert followed.loaded.architecture == "vit_tiny_patch16_224"
    images = random_images(generator)
    with torch.no_grad():
        tokens = model.forward_features(images)
    assert_same(
        followed.loaded.backbone,
        Features((tokens[:, 1:].mT.reshape(2, -1, 2, 2),), tokens[:, 0]),
        images,
    )


FILE_LOADER = """
import torch
from densescope.features.backbones import Features


class Mine(torch.nn.Module):
    patch_size, image_size, mean, std = 8, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

    def __init__(self, kernel):
        super().__init__()
        self.kernel = torch.nn.Parameter(kernel)

    def features(self, images, layers=(-1,)):
        grid = torch.nn.functional.conv2d(images, self.kernel, stride=8)
        return Features((grid,), grid.mean((2, 3)))


def load_backbone(path, **options):
    return Mine(torch.load(path, weights_only=True)["net"]["mine.kernel"])
"""


def test_a_file_without_a_known_network_needs_a_loader(
    tmp_path: Path, generator: torch.Generator
) -> None:
    kernel = torch.randn(4, 3, 8, 8, generator=generator)
    path, loader = tmp_path / "a.pth", tmp_path / "LOADER.py"
    torch.save({"net": {"mine.kernel": kernel}}, path)
    with pytest.raises(CheckpointError, match=r"No known format fits: .*--loader LOADER\.py\)$"):
        load(path, format="timm", **VIT)
    loader.write_text(FILE_LOADER)
    images = random_images(generator)
    expected = torch.nn.functional.conv2d(images, kernel, stride=8)
    found = load(path, format="custom", loader=loader).backbone.features(images)
    torch.testing.assert_close(found.patches[0], expected)


def test_each_library_is_told_of_its_own_folders(
    tmp_path: Path, generator: torch.Generator
) -> None:
    """Folders of timm and Transformers both hold config.json and model.safetensors."""
    from tests.features.test_huggingface_families import VIT as TINY
    from tests.features.test_huggingface_families import written

    transformers = written("ViTConfig", TINY, tmp_path / "transformers")
    followed = follow(tmp_path / "transformers", {"format": "timm", "architecture": VIT_NAME})
    assert followed.settings["format"] == "huggingface"
    images = random_images(generator)
    with torch.no_grad():
        tokens = transformers(images).last_hidden_state
    torch.testing.assert_close(followed.loaded.backbone.features(images).image, tokens[:, 0])
    weights = save_for_hub(tmp_path / "timm", generator)
    followed = follow(tmp_path / "timm", {"format": "huggingface"})
    assert followed.settings["format"] == "timm"
    assert_same(followed.loaded.backbone, vit_features(weights, images), images)
    assert followed.loaded.backbone.std == (0.25, 0.25, 0.25)


def test_a_timm_model_that_transformers_wrapped_is_read_by_timm(
    tmp_path: Path, generator: torch.Generator
) -> None:
    from tests.features.test_huggingface_families import written

    options = {"architecture": VIT_NAME, "model_args": dict(SMALL_VIT)}
    model = written("TimmWrapperConfig", options, tmp_path)
    images = random_images(generator)
    followed = follow(tmp_path, {"format": "huggingface"})
    assert followed.settings["format"] == "timm"
    with torch.no_grad():
        tokens = model(images).last_hidden_state
    expected = Features((tokens[:, 1:].mT.reshape(2, -1, 4, 4),), tokens[:, 0])
    assert_same(followed.loaded.backbone, expected, images)


def save_for_hub(folder: Path, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """What timm's own code writes for Hugging Face's hub."""
    weights = vit_weights(generator)
    model = timm.create_model(VIT_NAME, num_classes=0, **SMALL_VIT)
    model.load_state_dict(weights)
    model.pretrained_cfg = {**model.pretrained_cfg, "std": (0.25, 0.25, 0.25)}
    timm.models.save_for_hf(model, folder, model_args=dict(SMALL_VIT))
    return weights


def test_another_window_is_seen_in_the_file(tmp_path: Path, generator: torch.Generator) -> None:
    """EsViT's Swin-T with windows of 14: its last stage has 7 x 7 cells, one window."""
    model = swin_tiny(14)
    model.features[7] = swin_tiny(7).features[7]
    perturb(model, generator)
    path = tmp_path / "checkpoint0100.pth"
    names = {name: swin_name(name) for name in model.state_dict() if not name.startswith("head.")}
    weights = {names[name]: model.state_dict()[name] for name in names}
    torch.save({"teacher": weights | head(generator, "head.mlp.0."), "epoch": 101}, path)
    followed = follow(path, {"format": "esvit"})
    (sentence,) = followed.sentences
    assert sentence.endswith(
        "give --architecture swin_tiny_patch4_window7_224 --architecture-option window_size=14"
    )
    images = random_images(generator, 224)[:1]
    with torch.no_grad():
        grid = model.norm(model.features(images)).permute(0, 3, 1, 2)
    assert_same(followed.loaded.backbone, Features((grid,), grid.mean((2, 3))), images)


def swin_tiny(window: int) -> SwinTransformer:
    return SwinTransformer(
        patch_size=[4, 4],
        embed_dim=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=[window, window],
        stochastic_depth_prob=0.0,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
    ).eval()


def swin_name(name: str) -> str:
    """A name of torchvision's Swin as the original code has it."""
    _, number, rest = name.split(".", 2) if name.startswith("features.") else ("", "", name)
    if number == "0":
        rest = {"0": "patch_embed.proj", "2": "patch_embed.norm"}[rest[0]] + rest[1:]
    elif number:
        kind = "blocks." if int(number) % 2 else "downsample."
        rest = f"layers.{(int(number) - 1) // 2}.{kind}{rest}"
    return rest.replace(".mlp.0.", ".mlp.fc1.").replace(".mlp.3.", ".mlp.fc2.")


def test_a_size_between_cells_is_rounded_either_way(
    tmp_path: Path, generator: torch.Generator
) -> None:
    torch.save(vit_weights(generator), tmp_path / "a.pth")
    tried = {"format": "timm", **VIT, "image_size": 45}
    for way, size in enumerate((40, 48)):
        followed = follow(tmp_path / "a.pth", tried, way=way)
        assert followed.loaded.backbone.image_size == size
        grid = followed.loaded.backbone.features(random_images(generator, size)).patches[0]
        assert grid.shape[-1] == size // 8


def test_a_misspelt_option_and_a_misspelt_format_are_mended(
    tmp_path: Path, generator: torch.Generator
) -> None:
    weights, images = vit_weights(generator), random_images(generator)
    torch.save({"teacher": prefixed("backbone.", weights)}, tmp_path / "a.pth")
    misspelt = {**SMALL_VIT, "embed_dm": SMALL_VIT["embed_dim"]}
    del misspelt["embed_dim"]
    tried = {"format": "dinno", "architecture": VIT_NAME, "architecture_options": misspelt}
    followed = follow(tmp_path / "a.pth", tried)
    assert len(followed.sentences) == 2
    assert_same(followed.loaded.backbone, vit_features(weights, images), images)


def test_a_network_of_no_known_size_is_read_with_its_heads(
    tmp_path: Path, generator: torch.Generator
) -> None:
    """What leaves no trace, N, is filled in by who trained it; the rest is in the sentence."""
    weights, images = vit_weights(generator), random_images(generator)
    torch.save({"teacher": prefixed("backbone.", weights)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError) as refused:
        load(tmp_path / "a.pth", format="dino")
    (way,) = advised(str(refused.value))
    options = {**way["architecture_options"], "num_heads": 4}
    assert "num_heads=N" in str(refused.value)
    loaded = load(tmp_path / "a.pth", format="dino", architecture_options=options)
    assert_same(loaded.backbone, vit_features(weights, images), images)
    without = {name: value for name, value in options.items() if name != "num_heads"}
    with pytest.raises(CheckpointError, match="Give --architecture-option num_heads=N too"):
        load(tmp_path / "a.pth", format="dino", architecture_options=without)


LOADER = """
import torch
from transformers import Siglip2VisionModel
from densescope.features.backbones import Features


class Mine(torch.nn.Module):
    patch_size, image_size, mean, std = 8, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

    def __init__(self, model):
        super().__init__()
        self.model = model

    def features(self, images, layers=(-1,)):
        count = len(images)
        patches = images.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 4, 5, 1)
        tokens = self.model(
            patches.reshape(count, 16, -1),
            torch.ones(count, 16, dtype=torch.long),
            torch.tensor([[4, 4]] * count),
        ).last_hidden_state
        return Features((tokens.mT.reshape(count, -1, 4, 4),), tokens.mean(1))


def load_backbone(path, **options):
    return Mine(Siglip2VisionModel.from_pretrained(path))
"""


def test_a_loader_reads_what_no_format_does(tmp_path: Path, generator: torch.Generator) -> None:
    from tests.features.test_huggingface_families import REFUSED, written

    folder, loader = tmp_path / "model", tmp_path / "LOADER.py"
    model = written("Siglip2VisionConfig", REFUSED["Siglip2VisionConfig"], folder)
    with pytest.raises(CheckpointError, match=r"--format custom --loader LOADER\.py\)$"):
        load(folder, format="huggingface", normalization="imagenet")
    loader.write_text(LOADER)
    loaded = load(folder, format="custom", loader=loader)
    images = random_images(generator)
    patches = images.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 4, 5, 1).reshape(2, 16, -1)
    with torch.no_grad():
        sides = torch.tensor([[4, 4]] * 2)
        tokens = model(patches, torch.ones(2, 16, dtype=torch.long), sides).last_hidden_state
    torch.testing.assert_close(loaded.backbone.features(images).image, tokens.mean(1))


# Part of a sentence of features/ that says what to type -> the test that does it.
EXECUTED = {
    "has no weights {}: give {}, or": "test_weights_that_a_file_does_not_have_are_wrong_usage",
    "begin with {}: give --weights {}": "test_every_way_a_sentence_names_leads_to_the_network",
    "Formats that would fit: {}": "test_every_way_a_sentence_names_leads_to_the_network",
    "No known format fits": "test_a_file_without_a_known_network_needs_a_loader",
    "that returns its grid (--format custom": "test_a_loader_reads_what_no_format_does",
    "Transformers model: give --format": "test_each_library_is_told_of_its_own_folders",
    "which timm itself reads: give": "test_each_library_is_told_of_its_own_folders",
    "give --normalization imagenet": "test_each_library_is_told_of_its_own_folders",
    "pixels, take {} or {}": "test_a_size_between_cells_is_rounded_either_way",
    "; did you mean {}?": "test_a_misspelt_option_and_a_misspelt_format_are_mended",
    "did you mean {}?": "test_a_misspelt_option_and_a_misspelt_format_are_mended",
    ": give {} {}": "test_the_timm_row_asks_for_an_architecture",
    "By its shapes the file has {}{}: give {}{}": "test_all_that_shapes_show_is_in_the_advice",
    "num_heads=N too": "test_a_network_of_no_known_size_is_read_with_its_heads",
    "num_heads=N, N being the heads": "test_a_width_of_ones_own_is_told_what_is_missing",
    "By its shapes it is {}: give {}{}": "test_the_advice_is_an_architecture_with_the_heads_of_its",
    "MoCo v3's code, whose network": "test_a_converted_mocov3_is_never_given_six_heads",
    "give --architecture-option num_heads={}": "test_heads_that_nobody_gave_are_refused_where_the",
    "choose one checkpoint per epoch": "tests/features/test_discovery.py",
    "for pixels up to 255 give {}": "tests/features/test_normalization.py",
    "released": "tests/features/test_released.py",
}
_SAYS_WHAT_TO_TYPE = re.compile(
    r"[gG]ive (--|\{\})|did you mean|would fit: |, take \{|--loader LOADER|: --format|--format rel"
)


def sentences_of(file: Path) -> list[str]:
    """String literals of a module, ``{}`` for each value that is filled in."""
    tree = ast.parse(file.read_text())
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.Constant) else "{}" for p in node.values)
            found.append("".join(map(str, parts)))
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in inside
        ):
            found.append(node.value)
    return [text for text in found if "\n" not in text]


def test_every_sentence_that_says_what_to_type_is_executed() -> None:
    root = Path(__file__).parents[2]
    tests = "".join(file.read_text() for file in (root / "tests").rglob("*.py"))
    unknown = [
        text
        for file in sorted((root / "src/densescope/features").glob("*.py"))
        for text in sentences_of(file)
        if file.name != "format_words.py" and _SAYS_WHAT_TO_TYPE.search(text)
        if not any(part in text for part in EXECUTED)
    ]
    assert unknown == []
    for name in EXECUTED.values():
        assert (root / name).is_file() if "/" in name else f"def {name}" in tests
