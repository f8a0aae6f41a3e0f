"""Live models are read as they are: same tokens as by hand, nothing switched, gradients kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, distributed, nn

from densescope.errors import InputError
from densescope.features.backbones import Backbone
from densescope.features.live import live_backbone, patch_tokens, tokens_of
from densescope.features.protocol import Features

SIZE = 32
VIT = {"img_size": SIZE, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


def images(count: int = 2, size: int = SIZE) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def vit(**options: Any) -> Any:
    return timm.create_model("vit_tiny_patch16_224", num_classes=0, **{**VIT, **options})


def resnet() -> Any:
    return timm.create_model("resnet18", num_classes=0)


def swin() -> Any:
    name = "swin_tiny_patch4_window7_224"
    options = {"img_size": SIZE, "window_size": 4, "embed_dim": 12, "depths": (1, 1)}
    return timm.create_model(name, num_classes=0, num_heads=(2, 2), **options)


def masked_timm() -> Any:
    from lightly.models.modules import MaskedVisionTransformerTIMM

    return MaskedVisionTransformerTIMM(vit(reg_tokens=2))


def torchvision_vit() -> Any:
    options = {"num_layers": 2, "num_heads": 2, "hidden_dim": 24, "mlp_dim": 48}
    return torchvision.models.VisionTransformer(image_size=SIZE, patch_size=8, **options)


def masked_torchvision() -> Any:
    from lightly.models.modules import MaskedVisionTransformerTorchvision

    return MaskedVisionTransformerTorchvision(torchvision_vit())


def mae() -> Any:
    from lightly.models.modules import MAEBackbone

    return MAEBackbone.from_vit(torchvision_vit())


def transformer(kind: str = "Dinov2WithRegisters", auto: str = "AutoModel", **more: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    options = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    options |= {"intermediate_size": 48, "image_size": SIZE, "patch_size": 8, **more}
    config = getattr(transformers, f"{kind}Config")(**options)
    return getattr(transformers, auto).from_config(config)


class Cells(nn.Module):
    """A user's network that gives one feature map, or its tokens."""

    def __init__(self, *, tokens: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 8, 8), nn.BatchNorm2d(6), nn.Dropout(0.5))
        self.tokens = tokens

    def forward(self, pixels: Tensor) -> Tensor:
        grid: Tensor = self.layers(pixels)
        return grid.flatten(2).mT if self.tokens else grid


class Own:
    """A backbone that is no module."""

    patch_size, image_size, mean, std = 8, SIZE, (0.0,) * 3, (1.0,) * 3

    def features(self, pixels: Tensor, layers: Any = (-1,)) -> Features:
        grid = nn.functional.avg_pool2d(pixels, 8)
        return Features((grid,), grid.mean((2, 3)))


By = Callable[[Any, Tensor], Any]
# the model, what a training step calls, its patch tokens by hand, its image vector by hand
MODELS: dict[str, tuple[Callable[[], Any], By, By, By]] = {
    "timm vit": (
        vit,
        lambda m, x: m.forward_features(x),
        lambda m, x: m.forward_features(x)[:, 1:],
        lambda m, x: m.forward_features(x)[:, 0],
    ),
    "timm registers": (
        lambda: vit(reg_tokens=3, class_token=False, global_pool="avg", fc_norm=False),
        lambda m, x: m.forward_features(x),
        lambda m, x: m.forward_features(x)[:, 3:],
        lambda m, x: m.forward_features(x)[:, 3:].mean(1),
    ),
    "timm resnet": (
        resnet,
        lambda m, x: m.forward_features(x),
        lambda m, x: m.forward_features(x).flatten(2).mT,
        lambda m, x: m.forward_features(x).mean((2, 3)),
    ),
    "timm swin": (
        swin,
        lambda m, x: m.forward_features(x),
        lambda m, x: m.forward_features(x).flatten(1, 2),
        lambda m, x: m.forward_features(x).mean((1, 2)),
    ),
    "lightly, timm inside": (
        masked_timm,
        lambda m, x: m.encode(x),
        lambda m, x: m.encode(x)[:, 3:],
        lambda m, x: m(x),
    ),
    "lightly, torchvision inside": (
        masked_torchvision,
        lambda m, x: m.encode(x),
        lambda m, x: m.encode(x)[:, 1:],
        lambda m, x: m(x),
    ),
    "lightly's older MAE": (
        mae,
        lambda m, x: m.encode(x),
        lambda m, x: m.encode(x)[:, 1:],
        lambda m, x: m.encode(x)[:, 0],
    ),
    "transformers registers": (
        lambda: transformer(num_register_tokens=4),
        lambda m, x: m(x),
        lambda m, x: m(x).last_hidden_state[:, 5:],
        lambda m, x: m(x).last_hidden_state[:, 0],
    ),
    "transformers with a head": (
        lambda: transformer("ViT", "AutoModelForImageClassification"),
        lambda m, x: m.vit(x),
        lambda m, x: m.vit(x).last_hidden_state[:, 1:],
        lambda m, x: m.vit(x).last_hidden_state[:, 0],
    ),
    "transformers, two prefix tokens": (
        lambda: transformer("DeiT"),
        lambda m, x: m(x),
        lambda m, x: m(x).last_hidden_state[:, 2:],
        lambda m, x: m(x).last_hidden_state[:, 0],
    ),
    "a feature map": (
        Cells,
        lambda m, x: m(x),
        lambda m, x: m(x).flatten(2).mT,
        lambda m, x: m(x).mean((2, 3)),
    ),
    "tokens": (
        lambda: Cells(tokens=True),
        lambda m, x: m(x),
        lambda m, x: m(x),
        lambda m, x: m(x).mean(1),
    ),
}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def model_of(name: str) -> Any:
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        return MODELS[name][0]()


@pytest.mark.parametrize("name", MODELS)
def test_patch_tokens_are_those_taken_by_hand(name: str) -> None:
    _, output, tokens, image = MODELS[name]
    model = model_of(name).eval()
    found, expected = patch_tokens(model, images()), tokens(model, images())
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(tokens_of(model, output(model, images())), expected)
    backbone = live_backbone(model, image_size=SIZE, patch_size=8)
    assert isinstance(backbone, Backbone)
    features = backbone.features(images())
    torch.testing.assert_close(features.patches[0].flatten(2).mT, expected)
    torch.testing.assert_close(features.image, image(model, images()))
    assert features.patches[0].shape[2:] == (SIZE // backbone.patch_size,) * 2


@pytest.mark.parametrize("name", MODELS)
def test_gradients_flow_and_nothing_is_switched(name: str) -> None:
    model = model_of(name).train()
    first = next(model.parameters())
    first.requires_grad_(False)
    before = [(m.training, *(p.requires_grad for p in m.parameters())) for m in model.modules()]
    live_backbone(model, image_size=SIZE, patch_size=8)
    tokens = patch_tokens(model, images())
    after = [(m.training, *(p.requires_grad for p in m.parameters())) for m in model.modules()]
    assert before == after
    tokens.square().sum().backward()
    assert first.grad is None
    assert any(p.grad is not None and bool(p.grad.any()) for p in model.parameters())


@pytest.mark.parametrize("name", ["timm vit", "a feature map", "transformers registers"])
def test_one_forward_pass(name: str) -> None:
    model = model_of(name)
    calls = []
    convolution = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    convolution.register_forward_hook(lambda *_: calls.append(1))
    patch_tokens(model, images())
    assert calls == [1]


def test_the_weights_are_shared_not_copied() -> None:
    model = vit().eval()
    backbone = live_backbone(model, image_size=SIZE)
    before = backbone.features(images()).patches[0]
    with torch.no_grad():
        model.norm.bias.add_(1)
    torch.testing.assert_close(backbone.features(images()).patches[0], before + 1)
    assert (backbone.patch_size, backbone.image_size) == (8, SIZE)
    assert backbone.mean == (0.485, 0.456, 0.406)


def test_a_mode_set_on_the_live_model_counts() -> None:
    model = Cells()
    backbone = live_backbone(model, image_size=SIZE, patch_size=8)
    assert not torch.equal(backbone.features(images()).image, backbone.features(images()).image)
    model.eval()
    assert torch.equal(backbone.features(images()).image, backbone.features(images()).image)


def test_wrappers_are_looked_through() -> None:
    model = vit().eval()
    expected = patch_tokens(model, images())
    for wrapped in (nn.DataParallel(model), torch.compile(model), nn.DataParallel(masked_timm())):
        inner = live_backbone(wrapped, image_size=SIZE)
        assert inner.features(images()).patches[0].shape == (2, 24, 4, 4)
    torch.testing.assert_close(patch_tokens(torch.compile(model), images()), expected)


def test_a_backbone_is_taken_as_it_is() -> None:
    own = Own()
    assert live_backbone(own, image_size=SIZE) is own
    expected = own.features(images()).patches[0].flatten(2).mT
    assert torch.equal(patch_tokens(own, images()), expected)
    with pytest.raises(InputError, match="built for 32 pixels, not 48: ask for its own image_size"):
        live_backbone(own, image_size=48)


def test_masked_outputs_give_the_patches_they_hold() -> None:
    model = masked_timm().eval()
    keep = torch.tensor([[0, 1, 2, 5, 9], [0, 1, 2, 4, 7]])
    output = model.encode(images(), idx_keep=keep)
    assert torch.equal(tokens_of(model, output), output[:, 3:])
    masked = transformer("ViTMAE")
    output = masked(images())
    assert torch.equal(tokens_of(masked, output), output.last_hidden_state[:, 1:])
    with pytest.raises(InputError, match="a ViTMAEModel leaves out a random 75% of the patches"):
        patch_tokens(masked, images())


def test_images_need_not_be_square() -> None:
    pixels = images(2, 64)[:, :, :32]
    model = vit(dynamic_img_size=True)
    assert patch_tokens(model, pixels).shape == (2, 32, 24)
    assert patch_tokens(Cells(tokens=True), pixels).shape == (2, 32, 6)
    backbone = live_backbone(Cells(tokens=True), image_size=64, patch_size=8)
    with pytest.raises(InputError, match="a Cells gives 32 patches, which do not fill a square"):
        backbone.features(pixels)


def test_only_known_layers_are_given() -> None:
    backbone = live_backbone(Cells(), image_size=SIZE, patch_size=8)
    with pytest.raises(InputError, match="a Cells gives one layer: ask for layer -1"):
        backbone.features(images(), (-2,))
    assert len(live_backbone(vit(), image_size=SIZE).features(images(), (0, -1)).patches) == 2


def test_a_training_step_needs_no_second_pass() -> None:
    for student in (vit(), swin(), resnet()):
        output = student.eval().forward_features(images())
        torch.testing.assert_close(
            student.forward_head(output, pre_logits=True), student(images()), rtol=1e-5, atol=1e-6
        )
        assert torch.equal(tokens_of(student, output), patch_tokens(student, images()))


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    distributed.init_process_group("gloo", f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_ddp_is_looked_through_where_its_averaging_is_not_bypassed() -> None:
    model = vit().eval()
    parallel = nn.parallel.DistributedDataParallel(model)
    with pytest.raises(InputError, match="would not average the gradient of a forward pass around"):
        patch_tokens(parallel, images())
    with torch.no_grad():
        expected = patch_tokens(model, images())
        torch.testing.assert_close(patch_tokens(parallel, images()), expected)
        grid = live_backbone(parallel, image_size=SIZE).features(images()).patches[0]
        torch.testing.assert_close(grid.flatten(2).mT, expected)
    output = model.forward_features(images())
    assert torch.equal(tokens_of(parallel, output), output[:, 1:])


@pytest.mark.usefixtures("one_process")
def test_fsdp_is_refused() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = vit()
    output = model.forward_features(images())
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    for call in (lambda: patch_tokens(model, images()), lambda: live_backbone(model, image_size=1)):
        with pytest.raises(
            InputError, match="VisionTransformer is sharded by FSDP, which can only"
        ):
            call()
    assert torch.equal(tokens_of(model, output), output[:, 1:])


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: patch_tokens(nn.Flatten(), images()),
            r"the output of a Flatten is shape \(2, 3072\), not images patches dim or images dim "
            r"rows columns \(of a timm model, forward_features gives tokens\): take its patch",
        ),
        (lambda: patch_tokens(7, images()), "cannot read patch tokens from a int: known are timm"),
        (lambda: tokens_of(vit(), (1, 2)), "the output of a VisionTransformer is a tuple, not"),
        (
            lambda: tokens_of(vit(), torch.zeros(2, 1, 24)),
            "has 1 tokens per image and the first 1 are class and register tokens: no patch",
        ),
        (
            lambda: live_backbone(Cells(), image_size=SIZE),
            "a Cells does not say its patch size: give patch_size=",
        ),
    ],
)
def test_refusals(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        call()
