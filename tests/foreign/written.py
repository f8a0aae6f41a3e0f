"""Files of public code bases beyond the plain layouts: other networks, heads, prefixes, wrappers.

Each is what the code's own save statement writes for a setting that its users have; tensors are
random and networks small.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from densescope.features.backbones import Features
from tests.features.plain_models import (
    DIM,
    RESNET_OPTIONS,
    SWIN_OPTIONS,
    SWIN_SIZE,
    Weights,
    dinov3_features,
    dinov3_weights,
    perturb,
    resnet_weights,
    swin_features,
    swin_weights,
    vit_weights,
)
from tests.features.written_layouts import (
    RESNET_NAME,
    SMALL_VIT,
    VIT_NAME,
    Written,
    as_sequential,
    function_of_main,
    head,
    namespace,
    numpy_scalar,
    optimizer,
    prefixed,
    resnet_network,
    vit_network,
)
from tests.foreign.networks import (
    CLIP_OPTIONS,
    CONVNEXT_OPTIONS,
    clip_features,
    clip_weights,
    convnext_features,
    convnext_weights,
)

Writer = Callable[[Path, torch.Generator], Written]
VITS = {"vit_small_patch16_224": SMALL_VIT}


def saved(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def sets(
    **networks: Callable[[Tensor], Features],
) -> dict[str | None, Callable[[Tensor], Features]]:
    """Expected networks by the name of their weights; ``default`` stands for no name."""
    return {None if name == "default" else name: network for name, network in networks.items()}


def mocov3_resnet(folder: Path, generator: torch.Generator) -> Written:
    """``main_moco.py -a resnet50``, its default: ``fc`` is the projector."""
    base, momentum = resnet_weights(generator), resnet_weights(generator)

    def encoder(weights: Weights) -> Weights:
        projector = {
            "fc.0.weight": torch.randn(8, 512, generator=generator),
            **{f"fc.1.{name}": torch.ones(8) for name in ("weight", "bias", "running_mean")},
            "fc.3.weight": torch.randn(4, 8, generator=generator),
            "fc.4.num_batches_tracked": torch.tensor(7),
        }
        return weights | projector

    content = {
        "epoch": 100,
        "arch": "resnet50",
        "state_dict": {
            **prefixed("module.base_encoder.", encoder(base)),
            **prefixed("module.momentum_encoder.", encoder(momentum)),
            **head(generator, "module.predictor.0."),
        },
        "optimizer": optimizer(),
        "scaler": {"scale": 65536.0},
    }
    path = saved(folder / "checkpoint_0099.pth.tar", content)
    networks = {"momentum": resnet_network(momentum), "base": resnet_network(base)}
    return Written(
        path, sets(default=networks["momentum"], **networks), RESNET_NAME, dict(RESNET_OPTIONS), 64
    )


def mocov3_deit(folder: Path, generator: torch.Generator) -> Written:
    """``convert_to_deit.py``: the base encoder under ``model``, without its projector."""
    base = vit_weights(generator)
    options = {**SMALL_VIT, "num_heads": 12}
    path = saved(folder / "vit-s-300ep.pth", {"model": base})
    return Written(path, sets(default=vit_network(base, 12)), VIT_NAME, options)


def dino_head_with_batch_norm(folder: Path, generator: torch.Generator) -> Written:
    """``--use_bn_in_head true``: the teacher is in ``DistributedDataParallel`` too."""
    teacher, student = vit_weights(generator), vit_weights(generator)
    content = {
        name: prefixed("module.backbone.", weights) | head(generator, "module.head.mlp.0.")
        for name, weights in (("student", student), ("teacher", teacher))
    }
    content |= {"optimizer": optimizer(numpy_scalar()), "epoch": 21, "args": namespace()}
    networks = {"teacher": vit_network(teacher), "student": vit_network(student)}
    path = saved(folder / "checkpoint0020.pth", content)
    return Written(path, sets(default=networks["teacher"], **networks), VIT_NAME, dict(SMALL_VIT))


def dino_resnet(folder: Path, generator: torch.Generator) -> Written:
    """``--arch resnet50``: torchvision's network, its classifier an identity."""
    teacher, student = resnet_weights(generator), resnet_weights(generator)
    content = {
        "student": prefixed("module.backbone.", student) | head(generator, "module.head."),
        "teacher": prefixed("backbone.", teacher) | head(generator, "head."),
        "optimizer": optimizer(numpy_scalar()),
        "epoch": 21,
        "args": namespace(),
    }
    networks = {"teacher": resnet_network(teacher), "student": resnet_network(student)}
    expected = sets(default=networks["teacher"], **networks)
    path = saved(folder / "checkpoint0020.pth", content)
    return Written(path, expected, RESNET_NAME, dict(RESNET_OPTIONS), 64)


def swin_network(weights: Weights) -> Callable[[Tensor], Features]:
    return lambda images: swin_features(weights, images)


def ibot_swin(folder: Path, generator: torch.Generator) -> Written:
    """``--arch swin_tiny``: heads outside, a mask embedding in the student."""
    teacher, student = swin_weights(generator), swin_weights(generator)
    mask = {"masked_embed": torch.randn(1, 24, generator=generator)}
    content = {
        "student": prefixed("module.backbone.", student | mask) | head(generator, "module.head."),
        "teacher": prefixed("module.backbone.", teacher) | head(generator, "module.head."),
        "optimizer": optimizer(numpy_scalar()),
        "epoch": 41,
        "args": namespace(with_path=False),
        "ibot_loss": {"center": torch.zeros(1, 5), "center2": torch.zeros(1, 1, 5)},
    }
    networks = {"teacher": swin_network(teacher), "student": swin_network(student)}
    path = saved(folder / "checkpoint0040.pth", content)
    return Written(
        path, sets(default=networks["teacher"], **networks), None, dict(SWIN_OPTIONS), SWIN_SIZE
    )


def ibot_swin_release(folder: Path, generator: torch.Generator) -> Written:
    teacher = swin_weights(generator)
    path = saved(folder / "checkpoint_teacher.pth", {"state_dict": teacher})
    return Written(path, sets(default=swin_network(teacher)), None, dict(SWIN_OPTIONS), SWIN_SIZE)


def esvit_wrapped(folder: Path, generator: torch.Generator) -> Written:
    """``--use_bn_in_head``: ``module.`` before the teacher's names too."""
    teacher = swin_weights(generator)
    heads = head(generator, "head.mlp.0.") | head(generator, "head_dense.mlp.0.")
    content = {"teacher": prefixed("module.", teacher | heads), "epoch": 21, "args": namespace()}
    path = saved(folder / "checkpoint0020.pth", content)
    return Written(path, sets(default=swin_network(teacher)), None, dict(SWIN_OPTIONS), SWIN_SIZE)


def vicregl_convnext(folder: Path, generator: torch.Generator, *, layer_scale: bool) -> Written:
    """``--arch convnext_small``, the default; layer scale is off unless asked for."""
    weights = convnext_weights(generator, layer_scale=layer_scale)
    with function_of_main("exclude_bias_and_norm") as function:
        settings = optimizer()
        settings["param_groups"][0]["weight_decay_filter"] = function
        content = {
            "epoch": 100,
            "step": 7,
            "model": {
                **prefixed("module.backbone.", weights),
                **head(generator, "module.maps_projector.0."),
                **head(generator, "module.projector.0."),
                **head(generator, "module.classifier."),
            },
            "optimizer": settings,
        }
        path = saved(folder / "model_100.pth", content)
    expected = sets(default=lambda images: convnext_features(weights, images))
    return Written(path, expected, None, dict(CONVNEXT_OPTIONS), 64)


def vicregl_release(folder: Path, generator: torch.Generator) -> Written:
    weights = convnext_weights(generator, layer_scale=False)
    path = saved(folder / "convnext_small_alpha0.75.pth", weights)
    expected = sets(default=lambda images: convnext_features(weights, images))
    return Written(path, expected, None, dict(CONVNEXT_OPTIONS), 64)


def dinov3(folder: Path, generator: torch.Generator, *, default: bool, release: bool) -> Written:
    """The released recipes mask the key's bias; the code's default and ImageNet-1k recipe do not.

    The latter have no registers and the usual epsilon either.
    """
    weights = dinov3_weights(generator, masked=True)
    if default:
        weights = {name: value for name, value in weights.items() if "bias_mask" not in name}
        del weights["storage_tokens"]
    else:
        for name, mask in weights.items():
            if name.endswith("bias_mask"):
                assert float(mask[DIM]) == 0.0
    heads = head(generator, "dino_head.mlp.0.") | head(generator, "ibot_head.mlp.0.")
    content = weights if release else {"teacher": prefixed("backbone.", weights) | heads}
    name = "dinov3_vits16_pretrain.pth" if release else "eval/99/teacher_checkpoint.pth"
    epsilon = 1e-6 if default else 1e-5
    network = lambda images: dinov3_features(weights, images, eps=epsilon)  # noqa: E731
    architecture = "vit_small_patch16_dinov3_qkvb"
    return Written(
        saved(folder / name, content), sets(default=network), architecture, dict(SMALL_VIT)
    )


def lightning_file(name: str, tensors: Weights, **more: Any) -> Any:
    """What Lightning's trainer writes around the state of a module."""
    return {
        "epoch": 9,
        "global_step": 400,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": tensors,
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_path": name}},
        "optimizer_states": [optimizer()],
        "lr_schedulers": [{"last_epoch": 9, "_last_lr": [numpy_scalar()]}],
        **more,
    }


def solo(folder: Path, generator: torch.Generator, *, vit: bool) -> Written:
    """solo-learn: ``NAME-VERSION-ep=N.ckpt``, a momentum backbone beside the plain one."""
    make = vit_weights if vit else resnet_weights
    plain, momentum = make(generator), make(generator)
    name = "byol-vit-3kd9x1q2-ep=9.ckpt"
    tensors = {
        **prefixed("backbone.", plain),
        **head(generator, "classifier."),
        **head(generator, "projector.0."),
        **prefixed("momentum_backbone.", momentum),
        **head(generator, "momentum_projector.0."),
        **head(generator, "predictor.0."),
    }
    path = saved(folder / name, lightning_file(name, tensors))
    network = vit_network if vit else resnet_network
    expected: dict[str | None, Any] = {
        None: network(plain),
        "momentum_backbone.": network(momentum),
    }
    if vit:
        return Written(path, expected, VIT_NAME, dict(SMALL_VIT))
    return Written(path, expected, RESNET_NAME, dict(RESNET_OPTIONS), 64)


def lightly_sequential(folder: Path, generator: torch.Generator) -> Written:
    """lightly's examples: a ``Sequential`` of the ResNet's children, and its momentum copy."""
    plain, momentum = resnet_weights(generator), resnet_weights(generator)
    tensors = {
        **prefixed("backbone.", as_sequential(plain)),
        **head(generator, "projection_head.layers.0."),
        **prefixed("backbone_momentum.", as_sequential(momentum)),
    }
    path = saved(folder / "epoch=9-step=400.ckpt", lightning_file("last.ckpt", tensors))
    expected: dict[str | None, Any] = {
        None: resnet_network(plain),
        "backbone_momentum.": resnet_network(momentum),
    }
    return Written(path, expected, RESNET_NAME, dict(RESNET_OPTIONS), 64)


def lightly_vit(folder: Path, generator: torch.Generator) -> Written:
    """lightly's masked models: a timm network called ``vit`` in ``backbone``."""
    student, teacher = vit_weights(generator), vit_weights(generator)
    tensors = {
        **prefixed("teacher_backbone.vit.", teacher),
        **prefixed("student_backbone.vit.", student),
        **head(generator, "student_head.layers.0."),
    }
    path = saved(folder / "epoch=9-step=400.ckpt", lightning_file("last.ckpt", tensors))
    expected: dict[str | None, Any] = {
        "teacher_backbone.vit.": vit_network(teacher),
        "student_backbone.vit.": vit_network(student),
    }
    return Written(path, expected, VIT_NAME, dict(SMALL_VIT))


def lightly_torchvision(folder: Path, generator: torch.Generator) -> Written:
    """lightly's older masked models: torchvision's network called ``vit``."""
    model = VisionTransformer(32, 8, num_layers=2, num_heads=4, hidden_dim=DIM, mlp_dim=4 * DIM)
    perturb(model, generator)

    def network(images: Tensor) -> Features:
        with torch.no_grad():
            tokens = model._process_input(images)
            tokens = model.encoder(torch.cat([model.class_token.expand(2, -1, -1), tokens], 1))
        return Features((tokens[:, 1:].mT.reshape(2, DIM, 4, 4),), tokens[:, 0])

    tensors = prefixed("backbone.vit.", model.state_dict()) | {"backbone.mask_token": torch.ones(1)}
    path = saved(folder / "epoch=9-step=400.ckpt", lightning_file("last.ckpt", tensors))
    return Written(path, {"backbone.vit.": network}, VIT_NAME, dict(SMALL_VIT))


def lightly_train(folder: Path, generator: torch.Generator) -> Written:
    """``last.ckpt``, in which the models lie as pickled modules too, beside their names."""
    import timm

    teacher, student = vit_weights(generator), vit_weights(generator)
    model = timm.create_model(VIT_NAME, num_classes=0, **SMALL_VIT)
    wrapped = nn.Module()
    wrapped._model = model
    tensors = {
        **prefixed("teacher_embedding_model.wrapped_model._model.", teacher),
        **head(generator, "teacher_projection_head.layers.0."),
        **prefixed("student_embedding_model.wrapped_model._model.", student),
    }
    more = {
        "lightly_train": {
            "version": "0.8.0",
            "date": "2025-06-01T00:00:00+00:00",
            "models": {"model": model, "wrapped_model": wrapped},
            "normalize_args": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
        }
    }
    path = saved(folder / "checkpoints" / "last.ckpt", lightning_file("last", tensors, **more))
    stem = "embedding_model.wrapped_model._model."
    expected: dict[str | None, Any] = {
        f"teacher_{stem}": vit_network(teacher),
        f"student_{stem}": vit_network(student),
    }
    return Written(path, expected, VIT_NAME, dict(SMALL_VIT))


def lightly_exported(folder: Path, generator: torch.Generator) -> Written:
    """``exported_last.pt`` of a timm model: its bare state, classifier included."""
    weights = vit_weights(generator)
    classifier = {"head.weight": torch.ones(10, DIM), "head.bias": torch.ones(10)}
    path = saved(folder / "exported_models" / "exported_last.pt", weights | classifier)
    return Written(path, sets(default=vit_network(weights)), VIT_NAME, dict(SMALL_VIT))


def open_clip(folder: Path, generator: torch.Generator) -> Written:
    """``epoch_N.pt`` of a ViT tower, beside the text's transformer."""
    weights = clip_weights(generator)
    tensors = {
        **prefixed("module.visual.", weights),
        **head(generator, "module.transformer.resblocks.0.attn.out_proj."),
        "module.logit_scale": torch.tensor(2.7),
    }
    content = {"epoch": 32, "name": "ViT-B-16", "state_dict": tensors, "optimizer": optimizer()}
    path = saved(folder / "checkpoints" / "epoch_32.pt", content)
    expected = sets(default=lambda images: clip_features(weights, images))
    return Written(path, expected, None, dict(CLIP_OPTIONS))


def open_clip_of_openai(folder: Path, generator: torch.Generator) -> Written:
    """Weights of OpenAI, whose activation is another: their architecture has it in its name."""
    weights = clip_weights(generator)
    path = saved(folder / "open_clip_pytorch_model.bin", prefixed("visual.", weights))
    expected = sets(default=lambda images: clip_features(weights, images, quick=True))
    return Written(path, expected, "vit_base_patch16_clip_quickgelu_224", dict(CLIP_OPTIONS))


def open_clip_timm(folder: Path, generator: torch.Generator) -> Written:
    """A timm tower: ``visual.trunk``, its projection in ``visual.head``."""
    weights = vit_weights(generator)
    tensors = prefixed("visual.trunk.", weights) | {"visual.head.proj.weight": torch.ones(4, DIM)}
    path = saved(folder / "open_clip_pytorch_model.bin", tensors)
    return Written(path, sets(default=vit_network(weights)), VIT_NAME, dict(SMALL_VIT))
