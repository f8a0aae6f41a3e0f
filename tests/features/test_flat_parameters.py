"""Cutting flat parameters, on imitations of what torch stores; test_ranks.py has the real files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from densescope.errors import CheckpointError
from densescope.features.architectures import build_architecture
from densescope.features.checkpoints import Container
from densescope.features.conversions import dinov2_registration
from densescope.features.flat_parameters import unflatten
from densescope.features.formats import FORMATS
from densescope.features.formats.row import Format, Weights
from densescope.features.inert import Inert, InertTensor
from densescope.features.layouts import StepError
from densescope.features.ranks import join_shards, rank_files, shard_of
from tests.features import fsdp_writer


def stored(**attributes: Any) -> Inert:
    thing = Inert()
    thing.state = (None, attributes)
    return thing


def sharded(
    local: list[tuple[int, Tensor]], size: int, *, rank: int = 0, world: int = 1, group: int = 0
) -> InertTensor:
    """The stand-in of one rank's ``ShardedTensor``."""
    shards = [
        stored(tensor=piece, metadata=stored(shard_offsets=[start], shard_sizes=[len(piece)]))
        for start, piece in local
    ]
    place = stored(
        local_rank=rank % (group or world),
        global_rank=rank,
        local_world_size=group or world,
        global_world_size=world,
    )
    thing = torch.Tensor._make_wrapper_subclass(InertTensor, (size,))  # type: ignore[attr-defined]
    thing.state = (shards, stored(size=torch.Size([size])), place, None, False)
    return thing  # type: ignore[no-any-return]


def spread(whole: Tensor, world: int) -> list[InertTensor]:
    """One stand-in per rank, without the padding, as torch saves them."""
    length = -(-len(whole) // world)
    return [
        sharded(
            [(rank * length, piece)] if len(piece := whole[rank * length :][:length]) else [],
            len(whole),
            rank=rank,
            world=world,
        )
        for rank in range(world)
    ]


def test_shards_are_joined_in_their_order() -> None:
    whole = torch.arange(10.0)
    for world in (1, 2, 3, 4, 7):  # of seven ranks, the last two hold padding only
        shards = [shard_of("x", thing) for thing in spread(whole, world)]
        assert [shard.rank for shard in shards] == list(range(world))
        assert torch.equal(join_shards("x", shards[::-1]), whole)


def test_a_shard_can_be_a_parameter() -> None:
    """Before torch 2.0, a shard without padding was the flat parameter itself."""
    piece = nn.Parameter(torch.arange(3.0))
    whole = join_shards("x", [shard_of("x", sharded([(0, piece)], 3))])
    assert whole.tolist() == [0, 1, 2]
    assert not whole.requires_grad


def test_replicas_of_a_hybrid_run_are_joined_once() -> None:
    whole = torch.arange(6.0)
    things = [
        sharded([(3 * (rank % 2), whole[3 * (rank % 2) :][:3])], 6, rank=rank, world=4, group=2)
        for rank in range(4)
    ]
    assert torch.equal(join_shards("x", [shard_of("x", thing) for thing in things]), whole)


def test_shards_that_leave_a_gap_are_refused() -> None:
    first, _, third = (shard_of("x", thing) for thing in spread(torch.arange(9.0), 3))
    with pytest.raises(CheckpointError, match="do not make up x: 3 of its 9 values are there"):
        join_shards("x", [first, third])


def test_what_is_no_row_of_values_is_refused() -> None:
    broken = [
        sharded([(0, torch.ones(2, 2))], 4),
        sharded([(0, "text")], 4),  # type: ignore[list-item]
        sharded([(0, sharded([], 4))], 4),
    ]
    for thing in broken:
        with pytest.raises(CheckpointError, match="x is stored in an unknown way"):
            shard_of("x", thing)


# A network of two modules: the root with parameters of 3 and 4 values, and blocks of 5 and 2.
SHAPES = {"a": (3,), "b": (2, 2)} | {
    f"blocks.{block}.{name}": (size,) for block in range(2) for name, size in (("w", 5), ("v", 2))
}
ROW = Format(
    "x", "x", "x/x", (Weights("only", ("model",), ("net.",)),), registration=lambda _: SHAPES
)


def cut(units: dict[str, Tensor], others: dict[str, Tensor] | None = None, world: int = 2) -> Any:
    split = {name: spread(whole, world) for name, whole in units.items()}
    ranks: list[dict[str, Any]] = []
    for rank in range(world):
        flats = {f"net.{name}": things[rank] for name, things in split.items()}
        ranks.append({"model": flats | (others or {})})
    container = Container(Path("f"), "ranks", ranks[0], ranks=tuple(ranks))
    found = unflatten(container, ROW, ROW.weights[0], nn.Identity(), "tiny")
    assert not found.ranks
    return found.content["model"]


def test_both_spellings_and_what_is_not_sharded_pass() -> None:
    buffer = torch.ones(2, 3)
    whole = torch.arange(21.0)
    for flat in ("flat_param", "_flat_param"):
        found = cut({flat: whole}, {"net.buffer": buffer, "head.w": buffer})
        assert found["net.b"].tolist() == [[3, 4], [5, 6]]
        assert found["net.blocks.1.v"].tolist() == [19, 20]
        assert found["net.buffer"] is buffer
        assert set(found) == {f"net.{name}" for name in (*SHAPES, "buffer")} | {"head.w"}


def test_blocks_are_found_in_their_chunks() -> None:
    root, blocks = torch.arange(7.0), torch.arange(14.0)
    one = cut({"_flat_param": root, "blocks.0._flat_param": blocks})
    two = cut(
        {
            "_flat_param": root,
            "blocks.0._flat_param": blocks[:7],
            "blocks.1._flat_param": blocks[7:],
        }
    )
    assert one["net.blocks.0.1.w"].tolist() == two["net.blocks.1.1.w"].tolist() == [7, 8, 9, 10, 11]


def aligned(size: int, filler: float) -> Tensor:
    """The parameters of SHAPES, each at a multiple of four, and filler between and after them."""
    values = torch.full((size,), filler)
    for start, length in ((0, 3), (4, 4), (8, 5), (16, 2), (20, 5), (28, 2)):
        values[start : start + length] = start + torch.arange(float(length))
    return values


def test_alignment_is_told_by_the_size() -> None:
    found = cut({"_flat_param": aligned(30, 0.0)})
    assert found["net.blocks.0.v"].tolist() == [16, 17]
    assert found["net.blocks.1.v"].tolist() == [28, 29]


def test_alignment_is_told_by_the_filler_where_two_have_the_same_size() -> None:
    """Filled up to 32 ranks, a step of two and one of four give 32 values."""
    found = cut({"_flat_param": aligned(32, 42.001)}, world=32)
    assert found["net.blocks.1.v"].tolist() == [28, 29]
    with pytest.raises(StepError, match="it cannot be told how they were aligned"):
        cut({"_flat_param": aligned(32, 0.0)}, world=32)


def test_sizes_that_do_not_fit_say_so() -> None:
    with pytest.raises(StepError) as caught:
        cut({"_flat_param": torch.ones(22)})
    assert str(caught.value) == (
        "the flat parameters at net. of f do not fit tiny: they hold 22 values, the architecture "
        "has 21; check the architecture and its options"
    )
    with pytest.raises(StepError, match="21 values are the right number, but divided otherwise"):
        cut({"_flat_param": torch.ones(8), "blocks.0._flat_param": torch.ones(13)})
    with pytest.raises(StepError, match="tail are wrapped, where blocks.0, blocks.1, ... can be"):
        cut({"_flat_param": torch.ones(8), "tail._flat_param": torch.ones(13)})


def test_pieces_that_disagree_are_refused() -> None:
    """The ranks' own pieces show an order that is not the architecture's."""
    whole = torch.arange(21.0)
    ranks = [
        {
            "model": {
                "net._flat_param": thing,
                "net.a": whole[:3] if rank == 0 else whole[:0],
                "net.b": whole[3:7].flip(0) if rank == 0 else whole[:0],
            }
        }
        for rank, thing in enumerate(spread(whole, 2))
    ]
    container = Container(Path("f"), "ranks", ranks[0], ranks=tuple(ranks))
    with pytest.raises(StepError, match="the ranks' own pieces of b have other values"):
        unflatten(container, ROW, ROW.weights[0], nn.Identity(), "tiny")


@pytest.mark.parametrize(("registers", "gated"), [(0, False), (4, True)])
def test_the_order_is_that_of_dinov2(registers: int, gated: bool) -> None:
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
    name = "vit_giant_patch14_reg4_dinov2" if registers else "vit_large_patch14_dinov2"
    model, _ = build_architecture(name, options | ({"mlp_ratio": 8} if gated else {}))
    theirs = fsdp_writer.Backbone(24, 3, 0, registers, gated=gated)
    assert list(dinov2_registration(model).items()) == [
        (name, tuple(value.shape)) for name, value in theirs.named_parameters()
    ]
    assert FORMATS["dinov2"].registration is dinov2_registration


def test_rank_files_are_ordered_by_number(tmp_path: Path) -> None:
    for name in ("m_1.rank_10.pth", "m_1.rank_2.pth", "m_2.rank_0.pth", "m_1.rank_0.pt"):
        (tmp_path / name).touch()
    found = rank_files(tmp_path / "m_1.rank_10.pth")
    assert [file.name for file in found] == ["m_1.rank_2.pth", "m_1.rank_10.pth"]
    assert rank_files(tmp_path / "other.pth") == [tmp_path / "other.pth"]
