"""Spectrum-like metrics once more, normalized the other way: growing norms move the raw ones."""

from __future__ import annotations

from functools import partial

from densescope.definitions import DEFINITIONS
from densescope.metrics.computations import IMAGE_UNITS, RAW_RANKS, UNITS, VIEW_UNITS
from densescope.metrics.metric import Metric
from densescope.metrics.structure import DAI

_row = partial(Metric, overview=False)  # they do not widen the table of a sweep


RAW_AND_UNIT_METRICS = (
    _row(
        "effective_rank_raw",
        "effective rank (raw patches)",
        DEFINITIONS["released"].rank_unit,
        "higher",
        RAW_RANKS,
        "How many directions the patch features use, weighted by their norms.",
        "Released effective rank of patches as the backbone gives them: mean over draws of one "
        "patch per image, not centered, divided by min(images, dim), so at most 1. Times "
        "min(images, dim) it is that of the paper's definition.",
        "Patches of large norm decide it: a few of them, or norms that spread during training, "
        "lower it while directions stay.",
        DAI,
        formula="mean over p of erank(Z_p) / min(B, d), Z_p: one raw patch per image",
        use="Beside the released effective rank: where only this one falls, norms moved it. After "
        "a final LayerNorm, as in most vision transformers, the two agree.",
    ),
    _row(
        "pooled_rank_raw",
        "pooled effective rank (raw patches)",
        DEFINITIONS["pooled"].rank_unit,
        "higher",
        RAW_RANKS,
        "How many directions the patch features use around their mean, weighted by their norms.",
        "Pooled effective rank of patches as the backbone gives them: of the patches of all images "
        "together, at most 30,000, minus their mean. From 0 to dim.",
        "Patches of large norm decide it.",
        f"{DAI}, as a public diagnostics script reads it",
        formula="erank(Z - mean Z), Z: at most 30,000 raw patches",
        use="Beside the pooled effective rank: where only this one falls, norms moved it.",
    ),
    _row(
        "dense_rankme_unit",
        "dense RankMe (unit patches)",
        "dimensions",
        "higher",
        UNITS,
        "How many directions all patches use together, independent of their norms.",
        "Dense RankMe of L2-normalized patches. From 1 to dim.",
        "It is close to paper.effective_rank.",
        "RankMe on patches; Garrido et al. (2023), arXiv 2210.02885",
        formula="dense RankMe of z / |z|",
        use="In place of dense RankMe where patch norms grow during training.",
    ),
    _row(
        "rankme_unit",
        "RankMe (unit vectors)",
        "dimensions",
        "higher",
        IMAGE_UNITS,
        "How many directions the image vectors use, independent of their norms.",
        "RankMe of L2-normalized image vectors. From 1 to min(images, dim).",
        "It does not use patch features.",
        "Garrido et al. (2023), arXiv 2210.02885",
        formula="RankMe of g / |g|",
        use="In place of RankMe where the norms of image vectors grow during training.",
    ),
    _row(
        "lidar_unit",
        "LiDAR (unit vectors)",
        "dimensions",
        "higher",
        VIEW_UNITS,
        "How many directions separate images by more than augmentation moves them, independent of "
        "the norms of the vectors.",
        "LiDAR of L2-normalized image vectors of augmented views. From 1 to min(images - 1, dim).",
        "It cannot exceed the number of images. The constant delta = 1e-4 has more weight than in "
        "LiDAR of vectors that are longer than 1.",
        "Thilak et al. (2024), arXiv 2312.04000",
        formula="LiDAR of g / |g|",
        use="In place of LiDAR where the norms of image vectors grow during training.",
    ),
    _row(
        "alpha_req_unit",
        "alpha-ReQ (unit vectors)",
        "decay exponent",
        "near 1",
        IMAGE_UNITS,
        "How fast the eigenvalues of the covariance of image vectors decay, independent of their "
        "norms.",
        "alpha-ReQ of L2-normalized image vectors.",
        "The range of the fit alone has changed alpha-ReQ from 0.80 to 1.66.",
        "Agrawal et al. (2022), alpha-ReQ",
        formula="alpha-ReQ of g / |g|",
        use="In place of alpha-ReQ where the norms of image vectors grow during training.",
    ),
)
