"""Files that installed libraries write themselves, beside our own in their layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torchvision.models import VisionTransformer, resnet18

from densescope.errors import CheckpointError
from densescope.features.checkpoints import read_checkpoint
from densescope.features.inert import module_state
from tests.features.plain_models import RESNET_OPTIONS, perturb, random_images, resnet_weights
from tests.features.written_layouts import SMALL_VIT, VIT_NAME, as_sequential, prefixed
from tests.foreign.hints import follow
from tests.foreign.loading import load

pytestmark = pytest.mark.filterwarnings("ignore")
VIT: dict[str, Any] = {"architecture": VIT_NAME, "architecture_options": SMALL_VIT}


def tiny_vit(generator: torch.Generator) -> Any:
    return perturb(timm.create_model(VIT_NAME, num_classes=0, **SMALL_VIT), generator)


def test_lightnings_trainer_saves_what_the_row_reads(
    tmp_path: Path, generator: torch.Generator
) -> None:
    lightning = pytest.importorskip("pytorch_lightning")
    modules = pytest.importorskip("lightly.models.modules")
    student, teacher = tiny_vit(generator), tiny_vit(generator)

    class Method(lightning.LightningModule):
        """As in lightly's examples of masked methods."""

        def __init__(self) -> None:
            super().__init__()
            self.save_hyperparameters({"where": tmp_path})
            self.student_backbone = modules.MaskedVisionTransformerTIMM(vit=student)
            self.teacher_backbone = modules.MaskedVisionTransformerTIMM(vit=teacher)
            self.student_head = modules.heads.DINOProjectionHead(48, 8, 8, 16)

        def training_step(self, batch: Any, _: int) -> Any:
            return self.student_head(self.student_backbone(batch)).sum() * 0.0

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    trainer = lightning.Trainer(
        max_steps=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    method = Method()
    trainer.fit(method, torch.utils.data.DataLoader(random_images(generator), batch_size=2))
    trainer.save_checkpoint(path := tmp_path / "epoch=0-step=1.ckpt")
    followed = follow(path, {"format": "lightning", **VIT})
    assert followed.settings["weights"] == "teacher_backbone.vit."
    images = random_images(generator)
    with torch.no_grad():
        expected = teacher.eval().forward_features(images)
    torch.testing.assert_close(followed.loaded.backbone.features(images).image, expected[:, 0])
    other = load(path, format="lightning", weights="student_backbone.vit", **VIT)
    assert other.sha256 != followed.loaded.sha256
    assert other.epoch_inside == 1


def test_the_numbers_of_a_sequential_are_those_of_torchvisions_children(
    generator: torch.Generator,
) -> None:
    model = nn.Sequential(*list(resnet18().children())[:-1])
    named = as_sequential(
        {name: torch.ones(1) for name in resnet18().state_dict() if name[:2] != "fc"}
    )
    assert list(named) == list(model.state_dict())


def test_an_exported_resnet_of_torchvision_loads(
    tmp_path: Path, generator: torch.Generator
) -> None:
    """lightly-train's ``exported_last.pt`` of a torchvision model, its classifier included."""
    weights = resnet_weights(generator)
    classifier = {"fc.weight": torch.ones(10, 512), "fc.bias": torch.ones(10)}
    torch.save(weights | classifier, tmp_path / "exported_last.pt")
    options = {"architecture": "resnet18", "architecture_options": dict(RESNET_OPTIONS)}
    loaded = load(tmp_path / "exported_last.pt", format="timm", **options)
    assert loaded.coverage.dropped[0][1:] == ("classifier", 2)


@pytest.mark.parametrize("lightly", [False, True])
def test_a_vision_transformer_of_torchvision_loads(
    lightly: bool, tmp_path: Path, generator: torch.Generator
) -> None:
    """On its own, or in lightly's masked module, its classifier included."""
    model = VisionTransformer(32, 8, num_layers=2, num_heads=4, hidden_dim=48, mlp_dim=192)
    perturb(model, generator)
    content: Any = model.state_dict()
    if lightly:
        modules = pytest.importorskip("lightly.models.modules")
        held = modules.MaskedVisionTransformerTorchvision(vit=model).state_dict()
        content = {"state_dict": prefixed("backbone.", held), "epoch": 3}
    torch.save(content, tmp_path / "last.ckpt")
    followed = follow(tmp_path / "last.ckpt", {"format": "lightning" if lightly else "timm", **VIT})
    images = random_images(generator)
    with torch.no_grad():
        tokens = model._process_input(images)
        tokens = model.encoder(torch.cat([model.class_token.expand(2, -1, -1), tokens], 1))
    found = followed.loaded.backbone.features(images)
    torch.testing.assert_close(found.image, tokens[:, 0], rtol=2e-4, atol=2e-4)
    expected = tokens[:, 1:].mT.reshape(2, -1, 4, 4)
    torch.testing.assert_close(found.patches[0], expected, rtol=2e-4, atol=2e-4)


def test_fully_sharded_names_are_those_that_torch_writes(
    tmp_path: Path, generator: torch.Generator
) -> None:
    """FSDP's full state under the names of what it wraps, as read off its own prefix function."""
    from torch.distributed.fsdp._common_utils import clean_tensor_name

    from densescope.features.wrappers import without_wrappers

    name = (
        "_fsdp_wrapped_module.blocks.0._checkpoint_wrapped_module._fsdp_wrapped_module.norm1.bias"
    )
    assert without_wrappers(name) == clean_tensor_name(name) == "blocks.0.norm1.bias"


@pytest.mark.parametrize("under", [(), ("model",), ("lightly_train", "models", "wrapped_model")])
def test_a_module_that_was_pickled_whole_is_read_and_not_run(
    under: tuple[str, ...], tmp_path: Path, generator: torch.Generator
) -> None:
    """``torch.save(model)``: its class is never made, its tensors are read off its fields."""
    model = tiny_vit(generator)
    content: Any = nn.Sequential(nn.Identity(), model) if under[1:] else model
    for key in reversed(under):
        content = {key: content}
    torch.save(content, tmp_path / "model.pt")
    followed = follow(tmp_path / "model.pt", {"format": "timm", **VIT})
    assert followed.settings["format"] == ("auto" if under[1:] else "timm")
    images = random_images(generator)
    with torch.no_grad():
        expected = model.eval().forward_features(images)
    torch.testing.assert_close(followed.loaded.backbone.features(images).image, expected[:, 0])
    assert any("VisionTransformer" in name for name in followed.loaded.foreign)
    state = module_state(read_checkpoint(tmp_path / "model.pt").content) or {}
    if not under:
        assert list(state) == list(model.state_dict())


def test_a_pickled_thing_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save(Path("a"), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="is a PosixPath, not a dictionary of tensors"):
        load(tmp_path / "model.pt", format="timm", **VIT)
