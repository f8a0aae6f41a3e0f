"""Where each public training code keeps its backbone: one row per code base and layout.

A format is named by the user and never guessed. A row carries the options of its architecture
too, because weights that load strictly into the wrong head count or epsilon give wrong features
without an error.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from densescope.errors import CheckpointError
from densescope.features.conversions import (
    Conversion,
    dinov2_tokens,
    dinov3_tokens,
    swin_downsampling,
)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Weights:
    """One set of weights in a file.

    Attributes:
        name: what a user asks for: ``"teacher"``, ``"student"``, ``"online"``, ...
        path: keys to walk from the top of the file.
        prefixes: beginnings of tensor names, most specific first; the first one found is kept
            and stripped. ``""`` takes every tensor.
        nested: keys one of which may or may not wrap what the path leads to.
    """

    name: str
    path: tuple[str, ...]
    prefixes: tuple[str, ...] = ("",)
    nested: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """One training code base, or its release layout.

    Attributes:
        name: what the user writes.
        title: method and layout in words.
        source: public code and paper.
        weights: sets of weights in the file; the first is the default.
        architecture: timm model name, ``""`` when the user must name one.
        options: options of that architecture that the training code fixes.
        drop: (pattern, reason) of tensors inside the prefix that are left out on purpose.
        renames: (regular expression, replacement), applied in order after the prefix is gone.
        conversion: what renaming cannot say, or ``None``.
        files: regular expressions of numbered files below the run's folder; group 1 is the number.
        latest: names (with ``*``) of files that are overwritten while training goes on.
        unit: what the number counts, ``"epoch"`` or ``"step"``.
        offset: number + offset = finished epochs (or steps).
        counter: key of the file's own counter, ``""`` where it has none.
        counter_offset: number + counter_offset = the file's own counter; ``None`` where not known.
        foreign: objects other than tensors and plain values that such a file holds.
        mean, std: normalization the training used; empty takes the architecture's.
        reader: ``"weights"``, or ``"huggingface"`` / ``"custom"`` for models made elsewhere.
        verified: ``True`` when key names were read in the public code or its released file.
    """

    name: str
    title: str
    source: str
    weights: tuple[Weights, ...]
    architecture: str = ""
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    drop: tuple[tuple[str, str], ...] = ()
    renames: tuple[tuple[str, str], ...] = ()
    conversion: Conversion | None = None
    files: tuple[str, ...] = ()
    latest: tuple[str, ...] = ()
    unit: str = "epoch"
    offset: int = 1
    counter: str = "epoch"
    counter_offset: int | None = 1
    foreign: str = "none"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    reader: str = "weights"
    verified: bool = True

    def choose(self, weights: str | None) -> Weights:
        """The named set of weights, or the default one.

        Raises:
            CheckpointError: this format has no set of that name.
        """
        if weights is None:
            return self.weights[0]
        for row in self.weights:
            if row.name == weights:
                return row
        known = ", ".join(row.name for row in self.weights)
        raise CheckpointError(f"format {self.name} has no weights {weights!r}; it has: {known}")


def find_format(name: str) -> Format:
    """The row of a name.

    Raises:
        CheckpointError: no such format; the sentence names the closest ones.
    """
    if name in FORMATS:
        return FORMATS[name]
    close = difflib.get_close_matches(name.lower(), FORMATS, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(FORMATS)}"
    raise CheckpointError(f"there is no format {name!r}; {hint}")


_VIT_S = "vit_small_patch16_224"
_VIT_B = "vit_base_patch16_224"
_PTH = (r"checkpoint(\d{4})\.pth",)
_PTH_TAR = (r"checkpoint_(\d{4})\.pth\.tar",)
_ANY_NUMBER = (r"[^/]*?(\d+)\.(?:pth|pt|bin|tar|pth\.tar)",)
_WHOLE = (Weights("backbone", ()),)
_CLASSIFIER = ("fc.*", "projector in place of the classifier")
_SWIN_HEADS = (
    ("head.*", "projection head"),
    ("head_dense.*", "dense projection head"),
    ("*relative_position_index", "fixed by the window size"),
    ("*attn_mask", "fixed by the window size"),
)


def _teacher_and_student() -> tuple[Weights, ...]:
    prefixes = ("module.backbone.", "backbone.")
    return tuple(Weights(name, (name,), prefixes) for name in ("teacher", "student"))


_ROWS = (
    Format(
        "mocov3",
        "MoCo v3 on a ViT",
        "facebookresearch/moco-v3, arXiv 2104.02057",
        (
            Weights("momentum", ("state_dict",), ("module.momentum_encoder.",)),
            Weights("base", ("state_dict",), ("module.base_encoder.",)),
        ),
        _VIT_S,
        {"num_heads": 12},
        drop=(("head.*", "projector"),),
        files=_PTH_TAR,
    ),
    Format(
        "mocov3-release",
        "MoCo v3, released weights (base encoder)",
        "facebookresearch/moco-v3, arXiv 2104.02057",
        (Weights("base", ("state_dict",), ("module.base_encoder.",)),),
        _VIT_S,
        {"num_heads": 12},
        drop=(("head.*", "projector"),),
        latest=("vit-s-300ep.pth.tar", "vit-b-300ep.pth.tar"),
    ),
    Format(
        "dino",
        "DINO",
        "facebookresearch/dino, arXiv 2104.14294",
        _teacher_and_student(),
        _VIT_S,
        files=_PTH,
        latest=("checkpoint.pth",),
        foreign="argparse.Namespace, pathlib.PosixPath, NumPy scalars",
    ),
    Format(
        "dino-release",
        "DINO, released backbone",
        "facebookresearch/dino, arXiv 2104.14294",
        _WHOLE,
        _VIT_S,
        latest=("dino_deitsmall16_pretrain.pth", "dino_vitbase16_pretrain.pth"),
    ),
    Format(
        "ibot",
        "iBOT",
        "bytedance/ibot, arXiv 2111.07832",
        _teacher_and_student(),
        _VIT_S,
        drop=(("masked_embed", "mask token of the student"),),
        files=_PTH,
        latest=("checkpoint.pth",),
        foreign="argparse.Namespace, NumPy scalars",
    ),
    Format(
        "ibot-release",
        "iBOT, released teacher",
        "bytedance/ibot, arXiv 2111.07832",
        (Weights("teacher", (), nested=("state_dict",)),),
        _VIT_S,
        drop=(("masked_embed", "mask token"), ("head.*", "projection head")),
        latest=("checkpoint_teacher.pth",),
    ),
    Format(
        "mugs",
        "Mugs",
        "sail-sg/mugs, arXiv 2203.14415",
        _teacher_and_student(),
        _VIT_S,
        drop=(("relation_blocks.*", "relation head inside the backbone"),),
        files=_PTH,
        latest=("checkpoint.pth",),
        foreign="argparse.Namespace, NumPy scalars",
    ),
    Format(
        "mugs-release",
        "Mugs, released backbone",
        "sail-sg/mugs, arXiv 2203.14415",
        (Weights("teacher", ("state_dict",)),),
        _VIT_S,
        drop=(("relation_blocks.*", "relation head inside the backbone"),),
        verified=False,
    ),
    Format(
        "esvit",
        "EsViT on a Swin",
        "microsoft/esvit, arXiv 2106.09785",
        tuple(Weights(name, (name,), ("module.", "")) for name in ("teacher", "student")),
        "swin_tiny_patch4_window7_224",
        {"norm_eps": 1e-6},
        drop=_SWIN_HEADS,
        conversion=swin_downsampling,
        files=_PTH,
        latest=("checkpoint.pth",),
        foreign="argparse.Namespace, NumPy scalars",
    ),
    Format(
        "mae",
        "MAE",
        "facebookresearch/mae, arXiv 2111.06377",
        (Weights("encoder", ("model",)),),
        _VIT_B,
        drop=(("decoder*", "decoder"), ("mask_token", "input of the decoder")),
        files=(r"checkpoint-(\d+)\.pth",),
        counter_offset=0,
        foreign="argparse.Namespace, pathlib.PosixPath",
    ),
    Format(
        "mae-release",
        "MAE, released encoder",
        "facebookresearch/mae, arXiv 2111.06377",
        (Weights("encoder", ("model",)),),
        _VIT_B,
        latest=("mae_pretrain_vit_base.pth",),
    ),
    Format(
        "ijepa",
        "I-JEPA",
        "facebookresearch/ijepa, arXiv 2301.08243",
        (
            Weights("target", ("target_encoder",), ("module.", "")),
            Weights("context", ("encoder",), ("module.", "")),
        ),
        _VIT_B,
        {"class_token": False, "global_pool": "avg", "fc_norm": False},
        files=(r"[^/]+-ep(\d+)\.pth\.tar",),
        latest=("*-latest.pth.tar", "IN1K-vit.h.14-300e.pth.tar"),
        offset=-1,
        counter_offset=-1,
    ),
    Format(
        "byol",
        "BYOL (PyTorch re-implementation)",
        "yaox12/BYOL-PyTorch, arXiv 2006.07733",
        (
            Weights("target", ("model",), ("module.target_network.encoder.",)),
            Weights("online", ("model",), ("module.online_network.encoder.",)),
        ),
        "resnet50",
        renames=(
            (r"^0\.", "conv1."),
            (r"^1\.", "bn1."),
            (r"^4\.", "layer1."),
            (r"^5\.", "layer2."),
            (r"^6\.", "layer3."),
            (r"^7\.", "layer4."),
        ),
        files=(r"resnet50_(\d+)\.pth\.tar",),
        offset=0,
        counter_offset=0,
        foreign="NumPy scalars, plain config",
    ),
    Format(
        "byol-release",
        "BYOL, released online backbone",
        "yaox12/BYOL-PyTorch, arXiv 2006.07733",
        (Weights("online", ("online_backbone",), ("module.", "")),),
        "resnet50",
        drop=(_CLASSIFIER,),
        verified=False,
    ),
    Format(
        "simsiam",
        "SimSiam, training and release",
        "facebookresearch/simsiam, arXiv 2011.10566",
        (Weights("encoder", ("state_dict",), ("module.encoder.",)),),
        "resnet50",
        drop=(_CLASSIFIER,),
        files=_PTH_TAR,
    ),
    Format(
        "mec",
        "MEC",
        "xinliu20/MEC, arXiv 2210.11464",
        (
            Weights("encoder", ("state_dict",), ("module.encoder.",)),
            Weights("teacher", ("state_dict",), ("module.teacher.",)),
        ),
        "resnet50",
        drop=(_CLASSIFIER,),
        files=_PTH_TAR,
        foreign="NumPy scalars",
    ),
    Format(
        "resa",
        "ReSA",
        "winci-ai/resa, arXiv 2501.03690",
        (
            Weights("encoder", ("state_dict",), ("module.encoder.",)),
            Weights("momentum", ("state_dict",), ("module.momentum_encoder.",)),
        ),
        "resnet50",
        drop=(_CLASSIFIER,),
        files=_PTH_TAR,
        latest=("checkpoint.pth.tar",),
        foreign="NumPy scalars",
    ),
    Format(
        "resa-release",
        "ReSA, released backbone",
        "winci-ai/resa, arXiv 2501.03690",
        _WHOLE,
        "resnet50",
        drop=(_CLASSIFIER,),
        verified=False,
    ),
    Format(
        "densecl",
        "DenseCL",
        "WXinlong/DenseCL, arXiv 2011.09157",
        (
            Weights("backbone", ("state_dict",), ("backbone.",)),
            Weights("momentum", ("state_dict",), ("encoder_k.0.",)),
        ),
        "resnet50",
        files=(r"epoch_(\d+)\.pth",),
        latest=("latest.pth",),
        offset=0,
        counter="",
        foreign="meta data of mmcv",
    ),
    Format(
        "densecl-release",
        "DenseCL, released backbone",
        "WXinlong/DenseCL, arXiv 2011.09157",
        (Weights("backbone", ("state_dict",)),),
        "resnet50",
    ),
    Format(
        "swav",
        "SwAV",
        "facebookresearch/swav, arXiv 2006.09882",
        (Weights("backbone", (), ("module.",), nested=("state_dict",)),),
        "resnet50",
        drop=(("projection_head.*", "projector"), ("prototypes.*", "prototypes")),
        files=(r"(?:checkpoints/)?ckp-(\d+)\.pth",),
        latest=("checkpoint.pth.tar",),
        foreign="NumPy scalars",
    ),
    Format(
        "swav-release",
        "SwAV, released weights",
        "facebookresearch/swav, arXiv 2006.09882",
        (Weights("backbone", (), ("module.",)),),
        "resnet50",
        drop=(("projection_head.*", "projector"), ("prototypes.*", "prototypes")),
        latest=("swav_800ep_pretrain.pth.tar",),
    ),
    Format(
        "barlowtwins",
        "Barlow Twins",
        "facebookresearch/barlowtwins, arXiv 2103.03230",
        (Weights("backbone", ("model",), ("module.backbone.",)),),
        "resnet50",
        files=_ANY_NUMBER,
        latest=("checkpoint.pth",),
        offset=0,
        counter_offset=None,
        foreign="a function reference",
    ),
    Format(
        "vicreg",
        "VICReg",
        "facebookresearch/vicreg, arXiv 2105.04906",
        (Weights("backbone", ("model",), ("module.backbone.",)),),
        "resnet50",
        files=_ANY_NUMBER,
        latest=("model.pth",),
        offset=0,
        counter_offset=None,
        foreign="a function reference",
    ),
    Format(
        "vicregl",
        "VICRegL",
        "facebookresearch/VICRegL, arXiv 2210.01571",
        (Weights("backbone", ("model",), ("module.backbone.",)),),
        "resnet50",
        files=_ANY_NUMBER,
        latest=("model.pth",),
        offset=0,
        counter_offset=None,
        foreign="a function reference",
    ),
    Format(
        "resnet-release",
        "Barlow Twins, VICReg and VICRegL, released backbones",
        "facebookresearch/barlowtwins, vicreg, VICRegL",
        _WHOLE,
        "resnet50",
        drop=(_CLASSIFIER,),
        latest=("resnet50.pth", "resnet50_alpha0.9.pth"),
    ),
    Format(
        "dinov2",
        "DINOv2, training",
        "facebookresearch/dinov2, arXiv 2304.07193",
        (Weights("teacher", ("teacher",), ("backbone.",)),),
        "vit_large_patch14_dinov2",
        {"img_size": 224, "patch_size": 16},
        drop=(("mask_token", "input of masked patches"),),
        renames=((r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),),
        conversion=dinov2_tokens,
        files=(r"(?:eval/)?training_(\d+)/teacher_checkpoint\.pth",),
        unit="step",
        counter="",
    ),
    Format(
        "dinov2-release",
        "DINOv2, released backbones",
        "facebookresearch/dinov2, arXiv 2304.07193",
        _WHOLE,
        "vit_small_patch14_dinov2",
        drop=(("mask_token", "input of masked patches"),),
        renames=((r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),),
        conversion=dinov2_tokens,
    ),
    Format(
        "dinov3",
        "DINOv3, training",
        "facebookresearch/dinov3, arXiv 2508.10104",
        (
            Weights("teacher", ("teacher",), ("backbone.",)),
            Weights("sharded", ("model",), ("model_ema.backbone.", "teacher.backbone.")),
            Weights("sharded-teacher", ("model",), ("backbone.",)),
            Weights("student", ("model",), ("student.backbone.",)),
        ),
        "vit_large_patch16_dinov3_qkvb",
        drop=(
            ("mask_token", "input of masked patches"),
            ("rope_embed.*", "fixed by the architecture"),
            ("local_cls_norm.*", "used in training only"),
        ),
        conversion=dinov3_tokens,
        files=(
            r"(?:eval/)?(?:training_)?(\d+)/teacher_checkpoint\.pth",
            r"(?:eval/)?(?:training_)?(\d+)/sharded_teacher_checkpoint",
            r"(?:ckpt/)?(\d+)",
        ),
        unit="step",
        counter="iteration",
        counter_offset=0,
    ),
    Format(
        "dinov3-release",
        "DINOv3, released backbones",
        "facebookresearch/dinov3, arXiv 2508.10104",
        _WHOLE,
        "vit_small_patch16_dinov3_qkvb",
        drop=(
            ("mask_token", "input of masked patches"),
            ("rope_embed.*", "fixed by the architecture"),
            ("local_cls_norm.*", "used in training only"),
        ),
        conversion=dinov3_tokens,
    ),
    Format(
        "timm",
        "state dict of a timm model",
        "huggingface/pytorch-image-models",
        (
            Weights("model", (), ("module.", ""), nested=("state_dict", "model")),
            Weights("ema", ("state_dict_ema",), ("module.", "")),
        ),
        drop=(("head.*", "classifier"), ("fc.*", "classifier"), ("head_*", "classifier")),
        files=_ANY_NUMBER,
        latest=("last.pth.tar", "model_best.pth.tar"),
        counter_offset=None,
        mean=(),
        std=(),
    ),
    Format(
        "safetensors",
        "safetensors file of a timm model",
        "huggingface/safetensors",
        _WHOLE,
        drop=(("head.*", "classifier"), ("fc.*", "classifier")),
        files=(r"[^/]*?(\d+)\.safetensors",),
        latest=("model.safetensors",),
        counter="",
        mean=(),
        std=(),
    ),
    Format(
        "lightning",
        "Lightning .ckpt; weights names the sub-module, such as model.backbone.",
        "Lightning-AI/pytorch-lightning",
        (Weights("backbone.", ("state_dict",), ("backbone.",)),),
        drop=(("head.*", "classifier"), ("fc.*", "classifier")),
        files=(r".*epoch=(\d+).*\.ckpt",),
        latest=("last.ckpt",),
        counter_offset=0,
        foreign="callbacks, hyper-parameters",
    ),
    Format(
        "huggingface",
        "folder of a Transformers model",
        "huggingface/transformers",
        (Weights("model", ()),),
        files=(r"checkpoint-(\d+)",),
        unit="step",
        offset=0,
        counter="",
        reader="huggingface",
        mean=(),
        std=(),
    ),
    Format(
        "custom",
        "your own model: a Python file with load_backbone(path, **options)",
        "the user",
        (Weights("model", ()),),
        files=(r"[^/]*?(\d+)\.(?:pth|pt|bin|tar|pth\.tar|ckpt|safetensors)",),
        counter="",
        reader="custom",
        mean=(),
        std=(),
    ),
)

FORMATS: Mapping[str, Format] = MappingProxyType({row.name: row for row in _ROWS})
