"""Metrics of how patches resemble each other: rivals of DSE from other papers and packages."""

from __future__ import annotations

from densescope.estimate import Estimate
from densescope.metrics.computations import COSINES, DISTANCES, IMAGE_UNITS, SHARES, UNITS
from densescope.metrics.metric import (
    Better,
    Change,
    Computation,
    Derivation,
    Derived,
    Metric,
    Series,
)

IREPA = "iREPA, arXiv 2512.10794"
# Twins have no distance; trees and clusters depend on the order of the patches.
TWINS: frozenset[Change] = frozenset({"duplication"})
ORDER: frozenset[Change] = frozenset({"group order", "image order", "duplication"})
SCALES: frozenset[Change] = frozenset({"scale"})


def _row(
    name: str,
    title: str,
    unit: str,
    better: Better,
    made_by: Computation | Derivation,
    summary: str,
    about: str,
    trap: str,
    source: str,
    *,
    changes_with: frozenset[Change] = frozenset(),
) -> Metric:
    return Metric(
        name,
        title,
        unit,
        better,
        made_by,
        summary,
        about,
        trap,
        source,
        changes_with=changes_with,
        overview=False,
    )


def _standardized(learnability: Series, dimension: Series) -> Derived:
    """Sum of two series, each with mean 0 and deviation 1 over the checkpoints."""
    import statistics

    scales = []
    for series in (learnability, dimension):
        values = [estimate.value for estimate in series.values()]
        if len(values) < 3 or not (deviation := statistics.pstdev(values)):
            note = "CLID needs three checkpoints that differ in both of its parts"
            return Derived({}, note)
        scales.append((statistics.fmean(values), deviation))
    (first, one), (second, other) = scales
    return Derived(
        {
            name: Estimate(
                (learnability[name].value - first) / one + (dimension[name].value - second) / other,
                tuple(
                    (a - first) / one + (b - second) / other
                    for a, b in zip(
                        learnability[name].replicates, dimension[name].replicates, strict=True
                    )
                ),
            )
            for name in learnability
        }
    )


RIVAL_METRICS = (
    _row(
        "token_cosine",
        "token cosine",
        "cosine",
        "lower",
        COSINES,
        "How alike the patches of one image are.",
        "Mean cosine of two different patches of an image, mean over images. From -1 / (n - 1) to "
        "1 for n patches.",
        "Uniform images have alike patches in a good network, too.",
        "homogenization of tokens; see Raghu et al. (2021), arXiv 2108.08810",
    ),
    _row(
        "image_patch_cosine",
        "class token cosine",
        "cosine",
        "lower",
        COSINES,
        "How much the patches repeat the image vector.",
        "Mean cosine of a patch and the vector of its image: the class token, where the backbone "
        "has one, else the mean of the patches. From -1 to 1. Left out at layers of another width.",
        "For a backbone that averages its patches it measures the token cosine.",
        "Darcet et al. (2024), arXiv 2309.16588, for the exchange between both",
    ),
    _row(
        "lds_paper",
        "LDS (paper)",
        "cosine",
        "higher",
        COSINES,
        "How much more alike near patches are than far ones.",
        "Mean cosine of the patch pairs of an image nearer than half the side of the grid "
        "(Manhattan distance), minus that of all others; mean over images.",
        "Positions alone give a high value. The released code has another definition.",
        IREPA,
    ),
    _row(
        "lds_code",
        "LDS (code)",
        "cosine",
        "higher",
        COSINES,
        "How much more alike neighboring patches are than far ones.",
        "Mean cosine of the four neighbors, minus that of the pairs at Manhattan distance 6 or "
        "more; mean over images. Left out on grids without such pairs.",
        "The distance 6 is in patches, so grids of two sizes do not compare.",
        f"{IREPA}, released code",
    ),
    _row(
        "cds_paper",
        "CDS (paper)",
        "cosine per patch",
        "higher",
        COSINES,
        "How fast the likeness of patches falls with their distance.",
        "Minus the slope of the mean cosine against the Manhattan distance, all distances; mean "
        "over images.",
        "The few pairs of the corners count as much as the many near ones.",
        IREPA,
    ),
    _row(
        "cds_code",
        "CDS (code)",
        "cosine per patch",
        "higher",
        COSINES,
        "How fast the likeness of patches falls with their distance, up to 8 patches.",
        "As CDS (paper), over the distances 1 to 8.",
        "The distance is in patches, so grids of two sizes do not compare.",
        f"{IREPA}, released code",
    ),
    _row(
        "spatial_contrast",
        "RMSC",
        "distance (unit vectors)",
        "higher",
        COSINES,
        "How far the patches of an image lie from their mean.",
        "Root mean square distance of the unit patches of an image from their mean, mean over "
        "images. From 0 to 1.",
        "Noise in the patches raises it.",
        IREPA,
    ),
    _row(
        "positional_share",
        "positional share",
        "fraction of variance",
        "lower",
        SHARES,
        "How much of the patches is their position in the image.",
        "Share of the variance of all patches that the mean patch of each position explains. From "
        "1 / images for independent patches to 1.",
        "Sets of images with a fixed layout (street scenes) have a share of their own.",
        "analysis of variance",
    ),
    _row(
        "image_share",
        "image share",
        "fraction of variance",
        "lower",
        SHARES,
        "How much of the patches is the image they are of.",
        "Share of the variance of all patches that the mean patch of each image explains. From "
        "1 / patches for independent patches to 1.",
        "Images of one object each have a high share in a good network, too.",
        "analysis of variance",
    ),
    _row(
        "patch_norm",
        "patch norm",
        "feature units",
        "lower",
        SHARES,
        "How long patch vectors are.",
        "Mean length of the patch vectors, not normalized. At least 0.",
        "It grows in most trainings whatever the features are worth, and confounds every metric "
        "of raw features.",
        "length of vectors",
        changes_with=SCALES,
    ),
    _row(
        "patch_norm_variation",
        "variation of patch norms",
        "deviation / mean",
        "lower",
        SHARES,
        "How unequal the lengths of patch vectors are.",
        "Standard deviation of the lengths of patch vectors over their mean. At least 0.",
        "A final norm layer evens lengths out.",
        "Darcet et al. (2024), arXiv 2309.16588, for the outliers behind it",
    ),
    _row(
        "twonn",
        "TwoNN dimension",
        "dimensions",
        "lower",
        DISTANCES,
        "How many dimensions the patches fill locally.",
        "Slope through the origin of -log(1 - F) against the log ratio of the distances to the "
        "second and the first neighbor, without the largest tenth of the ratios; of 1,024 patches, "
        "normalized as for DSE.",
        "It grows with the density of the sample, and noise fills every dimension. Its interval is "
        "up to twice too wide.",
        "Facco et al. (2017)",
        changes_with=TWINS,
    ),
    _row(
        "mst_dimension",
        "MST dimension",
        "dimensions",
        "lower",
        DISTANCES,
        "How many dimensions the patches fill, by the growth of spanning trees.",
        "1 / (1 - slope of the log length of the minimum spanning tree on the log number of "
        "points), from nested samples of 128 to 1,024 patches, normalized as for DSE.",
        "Four sample sizes make a short line. Its interval is up to twice too wide.",
        "IdEst, arXiv 2606.03338",
        changes_with=ORDER,
    ),
    _row(
        "cluster_learnability",
        "cluster learnability",
        "accuracy",
        "higher",
        DISTANCES,
        "How well its neighbors tell the cluster of a patch.",
        "Accuracy of the ten nearest neighbors, leaving one out, for the 24 k-means clusters of "
        "1,024 patches, normalized as for DSE. From 0 to 1.",
        "Few, unequal clusters are easy.",
        "Lu et al. (2022), arXiv 2206.01251; patches in place of images",
        changes_with=ORDER,
    ),
    _row(
        "clid",
        "CLID",
        "standard deviations",
        "higher",
        Derivation(("cluster_learnability", "twonn"), _standardized),
        "How learnable and how expressive the features are.",
        "Cluster learnability plus TwoNN dimension, each standardized over the checkpoints of the "
        "run, so that it changes when others are scored.",
        "Its parts disagree here: a higher dimension counts as good in it.",
        "Lu et al. (2022), arXiv 2206.01251",
        changes_with=ORDER,
    ),
    _row(
        "davies_bouldin",
        "Davies-Bouldin index",
        "spread / distance",
        "lower",
        DISTANCES,
        "How wide clusters of patches are for their distance.",
        "Mean over the 24 k-means clusters of 1,024 patches of the worst ratio of spreads to the "
        "distance of centroids, normalized as for DSE. At least 0.",
        "k-means finds round clusters in anything.",
        "Davies and Bouldin (1979)",
        changes_with=ORDER,
    ),
    _row(
        "dense_rankme_unit",
        "dense RankMe (unit patches)",
        "dimensions",
        "higher",
        UNITS,
        "How many directions all patches use, whatever their lengths.",
        "Dense RankMe of L2-normalized patches. From 1 to dim.",
        "Close to paper.effective_rank.",
        "RankMe on patches; Garrido et al. (2023), arXiv 2210.02885",
    ),
    _row(
        "rankme_unit",
        "RankMe (unit vectors)",
        "dimensions",
        "higher",
        IMAGE_UNITS,
        "How many directions the image vectors use, whatever their lengths.",
        "RankMe of L2-normalized image vectors. From 1 to min(images, dim).",
        "It does not see patches at all.",
        "Garrido et al. (2023), arXiv 2210.02885",
    ),
    _row(
        "alpha_req_unit",
        "alpha-ReQ (unit vectors)",
        "decay exponent",
        "near 1",
        IMAGE_UNITS,
        "How fast the eigenvalues of the image vectors decay, whatever their lengths.",
        "alpha-ReQ of L2-normalized image vectors.",
        "The fit range alone has moved alpha-ReQ from 0.80 to 1.66.",
        "Agrawal et al. (2022), alpha-ReQ",
    ),
)
