"""The protocols: who asks what of frozen features, with which settings."""

from __future__ import annotations

from densescope.errors import InputError
from densescope.evaluation.probes import (
    convex,
    depth,
    engines,
    in_context,
    logistic,
    patch_knn,
)
from densescope.evaluation.probes.recipes import RECIPES
from densescope.evaluation.probes.row import ProbeProtocol

_ROWS = (
    ProbeProtocol(
        name="linear",
        title="Convex linear probe of this package, solved",
        task="segmentation",
        measure="miou",
        head="whitening on train, multinomial logistic regression",
        engine=convex.convex,
        settings=convex.ConvexSettings(),
        image_size=224,
        any_size=True,
        resize="squash",
        label_size=224,
        source="this package",
        deviations=(
            "no training by steps and no random numbers: the minimum of a convex objective is "
            "found to a stated gradient norm, and does not depend on the scale or the correlation "
            "of the features",
        ),
    ),
    ProbeProtocol(
        name="linear-sgd",
        title="Linear probe of this package, trained by steps",
        task="segmentation",
        measure="miou",
        head="standardization on train, one linear map",
        engine=engines.linear_sgd,
        settings=engines.SGDSettings(),
        image_size=224,
        any_size=True,
        resize="squash",
        label_size=224,
        seeds=(0, 1, 2),
        source="this package",
        deviations=(
            "no augmentation and no batch norm; a patch is trained on the fractions of its "
            "pixels each class has, so numbers compare only with each other",
            "AdamW for fifteen passes, not to convergence: on badly conditioned features it does "
            "not reach the best linear classifier",
        ),
    ),
    *RECIPES,
    ProbeProtocol(
        name="capi-knn",
        title="k-NN on patches as in CAPI",
        task="segmentation",
        measure="miou",
        head="majority of the k nearest patches, pixel by pixel",
        engine=patch_knn.patch_knn,
        settings=patch_knn.PatchKnnSettings(),
        image_size=224,
        resize="squash",
        label_size=224,
        source="facebookresearch/capi, eval_segmentation.py (Darcet et al. 2025, arXiv 2502.08769)",
        deviations=(
            "ignored pixels of neighbors do not vote (published: they do, and a prediction of the "
            "ignored label is a class of its own in the mean)",
        ),
    ),
    ProbeProtocol(
        name="capi-logreg",
        title="Logistic regression on patches as in CAPI",
        task="segmentation",
        measure="miou",
        head="standardization on train, multinomial logistic regression",
        engine=logistic.logistic,
        settings=logistic.LogisticSettings(),
        image_size=224,
        resize="squash",
        label_size=224,
        source="facebookresearch/capi, eval_segmentation.py (Darcet et al. 2025, arXiv 2502.08769)",
        deviations=(
            "preconditioned L-BFGS stops at a gradient of 1e-6 (published: without "
            "preconditioning, a tolerance of 1e-12, on a GPU), and each C starts from the "
            "solution of the next smaller one; the minimum is the same",
        ),
    ),
    ProbeProtocol(
        name="in-context",
        title="In-context segmentation (Hummingbird)",
        task="segmentation",
        measure="miou",
        head="none: soft retrieval from a memory of 102,400 patches, k = 30, temperature 0.02",
        engine=in_context.in_context,
        settings=in_context.InContextSettings(),
        image_size=512,
        resize="squash",
        label_size=512,
        source="Balazevic et al. (2023), arXiv 2306.01667; vpariza/open-hummingbird-eval",
        deviations=(
            "the memory holds images without augmentation (published: random crops and colors)",
            "neighbors are exact (published: approximate)",
            "ignored pixels belong to no class (open-hummingbird: to class 0)",
        ),
    ),
    ProbeProtocol(
        name="image-knn",
        title="Weighted k-NN on image vectors as in DINO",
        task="classification",
        measure="accuracy",
        head="none: k = 20 nearest by cosine, votes weighted by exp(cosine / 0.07)",
        engine=engines.image_knn,
        settings=engines.ImageKnnSettings(),
        image_size=224,
        resize="short-side-crop",
        label_size=None,
        source="Caron et al. (2021), arXiv 2104.14294; facebookresearch/dino, eval_knn.py",
        deviations=(
            "the image vector is the class token, or the mean of the patches where there is none",
        ),
    ),
    ProbeProtocol(
        name="depth-linear",
        title="Linear depth over bins",
        task="depth",
        measure="rmse",
        head="standardization on train, one linear map to 256 bins, rectified shares",
        engine=depth.depth_linear,
        settings=depth.DepthSettings(),
        image_size=224,
        resize="squash",
        label_size=224,
        source="head and loss after AdaBins (Bhat et al. 2021) and DINOv2's linear depth",
        deviations=(
            "cached features of the last block alone, without class token, augmentation, "
            "fourfold upsampling or gradient loss",
            "bins lie between the least and greatest training depth (published: fixed per data "
            "set)",
            "errors are taken over all pixels of the data set (published: per image, then the "
            "mean)",
        ),
    ),
)

PROTOCOLS: dict[str, ProbeProtocol] = {row.name: row for row in _ROWS}
"""Every protocol by name."""


def find_protocol(name: str) -> ProbeProtocol:
    """The row of ``PROTOCOLS``.

    Raises:
        InputError: there is no such protocol.
    """
    if name not in PROTOCOLS:
        raise InputError(f"there is no protocol {name!r}; there are: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
