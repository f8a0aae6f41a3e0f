from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from densescope.definitions import DEFINITION_NAMES
from densescope.errors import InputError
from densescope.estimate import Estimate
from densescope.numerics import replicates
from densescope.numerics.intervals import (
    BASELINE_NAMES,
    block_of_images,
    estimate_baseline,
)
from densescope.numerics.ranks import shrunk_changes
from densescope.numerics.replicates import (
    equal_batches,
    estimate_ranks,
    estimate_structure,
    spreads,
)
from densescope.numerics.structure import dense_structure

SMALL: dict[str, Any] = {"local_clusters": 2, "global_clusters": 5, "group_size": 4}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(generator: torch.Generator, images: int = 64, patches: int = 16, dim: int = 24) -> Tensor:
    """Images of three objects each, with a style of their own and noise: rows are dependent."""
    objects = torch.randn(12, dim, generator=seeded(9))
    scale = torch.linspace(1.5, 0.3, dim)
    kinds = torch.randint(0, 12, (images, 3), generator=generator)
    pick = torch.randint(0, 3, (images, patches), generator=generator)
    style = torch.randn(images, 1, dim, generator=generator) * scale
    noise = torch.randn(images, patches, dim, generator=generator) * scale
    heavy = torch.rand(images, patches, 1, generator=generator) < 0.05
    return (objects[kinds.gather(1, pick)] + 0.7 * style + 0.6 * noise) * (1 + 3 * heavy)


def test_values_are_those_of_dense_structure() -> None:
    features = draw(seeded(), 16)
    found = estimate_structure(features, seeds=(3,), **SMALL)
    for definition in DEFINITION_NAMES:
        expected = dense_structure(features, definition=definition, generator=seeded(3), **SMALL)
        for name in ("inter", "intra", "intra_image", "intra_batch", "effective_rank", "dse"):
            value = getattr(expected, name)
            if value is not None:
                key = f"{definition}.{'dse_lambda_1' if name == 'dse' else name}"
                assert found[key].value == pytest.approx(value.item(), rel=1e-5), key
    assert "paper.dse" not in found
    assert all(estimate.seed_spread is None for estimate in found.values())


def test_a_replicate_is_the_number_without_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicates, "REPLICATE_POSITIONS", 10_000)
    features = draw(seeded(), 32, 9, 12)
    whole = estimate_structure(features, seeds=(0,), blocks=4, **SMALL)
    given = replicates.assign(features, normalize=True, generator=seeded(), **SMALL)
    for b in range(4):
        keep = torch.arange(32) // 8 != b
        for definition in DEFINITION_NAMES:
            part = dense_structure(
                features[keep],
                definition=definition,
                local_labels=given.local_labels[keep],
                global_labels=given.global_labels[keep],
                global_centroids=given.global_centroids[keep[::4]],
                permutations=given.permutations[keep],
                **SMALL,
            )
            for name in ("inter", "intra_image", "intra_batch", "effective_rank"):
                found = whole[f"{definition}.{name}"].replicates[b]
                assert found == pytest.approx(getattr(part, name).item(), rel=1e-5), name


def test_fewer_images_than_dimensions_have_replicates_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicates, "REPLICATE_POSITIONS", 10_000)
    features = draw(seeded(), 16, 9, 14)
    for dim in (14, 16, 20):
        rows = torch.nn.functional.pad(features, (0, dim - 14)) + 0.1
        found = estimate_structure(rows, seeds=(0,), blocks=2, **SMALL)
        given = replicates.assign(rows, normalize=True, generator=seeded(), **SMALL)
        part = dense_structure(
            rows[8:],
            local_labels=given.local_labels[8:],
            global_labels=given.global_labels[8:],
            global_centroids=given.global_centroids[2:],
            permutations=given.permutations[8:],
            **SMALL,
        )
        assert found["released.effective_rank"].replicates[0] == pytest.approx(
            part.effective_rank.item(), rel=1e-5
        )


@pytest.mark.parametrize("normalize", [False, True])
def test_ranks_alone_are_those_of_the_structure(
    normalize: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicates, "REPLICATE_POSITIONS", replicates.RANK_POSITIONS)
    features = draw(seeded(), 32) * torch.linspace(0.1, 9, 32).reshape(-1, 1, 1)
    settings = {"normalize": normalize, "blocks": 4, "images_per_batch": 16, **SMALL}
    whole = estimate_structure(features, seeds=(3,), **settings)
    alone = estimate_ranks(features, seed=3, **settings)
    assert set(alone) == {"released", "pooled"}
    for definition, found in alone.items():
        assert found == whole[f"{definition}.effective_rank"]


def test_seeds_are_averaged_and_their_spread_kept() -> None:
    features = draw(seeded(), 16)
    one, other = (estimate_structure(features, seeds=(s,), **SMALL) for s in (4, 5))
    both = estimate_structure(features, seeds=(4, 5), **SMALL)
    for key, estimate in both.items():
        pair = torch.tensor([one[key].value, other[key].value], dtype=torch.float64)
        assert estimate.value == pytest.approx(pair.mean().item())
        assert estimate.seed_spread == pytest.approx(pair.std().item(), abs=1e-12)


def test_batches_are_averaged() -> None:
    features = draw(seeded(), 24)
    found = estimate_structure(features, seeds=(0,), blocks=6, images_per_batch=12, **SMALL)
    halves = [dense_structure(part, generator=seeded(), **SMALL) for part in features.split(12)]
    mean = torch.stack([half.effective_rank for half in halves]).mean().item()
    assert found["released.effective_rank"].value == pytest.approx(mean, rel=1e-5)
    assert len(found["released.effective_rank"].replicates) == 6


def test_batches_can_go_with_their_block() -> None:
    features = draw(seeded(), 16)
    found = estimate_structure(features, seeds=(0,), blocks=2, images_per_batch=4, **SMALL)
    parts = [dense_structure(part, generator=seeded(), **SMALL) for part in features.split(4)]
    inter = [part.inter.item() for part in parts]
    assert found["released.inter"].replicates == pytest.approx(
        [(inter[2] + inter[3]) / 2, (inter[0] + inter[1]) / 2], rel=1e-5
    )


def test_a_block_is_an_equal_part_of_every_batch() -> None:
    features = draw(seeded(), 32)
    settings = {"seeds": (0,), "blocks": 4, **SMALL}
    whole = estimate_structure(features, images_per_batch=16, **settings)
    halves = [estimate_structure(part, **settings) for part in features.split(16)]
    for key, estimate in whole.items():
        pairs = zip(halves[0][key].replicates, halves[1][key].replicates, strict=True)
        assert estimate.replicates == pytest.approx([(a + b) / 2 for a, b in pairs])


def test_batches_are_equal_whole_groups() -> None:
    assert equal_batches(2048, 1024, 8) == [slice(0, 1024), slice(1024, 2048)]
    sizes = [part.stop - part.start for part in equal_batches(1100, 1024, 8)]
    assert sizes == [552, 548]


def test_blocks_are_contiguous_whole_groups() -> None:
    blocks = block_of_images(37, 4, 3)
    assert (blocks.diff() >= 0).all()
    assert all(len(group.unique()) == 1 for group in blocks.split(4))
    assert torch.bincount(blocks).tolist() == [16, 12, 9]


def test_one_group_has_no_replicates() -> None:
    found = estimate_structure(draw(seeded(), 4), **SMALL)
    assert all(e.replicates == () and e.interval() is None for e in found.values())
    assert estimate_baseline("rankme", torch.eye(8)).replicates == ()


def test_collapse_is_noted() -> None:
    found = estimate_structure(torch.ones(16, 9, 6), **SMALL)
    inter = found["released.inter"]
    assert inter.value != inter.value
    assert (
        inter.note == "every patch is the same: the released definition divides by a spread of zero"
    )
    assert found["released.effective_rank"].note is None
    assert found["paper.effective_rank"].value == pytest.approx(1, abs=1e-5)


def test_spreads_agree_with_their_definition() -> None:
    features = draw(seeded(), 12) + 5
    block = block_of_images(12, 4, 3)
    found = spreads(features, block, 3, normalize=False, group_size=4)
    for place in range(4):
        rows = features[block != place - 1].flatten(0, 1)
        expected = (rows - rows.mean(0)).norm(dim=-1).mean()
        assert found[place].item() == pytest.approx(expected.item(), rel=1e-5)


def test_settled_changes_have_the_variance_of_all_positions() -> None:
    generator = seeded()
    truth = torch.randn(400, 1, generator=generator, dtype=torch.float64)
    table = truth + 3 * torch.randn(400, 8, generator=generator, dtype=torch.float64)
    found = shrunk_changes(table, 10_000)
    assert table.mean(1).var() > 1.8
    assert found.var().item() == pytest.approx(1, abs=0.3)
    assert found.mean().item() == pytest.approx(table.mean().item())
    assert torch.equal(shrunk_changes(table, 8), table.mean(1))
    assert torch.equal(shrunk_changes(torch.ones(5, 4), 9), torch.ones(5))


@pytest.mark.parametrize("name", [name for name in BASELINE_NAMES if name != "lidar"])
def test_baseline_replicates_leave_images_out(name: str) -> None:
    features = draw(seeded(), 32)
    rows = features if name in ("dense_rankme", "outlier_fraction") else features.mean(1)
    found = estimate_baseline(name, rows, blocks=4)
    rest = estimate_baseline(name, rows[8:], blocks=4)
    assert found.replicates[0] == pytest.approx(rest.value, rel=1e-9)
    assert len(found.replicates) == 4


def test_lidar_replicates_leave_images_out_wherever_their_views_are() -> None:
    ids = torch.arange(32).repeat(3)
    views = torch.randn(96, 5, generator=seeded()) + torch.randn(32, 5, generator=seeded(1))[ids]
    found = estimate_baseline("lidar", views, sample_ids=ids, blocks=4)
    rest = estimate_baseline("lidar", views[ids >= 8], sample_ids=ids[ids >= 8] - 8, blocks=4)
    assert found.replicates[0] == pytest.approx(rest.value, rel=1e-9)
    assert found.note is None
    few = estimate_baseline("lidar", views[ids < 4], sample_ids=ids[ids < 4], images=64)
    assert few.replicates == ()
    assert few.note == "4 images are not more than 5 dimensions: the number measures the sample"


@pytest.mark.slow
def test_intervals_cover_the_long_run_mean_about_as_often_as_they_say() -> None:
    """Nominal 95 %. 200 sets give a standard error of 1.5 %; jackknife errors of nonlinear
    numbers are a little too wide, so 90 to 99.7 % passes, and a mean variance 0.75 to 1.9 times
    the true one."""
    generator = seeded(1)
    runs: list[dict[str, Estimate]] = []
    for seed in range(200):
        features = draw(generator)
        run = estimate_structure(features, seeds=(seed,), **SMALL)
        for name in ("rankme", "alpha_req"):
            run[name] = estimate_baseline(name, features.mean(1), group_size=4)
        for name in ("dense_rankme", "outlier_fraction"):
            run[name] = estimate_baseline(name, features, group_size=4)
        runs.append(run)
    for name in runs[0]:
        values = torch.tensor([run[name].value for run in runs], dtype=torch.float64)
        bounds = torch.tensor([run[name].interval() for run in runs], dtype=torch.float64)
        covered = ((bounds[:, 0] <= values.mean()) & (values.mean() <= bounds[:, 1])).double()
        assert 0.90 <= covered.mean() <= 0.997, (name, covered.mean())
        variance = torch.tensor([run[name].standard_error for run in runs]).double().square()
        assert 0.75 < variance.mean() / values.var() < 1.9, (name, variance.mean() / values.var())


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda f: estimate_structure(f, seeds=(), **SMALL), "seeds is 0; it must be at least 1"),
        (lambda f: estimate_structure(f, definitions=(), **SMALL), "number of definitions is 0"),
        (lambda f: estimate_structure(f, blocks=0, **SMALL), "blocks is 0"),
        (lambda f: estimate_structure(f, images_per_batch=3, **SMALL), "images_per_batch is 3"),
        (lambda f: estimate_structure(f[:1], **SMALL), "features hold one image"),
        (lambda f: estimate_baseline("mine", f), "there is no baseline 'mine'; choose from rank"),
        (lambda f: estimate_baseline("lidar", f[0]), "lidar needs sample_ids, and no other"),
        (lambda f: estimate_baseline("rankme", f), "it must have 2 axes: images dim"),
        (
            lambda f: estimate_baseline(
                "lidar", f[0], sample_ids=torch.arange(8).repeat(2), images=4
            ),
            "sample_ids must be image indices from 0 to 3",
        ),
    ],
)
def test_refusals(call: Any, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        call(draw(seeded(), 8))
    assert sentence in str(caught.value)
