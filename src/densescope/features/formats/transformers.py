"""Rows of the methods that train vision transformers."""

from __future__ import annotations

from densescope.features.conversions import clip_names, swin_downsampling
from densescope.features.formats.row import (
    PTH,
    PTH_TAR,
    WHOLE,
    Architecture,
    FileNames,
    Format,
    Weights,
)
from densescope.features.normalization import Normalization

_CLIP = Normalization((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_VIT_S = "vit_small_patch16_224"
_VIT_B = "vit_base_patch16_224"
_SWIN_T = "swin_tiny_patch4_window7_224"
_HEADS = (("head.*", "projection head"), ("head_dense.*", "dense projection head"))
_SWIN_FIXED = (
    ("*relative_position_index", "fixed by the window size"),
    ("*attn_mask", "fixed by the window size"),
)


_RESNET = Architecture("resnet50", drop=(("fc.*", "projector in place of the classifier"),))
_SWIN = Architecture(_SWIN_T, {"norm_eps": 1e-6}, drop=_SWIN_FIXED, conversion=swin_downsampling)


def _teacher_and_student(prefix: str = "backbone.") -> tuple[Weights, ...]:
    return tuple(Weights(name, (name,), (prefix,)) for name in ("teacher", "student"))


TRANSFORMER_ROWS = (
    Format(
        "mocov3",
        "MoCo v3",
        "facebookresearch/moco-v3, arXiv 2104.02057",
        (
            Weights("momentum", ("state_dict",), ("momentum_encoder.",)),
            Weights("base", ("state_dict",), ("base_encoder.",)),
        ),
        _VIT_S,
        {"num_heads": 12},
        drop=(("head.*", "projector"),),
        others=(_RESNET,),
        files=PTH_TAR,
    ),
    Format(
        "mocov3-release",
        "MoCo v3, released weights (base encoder), also as convert_to_deit.py writes them",
        "facebookresearch/moco-v3, arXiv 2104.02057",
        (Weights("base", (), ("base_encoder.", ""), nested=("state_dict", "model"), needed=True),),
        _VIT_S,
        {"num_heads": 12},
        drop=(("head.*", "projector"),),
        others=(_RESNET,),
        latest=("vit-s-300ep.pth.tar", "vit-b-300ep.pth.tar"),
    ),
    Format(
        "dino",
        "DINO",
        "facebookresearch/dino, arXiv 2104.14294",
        _teacher_and_student(),
        _VIT_S,
        others=(Architecture("resnet50"),),
        files=PTH,
        latest=("checkpoint.pth",),
        foreign="argparse.Namespace, pathlib.PosixPath, NumPy scalars",
    ),
    Format(
        "dino-release",
        "DINO, released backbone",
        "facebookresearch/dino, arXiv 2104.14294",
        WHOLE,
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
        others=(_SWIN,),
        files=PTH,
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
        others=(_SWIN,),
        latest=("checkpoint_teacher.pth",),
    ),
    Format(
        "mugs",
        "Mugs",
        "sail-sg/mugs, arXiv 2203.14415",
        _teacher_and_student(),
        _VIT_S,
        drop=(("relation_blocks.*", "relation head inside the backbone"),),
        files=PTH,
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
        _teacher_and_student(""),
        _SWIN_T,
        _SWIN.options,
        drop=(*_HEADS, *_SWIN_FIXED),
        conversion=swin_downsampling,
        files=PTH,
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
        files=(FileNames(r"checkpoint-(\d+)\.pth", "checkpoint-N.pth"),),
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
            Weights("target", ("target_encoder",)),
            Weights("context", ("encoder",)),
        ),
        _VIT_B,
        {"class_token": False, "global_pool": "avg", "fc_norm": False},
        files=(FileNames(r".+-ep(\d+)\.pth\.tar", "jepa-epN.pth.tar"),),
        latest=("*-latest.pth.tar", "IN1K-vit.h.14-300e.pth.tar"),
        offset=-1,
        counter_offset=-1,
    ),
    Format(
        "openclip",
        "vision tower of CLIP; OpenAI's weights are of vit_base_patch16_clip_quickgelu_224",
        "mlfoundations/open_clip, arXiv 2103.00020",
        (Weights("visual", (), ("visual.trunk.", "visual."), nested=("state_dict",)),),
        "vit_base_patch16_clip_224",
        drop=(
            ("proj", "projection to the space of text"),
            *((name, "classifier") for name in ("head.weight", "head.bias", "head.fc.*")),
        ),
        conversion=clip_names,
        files=(FileNames(r"(?:checkpoints/)?epoch_(\d+)\.pt", "checkpoints/epoch_N.pt"),),
        latest=("epoch_latest.pt", "open_clip_pytorch_model.bin", "open_clip_model.safetensors"),
        offset=0,
        counter_offset=0,
        normalization=_CLIP,
    ),
)
