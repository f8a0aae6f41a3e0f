"""Telling one row from many: InfoNCE, and a queue of rows from steps before."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densescope.errors import InputError


def gathered(rows: Tensor) -> Tensor:
    """The rows of all devices, in the order of their ranks; gradients go back to each."""
    from lightly.utils import dist

    return torch.cat(dist.gather(rows)) if dist.world_size() > 1 else rows


def info_nce(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """InfoNCE over the batch, ``mean_i -log softmax_j(q_i . k_j / t)[i]`` of unit vectors.

    Keys of all devices take part. At chance it is ``ln(images)``.

    Args:
        queries: ``images width``, of any length.
        keys: ``images width``; no gradient reaches them.
        temperature: ``t``.

    Returns:
        A scalar, differentiable in the queries.

    Source: van den Oord et al. 2018, arXiv 1807.03748.

    Example:
        >>> round(float(info_nce(torch.ones(4, 2), torch.ones(4, 2), 0.2).exp()), 3)
        4.0
    """
    from lightly.utils import dist

    queries, keys = F.normalize(queries, dim=1), F.normalize(keys.detach(), dim=1)
    right = torch.arange(len(queries), device=queries.device) + dist.rank() * len(queries)
    return F.cross_entropy(queries @ gathered(keys).T / temperature, right)


def info_nce_with_queue(
    queries: Tensor, keys: Tensor, others: Tensor, temperature: float
) -> Tensor:
    """InfoNCE of each query's own key against rows that belong to none of them.

    ``mean_i -log softmax([q_i . k_i, q_i . o_1, ...] / t)[0]``; at chance ``ln(1 + others)``.

    Args:
        queries: ``rows width``, of any length.
        keys: ``rows width``; no gradient reaches them.
        others: ``others width``, such as the rows of a :class:`Queue`.
        temperature: ``t``.

    Source: He et al. 2019, MoCo, arXiv 1911.05722.

    Example:
        >>> ones = torch.ones(4, 2)
        >>> round(float(info_nce_with_queue(ones, ones, torch.ones(7, 2), 0.2).exp()), 3)
        8.0
    """
    queries, keys = F.normalize(queries, dim=1), F.normalize(keys.detach(), dim=1)
    right = (queries * keys).sum(1, keepdim=True)
    wrong = queries @ F.normalize(others.detach(), dim=1).T
    logits = torch.cat([right, wrong], dim=1) / temperature
    return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64))


class Queue(nn.Module):
    """The newest rows that were put in, the oldest overwritten.

    It begins with random directions. lightly's memory bank is not part of its state dict, so a
    resumed run would begin with an empty one; this is.

    Args:
        size: rows it holds.
        width: of a row.
    """

    rows: Tensor
    place: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        if size < 1:
            raise InputError(f"a queue of {size} rows is impossible: use at least 1")
        self.register_buffer("rows", F.normalize(torch.randn(size, width), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def put(self, rows: Tensor) -> None:
        """Take rows of all devices in, in order; of more than fit, the last ones stay."""
        from lightly.models.utils import concat_all_gather
        from lightly.utils import dist

        if dist.world_size() > 1:
            rows = concat_all_gather(rows.contiguous())
        size = len(self.rows)
        steps = torch.arange(len(rows), device=rows.device)
        places = (self.place + steps) % size
        self.rows[places[-size:]] = rows[-size:].to(self.rows.dtype)
        self.place.copy_((self.place + len(rows)) % size)
