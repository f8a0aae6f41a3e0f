"""Metrics of the dense representation structure estimator, one set per definition."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from densescope.definitions import DEFINITIONS, Definition
from densescope.estimate import Estimate
from densescope.metrics.lambdas import linear_combination, run_lambda
from densescope.metrics.metric import (
    Change,
    Computation,
    Derivation,
    Derived,
    Metric,
    ScoredFeatures,
    Series,
)
from densescope.metrics.settings import ScoreSettings

DAI = "Dai et al. (2025), arXiv 2510.17299"
BY_GROUP: frozenset[Change] = frozenset({"image order"})


def _structure(features: ScoredFeatures, settings: ScoreSettings) -> Mapping[str, Estimate]:
    from densescope.numerics.intervals import estimate_structure

    return estimate_structure(
        features.patches,
        seeds=tuple(settings.seed + i for i in range(settings.clustering_seeds)),
        blocks=settings.blocks,
        images_per_batch=settings.images_per_batch,
        normalize=settings.normalize,
        local_clusters=settings.local_clusters,
        global_clusters=settings.global_clusters,
        group_size=settings.group_size,
    )


STRUCTURE = Computation("dense_structure", "patches", _structure)


def _separability(inter: Series, intra: Series) -> Derived:
    return Derived({name: linear_combination(inter[name], intra[name], -1.0) for name in inter})


def _dse(definition: str, separability: Series, effective_rank: Series) -> Derived:
    lambda_, note = run_lambda(
        [estimate.value for estimate in separability.values()],
        [estimate.value for estimate in effective_rank.values()],
        definition=definition,
    )
    if lambda_ is None:
        return Derived({}, note)
    sums = {
        name: linear_combination(separability[name], effective_rank[name], lambda_)
        for name in separability
    }
    return Derived(sums, note, lambda_)


def metrics_of(definition: Definition) -> tuple[Metric, ...]:
    """All metrics of one definition, DSE first."""
    name = definition.name
    inter, intra, rank = (f"{name}.{part}" for part in ("inter", "intra", "effective_rank"))
    separability = f"{name}.separability"
    released = name == "released"
    rows = [
        Metric(
            f"{name}.dse",
            f"DSE ({name})",
            definition.separability_unit,
            "higher",
            Derivation((separability, rank), partial(_dse, name)),
            "Dense representation structure estimator: separability + lambda x effective rank.",
            "Lambda is std(separability) / std(effective rank) over the checkpoints of a run, so "
            "DSE of a checkpoint changes when other checkpoints are scored.",
            "The sum does not show which part changed: look at the two parts first. Lambda is "
            "mostly noise where the effective rank hardly varies over the run.",
            DAI,
            heading="DSE",
            changes_with=BY_GROUP,
            overview=False,
        ),
        Metric(
            separability,
            f"separability ({name})",
            definition.separability_unit,
            "higher",
            Derivation((inter, intra), _separability),
            "How far clusters of patches lie apart, minus how wide they are. It falls when "
            "clusters overlap.",
            "M_inter - M_intra.",
            "",
            DAI,
            heading="separability",
            changes_with=BY_GROUP,
            overview=released,
            chooses=False,
        ),
        Metric(
            rank,
            f"effective rank ({name})",
            definition.rank_unit,
            "higher",
            STRUCTURE,
            "How many directions the patch features use. It falls when the representation "
            "collapses.",
            "M_dim: effective rank (exp of the entropy of the normalized singular values) of a "
            "matrix with one patch per image, not centered; mean over draws of patches that "
            "together "
            f"use every patch once{'; divided by min(images, dim), so at most 1' * released}.",
            "It grows with the number of images, and with fewer images than dimensions it measures "
            "the sample. Resampling with replacement lowers it, so it has no bootstrap interval. "
            "The paper takes a single draw; the mean of many has the same expectation and less "
            "noise.",
            DAI,
            heading="effective rank",
            overview=released,
            chooses=False,
        ),
        Metric(
            inter,
            f"M_inter ({name})",
            definition.separability_unit,
            "higher",
            STRUCTURE,
            "How far clusters of patches (pseudo-classes) lie apart.",
            "Distance of a patch to the nearest centroid that is not its own, within its group of "
            "images; "
            + (
                "mean over patches, then groups, divided by the mean distance of a patch to the "
                "mean of all."
                if released
                else "mean over the patches of a cluster, the clusters of a group, the groups."
            ),
            "Some notes on the paper square the distance. The paper's figure, the released code "
            "and this package do not.",
            DAI,
            heading="M_inter",
            changes_with=BY_GROUP,
            overview=False,
            chooses=False,
        ),
        Metric(
            intra,
            f"M_intra ({name})",
            definition.separability_unit,
            "lower",
            STRUCTURE,
            "How wide clusters of patches (pseudo-classes) are.",
            "Mean of two radii: that of the clusters within one image, and that of the clusters "
            "within a group of images.",
            "The radius of a cluster depends on its number of patches, so compare only equal "
            "numbers of images and patches.",
            DAI,
            heading="M_intra",
            changes_with=BY_GROUP,
            overview=False,
            chooses=False,
        ),
        *(
            Metric(
                f"{name}.intra_{part}",
                f"M_intra within {words} ({name})",
                definition.separability_unit,
                "lower",
                STRUCTURE,
                f"How wide clusters of patches within {words} are.",
                "Sum of the singular values of a centered cluster of n patches divided by "
                f"{'sqrt(max(n - 1, dim))' if released else 'n - 1'}, mean over clusters"
                f"{', divided by the mean distance of a patch to the mean of all' * released}.",
                "If no cluster has two patches, the radius is 1 before the division."
                if released
                else "Clusters of one patch have no radius and are left out.",
                DAI,
                heading=f"M_intra_{part}",
                changes_with=BY_GROUP if part == "batch" else frozenset(),
                overview=False,
                judged=False,
                chooses=False,
            )
            for part, words in (("image", "one image"), ("batch", "a group of images"))
        ),
    ]
    if definition.lambda_by_default is not None:
        rows.append(
            Metric(
                f"{name}.dse_lambda_{definition.lambda_by_default:g}",
                f"DSE (lambda = {definition.lambda_by_default:g}, {name})",
                definition.separability_unit,
                "higher",
                STRUCTURE,
                "DSE of one checkpoint by itself: it does not depend on other checkpoints of the "
                "run.",
                "Separability + effective rank, that is DSE with lambda = 1.",
                "The sum does not show which part changed: look at the two parts first. If all "
                "patches are the same, separability and this sum are NaN.",
                DAI,
                heading=f"DSE (lambda = {definition.lambda_by_default:g})",
                changes_with=BY_GROUP,
                judged=False,
                chooses=False,
            )
        )
    return tuple(rows)


STRUCTURE_METRICS = tuple(row for each in DEFINITIONS.values() for row in metrics_of(each))
