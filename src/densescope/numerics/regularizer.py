"""The dense structure estimator as a training loss: the metric's core with a bounded gradient."""

from __future__ import annotations

import math
import warnings
from dataclasses import fields
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from densescope.errors import InputError
from densescope.numerics.assignment import Assignment, assign, unit
from densescope.numerics.checks import (
    LIMITS,
    check_at_least,
    check_enough_rows,
    check_shape,
    full_precision,
)
from densescope.numerics.structure import DenseStructure, structure_of
from densescope.numerics.terms import spread

# Below this fraction of the mean norm, a spread or a patch no longer strengthens the gradient.
FLOOR = 1e-2
Rank = Literal["per-position", "pooled"]


class DenseStructureLoss(nn.Module):
    """``-beta * DSE`` of a batch of patch tokens, to be added to a self-supervised loss.

    ``loss = L_ssl - beta * (M_inter - M_intra + M_dim)``, the released definition with
    ``lambda = 1``: the value is that of :func:`~densescope.numerics.structure.dense_structure` on
    the same clusters. Assignments and centroids are constants; gradients flow through singular
    values, distances, the spread ``s`` and the normalization.

    The gradient is the analytic one while ``s`` is at least 1 % of the mean patch norm, and a
    patch as long as 1 % of that mean. Below, the class terms' gradient is multiplied by
    ``100 * s / mean norm``, that of a patch by ``100 * norm / mean norm``: it keeps its direction
    and stays bounded where that of ``1 / s`` has no bound. Patches that are all the same
    (``s = 0``) give a term of exactly 0 with a gradient of 0.

    Features with NaN or infinity give NaN, value and gradient, so that a ``GradScaler`` skips the
    step and a loop sees it: nothing is raised.

    Computed in float32 (float64 stays) whatever autocast says. Chance comes from a generator of
    its own, which ``state_dict`` carries together with the count of calls: a resumed run draws the
    same. In evaluation mode every call computes, and neither of the two moves.

    Args:
        beta: weight of the term, at least 0; a plain attribute that a schedule may set.
        definition: ``"released"``; the paper's cannot be a loss (see Raises).
        normalize: divide every patch by its L2 norm first.
        local_clusters: clusters per image.
        global_clusters: clusters per group, at least 2.
        group_size: consecutive images per group; the last group may be smaller.
        rank: ``"per-position"``, the metric's: mean effective rank of one patch per image over
            ``min(images, dim)``, which for few images is near its ceiling; or ``"pooled"``, that
            of the released regularizer and of lightly: one of all patches over
            ``min(images * patches, dim)``.
        images: most images of a batch that are looked at: a new random subset each time, so that
            batches made of several views are sampled from all of them; ``None`` is all.
        every: only the first of this many calls computes, ``every`` times as strong, so that the
            mean over calls stays; the others are 0.
        seed: of its generator. Processes may share it: their images differ.

    Attributes:
        last: components of the newest computed term (unscaled, detached, on the features' device),
            or ``None``; read them when logging, not each step: that waits for the device.

    Raises:
        InputError: a setting is out of range, or ``definition="paper"``: its ``effective_rank`` is
            a raw rank that would swamp the classes at ``lambda = 1``, and its lambda belongs to a
            whole run.

    Source: Dai et al. (2025), arXiv 2510.17299, regularizer (``beta = 0.001``, from the best
    checkpoint on).

    Deviations from the released regularizer: labels are those before the last update of the
    centroids and an empty cluster keeps its centroid, as in the released *metric*; the rank is per
    position unless ``rank="pooled"``; groups have a size of their own; ``s`` gets no ``1e-12`` but
    the bound above; too few patches for the clusters are refused.

    Example:
        >>> tokens = torch.randn(8, 49, 32, generator=torch.Generator().manual_seed(0))
        >>> dense = DenseStructureLoss(beta=1e-3)
        >>> term = dense(tokens.requires_grad_())
        >>> term.backward()
        >>> bool(term == -1e-3 * dense.last.dse)
        True
    """

    def __init__(
        self,
        beta: float = 1e-3,
        *,
        definition: str = "released",
        normalize: bool = True,
        local_clusters: int = 3,
        global_clusters: int = 24,
        group_size: int = 8,
        rank: Rank = "per-position",
        images: int | None = None,
        every: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check_settings(beta, definition)
        check_at_least(local_clusters, 1, "local_clusters")
        check_at_least(global_clusters, 2, "global_clusters")
        check_at_least(group_size, 1, "group_size")
        check_at_least(2 if images is None else images, 2, "images")
        check_at_least(every, 1, "every")
        if rank not in get_args(Rank):
            raise InputError(f"rank is {rank!r}; it must be one of {', '.join(get_args(Rank))}")
        self.rank = rank
        self.beta, self.normalize = beta, normalize
        self.local_clusters, self.global_clusters = local_clusters, global_clusters
        self.group_size, self.images, self.every = group_size, images, every
        self.last: DenseStructure | None = None
        self.calls = 0
        self._generator = torch.Generator().manual_seed(seed)

    def forward(self, features: Tensor) -> Tensor:
        """The term for student patch tokens ``images patches dim``, without class tokens.

        Returns:
            0-d, float32 (float64 for such features), on their device, differentiable once.
            Exactly 0 on the calls that ``every`` leaves out, for collapsed features, and, with a
            warning, for a batch of fewer than two images or than ``global_clusters`` patches.

        Raises:
            InputError: wrong shape or dtype, or fewer patches than clusters.
        """
        if torch.compiler.is_compiling():
            # asked for here, not as a decorator: it takes as long to import as torch itself
            uncompiled: Any = torch.compiler
            return cast(Tensor, uncompiled.disable(self._term)(features))
        return self._term(features)

    def _term(self, features: Tensor) -> Tensor:
        self._check(features)
        if self.training and torch.is_grad_enabled() and not features.requires_grad:
            warnings.warn(
                "DenseStructureLoss got tokens without gradients: its term changes no weight; "
                "give the student's tokens, computed outside torch.no_grad()",
                stacklevel=2,
            )
        if self._skips():
            return _nothing(features)
        generator = self._generator if self.training else _copy(self._generator)
        with full_precision(features):
            rows = self._sample(features, generator)
            if len(rows) < 2:
                warnings.warn(
                    f"DenseStructureLoss got {len(features)} image(s) with "
                    f"{features.shape[:2].numel()} patches in all and needs at least 2 images and "
                    f"{self.global_clusters} patches: its term is 0 for this batch; drop the last "
                    "batch or enlarge it",
                    stacklevel=2,
                )
                return _nothing(features)
            rows = rows if rows.dtype == torch.float64 else rows.float()
            dse = self._structure(rows, generator)
        return -self.beta * (self.every if self.training else 1) * dse

    def _skips(self) -> bool:
        if not self.training:
            return False
        self.calls += 1
        return (self.calls - 1) % self.every > 0

    def _sample(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """The images that are looked at; a last group too small for its clusters is left out."""
        count = len(features)
        if self.images is not None and self.images < count:
            chosen = torch.randperm(count, generator=generator)[: self.images]
            features = features[chosen.to(features.device, non_blocking=True)]
        rest = len(features) % self.group_size
        if rest and rest * features.shape[1] < self.global_clusters:
            features = features[: len(features) - rest]
        return features

    def _structure(self, features: Tensor, generator: torch.Generator) -> Tensor:
        low, high = torch.aminmax(features.detach())
        finite = (low >= -LIMITS[features.dtype]) & (high <= LIMITS[features.dtype])
        clean = torch.where(finite, features.detach(), 0.0)
        given = assign(
            clean,
            local_clusters=self.local_clusters,
            global_clusters=self.global_clusters,
            group_size=self.group_size,
            normalize=self.normalize,
            generator=generator,
        )
        pooled = self.rank == "pooled"
        dse, parts = bounded_structure(features, clean, finite, given, pooled=pooled)
        self.last = _detached(parts, finite)
        return dse

    def _check(self, features: Tensor) -> None:
        """Shapes and types only: looking at the values would make the host wait."""
        if not isinstance(features, Tensor) or not features.is_floating_point():
            found = features.dtype if isinstance(features, Tensor) else type(features).__name__
            raise InputError(
                f"features holds {found}; the loss takes a floating point tensor images patches "
                "dim: see tokens_of for the outputs of models"
            )
        if features.ndim == 4:
            raise InputError(
                f"features has shape {tuple(features.shape)}; a grid images dim rows columns "
                "becomes tokens by features.flatten(2).mT"
            )
        check_shape(features, "images patches dim", "features")
        patches = features.shape[1]
        check_enough_rows(patches, self.local_clusters, "an image")
        group = min(self.group_size, self.images or self.group_size)
        check_enough_rows(group * patches, self.global_clusters, "a group")

    def get_extra_state(self) -> dict[str, Any]:
        """Part of ``state_dict``: the generator and the count of calls."""
        return {"generator": self._generator.get_state(), "calls": self.calls}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`get_extra_state`.

        Raises:
            InputError: this is the state of something else.
        """
        try:
            self._generator.set_state(state["generator"].cpu())
            self.calls = int(state["calls"])
        except (KeyError, TypeError, AttributeError, RuntimeError) as cause:
            raise InputError(
                f"this is not the state of a DenseStructureLoss ({cause!r}): it has generator and "
                "calls; leave it out to start with fresh chance"
            ) from cause

    def extra_repr(self) -> str:
        """The settings, for ``print``."""
        names = ("beta", "normalize", "local_clusters", "global_clusters", "group_size")
        shown = (*names, "rank", "images", "every")
        return ", ".join(f"{name}={getattr(self, name)}" for name in shown)


def bounded_structure(
    features: Tensor,
    clean: Tensor,
    finite: Tensor,
    assignment: Assignment,
    *,
    pooled: bool = False,
) -> tuple[Tensor, DenseStructure]:
    """DSE with a bounded gradient, and its components.

    Args:
        features: carries the gradient; NaN or infinite somewhere where ``finite`` is false.
        clean: its values, zeros where ``finite`` is false.
        finite: 0-d.
        assignment: of ``clean``.
        pooled: one effective rank of all patches.
    """
    with torch.no_grad():
        s = spread(clean, assignment)
        length = torch.linalg.vector_norm(clean, dim=-1, keepdim=True)
        size = torch.linalg.vector_norm(unit(clean, assignment.normalize), dim=-1).mean()
        collapsed = s == 0
        slope = torch.where(collapsed, 0.0, s / (FLOOR * size)).clamp_max(1.0)
        weight = torch.ones_like(length)
        if assignment.normalize:
            weight = (length / (FLOOR * length.mean())).clamp_max(1.0)
        weight = torch.where(collapsed, 0.0, weight)
        weight = torch.where(finite, weight, torch.nan)
    guarded = _Guard.apply(features, clean, weight)
    parts = structure_of(guarded, assignment, "released", pooled=pooled)
    classes = _Slope.apply(parts.inter - parts.intra, slope.to(clean.dtype))
    dse = torch.where(collapsed, 0.0, classes + parts.effective_rank)
    return torch.where(finite, dse, torch.nan), parts


class _Guard(torch.autograd.Function):
    """Values that are finite; backwards, weights per patch: 0 stops NaN, NaN makes all of it so."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, clean: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return clean.view_as(clean)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        if weight.device.type == "cpu" and (weight == 1).all():
            return slope, None, None
        return torch.where(weight == 0, 0.0, slope * weight), None, None


class _Slope(torch.autograd.Function):
    """A number as it is, with its gradient multiplied."""

    @staticmethod
    def forward(ctx: Any, number: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return number.view_as(number)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return slope * factor, None


def _detached(parts: DenseStructure, finite: Tensor) -> DenseStructure:
    numbers = {field.name: getattr(parts, field.name).detach() for field in fields(parts)}
    return DenseStructure(**{n: torch.where(finite, v, torch.nan) for n, v in numbers.items()})


def _nothing(features: Tensor) -> Tensor:
    """0, connected to the features: ``backward`` works, and every parameter takes part."""
    zero = features.flatten()[:0].sum()
    return zero if zero.dtype == torch.float64 else zero.float()


def _copy(generator: torch.Generator) -> torch.Generator:
    return torch.Generator().set_state(generator.get_state())


def _check_settings(beta: float, definition: str) -> None:
    if not (isinstance(beta, int | float) and math.isfinite(beta) and beta >= 0):
        raise InputError(f"beta is {beta}; it must be a finite number of at least 0")
    if definition == "paper":
        raise InputError(
            "definition is 'paper', whose effective rank is a raw rank of up to hundreds that "
            "would swamp the classes in a loss, and whose lambda belongs to a whole run: use "
            "'released'"
        )
    if definition != "released":
        raise InputError(f"definition is {definition!r}; the loss has released only")
