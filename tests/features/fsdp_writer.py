"""Writes the rank files of an FSDP run as DINOv2's training does; every rank is a process.

``python fsdp_writer.py folder world_size ...``: the folder holds ``plan.pth``, and gets, for each
number of ranks, a folder with a folder of rank files for each entry of the plan.
"""

from __future__ import annotations

import multiprocessing
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def sum_of_squares(values: Iterable[Tensor]) -> Tensor:
    """A loss that reaches every parameter."""
    return sum((value.square().sum() for value in values), torch.zeros(()))


class BlockChunk(nn.ModuleList):
    """What DINOv2 wraps."""

    def forward(self) -> Tensor:
        return sum_of_squares(self.parameters())


class Scale(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))


class Attention(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)


class Mlp(nn.Module):
    def __init__(self, dim: int, *, gated: bool) -> None:
        super().__init__()
        if gated:
            self.w12 = nn.Linear(dim, 8 * dim)
            self.w3 = nn.Linear(4 * dim, dim)
        else:
            self.fc1 = nn.Linear(dim, 4 * dim)
            self.fc2 = nn.Linear(4 * dim, dim)


class Block(nn.Module):
    def __init__(self, dim: int, *, gated: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim)
        self.ls1 = Scale(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, gated=gated)
        self.ls2 = Scale(dim)


class Patches(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, 8, 8)


class Backbone(nn.Module):
    """The parameters of DINOv2's network, registered in its order; 32 pixels in cells of 8."""

    def __init__(self, dim: int, depth: int, chunks: int, registers: int, *, gated: bool) -> None:
        super().__init__()
        self.patch_embed = Patches(dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 17, dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, registers, dim)) if registers else None
        blocks: list[nn.Module] = [Block(dim, gated=gated) for _ in range(depth)]
        if chunks:
            length = depth // chunks
            self.blocks = nn.ModuleList(
                BlockChunk(
                    [*(nn.Identity() for _ in range(first)), *blocks[first : first + length]]
                )
                for first in range(0, depth, length)
            )
        else:
            self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Identity()
        self.mask_token = nn.Parameter(torch.zeros(1, dim))

    def forward(self) -> Tensor:
        own = [value for name, value in self.named_parameters() if "blocks." not in name]
        return sum((chunk() for chunk in self.blocks), sum_of_squares(own))


def draw(network: nn.Module, seed: int) -> dict[str, Tensor]:
    """Fills a network with values that all differ; returns them by name, without chunks."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.named_parameters():
            around = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            value.copy_(around + 0.2 * torch.randn(value.shape, generator=generator))
    return without_chunks(network.named_parameters())


def without_chunks(named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Copies of a network's tensors, as if its blocks lay in one list."""
    plain = {}
    for name, value in named:
        parts = name.replace("_fsdp_wrapped_module.", "").split(".")
        chunked = parts[0] == "blocks" and parts[2].isdigit()
        plain[".".join(parts[:1] + parts[2:] if chunked else parts)] = value.detach().clone()
    return plain


def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """One step of the student, after which the teacher follows it as DINOv2's does."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    student, teacher = model.student["backbone"], model.teacher["backbone"]  # type: ignore[index]
    optimizer.zero_grad()
    student().backward()
    optimizer.step()
    modules = FullyShardedDataParallel.fsdp_modules
    with torch.no_grad():
        for old, new in zip(modules(teacher), modules(student), strict=True):
            for mean, value in zip(old.params, new.params, strict=True):
                mean.mul_(0.9).add_(value, alpha=0.1)


def network(plan: dict[str, Any]) -> Backbone:
    """The network of an entry of the plan."""
    sizes = ("dim", "depth", "chunks", "registers")
    return Backbone(*(plan[size] for size in sizes), gated=plan["gated"])


def write(plan: dict[str, Any], folder: Path, rank: int) -> None:
    from torch.distributed.fsdp import (
        FullyShardedDataParallel,
        MixedPrecision,
        ShardingStrategy,
        StateDictType,
    )
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy

    model = nn.Module()
    for seed, which in enumerate(("student", "teacher")):
        backbone = network(plan)
        draw(backbone, seed)
        parts = nn.ModuleDict({"backbone": backbone, "dino_head": nn.Linear(plan["dim"], 7)})
        for name, part in parts.items():
            parts[name] = FullyShardedDataParallel(
                part,
                sharding_strategy=ShardingStrategy.SHARD_GRAD_OP,
                mixed_precision=MixedPrecision(param_dtype=plan["dtype"]),
                auto_wrap_policy=ModuleWrapPolicy({BlockChunk}),
                use_orig_params=plan["originals"],
                device_id=torch.device("cpu"),
            )
        setattr(model, which, parts)
    model.register_buffer("center", torch.zeros(1, 7))
    optimizer = torch.optim.AdamW(model.student.parameters())  # type: ignore[union-attr]
    for _ in range(plan["steps"]):
        train(model, optimizer)
    with FullyShardedDataParallel.state_dict_type(model, StateDictType.LOCAL_STATE_DICT):
        state = model.state_dict()
    whole = {}
    for which in ("student", "teacher"):
        backbone = getattr(model, which)["backbone"]
        with FullyShardedDataParallel.summon_full_params(backbone, writeback=False):
            whole[which] = without_chunks(backbone.named_parameters())
    folder.mkdir(exist_ok=True)
    if rank == 0:
        torch.save(whole, folder.with_suffix(".whole"))
    content = {"model": state, "optimizer": optimizer.state_dict(), "iteration": 1249}
    torch.save(content, folder / f"model_0001249.rank_{rank}.pth")


def one_rank(rank: int, world_size: int, folder: Path, plans: dict[str, dict[str, Any]]) -> None:
    from torch import distributed

    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=world_size
    )
    for name, plan in plans.items():
        write(plan, folder / name, rank)
    distributed.destroy_process_group()


def main(folder: Path, world_sizes: list[int]) -> None:
    import torch.distributed.fsdp  # here, so that the ranks need not load it each

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    plans = torch.load(folder / "plan.pth", weights_only=True)
    fork = multiprocessing.get_context("fork")
    for world_size in world_sizes:
        run = folder / str(world_size)
        run.mkdir()
        ranks = [
            fork.Process(target=one_rank, args=(rank, world_size, run, plans))
            for rank in range(world_size)
        ]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join()
            assert rank.exitcode == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(size) for size in sys.argv[2:]])
