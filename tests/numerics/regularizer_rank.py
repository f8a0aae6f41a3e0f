"""What each of two processes does that train with the regularizer."""

from __future__ import annotations

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


def make_layer() -> nn.Linear:
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        return nn.Linear(9, 9)


def train(rank: int, address: str) -> None:
    from densescope.numerics.regularizer import DenseStructureLoss
    from tests.numerics.test_regularizer import SMALL, tokens

    distributed.init_process_group("gloo", f"file://{address}", rank=rank, world_size=2)
    model = DistributedDataParallel(make_layer())
    dense = DenseStructureLoss(1.0, every=2, **SMALL)
    terms, slopes = [], []
    for _ in range(3):
        model.zero_grad()
        term = dense(model(tokens()[rank * 5 : rank * 5 + 5]))
        term.backward()
        terms.append(term.item())
        assert model.module.weight.grad is not None
        slopes.append(model.module.weight.grad.clone())
    torch.save({"terms": terms, "slopes": slopes}, f"{address}.{rank}")
    distributed.destroy_process_group()
