"""Settings, recipes and rows: what is refused, and with which sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from densescope.errors import InputError
from densescope.pretraining.encoders import build_encoder, family_of, fit_to_image_size
from densescope.pretraining.learners.dino import SMALL_DINO, DinoRecipe
from densescope.pretraining.learners.mocov3 import MocoV3Recipe
from densescope.pretraining.methods import METHODS, find_method, resolve_settings
from densescope.pretraining.optimizers import recipe_optimizer, set_rates
from densescope.pretraining.recipe import Recipe, change_recipe
from densescope.pretraining.sampling import Batches, generator_from
from densescope.pretraining.settings import (
    BackboneSettings,
    PretrainSettings,
    RegularizerSettings,
)
from densescope.pretraining.trainer import Start, pretrain
from tests.pretraining.tiny import images, tiny

pytest.importorskip("lightly")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": 0}, "steps 0 is impossible: use at least 1"),
        ({"devices": 3}, r"a batch of 64 cannot be shared by 3 device\(s\) in 1 part\(s\)"),
        ({"precision": "int8"}, "no precision 'int8': there are float32, bfloat16, float16"),
        ({"backbone": BackboneSettings(image_size=0)}, "image_size 0 is impossible"),
    ],
)
def test_impossible_settings(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        PretrainSettings(**change)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": "dice"}, "no regularizer 'dice': there are dse, dse-pooled, paka, gram"),
        ({"beta": -1.0}, "beta -1, 0 images every 1 steps is impossible"),
        ({"every": 0}, "every at 1"),
    ],
)
def test_impossible_regularizers(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        RegularizerSettings(**change)


@pytest.mark.parametrize(
    ("options", "size", "sentence"),
    [
        ({"patch_size": 8}, 60, "image_size 60 is not a multiple of the patch size 8"),
        ({"patch_size": 32}, 16, "images of 16 pixels are smaller than one patch of 32"),
        ({"patch_size": 8, "embed_dim": 32, "num_heads": 3}, 16, "3 heads do not divide a width"),
    ],
)
def test_networks_that_do_not_fit(
    options: dict[str, Any], size: int, sentence: str, tmp_path: Path
) -> None:
    settings = tiny("dino", backbone=BackboneSettings(options=options, image_size=size))
    pixels = torch.zeros(8, 3, size, size, dtype=torch.uint8)
    with pytest.raises(InputError, match=sentence):
        pretrain(settings, pixels, tmp_path)


def test_a_small_view_that_is_no_whole_number_of_patches(tmp_path: Path) -> None:
    recipe = replace(tiny("dino").recipe, local_size=6)  # type: ignore[type-var, arg-type]
    with pytest.raises(InputError, match="local_size 6 is not a multiple of the patch size 4"):
        pretrain(tiny("dino", recipe=recipe), images(), tmp_path)


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("warmup", "--set 'warmup' is not key=value"),
        ("warm=0.1", r"no 'warm'; did you mean warmup\?"),
        ("first=1", "first is a group: set one of first.scale, first.ratio"),
        ("warmup.x=1", "warmup is one value: it has no 'x'"),
        ("warmup=long", "warmup=long does not fit: it is now"),
        ("prototypes=1.5", "prototypes=1.5 does not fit: it is now 512, of the same kind"),
        ("weight_decay=(1,)", "does not fit"),
        ("prototypes=0", "prototypes 0 is impossible: use at least 1"),
        ("optimizer=adam", "no optimizer 'adam': there are adamw, sgd, lars"),
        ("warmup=1", "a warm-up of 1 of the run is impossible"),
        ("learning_rate=-1", "learning_rate -1 is impossible"),
    ],
)
def test_recipes_that_cannot_be_changed_so(assignment: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        change_recipe(SMALL_DINO, [assignment])


def test_heads_of_a_decoder_must_divide_its_width() -> None:
    with pytest.raises(InputError, match="decoder_heads 3 does not divide decoder_dim 64"):
        change_recipe(METHODS["mae"].small, ["decoder_heads=3"])
    with pytest.raises(InputError, match="predictor_heads 5 does not divide predictor_dim 64"):
        change_recipe(METHODS["ijepa"].small, ["predictor_heads=5"])


def test_recipes_change_where_they_are_told_to() -> None:
    changes = ["prototypes=64", "head_batch_norm=false", "local.scale=[0.1, 0.2]", "warmup=0"]
    changed = change_recipe(SMALL_DINO, changes)
    assert (changed.prototypes, changed.head_batch_norm, changed.warmup) == (64, False, 0.0)
    assert changed.local.scale == (0.1, 0.2)
    assert changed.first == SMALL_DINO.first


def test_a_published_rate_grows_with_the_batch() -> None:
    assert DinoRecipe().rate_for(1024) == pytest.approx(0.002)
    assert SMALL_DINO.rate_for(1024) == SMALL_DINO.learning_rate


def test_rates_and_decay_of_a_step() -> None:
    recipe = Recipe(learning_rate=1.0, rate_images=0, weight_decay=(0.1, 0.3), warmup=0.2)
    settings = PretrainSettings(recipe=recipe, steps=11)
    weights = [torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2)]
    groups = [
        {"params": weights[:1], "decays": True},
        {"params": weights[1:], "decays": False, "scheduled": False},
    ]
    optimizer = recipe_optimizer(groups, recipe)
    assert set_rates(optimizer, settings, recipe, 0) == 0.5
    rates = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert rates == [(0.5, pytest.approx(0.1)), (1.0, 0.0)]
    assert set_rates(optimizer, settings, recipe, 10) == pytest.approx(0.0)
    assert optimizer.param_groups[0]["weight_decay"] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("architecture", "size", "grid"),
    [
        ("vit_tiny_patch16_224", 64, 8),
        ("resnet18", 64, 8),
        ("resnet18", 224, 7),
        ("swin_tiny_patch4_window7_224", 64, 4),
    ],
)
def test_published_architectures_have_a_grid_on_small_images(
    architecture: str, size: int, grid: int
) -> None:
    backbone = fit_to_image_size(BackboneSettings(architecture, {}, size))
    encoder = build_encoder("dino", backbone, fixed_positions=False)
    with torch.no_grad():
        tokens = encoder.eval()(torch.zeros(1, 3, size, size))
    assert tokens.patches.shape == (1, grid**2, encoder.geometry.dim)
    assert encoder.geometry.patches == grid**2


def test_an_option_that_is_given_stays() -> None:
    chosen = BackboneSettings("resnet18", {"output_stride": 16}, 64)
    assert fit_to_image_size(chosen).options == {"output_stride": 16}


def test_a_family_that_cannot_be_trained() -> None:
    with pytest.raises(InputError, match="cannot pretrain 'convnext_tiny': use one of timm's"):
        family_of("convnext_tiny")


def test_methods_are_rows_with_unique_files() -> None:
    for name, method in METHODS.items():
        assert method.name == name
        assert method.file_name.format(7) != method.file_name.format(8)
    with pytest.raises(InputError, match=r"no method 'mocov2'; did you mean mocov3\?"):
        find_method("mocov2")
    with pytest.raises(InputError, match="no method 'x'; there are mocov3, "):
        find_method("x")


def test_a_recipe_of_another_method_is_refused() -> None:
    with pytest.raises(InputError, match="a MocoV3Recipe does not fit DINO: it takes a DinoRecipe"):
        resolve_settings(PretrainSettings(recipe=MocoV3Recipe()))


def test_a_run_is_resumed_or_begun_from_elsewhere() -> None:
    with pytest.raises(InputError, match="not both"):
        Start(resume=True, weights=Path("x"))


def test_nothing_to_resume_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to resume: no checkpoint of format dino"):
        pretrain(tiny("dino"), images(), tmp_path, start=Start(resume=True))


def test_a_pass_shows_every_image_once_and_passes_differ() -> None:
    pixels = torch.arange(10).view(10, 1)
    batches = iter(Batches(pixels, 4, seed=0))
    shown = torch.cat([next(batches) for _ in range(5)]).flatten().tolist()
    assert sorted(shown[:10]) == sorted(shown[10:]) == list(range(10))
    assert shown[:10] != shown[10:]


def test_batches_go_on_from_any_step_and_are_shared_by_devices_and_parts() -> None:
    pixels = torch.arange(10).view(10, 1)

    def taken(count: int, **where: int) -> list[list[int]]:
        batches = iter(Batches(pixels, 4, 0, **where))
        return [next(batches).flatten().tolist() for _ in range(count)]

    whole = taken(5)
    assert taken(2, first=3) == whole[3:]
    parts = taken(10, accumulate=2)
    assert [parts[i] + parts[i + 1] for i in range(0, 10, 2)] == whole
    halves = [taken(5, rank=rank, ranks=2) for rank in (0, 1)]
    assert [a + b for a, b in zip(*halves, strict=True)] == whole


def test_chance_differs_by_every_part_of_its_moment() -> None:
    draws = [torch.rand(1, generator=generator_from("views", *m)) for m in ((0, 1), (1, 0), (0, 2))]
    assert len({float(draw) for draw in draws}) == 3
