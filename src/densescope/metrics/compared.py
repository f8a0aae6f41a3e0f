"""Label-free metrics that DSE is compared with."""

from __future__ import annotations

from collections.abc import Mapping

from densescope.estimate import Estimate
from densescope.metrics.metric import (
    Better,
    Change,
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


def _row(
    name: str,
    title: str,
    unit: str,
    better: Better,
    reads: Reads,
    *,
    summary: str,
    about: str,
    trap: str,
    source: str,
    heading: str = "",
    changes_with: frozenset[Change] = frozenset(),
) -> Metric:
    return Metric(
        name,
        title,
        unit,
        better,
        _baseline(name, reads),
        summary,
        about,
        trap,
        source,
        heading,
        changes_with,
    )


COMPARED_METRICS = (
    _row(
        "dense_rankme",
        "dense RankMe",
        "dimensions",
        "higher",
        "patches",
        summary="How many directions all patches together use: DSE without separability.",
        about="Effective rank of all patches at once. From 1 to dim.",
        trap="Close to paper.effective_rank, but patches of one image are not independent.",
        source="RankMe on patches; Garrido et al. (2023), arXiv 2210.02885",
    ),
    _row(
        "rankme",
        "RankMe",
        "dimensions",
        "higher",
        "image",
        summary="How many directions the image vectors use.",
        about="Effective rank of one vector per image, 1e-7 added to each normalized singular "
        "value, uncentered. From 1 to min(images, dim).",
        trap="It does not see patches at all. Libraries that center, square or use another epsilon "
        "differ by a factor of three.",
        source="Garrido et al. (2023), arXiv 2210.02885",
    ),
    _row(
        "alpha_req",
        "alpha-ReQ",
        "decay exponent",
        "near 1",
        "image",
        summary="How fast the eigenvalues of the image vectors decay.",
        about="Negative slope of log eigenvalue against log rank, ranks 4 to 100, weight 1/rank, "
        "of the centered covariance of image vectors.",
        trap="The fit range alone has moved it from 0.80 to 1.66. Not a number where the spectrum "
        "has nothing left to fit.",
        source="Agrawal et al. (2022), alpha-ReQ",
    ),
    _row(
        "lidar",
        "LiDAR",
        "dimensions",
        "higher",
        "views",
        summary="How many directions tell images apart, beyond augmentation.",
        about="Effective rank of the covariance between images in units of the covariance between "
        "augmented views of one image. From 1 to min(images - 1, dim).",
        trap="Fewer images than dimensions cap it. Its constants delta = 1e-4 and epsilon = 1e-8 "
        "are an implementation's, not the paper's, and delta ties it to the scale of the features.",
        source="Thilak et al. (2024), arXiv 2312.04000",
        changes_with=frozenset({"scale"}),
    ),
    _row(
        "outlier_fraction",
        "outlier patches",
        "fraction of patches",
        "lower",
        "patches",
        summary="Patches with a norm far above the rest; a sign of artifacts.",
        about="Share of patches whose norm exceeds 3 times the median norm: the high-norm tokens "
        "of Darcet et al., reported with about ten times the norm of the rest; 3 is the middle of "
        "1 and 10 on a logarithmic scale. From 0 to below 0.5.",
        trap="A final norm layer evens norms out, so 0 does not prove that there are none before "
        "it.",
        source="Darcet et al. (2024), arXiv 2309.16588",
        heading="outliers",
    ),
)
