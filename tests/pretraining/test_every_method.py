"""What holds for every row of METHODS: resume to the bit, the layout of its own code, a record."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from densescope.errors import InputError
from densescope.features.backbones import load_backbone
from densescope.features.discovery import find_checkpoints
from densescope.features.spec import BackboneSpec
from densescope.pretraining.encoders import FAMILIES, EncoderOutput
from densescope.pretraining.learner import Learner
from densescope.pretraining.methods import METHODS, recipe_changes, resolve_settings
from densescope.pretraining.recorder import Progress
from densescope.pretraining.regularizers import build_regularizer
from densescope.pretraining.resume import KEY
from densescope.pretraining.settings import RegularizerSettings
from densescope.pretraining.trainer import Start, pretrain
from tests.pretraining.tiny import SIZE, content, images, same, tiny, tiny_recipe

pytest.importorskip("lightly")
pytest.importorskip("pytorch_lightning")

EVERY = pytest.mark.parametrize("method", METHODS)
FAMILY = [(row.name, family) for row in METHODS.values() for family in row.families]
PROBE = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@dataclass
class Seen:
    """Keeps what the networks of a run say of a few images at its last checkpoint."""

    features: dict[str, EncoderOutput] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)

    def on_start(self, learner: Learner[Any], step: int) -> None:
        assert step == 0

    def after_step(self, learner: Learner[Any], progress: Progress) -> None:
        self.losses.append(progress.loss)

    def on_checkpoint(self, learner: Learner[Any], progress: Progress) -> None:
        for name, encoder in learner.backbones().items():
            encoder.eval()
            with torch.no_grad():
                self.features[name] = encoder(PROBE)
            encoder.train()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[tuple[Path, ...], Seen]]:
    return {}


@pytest.fixture
def whole(
    method: str, runs: dict[str, tuple[tuple[Path, ...], Seen]], tmp_path_factory: Any
) -> tuple[tuple[Path, ...], Seen]:
    """A run of the method that nobody stopped, made once."""
    if method not in runs:
        seen = Seen()
        folder = tmp_path_factory.mktemp(method)
        runs[method] = pretrain(tiny(method), images(), folder, callbacks=[seen]), seen
    return runs[method]


class Killed(Exception):
    pass


def kill_at(step: int) -> Any:
    def progress(seen: Progress) -> None:
        if seen.step == step:
            raise Killed

    return progress


@EVERY
def test_a_run_killed_between_and_at_checkpoints_goes_on_to_the_same_bits(
    method: str, whole: tuple[tuple[Path, ...], Seen], tmp_path: Path
) -> None:
    again = Start(resume=True)
    for step, start in ((3, Start()), (4, again)):
        with pytest.raises(Killed):
            pretrain(tiny(method), images(), tmp_path, kill_at(step), start=start)
    torch.rand(3)  # the caller's own chance must not matter
    files = pretrain(tiny(method), images(), tmp_path, start=again)
    assert [file.name for file in files] == [file.name for file in whole[0]]
    for file, expected in zip(files, whole[0], strict=True):
        ours, theirs = content(file)[KEY], content(expected)[KEY]
        assert same(ours["learner"], theirs["learner"])
        assert same(ours["optimizer"], theirs["optimizer"])


@EVERY
def test_the_published_recipe_trains_too(method: str, tmp_path: Path) -> None:
    # What must fit a narrower width or a smaller batch.
    fitting = {"swav": {"prototypes": 8}, "ijepa": {"predictor_heads": 4, "predictor_dim": 32}}
    recipe = replace(METHODS[method].published, **fitting.get(method, {}))
    settings = tiny(method, recipe=tiny_recipe(recipe), steps=2)
    seen = Seen()
    files = pretrain(settings, images(), tmp_path, callbacks=[seen])
    assert all(math.isfinite(loss) for loss in seen.losses)
    assert content(files[-1])[KEY]["step"] == 2


@pytest.mark.parametrize("optimizer", ["sgd", "lars"])
def test_a_killed_run_with_another_optimizer_goes_on_to_the_same_bits(
    optimizer: str, tmp_path: Path
) -> None:
    recipe = replace(_recipe("simsiam"), optimizer=optimizer, learning_rate=0.1)
    settings = tiny("simsiam", recipe=recipe)
    whole = pretrain(settings, images(), tmp_path / "whole")
    with pytest.raises(Killed):
        pretrain(settings, images(), tmp_path / "killed", kill_at(3))
    files = pretrain(settings, images(), tmp_path / "killed", start=Start(resume=True))
    assert same(content(files[-1])[KEY]["learner"], content(whole[-1])[KEY]["learner"])


@EVERY
def test_checkpoints_have_the_layout_of_the_methods_own_code(
    method: str, whole: tuple[tuple[Path, ...], Seen]
) -> None:
    files, seen = whole
    row = METHODS[method]
    found = find_checkpoints(files[0].parent, method)
    assert [one.path for one in found.checkpoints] == list(files)
    assert found.left_out == ()
    assert len(files) == 3
    shape = tiny(method).backbone
    assert set(seen.features) == {weights.name for weights in row.format.weights}
    for name, expected in seen.features.items():
        loaded = load_backbone(
            files[-1],
            BackboneSpec(
                format=method,
                weights=name,
                architecture=shape.architecture,
                architecture_options=shape.loader_options,
            ),
        )
        assert loaded.note is None
        features = loaded.backbone.features(PROBE)
        torch.testing.assert_close(features.image, expected.image, rtol=1e-5, atol=1e-5)
        patches = features.patches[0].flatten(2).mT
        torch.testing.assert_close(patches, expected.patches, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["dino", "esvit", "ibot"])
def test_centers_have_the_shape_of_the_methods_own_code(
    method: str, whole: tuple[tuple[Path, ...], Seen]
) -> None:
    loss = content(whole[0][-1])["ibot_loss" if method == "ibot" else "dino_loss"]
    shapes = {name: tuple(center.shape) for name, center in loss.items()}
    more = {"esvit": {"center_grid": (1, 32)}, "ibot": {"center2": (1, 1, 32)}}
    assert shapes == {"center": (1, 32), **more.get(method, {})}


@pytest.mark.parametrize("method", ["byol"])
def test_heads_of_byol_have_the_names_of_its_own_code(
    method: str, whole: tuple[tuple[Path, ...], Seen]
) -> None:
    heads = ("online_network.projetion", "target_network.projetion", "predictor.predictor")
    layers = ("l1.weight", "bn1.weight", "bn1.running_mean", "l2.weight", "l2.bias")
    names = content(whole[0][-1])["model"]
    assert {f"module.{head}.{layer}" for head in heads for layer in layers} <= names.keys()
    assert not any(".layers." in name for name in names)


@pytest.mark.parametrize("method", ["ibot"])
def test_ibot_writes_its_last_layer_under_both_names(
    method: str, whole: tuple[tuple[Path, ...], Seen]
) -> None:
    file = content(whole[0][-1])
    for network in ("student", "teacher"):
        for part in ("weight_g", "weight_v"):
            first, second = (
                file[network][f"module.head.{layer}.{part}"]
                for layer in ("last_layer", "last_layer2")
            )
            assert first.data_ptr() == second.data_ptr()


@pytest.mark.parametrize("method", ["ijepa"])
def test_ijepa_writes_the_batch_of_a_device_and_the_highest_rate(
    method: str, whole: tuple[tuple[Path, ...], Seen]
) -> None:
    file = content(whole[0][-1])
    assert (file["batch_size"], file["world_size"], file["lr"]) == (8, 1, 1e-3)


@EVERY
def test_weights_change_and_the_loss_is_finite(
    method: str, whole: tuple[tuple[Path, ...], Seen]
) -> None:
    files, seen = whole
    assert len(seen.losses) == 5
    before, after = content(files[0])[KEY]["learner"], content(files[-1])[KEY]["learner"]
    assert not same(before, after)
    assert all(bool(value.isfinite().all()) for value in after.values())


@EVERY
def test_a_new_run_can_begin_from_a_checkpoint(
    method: str, whole: tuple[tuple[Path, ...], Seen], tmp_path: Path
) -> None:
    frozen = replace(tiny(method), steps=1, recipe=replace(_recipe(method), learning_rate=0.0))
    files = pretrain(frozen, images(), tmp_path, start=Start(weights=whole[0][0]))
    begun, ended = content(whole[0][0])[KEY]["learner"], content(files[0])[KEY]["learner"]
    # Prototypes of SwAV are normalized after every step.
    followers = ("teacher", "criterion", "patch_criterion", "prototypes")
    kinds = ("weight", "bias", "weight_v")
    trained = {n for n in begun if n.endswith(kinds) and not n.startswith(followers)}
    assert trained
    assert same({n: begun[n] for n in trained}, {n: ended[n] for n in trained})


def _recipe(method: str) -> Any:
    return tiny(method).recipe


@EVERY
def test_another_schedule_is_refused(method: str, whole: tuple[tuple[Path, ...], Seen]) -> None:
    other = replace(tiny(method), steps=9, recipe=replace(_recipe(method), warmup=0.3))
    with pytest.raises(InputError, match=r"other settings: recipe.warmup was .* and is 0.3; steps"):
        pretrain(other, images(), whole[0][0].parent, start=Start(resume=True))


@pytest.mark.parametrize(("method", "family"), FAMILY)
def test_patch_tokens_and_what_is_added_for_them_have_gradients_in_every_family(
    method: str, family: str
) -> None:
    settings = resolve_settings(tiny(method, family))
    learner = METHODS[method].build(settings, settings.recipe)
    pixels = images()[:8].float() / 255
    outcome = learner.loss(pixels, 0, torch.Generator().manual_seed(0))
    assert outcome.loss.ndim == 0
    assert bool(outcome.loss.isfinite())
    assert len(outcome.patches) == len(outcome.views)
    assert outcome.patches.shape[2] == learner.geometry.dim
    seen = learner.geometry.patches if outcome.kept is None else outcome.kept.shape[1]
    assert outcome.patches.shape[1] == seen
    assert learner.trained in learner.backbones().values()
    assert reaches(outcome.patches.sum(), learner.trained)
    for name in ("dse", "paka"):
        added = RegularizerSettings(name, beta=1.0)
        regularizer = build_regularizer(added, learner, fresh=False)
        assert regularizer is not None
        with torch.no_grad():  # an anchor pulls only where the student is elsewhere
            for weight in regularizer.parameters():
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
        term = regularizer(outcome, 0)
        assert bool(term.isfinite())
        assert reaches(term, learner.trained)


def reaches(term: torch.Tensor, network: torch.nn.Module) -> bool:
    """Whether a network has gradients of a term."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
    return any(found is not None and bool(found.any()) for found in gradients)


@EVERY
def test_the_row_is_complete(method: str) -> None:
    row = METHODS[method]
    assert row.name == row.format.name == method
    assert "arXiv" in row.source
    assert set(row.families) <= set(FAMILIES)
    assert row.kind in ("contrast", "prediction", "clusters", "redundancy", "masks")
    assert type(row.small) is type(row.published)
    assert recipe_changes(row)
    assert all(line.endswith(".") for line in row.changed)
    if row.chance_loss is not None:
        assert math.isfinite(row.chance_loss(row.small, 32))


@EVERY
def test_a_batch_that_is_too_small_is_a_sentence(method: str, tmp_path: Path) -> None:
    row = METHODS[method]
    if row.least_micro_batch == 1:
        assert row.least_reason == ""
        return
    few = replace(tiny(method), batch_size=row.least_micro_batch - 1)
    with pytest.raises(InputError, match=f"at least {row.least_micro_batch} images at once"):
        pretrain(few, images(), tmp_path)


@EVERY
def test_an_architecture_it_cannot_use_is_a_sentence(method: str, tmp_path: Path) -> None:
    row = METHODS[method]
    for family in set(FAMILIES) - set(row.families):
        settings = tiny(method, family)
        with pytest.raises(InputError, match=f"cannot train {settings.backbone.architecture}"):
            pretrain(settings, images(), tmp_path)
