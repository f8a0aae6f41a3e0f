"""Rows of formats that belong to no method: the user names the architecture."""

from __future__ import annotations

from densescope.features.conversions import torchvision_vit
from densescope.features.formats.row import (
    EMA,
    NUMBERED_RESNET,
    WHOLE,
    FileNames,
    Format,
    Weights,
    any_number,
)

# Not "head.*": in some architectures the last norm is called head.norm.
_LEFT_OUT = (
    *((name, "classifier") for name in ("head.weight", "head.bias", "head.fc.*", "fc.*")),
    ("classifier.*", "classifier"),
    ("heads.*", "classifier"),
    ("n_averaged", "counter of torch's AveragedModel"),
)

GENERAL_ROWS = (
    Format(
        "timm",
        "state dict of a timm model",
        "huggingface/pytorch-image-models",
        (
            # Transformers calls a timm model that it wraps so.
            Weights("model", (), ("timm_model.", ""), nested=("state_dict", "model")),
            EMA,
        ),
        by_prefix=True,
        drop=_LEFT_OUT,
        renames=NUMBERED_RESNET,
        conversion=torchvision_vit,
        files=any_number("checkpoint-N.pth.tar"),
        latest=(
            "last.pth.tar",
            "model_best.pth.tar",
            "last.pt",
            "last.pth",
            "latest.pt",
            "latest.pth",
        ),
        counter_offset=None,
    ),
    Format(
        "safetensors",
        "safetensors file of a timm model",
        "huggingface/safetensors",
        WHOLE,
        by_prefix=True,
        drop=_LEFT_OUT,
        renames=NUMBERED_RESNET,
        conversion=torchvision_vit,
        files=any_number("model_N.safetensors", "safetensors"),
        latest=("model.safetensors",),
        counter="",
    ),
    Format(
        "lightning",
        "Lightning .ckpt; weights names the sub-module, such as model.backbone.",
        "Lightning-AI/pytorch-lightning",
        (Weights("backbone.", ("state_dict",), ("backbone.",)),),
        by_prefix=True,
        drop=_LEFT_OUT,
        renames=NUMBERED_RESNET,
        conversion=torchvision_vit,
        files=any_number("epoch=N-step=400.ckpt", "ckpt"),
        latest=("last.ckpt",),
        counter_offset=0,
        foreign="callbacks, hyper-parameters",
    ),
    Format(
        "huggingface",
        "folder of a Transformers model",
        "huggingface/transformers",
        (Weights("model", ()),),
        files=(FileNames(r"checkpoint-(\d+)", "checkpoint-N"),),
        unit="step",
        offset=0,
        counter="",
        reader="huggingface",
        normalization=None,
    ),
    Format(
        "released",
        "released weights that timm finds: timm:NAME or hf-hub:ORG/NAME in place of a file",
        "huggingface/pytorch-image-models",
        (Weights("model", ()),),
        counter="",
        reader="released",
        normalization=None,
    ),
    Format(
        "custom",
        "your own model: a Python file with load_backbone(path, **options)",
        "the user",
        (Weights("model", ()),),
        files=any_number("checkpoint_N.pth", r"pth|pt|bin|tar|pth\.tar|ckpt|safetensors"),
        counter="",
        reader="custom",
        normalization=None,
    ),
)
