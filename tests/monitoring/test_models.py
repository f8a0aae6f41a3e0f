"""Which part of a model is looked at, and that looking leaves no trace."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from densescope.errors import InputError
from densescope.monitoring.models import (
    evaluation_mode,
    find_backbone,
    read_only_backbone,
    seed_evaluation,
)
from tests.monitoring.scenes import vit


class Holder(nn.Module):
    """A module with the given parts."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def network() -> nn.Module:
    return Holder(backbone=vit(), head=nn.Linear(24, 4))


def wrapper() -> nn.Module:
    """As stable-pretraining's TeacherStudentWrapper is laid out."""
    return Holder(student=vit(), teacher=vit(1))


FOUND: dict[str, tuple[Any, str]] = {
    "a timm model": (vit(), ""),
    "a network with a head": (network(), "backbone"),
    "DINO in one module": (Holder(student=network(), teacher=network()), "teacher.backbone"),
    "lightly's BYOL": (Holder(backbone=vit(), backbone_momentum=vit()), "backbone_momentum"),
    "MoCo v3": (Holder(base_encoder=vit(), momentum_encoder=vit()), "momentum_encoder"),
    "I-JEPA": (Holder(encoder=vit(), target_encoder=vit()), "target_encoder"),
    "an EMA model": (Holder(model=vit(), ema=Holder(module=vit())), "ema"),
    "stable-pretraining, DINO": (
        Holder(projector=Holder(student=nn.Linear(1, 1)), backbone=wrapper()),
        "backbone.teacher",
    ),
    "stable-pretraining, I-JEPA": (
        Holder(encoder=Holder(student=Holder(vit=vit()), teacher=Holder(vit=vit()))),
        "encoder.teacher.vit",
    ),
    "stable-pretraining, SimCLR": (Holder(backbone=vit(), projector=nn.Linear(1, 1)), "backbone"),
    "inside a Lightning module": (
        Holder(learner=Holder(student=network(), teacher=network())),
        "learner.teacher.backbone",
    ),
    "wrapped in parts": (Holder(ema=nn.DataParallel(network())), "ema.backbone"),
    "unknown, with a teacher": (Holder(teacher=nn.Linear(1, 1), backbone=nn.ReLU()), "teacher"),
    "unknown": (nn.Conv2d(3, 4, 8, 8), ""),
}


@pytest.mark.parametrize("name", FOUND)
def test_the_backbone_is_found(name: str) -> None:
    model, expected = FOUND[name]
    part, path = find_backbone(model)
    assert path == expected
    place = {"wrapped in parts": "ema.module.backbone", "an EMA model": "ema.module"}
    assert part is model.get_submodule(place.get(name, expected))


def test_a_transformers_model_is_taken_whole() -> None:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, image_size=32)
    model = ViTModel(config)
    assert find_backbone(model) == (model, "")
    assert find_backbone(Holder(student=model, ema_model=copy.deepcopy(model)))[1] == "ema_model"


def test_wrappers_change_neither_the_part_nor_its_path() -> None:
    model = network()
    for wrapped in (nn.DataParallel(model), torch.compile(model)):
        assert find_backbone(wrapped) == (model.backbone, "backbone")
        assert find_backbone(wrapped, "backbone")[0] is model.backbone


def test_a_path_or_a_function_decides() -> None:
    model = Holder(student=network(), teacher=network())
    assert find_backbone(model, "student.backbone")[0] is model.student.backbone
    assert find_backbone(model, lambda model: model.student.backbone)[0] is model.student.backbone
    loose = SimpleNamespace(inner=vit())
    assert find_backbone(loose, "inner")[0] is loose.inner


def test_a_wrong_path_says_what_is_there() -> None:
    with pytest.raises(InputError, match="no student.body in the model: student has no body; it"):
        find_backbone(Holder(student=network()), "student.body")


def test_everything_is_put_back() -> None:
    model = vit().train()
    model.blocks[0].eval()
    modes = [module.training for module in model.modules()]
    before = torch.get_rng_state()

    def look() -> None:
        with evaluation_mode(model):
            assert not any(module.training for module in model.modules())
            assert not torch.is_grad_enabled()
            torch.rand(3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        look()
    assert [module.training for module in model.modules()] == modes
    assert torch.is_grad_enabled()
    assert torch.equal(before, torch.get_rng_state())


def test_chance_of_a_model_is_the_same_each_time() -> None:
    drawn = []
    for _ in range(2):
        torch.rand(1)
        with evaluation_mode(nn.Identity()):
            seed_evaluation(nn.Identity(), 0)
            drawn.append(torch.rand(3))
    assert torch.equal(*drawn)


def test_a_module_that_acts_on_its_mode_is_switched_by_its_own_method() -> None:
    class Merging(nn.Linear):
        merged = False

        def train(self, mode: bool = True) -> Any:
            self.merged = not mode
            return super().train(mode)

    model = Merging(2, 2)
    with evaluation_mode(model):
        assert model.merged
    assert not model.merged


def test_precision_is_its_own() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16), evaluation_mode(nn.Linear(2, 2)):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_weights_in_half_precision_are_read_and_not_moved() -> None:
    model = vit().bfloat16()
    reader = read_only_backbone(model, image_size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert not hasattr(reader, "to")
    assert not hasattr(reader, "eval")
    with evaluation_mode(model):
        assert reader.features(torch.zeros(1, 3, 32, 32)).patches[0].dtype == torch.bfloat16
