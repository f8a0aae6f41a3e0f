"""The protocols: who asks what of frozen features, with which settings."""

from __future__ import annotations

from densescope.errors import InputError
from densescope.evaluation.probes import engines, patch_knn
from densescope.evaluation.probes.row import ProbeProtocol

_ROWS = (
    ProbeProtocol(
        name="quick-linear",
        title="Quick linear probe of this package",
        task="segmentation",
        measure="miou",
        head="standardization on train, one linear map",
        engine=engines.quick_linear,
        settings=engines.QuickSettings(),
        image_size=224,
        resize="squash",
        label_size=224,
        seeds=(0, 1, 2),
        source="this package",
        deviations=(
            "no augmentation and no batch norm; a patch is trained on the fractions of its "
            "pixels each class has, so numbers compare only with each other",
        ),
    ),
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
