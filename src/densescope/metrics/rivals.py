"""Metrics of how patches resemble each other: rivals of DSE from other papers and packages."""

from __future__ import annotations

import statistics
from functools import partial

from densescope.estimate import Estimate
from densescope.metrics.computations import (
    COSINES,
    DISTANCES,
    SHARES,
)
from densescope.metrics.drift import drift_from_first
from densescope.metrics.metric import (
    Change,
    Derivation,
    Derived,
    Metric,
    Series,
)
from densescope.metrics.raw_and_unit import RAW_AND_UNIT_METRICS

IREPA = "iREPA, arXiv 2512.10794"
# Twins have no distance; trees and clusters depend on the order of the patches.
TWINS: frozenset[Change] = frozenset({"duplication"})
ORDER: frozenset[Change] = frozenset({"group order", "image order", "duplication"})
SCALES: frozenset[Change] = frozenset({"scale"})


_row = partial(Metric, overview=False)  # they do not widen the table of a sweep


def _standardized(learnability: Series, dimension: Series) -> Derived:
    """Sum of two series, each with mean 0 and deviation 1 over the checkpoints."""
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
        "How similar the patches of one image are to each other.",
        "Mean cosine similarity of two different patches of an image, mean over images. From "
        "-1 / (n - 1) to 1 for n patches.",
        "Images of uniform content have similar patches in a good network, too.",
        "homogenization of tokens; see Raghu et al. (2021), arXiv 2108.08810",
        formula="mean over i of mean over p != q of cos(z_ip, z_iq)",
        use="To see homogenization: patches of an image that become copies of each other.",
    ),
    _row(
        "gram_drift",
        "Gram drift",
        "squared cosine",
        "lower",
        Derivation(("token_cosine",), drift_from_first, over_run=True),
        "How far the similarities between the patches of an image have moved from those of the "
        "first checkpoint.",
        "Mean squared difference of the cosine similarity of two patches of an image between a "
        "checkpoint and a reference on the same images, over 4,096 pairs of patches that are drawn "
        "once for the run: the squared difference of the off-diagonal entries of their Gram "
        "matrices. The reference is the first scored checkpoint; select --drift-from takes the "
        "pick, another checkpoint or a record of another run. From 0 to 4. Cosines are kept in "
        "half precision, so values up to 1e-7 are rounding.",
        "It says how far, not whether for the better: from the first checkpoint it grows in every "
        "training that learns. The sample of pairs gives it an error of 2 to 3 % of its value, "
        "which is part of its interval.",
        "Gram anchoring; Simeoni et al. (2025), DINOv3, arXiv 2508.10104",
        changes_with=ORDER,
        chooses=False,
        formula="mean over pairs (p, q) of an image of (cos(z_p, z_q) - cos(y_p, y_q))^2, y: the "
        "reference",
        use="To see when patch similarities leave those of a checkpoint that was good.",
    ),
    _row(
        "image_patch_cosine",
        "class token cosine",
        "cosine",
        "lower",
        COSINES,
        "How similar the patches are to the vector of their image.",
        "Mean cosine similarity of a patch and the vector of its image: the class token if the "
        "backbone has one, else the mean of the patches. From -1 to 1. Not computed at layers "
        "whose width is not that of the vector.",
        "If the vector of an image is the mean of its patches, this measures the token cosine.",
        "this package; Darcet et al. (2024), arXiv 2309.16588, on patches that hold global "
        "information",
        formula="mean over i, p of cos(z_ip, g_i)",
        use="To see whether patches take over the content of the class token.",
    ),
    _row(
        "lds_paper",
        "LDS (paper)",
        "cosine",
        "higher",
        COSINES,
        "How much more similar near patches are than far patches.",
        "Mean cosine similarity of the patch pairs of an image whose Manhattan distance is below "
        "half the side of the grid, minus that of all other pairs; mean over images.",
        "Features that encode only the position have a high value. The released code computes "
        "another number, LDS (code).",
        IREPA,
        formula="mean of cos(z_p, z_q) for |p - q| < H / 2, minus the mean for |p - q| >= H / 2",
        use="To see whether patch features follow the layout of the image.",
    ),
    _row(
        "lds_code",
        "LDS (code)",
        "cosine",
        "higher",
        COSINES,
        "How much more similar neighboring patches are than far patches.",
        "Mean cosine similarity of a patch and its four neighbors, minus that of the pairs at "
        "Manhattan distance 6 or more; mean over images. Not computed on grids without such pairs.",
        "The distance 6 is counted in patches, so compare only grids of one size.",
        f"{IREPA}, released code",
        formula="mean of cos(z_p, z_q) for |p - q| = 1, minus the mean for |p - q| >= 6",
        use="To compare with numbers of the released code of iREPA.",
    ),
    _row(
        "cds_paper",
        "CDS (paper)",
        "cosine per patch",
        "higher",
        COSINES,
        "How fast the similarity of patches falls with their distance.",
        "Negative slope of the mean cosine similarity over the Manhattan distance, fitted to all "
        "distances; mean over images.",
        "The few pairs at the largest distances count as much as the many pairs at small "
        "distances.",
        IREPA,
        formula="-slope over r of the mean of cos(z_p, z_q) for |p - q| = r, all r",
        use="To see how local the features are, as one slope.",
    ),
    _row(
        "cds_code",
        "CDS (code)",
        "cosine per patch",
        "higher",
        COSINES,
        "How fast the similarity of patches falls with their distance, up to 8 patches.",
        "As CDS (paper), fitted to the distances 1 to 8.",
        "The distance is counted in patches, so compare only grids of one size.",
        f"{IREPA}, released code",
        formula="-slope over r of the mean of cos(z_p, z_q) for |p - q| = r, r = 1 ... 8",
        use="To compare with numbers of the released code of iREPA.",
    ),
    _row(
        "spatial_contrast",
        "RMSC",
        "distance (unit vectors)",
        "higher",
        COSINES,
        "How far the patches of an image lie from their mean.",
        "Root mean square distance of the L2-normalized patches of an image from their mean; mean "
        "over images. From 0 to 1. iREPA's text and its code agree on it.",
        "Noise in the patches raises it.",
        IREPA,
        formula="mean over i of sqrt(mean over p of |z_ip - mean_p z_ip|^2)",
        use="To see homogenization as a distance: 0 means that all patches of an image are the "
        "same.",
    ),
    _row(
        "positional_share",
        "positional share",
        "fraction of variance",
        "lower",
        SHARES,
        "How much of the variance of patches comes from their position in the image.",
        "Fraction of the variance of all patches that the mean patch of each position explains. "
        "About 1 / images for independent patches, and at most 1.",
        "If all images have the same layout (street scenes), the share is high in a good network, "
        "too.",
        "analysis of variance",
        formula="sum over i, p of |m_p - m|^2 / sum over i, p of |z_ip - m|^2, m_p = mean over i "
        "of z_ip",
        use="To see whether features encode where a patch lies in place of what it shows.",
    ),
    _row(
        "image_share",
        "image share",
        "fraction of variance",
        "lower",
        SHARES,
        "How much of the variance of patches comes from the image that they belong to.",
        "Fraction of the variance of all patches that the mean patch of each image explains. "
        "About 1 / patches for independent patches, and at most 1.",
        "If every image shows one object, the share is high in a good network, too.",
        "analysis of variance",
        formula="sum over i, p of |m_i - m|^2 / sum over i, p of |z_ip - m|^2, m_i = mean over p "
        "of z_ip",
        use="To see whether patches encode their image as a whole in place of their own content.",
    ),
    _row(
        "patch_norm",
        "patch norm",
        "feature units",
        "lower",
        SHARES,
        "How long patch vectors are.",
        "Mean L2 norm of the patch vectors before normalization. At least 0.",
        "It grows in most trainings whether the features get better or not, and it affects every "
        "metric of features that are not normalized.",
        "length of vectors",
        changes_with=SCALES,
        formula="mean |z|",
        use="To explain metrics of features that are not normalized: look here when they move.",
    ),
    _row(
        "patch_norm_variation",
        "variation of patch norms",
        "deviation / mean",
        "lower",
        SHARES,
        "How much the norms of patch vectors vary.",
        "Standard deviation of the norms of patch vectors divided by their mean. At least 0.",
        "A final norm layer makes the norms more equal.",
        "this package; Darcet et al. (2024), arXiv 2309.16588, on patches with outlying norms",
        formula="deviation of |z| / mean |z|",
        use="To see whether a few patches get long vectors.",
    ),
    _row(
        "twonn",
        "TwoNN dimension",
        "dimensions",
        "lower",
        DISTANCES,
        "Intrinsic dimension of the patches, from the distances to their two nearest neighbors.",
        "Slope of a line through the origin: -log(1 - F(r)) over log r, where r is the distance of "
        "a patch to its second neighbor divided by that to its first, and F the distribution of r. "
        "The largest tenth of r is left out. Computed from 1,024 patches, normalized as for DSE.",
        "It grows with the number of patches, and noise raises it. Its interval can be twice as "
        "wide as it should be.",
        "Facco et al. (2017)",
        changes_with=TWINS,
        formula="slope through 0 of -log(1 - F(r)) over log r, r = d_2(z) / d_1(z)",
        use="To see the dimension of the surface on which patches lie, which effective rank "
        "overstates for curved ones.",
    ),
    _row(
        "mst_dimension",
        "MST dimension",
        "dimensions",
        "lower",
        DISTANCES,
        "Intrinsic dimension of the patches, from the lengths of minimum spanning trees.",
        "1 / (1 - slope), where the slope is that of the log length of the minimum spanning tree "
        "over the log number of patches, for four nested samples of 128 to 1,024 patches, "
        "normalized as for DSE.",
        "The slope is fitted to four points only. Its interval can be twice as wide as it should "
        "be.",
        "IdEst, arXiv 2606.03338",
        changes_with=ORDER,
        formula="1 / (1 - slope of log L(n) over log n), L(n): length of the tree of n patches",
        use="To check TwoNN with an estimate that does not rest on nearest neighbors alone.",
    ),
    _row(
        "cluster_learnability",
        "cluster learnability",
        "accuracy",
        "higher",
        DISTANCES,
        "How well the neighbors of a patch predict its cluster.",
        "Leave-one-out accuracy of the ten nearest neighbors in predicting which of 24 k-means "
        "clusters a patch belongs to; 1,024 patches, normalized as for DSE. From 0 to 1.",
        "Clusters of very unequal size are easy to predict.",
        "Lu et al. (2022), arXiv 2206.01251; patches in place of images",
        changes_with=ORDER,
        formula="share of patches whose cluster is the majority among their 10 nearest",
        use="As a part of CLID. Alone it needs care: see the picture.",
    ),
    _row(
        "clid",
        "CLID",
        "standard deviations",
        "higher",
        Derivation(("cluster_learnability", "twonn"), _standardized, over_run=True),
        "How learnable and how expressive the features are, in one number.",
        "Cluster learnability plus TwoNN dimension, each standardized over the checkpoints of the "
        "run. So the value of a checkpoint changes when other checkpoints are scored.",
        "A higher TwoNN dimension is good in CLID, while the TwoNN dimension by itself is held to "
        "be better when it is lower.",
        "Lu et al. (2022), arXiv 2206.01251",
        changes_with=ORDER,
        formula="(learnability - its mean) / its deviation + (twonn - its mean) / its deviation, "
        "over the run",
        use="To compare with published CLID values.",
    ),
    _row(
        "davies_bouldin",
        "Davies-Bouldin index",
        "spread / distance",
        "lower",
        DISTANCES,
        "How wide clusters of patches are compared with the distances between them.",
        "For each of 24 k-means clusters the largest value, over the other clusters, of the sum of "
        "both spreads divided by the distance of both centroids; mean over clusters. Computed from "
        "1,024 patches, normalized as for DSE. At least 0.",
        "k-means finds round clusters in any data.",
        "Davies and Bouldin (1979)",
        changes_with=ORDER,
        formula="mean over c of max over e != c of (s_c + s_e) / |mu_c - mu_e|, s_c: mean distance "
        "to mu_c",
        use="To compare with packages that report it. Separability answers the same question with "
        "intervals per part.",
    ),
    *RAW_AND_UNIT_METRICS,
)
