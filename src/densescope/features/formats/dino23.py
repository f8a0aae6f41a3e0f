"""Rows of DINOv2 and DINOv3, whose names need conversion."""

from __future__ import annotations

from densescope.features.conversions import dinov2_registration, dinov2_tokens, dinov3_tokens
from densescope.features.formats.row import WHOLE, FileNames, Format, Weights

# The recipes of the release have registers and norms in bfloat16, whose epsilon is 1e-5; the code's
# default and its ImageNet-1k recipe have neither.
_NO_REGISTERS = (("storage_tokens", {"num_reg_tokens": 0, "norm_eps": 1e-6}),)

DINO23_ROWS = (
    Format(
        "dinov2",
        "DINOv2, training",
        "facebookresearch/dinov2, arXiv 2304.07193",
        (
            Weights("teacher", (), ("teacher.backbone.", "backbone."), nested=("teacher", "model")),
            Weights("student", ("model",), ("student.backbone.",)),
        ),
        "vit_large_patch14_dinov2",
        {"img_size": 224, "patch_size": 16},
        drop=(("mask_token", "input of masked patches"),),
        renames=((r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),),
        conversion=dinov2_tokens,
        registration=dinov2_registration,
        files=(
            FileNames(
                r"(?:eval/)?training_(\d+)/teacher_checkpoint\.pth",
                "eval/training_N/teacher_checkpoint.pth",
            ),
            FileNames(r"model_(\d+)\.rank_\d+\.pth", "model_NNNNNNN.rank_0.pth"),
        ),
        latest=("model_final.rank_*.pth",),
        unit="step",
        counter="iteration",
        counter_offset=0,
        foreign="in rank files, the sharded tensors of FSDP",
    ),
    Format(
        "dinov2-release",
        "DINOv2, released backbones",
        "facebookresearch/dinov2, arXiv 2304.07193",
        WHOLE,
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
            Weights(
                "teacher",
                (),
                ("model_ema.backbone.", "teacher.backbone.", "backbone."),
                nested=("teacher", "model"),
            ),
            Weights("student", ("model",), ("student.backbone.",)),
        ),
        "vit_large_patch16_dinov3_qkvb",
        without=_NO_REGISTERS,
        drop=(
            ("mask_token", "input of masked patches"),
            ("rope_embed.*", "fixed by the architecture"),
            ("local_cls_norm.*", "used in training only"),
        ),
        conversion=dinov3_tokens,
        files=(
            FileNames(
                r"(?:eval/)?(?:training_)?(\d+)/teacher_checkpoint\.pth",
                "eval/training_N/teacher_checkpoint.pth",
            ),
            FileNames(
                r"(?:eval/)?(?:training_)?(\d+)/sharded_teacher_checkpoint",
                "eval/N/sharded_teacher_checkpoint",
            ),
            FileNames(r"(?:ckpt/)?(\d+)", "ckpt/N"),
        ),
        unit="step",
        counter="iteration",
        counter_offset=0,
    ),
    Format(
        "dinov3-release",
        "DINOv3, released backbones",
        "facebookresearch/dinov3, arXiv 2508.10104",
        WHOLE,
        "vit_small_patch16_dinov3_qkvb",
        without=_NO_REGISTERS,
        drop=(
            ("mask_token", "input of masked patches"),
            ("rope_embed.*", "fixed by the architecture"),
            ("local_cls_norm.*", "used in training only"),
        ),
        conversion=dinov3_tokens,
    ),
)
