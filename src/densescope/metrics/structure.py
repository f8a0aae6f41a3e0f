"""Metrics of the dense representation structure estimator, one set per definition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from densescope.definitions import DEFINITIONS, Definition
from densescope.estimate import Estimate
from densescope.metrics.lambdas import LITTLE_SPREAD, linear_combination, weighted_sum
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
    from densescope.numerics.replicates import estimate_structure

    return estimate_structure(
        features.patches,
        seeds=tuple(settings.seed + i for i in range(settings.clustering_seeds)),
        normalize=settings.normalize,
        **settings.of_structure,
    )


STRUCTURE = Computation("dense_structure", "patches", _structure)


def _separability(inter: Series, intra: Series) -> Derived:
    return Derived({name: linear_combination(inter[name], intra[name], -1.0) for name in inter})


@dataclass(frozen=True)
class _Formulas:
    """What the parts are in one definition, in words, and the effective rank in symbols."""

    inter: str
    divisor: str
    symbols: str
    alone: str
    rank: str
    rank_formula: str


_PER_CLUSTER = "mean over the patches of a cluster, the clusters of a group, the groups."
_LEFT_OUT = "Clusters of one patch have no radius and are left out."
_PER_POSITION = (
    "of a matrix with one patch per image, not centered; mean over draws of patches that together "
    "use every patch once"
)
_ONE_DRAW = (
    "The paper takes a single draw; the mean of many has the same expectation and less noise."
)
_CENTERED = (
    "Centering removes what all patches share, so the little that differs in collapsed features "
    "can have a high rank."
)
_FORMULAS = {
    "released": _Formulas(
        "mean over patches, then groups, divided by the mean distance of a patch to the mean of "
        "all.",
        "sqrt(max(n - 1, dim))",
        "sqrt(max(n - 1, d))",
        "If no cluster has two patches, the radius is 1 before the division.",
        f"{_PER_POSITION}; divided by min(images, dim), so at most 1.",
        "mean over p of erank(Z_p) / min(B, d), Z_p: one patch per image",
    ),
    "paper": _Formulas(
        _PER_CLUSTER,
        "n - 1",
        "(n - 1)",
        _LEFT_OUT,
        f"{_PER_POSITION}.",
        "mean over p of erank(Z_p), Z_p: one patch per image",
    ),
    "pooled": _Formulas(
        f"{_PER_CLUSTER} The same is done with the clusters of each image; mean of the two.",
        "sqrt(n - 1)",
        "sqrt(n - 1)",
        _LEFT_OUT,
        "of the patches of all images together, at most 30,000 (equally many of every image, drawn "
        "at random), minus their mean.",
        "erank(Z - mean Z), Z: at most 30,000 patches",
    ),
}


def metrics_of(definition: Definition) -> tuple[Metric, ...]:
    """All metrics of one definition, DSE first."""
    name = definition.name
    inter, intra, rank = (f"{name}.{part}" for part in ("inter", "intra", "effective_rank"))
    separability = f"{name}.separability"
    released, formulas = name == "released", _FORMULAS[name]
    pooled = name == "pooled"
    source = f"{DAI}, as a public diagnostics script reads it" if pooled else DAI
    parts = [
        Metric(
            separability,
            f"separability ({name})",
            definition.separability_unit,
            "higher",
            Derivation((inter, intra), _separability),
            "How far clusters of patches lie apart, minus how wide they are. It falls when "
            "clusters overlap.",
            "M_inter - M_intra.",
            "It does not see a collapse that keeps clusters apart: look at the effective rank, too."
            if released
            else "Its parts are not divided by the spread of the features, so a collapse moves it "
            "towards 0, from above or below.",
            source,
            heading="separability",
            changes_with=BY_GROUP,
            overview=released,
            chooses=False,
            formula="inter - intra",
            use="To see whether clusters run into each other, the way in which DINO's features "
            "got worse.",
        ),
        Metric(
            rank,
            f"effective rank ({name})",
            definition.rank_unit,
            "higher",
            STRUCTURE,
            "How many directions the patch features use around their mean."
            if pooled
            else "How many directions the patch features use. It falls when the representation "
            "collapses.",
            "M_dim: effective rank (exp of the entropy of the normalized singular values) "
            f"{formulas.rank}",
            "In the study of this package it fell early in healthy runs, too, while labels rose, "
            "and later rose with them in most. It grows with the number of images, and with fewer "
            "images than dimensions it measures the sample. Resampling with replacement lowers "
            "it, so it has no bootstrap interval."
            f" {_CENTERED if pooled else _ONE_DRAW}",
            source,
            heading="effective rank",
            overview=released,
            chooses=False,
            formula=formulas.rank_formula,
            use="As a part of this DSE; for collapse look at the released effective rank."
            if pooled
            else "To see collapse, the way in which MoCo v3's features got worse.",
        ),
        Metric(
            inter,
            f"M_inter ({name})",
            definition.separability_unit,
            "higher",
            STRUCTURE,
            "How far clusters of patches (pseudo-classes) lie apart.",
            "Distance of a patch to the nearest centroid that is not its own, within its group of "
            f"images; {formulas.inter}",
            "Some notes on the paper square the distance. The paper's figure, the released code "
            "and this package do not.",
            source,
            heading="M_inter",
            changes_with=BY_GROUP,
            overview=False,
            chooses=False,
            formula=f"mean over z of min over c != c(z) of |z - mu_c|{' / s' * released}"
            f"{', mean of groups and images' * pooled}",
            use="To see which part moved separability.",
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
            source,
            heading="M_intra",
            changes_with=BY_GROUP,
            overview=False,
            chooses=False,
            formula="(intra_image + intra_batch) / 2",
            use="To see which part moved separability.",
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
                f"{formulas.divisor}, mean over clusters"
                f"{', divided by the mean distance of a patch to the mean of all' * released}.",
                formulas.alone,
                source,
                heading=f"M_intra_{part}",
                changes_with=BY_GROUP if part == "batch" else frozenset(),
                overview=False,
                judged=False,
                chooses=False,
                formula="mean over c of sum sigma(Z_c - mu_c) / "
                f"{formulas.symbols}{' / s' * released}, c: clusters of {words}",
                use="To see whether images or groups of images moved M_intra.",
            )
            for part, words in (("image", "one image"), ("batch", "a group of images"))
        ),
    ]
    return (*_sums(definition, source), *parts)


def _sums(definition: Definition, source: str) -> tuple[Metric, ...]:
    """DSE by each rule for lambda that the definition has, its default first."""
    name = definition.name
    parts = (f"{name}.separability", f"{name}.effective_rank")
    of_run = Metric(
        f"{name}.dse_lambda_run",
        f"DSE (lambda of the run, {name})",
        definition.separability_unit,
        "higher",
        Derivation(parts, partial(weighted_sum, name, "run"), over_run=True),
        "Dense representation structure estimator: separability + lambda x effective rank.",
        "Lambda is std(separability) / std(effective rank) over the checkpoints of a run, so "
        "DSE of a checkpoint changes when other checkpoints are scored.",
        "The sum does not show which part changed: look at the two parts first. Lambda is "
        "mostly noise where the effective rank hardly varies over the run.",
        source,
        heading="DSE (lambda of the run)",
        changes_with=BY_GROUP,
        overview=False,
        chooses=False,
        formula="separability + lambda effective_rank, lambda = std(separability) / "
        "std(effective_rank)",
        use="To choose among the checkpoints of one run as the paper does.",
    )
    if definition.lambda_by_default is None:
        return (of_run,)
    alone = Metric(
        f"{name}.dse_lambda_1",
        f"DSE (lambda = 1, {name})",
        definition.separability_unit,
        "higher",
        STRUCTURE,
        "Dense representation structure estimator: separability + effective rank. It does not "
        "depend on other checkpoints of the run.",
        "Separability + effective rank, that is DSE with lambda = 1.",
        "The sum does not show which part changed: look at the two parts first. If all "
        "patches are the same, separability and this sum are NaN.",
        source,
        heading="DSE (lambda = 1)",
        changes_with=BY_GROUP,
        chooses=False,
        formula="inter - intra + effective_rank",
        use="To choose among the checkpoints of one run, and for one checkpoint, for layers, and "
        "while a run is going: lambda does not move.",
    )
    shrunk = Metric(
        f"{name}.dse_lambda_shrunk",
        f"DSE (shrunk lambda, {name})",
        definition.separability_unit,
        "higher",
        Derivation(parts, partial(weighted_sum, name, "shrunk"), over_run=True),
        "DSE with a lambda nearer to 1 the less the effective rank varies over the run.",
        "Lambda is r ** w: r = std(separability) / std(effective rank) over the "
        "checkpoints of the run, w = v / (v + t), v the variance of the effective rank, "
        f"and t the square of {LITTLE_SPREAD:.0%} of its largest value. So it is the run's "
        "lambda where the effective rank varies by several percent, its square root at "
        f"{LITTLE_SPREAD:.0%}, and 1 without spread.",
        "Where r is near 1, or the effective rank varies much, it is the run's DSE.",
        "this package",
        heading="DSE (shrunk lambda)",
        changes_with=BY_GROUP,
        overview=False,
        chooses=False,
        formula="separability + r^w effective_rank, w = v / (v + t)",
        use="To check a choice by DSE where the effective rank hardly varies over the run.",
    )
    return alone, of_run, shrunk


STRUCTURE_METRICS = tuple(row for each in DEFINITIONS.values() for row in metrics_of(each))
