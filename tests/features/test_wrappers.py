"""What wraps a network while it trains does not keep its checkpoint from being read."""

from __future__ import annotations

from collections import OrderedDict
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from densescope.errors import CheckpointError
from densescope.features.checking import check_checkpoint
from densescope.features.checkpoints import Container, read_checkpoint
from densescope.features.fitting import fits_of
from densescope.features.spec import BackboneSpec
from densescope.features.wrappers import as_named, keys_without_wrappers, without_wrappers
from tests.features.plain_models import random_images, vit_weights
from tests.features.written_layouts import (
    SMALL_VIT,
    VIT_NAME,
    dino,
    head,
    mae,
    prefixed,
    swav,
    vit_network,
)
from tests.foreign.loading import load

OUTER = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "_forward_module.")
TIMM: dict[str, Any] = {
    "format": "timm",
    "architecture": VIT_NAME,
    "architecture_options": SMALL_VIT,
}


def fits_in(container: Container) -> list[str]:
    return [str(fit) for fit in fits_of(container)]


def wrapped(weights: dict[str, torch.Tensor], outer: str) -> dict[str, torch.Tensor]:
    """Every name begins with ``outer``, and blocks are checkpointed and compiled one by one."""
    inside = "_checkpoint_wrapped_module._orig_mod."
    return {
        outer + name.replace(f"blocks.{block}.", f"blocks.{block}.{inside}", 1): value
        for name, value in weights.items()
        for block in [name.split(".")[1] if name.startswith("blocks.") else ""]
    }


@pytest.mark.parametrize("outer", ["".join(order) for order in permutations(OUTER[:3])])
def test_wrappers_come_off_in_any_order(
    outer: str, tmp_path: Path, generator: torch.Generator
) -> None:
    teacher, student = vit_weights(generator), vit_weights(generator)
    path = tmp_path / "checkpoint0020.pth"
    content = {
        "teacher": wrapped(teacher, f"{outer}backbone.") | head(generator, f"{outer}head."),
        "student": wrapped(student, f"module.backbone.{outer}"),
    }
    torch.save(content, path)
    images = random_images(generator)
    for weights, network in (("teacher", teacher), ("student", student)):
        settings = {"format": "dino", "architecture_options": SMALL_VIT, "weights": weights}
        found = load(path, **settings)
        torch.testing.assert_close(
            found.backbone.features(images).patches[0],
            vit_network(network)(images).patches[0],
            rtol=2e-4,
            atol=2e-4,
        )
    assert found.coverage.prefix == "backbone."
    assert "dino" in fits_in(read_checkpoint(path))


def test_torch_inserts_these_components() -> None:
    """Real wrappers, not our idea of them."""
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
    from torch.optim.swa_utils import AveragedModel

    model = nn.Sequential(OrderedDict(norm=nn.LayerNorm(3)))
    model.norm = checkpoint_wrapper(model.norm)
    names = [
        *AveragedModel(model).state_dict(),
        *torch.compile(nn.DataParallel(model)).state_dict(),
    ]
    assert {without_wrappers(name) for name in names} == {"n_averaged", "norm.weight", "norm.bias"}


def test_a_part_that_is_called_like_a_wrapper_keeps_its_name(
    tmp_path: Path, generator: torch.Generator
) -> None:
    if not timm.is_model("iformer_t"):
        pytest.skip("timm before 1.0.30 has no network with a part called module")
    model = timm.create_model("iformer_t", num_classes=0).eval()
    names = list(model.state_dict())
    assert any(".module." in name for name in names)
    assert list(as_named(keys_without_wrappers(model.state_dict()), names)) == names
    torch.save(prefixed("module.", model.state_dict()), tmp_path / "a.pth")
    loaded = load(tmp_path / "a.pth", format="timm", architecture="iformer_t")
    images = random_images(generator, 64)
    with torch.no_grad():
        expected = model.forward_features(images)
    torch.testing.assert_close(loaded.backbone.features(images).patches[0], expected)


def test_two_networks_under_one_name_are_refused(
    tmp_path: Path, generator: torch.Generator
) -> None:
    both = vit_weights(generator) | prefixed("module.", vit_weights(generator))
    torch.save(both, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"cls_token and module\.cls_token are both named"):
        load(tmp_path / "a.pth", **TIMM)


def test_averaged_weights_of_torch_load(tmp_path: Path, generator: torch.Generator) -> None:
    weights = vit_weights(generator)
    content = prefixed("module.", weights) | {"n_averaged": torch.tensor(7)}
    torch.save({"state_dict": content}, tmp_path / "a.pth")
    loaded = load(tmp_path / "a.pth", **TIMM)
    assert loaded.coverage.dropped == (("n_averaged", "counter of torch's AveragedModel", 1),)


@pytest.mark.parametrize("under", [(), ("state_dict",), ("teacher",)])
def test_the_engine_of_deepspeed_is_stepped_into(
    under: tuple[str, ...], tmp_path: Path, generator: torch.Generator
) -> None:
    weights = vit_weights(generator)
    inner: Any = prefixed("module.backbone.", weights) if under else weights
    for key in under[-1:] if under != ("state_dict",) else ():
        inner = {key: inner}
    file = tmp_path / "mp_rank_00_model_states.pt"
    torch.save({"module": inner, "ds_version": "0.16", "global_steps": 7, "dp_world_size": 8}, file)
    name = {(): "timm", ("state_dict",): "lightning", ("teacher",): "dino"}[under]
    loaded = load(file, **{**TIMM, "format": name})
    images = random_images(generator)
    expected = vit_network(weights)(images)
    torch.testing.assert_close(
        loaded.backbone.features(images).patches[0], expected.patches[0], rtol=2e-4, atol=2e-4
    )
    assert loaded.coverage.path[0] == "module"


def test_weights_that_zero_left_elsewhere_are_told(
    tmp_path: Path, generator: torch.Generator
) -> None:
    names = dict.fromkeys(vit_weights(generator), torch.empty(0))
    torch.save({"module": names, "ds_version": "0.16"}, tmp_path / "mp_rank_00_model_states.pt")
    with pytest.raises(CheckpointError, match=r"names without values: .* with its zero_to_fp32"):
        load(tmp_path / "mp_rank_00_model_states.pt", **TIMM)


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema"])
@pytest.mark.parametrize("format", ["timm", "mae"])
def test_averaged_weights_are_taken_when_asked_for(
    key: str, format: str, tmp_path: Path, generator: torch.Generator
) -> None:
    plain, averaged = vit_weights(generator), vit_weights(generator)
    path = tmp_path / "checkpoint-40.pth"
    torch.save({"model": plain, key: {"module": prefixed("_orig_mod.", averaged)}}, path)
    settings = {**TIMM, "format": format}
    images = random_images(generator)
    for weights, network in ((None, plain), ("ema", averaged)):
        loaded = load(path, **settings, weights=weights)
        torch.testing.assert_close(
            loaded.backbone.features(images).image,
            vit_network(network)(images).image,
            rtol=2e-4,
            atol=2e-4,
        )
    plain_report = check_checkpoint(path, BackboneSpec(**settings)).message
    assert plain_report.endswith(f"; an average lies beside them under {key!r}: --weights ema")
    report = check_checkpoint(path, BackboneSpec(**settings, weights="ema")).message
    assert "from the ema weights" in report
    assert report.endswith(f"; they are the average under '{key}/module'")
    assert loaded.coverage.weights == "ema"
    assert loaded.coverage.path == (key, "module")
    torch.save({key: averaged}, path)
    with pytest.raises(CheckpointError, match=rf"fit: .*{format} \(weights=ema\)"):
        load(path, **{**settings, "format": "mae"})
    torch.save({"model": plain}, path)
    sentence = (
        "no 'state_dict_ema' or 'model_ema' or 'ema' at the top of the file, which holds model"
    )
    with pytest.raises(CheckpointError, match=sentence):
        load(path, **settings, weights="ema")


def test_other_formats_keep_their_meaning(tmp_path: Path, generator: torch.Generator) -> None:
    """A file whose only sign is a wrapper (SwAV's) is not claimed without it."""
    written = swav(tmp_path, generator)
    assert "swav" in fits_in(read_checkpoint(written.path))
    content = torch.load(written.path, weights_only=False)
    content["state_dict"] = keys_without_wrappers(content["state_dict"])
    torch.save(content, written.path)
    assert "swav" not in fits_in(read_checkpoint(written.path))
    loaded = load(
        written.path,
        format="swav",
        architecture=written.architecture,
        architecture_options=written.options,
    )
    images = random_images(generator, written.size)
    expected = written.expected[None](images).image
    torch.testing.assert_close(loaded.backbone.features(images).image, expected)


def test_the_number_of_tensors_outside_is_that_of_the_file(
    tmp_path: Path, generator: torch.Generator
) -> None:
    for write in (dino, mae):
        written = write(tmp_path, generator)
        name = write.__name__
        loaded = load(
            written.path,
            format=name,
            architecture=written.architecture,
            architecture_options=written.options,
        )
        assert loaded.coverage.matched == 30
