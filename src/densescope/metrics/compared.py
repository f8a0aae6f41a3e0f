"""Label-free metrics that DSE is compared with."""

from __future__ import annotations

from collections.abc import Mapping

from densescope.estimate import Estimate
from densescope.metrics.metric import (
    Computation,
    Metric,
    Reads,
    ScoredFeatures,
)
from densescope.metrics.settings import ScoreSettings


def _baseline(name: str, reads: Reads) -> Computation:
    """A number of :func:`~densescope.numerics.intervals.estimate_baseline`."""

    def compute(features: ScoredFeatures, settings: ScoreSettings) -> Mapping[str, Estimate]:
        from densescope.numerics.intervals import estimate_baseline

        given = {"patches": features.patches, "image": features.image, "views": features.views}
        values = given[reads]
        if values is None:
            return {}
        estimate = estimate_baseline(
            name,
            values,
            sample_ids=features.sample_ids if reads == "views" else None,
            blocks=settings.blocks,
            group_size=settings.group_size,
        )
        return {name: estimate}

    return Computation(name, reads, compute)


COMPARED_METRICS = (
    Metric(
        "dense_rankme",
        "dense RankMe",
        "dimensions",
        "higher",
        _baseline("dense_rankme", "patches"),
        summary="How many directions the patches of all images use together.",
        about="Effective rank of all patch vectors at once, where DSE takes one patch per image. "
        "From 1 to dim.",
        trap="It is close to paper.effective_rank. Patches of one image are not independent, so it "
        "tells less than their number suggests.",
        source="RankMe on patches; Garrido et al. (2023), arXiv 2210.02885",
        formula="exp(-sum p log p), p = sigma(Z) / sum sigma(Z) + 1e-7, Z: all patches of all "
        "images",
        use="To see collapse of patch features at a glance.",
    ),
    Metric(
        "rankme",
        "RankMe",
        "dimensions",
        "higher",
        _baseline("rankme", "image"),
        summary="How many directions the image vectors use.",
        about="Effective rank of the matrix of image vectors (not centered), with 1e-7 added to "
        "each normalized singular value. From 1 to min(images, dim).",
        trap="It does not use patch features. Libraries that center the vectors, square the "
        "singular values or use another epsilon give values that differ by a factor of three.",
        source="Garrido et al. (2023), arXiv 2210.02885",
        formula="exp(-sum p log p), p = sigma(G) / sum sigma(G) + 1e-7, G: image vectors",
        use="To see collapse of image vectors, and to compare with published RankMe values.",
    ),
    Metric(
        "alpha_req",
        "alpha-ReQ",
        "decay exponent",
        "near 1",
        _baseline("alpha_req", "image"),
        summary="How fast the eigenvalues of the covariance of image vectors decay.",
        about="Eigenvalues of the covariance of image vectors, in falling order: negative slope of "
        "log eigenvalue over log position, fitted to positions 4 to 100 with weights 1 / position.",
        trap="The range of the fit alone has changed it from 0.80 to 1.66. It is NaN where too few "
        "eigenvalues above rounding are left to fit.",
        source="Agrawal et al. (2022), alpha-ReQ",
        formula="-slope of log e_k over log k, e_k: eigenvalues of cov(G), k = 4 ... 100, weights "
        "1 / k",
        use="To see whether image vectors use a few directions only (far above 1) or spread like "
        "noise (far below 1).",
    ),
    Metric(
        "lidar",
        "LiDAR",
        "dimensions",
        "higher",
        _baseline("lidar", "views"),
        summary="How many directions separate images by more than augmentation moves them.",
        about="Effective rank of the covariance between images, whitened by the covariance of "
        "augmented views of one image. From 1 to min(images - 1, dim).",
        trap="It cannot exceed the number of images. The constants delta = 1e-4 and epsilon = 1e-8 "
        "come from an implementation, not from the paper, and delta makes it depend on the scale "
        "of the features.",
        source="Thilak et al. (2024), arXiv 2312.04000",
        changes_with=frozenset({"scale"}),
        formula="exp(-sum p log p), p: normalized eigenvalues of W S_b W, W = (S_w + 1e-4 "
        "I)^(-1/2)",
        use="To see collapse in methods whose image vectors contain much that augmentation "
        "changes.",
    ),
    Metric(
        "outlier_fraction",
        "outlier patches",
        "fraction of patches",
        "lower",
        _baseline("outlier_fraction", "patches"),
        summary="How many patches have a norm far above that of the others, a sign of artifacts.",
        about="Fraction of patches whose norm exceeds 3 times the median norm. Darcet et al. "
        "report tokens with about ten times the norm of the others; 3 is the middle of 1 and 10 on "
        "a logarithmic scale. From 0 to below 0.5.",
        trap="A final norm layer makes norms more equal, so 0 does not show that there are no "
        "outliers before that layer.",
        source="Darcet et al. (2024), arXiv 2309.16588",
        heading="outliers",
        formula="share of patches with |z| > 3 median |z|",
        use="To find artifact tokens in large ViTs without registers.",
    ),
)
