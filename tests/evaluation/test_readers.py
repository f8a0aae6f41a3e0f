"""Neighbors, logistic regression, retrieval, image k-NN and depth against plain computations."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from densescope.errors import DataError, InputError
from densescope.evaluation.datasets import open_depth, open_labelled_images
from densescope.evaluation.probes import (
    ProbeData,
    in_context,
    logistic,
    neighbors,
    patch_knn,
    predict,
    probe_data,
    run_protocol,
)
from densescope.evaluation.probes.depth import DepthErrors, depth_errors
from densescope.evaluation.probes.row import edge_note
from densescope.evaluation.probes.sources import Standardization, TensorPatches, standardization
from tests.evaluation.worlds import COLORS, SIZE, TINY, Blind, Seeing, open_world, world


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=chance(seed))


@pytest.mark.parametrize("distance", ["cosine", "L2"])
@pytest.mark.parametrize("count", [7, 50])
def test_nearest_keys_are_those_of_a_full_sort(
    distance: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbors, "CELL", 8)
    queries, keys = normal(9, 5, seed=1), normal(count, 5, seed=2)
    index = neighbors.NeighborIndex(keys, count=count, distance=distance)
    near, numbers = index.search(queries, 5)
    if distance == "L2":
        apart = -torch.cdist(queries.double(), keys.double()).square()
    else:
        apart = torch.cosine_similarity(queries[:, None].double(), keys[None].double(), dim=2)
    expected, order = apart.sort(dim=1, descending=True)
    assert numbers.tolist() == order[:, :5].tolist()
    assert torch.allclose(near.double(), expected[:, :5], atol=1e-5)
    monkeypatch.setattr(neighbors, "MEMORY_BYTES", 0)
    lazily = neighbors.NeighborIndex(lambda own: keys[own], count=count, distance=distance)
    assert lazily.search(queries, 5)[1].tolist() == numbers.tolist()


def test_distances_far_from_zero_keep_their_order() -> None:
    keys = normal(64, 8) * 0.01 + 100
    queries = keys[:10] + 1e-4
    index = neighbors.NeighborIndex(keys, count=64, distance="L2")
    _, numbers = index.search(queries, 1)
    assert numbers[:, 0].tolist() == list(range(10))


def decaying(rows: int, dim: int, power: float, *, mean: float = 0.0, seed: int = 0) -> Tensor:
    """Vectors whose variance falls along turned axes."""
    turn = torch.linalg.qr(normal(dim, dim, seed=99))[0]
    return normal(rows, dim, seed=seed) * torch.arange(1, dim + 1) ** -power @ turn + mean


@pytest.mark.parametrize("distance", ["cosine", "L2"])
@pytest.mark.parametrize(
    "kind", ["screened", "cells", "isotropic", "far", "copies", "equal", "hidden"]
)
def test_screening_loses_no_neighbor(
    kind: str, distance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbors, "CELL", 32)
    monkeypatch.setattr(neighbors, "LARGEST", 100)
    monkeypatch.setattr(neighbors, "QUERIES", 48)
    power = 0.0 if kind == "isotropic" else 1.2
    mean = 30.0 if kind == "far" else 0.0
    keys, queries = (decaying(n, 64, power, mean=mean, seed=n) for n in (1300, 100))
    if kind == "cells":  # twenty heaps: most of them are too far to be looked at
        heaps = 3 * normal(20, 64, seed=7)
        keys, queries = (
            heaps[torch.arange(n) % 20] + 0.1 * normal(n, 64, seed=n) for n in (1300, 100)
        )
    if kind == "copies":
        keys = keys[:50].repeat(26, 1)
    if kind == "equal":
        keys = keys[:1].repeat(1300, 1)
    if kind == "hidden":  # the nearest keys differ from the others where the screening is blind
        keys, queries = (
            F.pad(normal(n, 16, seed=n), (0, 48)) * (0.5 if n == 100 else 1) for n in (1300, 100)
        )
        keys[:12, 16:] = queries[:, 16:] = 3 * F.normalize(normal(1, 48, seed=5))
    index = neighbors.NeighborIndex(keys, count=len(keys), distance=distance)
    if kind in ("screened", "hidden"):
        assert index._axes.shape[1] < 64
    some = (F.normalize(queries) if distance == "cosine" else queries) - index._center
    rows, _, crowded = index._candidates(some, 10)
    if kind in ("screened", "cells"):
        assert len(crowded) < 50
        assert len(rows) < 100 * 1300 / 4
    if kind == "equal":
        assert len(crowded) == 100
    near, numbers = index.search(queries, 10)
    if distance == "L2":
        apart = -torch.cdist(queries.double(), keys.double()).square()
    else:
        apart = torch.cosine_similarity(queries[:, None].double(), keys[None].double(), dim=2)
    expected = apart.sort(dim=1, descending=True).values[:, :10]
    assert torch.allclose(near.double(), expected, atol=1e-5, rtol=1e-5)
    assert torch.allclose(apart.gather(1, numbers), expected, atol=1e-5, rtol=1e-5)
    assert all(len(set(row)) == 10 for row in numbers.tolist())


def test_impossible_neighbors_are_refused() -> None:
    with pytest.raises(InputError, match="8 neighbors cannot be found among 3: ask for fewer"):
        neighbors.NeighborIndex(normal(3, 2), count=3, distance="L2").search(normal(1, 2), 8)
    with pytest.raises(InputError, match="there is no distance 'L1'; there are: cosine, L2"):
        neighbors.NeighborIndex(normal(3, 2), count=3, distance="L1")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_keys_and_queries_that_are_not_numbers_are_refused(value: float) -> None:
    broken, whole = normal(20, 4), normal(20, 4)
    broken[3, 1] = value
    for distance in neighbors.DISTANCES:
        with pytest.raises(DataError, match="the training images are NaN or infinite"):
            neighbors.NeighborIndex(broken, count=20, distance=distance)
        index = neighbors.NeighborIndex(whole, count=20, distance=distance)
        with pytest.raises(DataError, match="the test images are NaN or infinite"):
            index.search(broken, 2)


def test_masks_are_cut_where_the_patches_lie() -> None:
    labels = torch.arange(36).reshape(1, 6, 6)
    pieces = patch_knn.cut(labels, (3, 2))
    assert pieces.size == (2, 3)
    assert pieces.pixels[0, 0].tolist() == [0, 1, 2, 6, 7, 8]
    assert pieces.pixels[0, 3].tolist() == [15, 16, 17, 21, 22, 23]
    with pytest.raises(DataError, match="masks of 6 x 6 pixels cannot be cut into 4 x 2 patches"):
        patch_knn.cut(labels, (4, 2))


def memory_of(pixels: Tensor, features: Tensor) -> patch_knn._Memory:
    labels = patch_knn.PatchLabels(pixels, pixels.mode(dim=-1).values, (1, pixels.shape[2]))
    return patch_knn._Memory(TensorPatches(features), labels, torch.arange(len(pixels)), 3, 255)


def test_votes_are_counted_pixel_by_pixel_without_ignored_ones() -> None:
    pixels = torch.tensor([[[0, 1, 2, 255]], [[0, 1, 255, 255]], [[1, 2, 1, 1]], [[2, 2, 2, 2]]])
    pixels[1, 0, 3] = 0  # no patch here is mostly ignored
    memory = memory_of(pixels, normal(4, 1, 2))
    votes = memory._vote(torch.tensor([[0, 1, 2], [1, 3, 3]]))
    assert votes.tolist() == [[0, 1, 1, 0], [2, 2, 2, 2]]


def test_where_no_neighbor_has_a_label_the_nearest_patch_decides() -> None:
    pixels = torch.tensor([[[1, 1, 1, 255]], [[2, 2, 2, 255]]])
    votes = memory_of(pixels, normal(2, 1, 2))._vote(torch.tensor([[1, 0]]))
    assert votes.tolist() == [[1, 1, 1, 2]]


def test_patches_that_are_mostly_ignored_are_no_memory() -> None:
    pixels = torch.tensor([[[0, 0, 0]], [[255, 255, 1]]])
    assert memory_of(pixels, normal(2, 1, 2)).numbers.tolist() == [0]
    with pytest.raises(DataError, match="every training patch is mostly 255, the label to ignore"):
        memory_of(torch.full((2, 1, 3), 255), normal(2, 1, 2))


def test_standardization_survives_a_mean_far_from_the_spread() -> None:
    values = normal(200, 3, 4) * 0.1 + 3000
    counted = torch.rand(200, 3, generator=chance()) < 0.7
    found = standardization(TensorPatches(values), counted)
    kept = values[counted].double()
    assert torch.allclose(found.center.double(), kept.mean(0), rtol=1e-6)
    assert torch.allclose(found.deviation.double(), kept.std(0), rtol=1e-5)


@pytest.mark.parametrize("strength", [1e-3, 1.0, 100.0])
def test_logistic_regression_is_that_of_an_independent_optimizer(strength: float) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    values, labels = normal(300, 4), torch.randint(0, 3, (300,), generator=chance(5))
    values[:, 0] += labels
    plain = Standardization(torch.zeros(4), torch.ones(4))
    table = logistic.PatchTable(TensorPatches(values[:, None]), plain, torch.arange(300), labels)
    settings = logistic.LogisticSettings(tolerance=1e-7)
    found = logistic.fit(table, 3, strength, settings).double()
    x, y = values.double().numpy(), labels.numpy()

    def objective(flat: Any) -> float:
        """C times the summed loss plus half the squared weights, as textbooks have it."""
        weight = flat.reshape(5, 3)
        scores = x @ weight[:4] + weight[4]
        top = scores.max(1, keepdims=True)
        logs = scores - top - np.log(np.exp(scores - top).sum(1, keepdims=True))
        return float(-strength * logs[np.arange(300), y].sum() + 0.5 * (weight[:4] ** 2).sum())

    best = optimize.minimize(objective, np.zeros(15), method="BFGS", options={"gtol": 1e-6})
    assert objective(found.numpy().ravel()) <= best.fun * (1 + 1e-5) + 1e-6
    independent = best.x.reshape(5, 3)[:4]
    assert np.abs(found[:4].numpy() - independent).max() < 2e-3


def test_few_passes_find_the_minimum_of_ill_conditioned_features(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spread = torch.logspace(0, -3, 24)
    values = normal(600, 24) * spread @ torch.linalg.qr(normal(24, 24))[0]
    labels = (normal(600, 24)[:, 0] + 4 * values[:, 0] / values[:, 0].std() > 3).long()
    plain = Standardization(torch.zeros(24), torch.ones(24))
    table = logistic.PatchTable(TensorPatches(values[:, None]), plain, torch.arange(600), labels)
    passes = []
    objective = logistic.logistic_objective
    monkeypatch.setattr(
        logistic, "logistic_objective", lambda *given: passes.append(1) or objective(*given)
    )
    found = logistic.fit(table, 2, 1e4, logistic.LogisticSettings())
    exact = values.double()
    weight = found.double().requires_grad_()
    loss = torch.nn.functional.cross_entropy(exact @ weight[:-1] + weight[-1], labels)
    (loss + weight[:-1].square().sum() / (2 * 1e4 * 600)).backward()
    assert weight.grad is not None
    assert float(weight.grad.abs().max()) < 1e-4
    assert len(passes) < 180  # in the weights themselves: more than 200, to a higher loss


@pytest.mark.gpu
def test_a_fit_on_the_gpu_is_that_of_the_cpu() -> None:
    values, labels = normal(300, 4), torch.randint(0, 3, (300,), generator=chance(5))
    values[:, 0] += labels
    plain = Standardization(torch.zeros(4), torch.ones(4))
    source, settings = TensorPatches(values[:, None]), logistic.LogisticSettings()
    tables = [
        logistic.PatchTable(source, plain, torch.arange(300), labels.to(device), values.to(device))
        for device in ("cpu", "cuda")
    ]
    expected, found = (logistic.fit(table, 3, 1.0, settings) for table in tables)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-3)


def test_features_too_many_for_memory_give_the_same_regression(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = patch_knn.cut(torch.randint(0, 3, (10, 2, 2), generator=chance(5)), (2, 2))
    source, plain = TensorPatches(normal(10, 4, 6)), Standardization(torch.ones(6), torch.ones(6))
    inside = logistic._table(source, plain, labels, torch.arange(10), None, torch.device("cpu"))
    monkeypatch.setattr(logistic, "MEMORY_BYTES", 0)
    outside = logistic._table(source, plain, labels, torch.arange(10), None, torch.device("cpu"))
    assert inside.values is not None
    assert outside.values is None
    settings = logistic.LogisticSettings()
    assert torch.equal(*(logistic.fit(table, 3, 1.0, settings) for table in (inside, outside)))


def test_chunks_do_not_change_the_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.randint(0, 3, (100,), generator=chance(5))
    plain = Standardization(torch.zeros(4), torch.ones(4))
    table = logistic.PatchTable(TensorPatches(normal(100, 1, 4)), plain, torch.arange(100), labels)
    whole = logistic.fit(table, 3, 1.0, logistic.LogisticSettings())
    monkeypatch.setattr(logistic, "ROWS", 17)
    parts = logistic.fit(table, 3, 1.0, logistic.LogisticSettings())
    assert torch.allclose(whole, parts, atol=1e-3)


def test_the_tried_strengths_are_the_published_ones() -> None:
    published = 10 ** np.linspace(-6, 5, 8)
    assert logistic.LogisticSettings().strengths == pytest.approx(published, rel=1e-12)


def test_retrieval_is_attention_over_the_nearest_keys() -> None:
    features, labels = normal(6, 5, 8), torch.rand(30, 3, generator=chance(1))
    memory = in_context.Memory(TensorPatches(features), torch.arange(30), labels)
    settings = in_context.InContextSettings(neighbors=4, temperature=0.1)
    queries = normal(7, 8, seed=9)
    found = in_context.attend(queries, labels, memory.index(), settings)
    for query, scores in zip(queries, found, strict=True):
        cosines = torch.cosine_similarity(query[None], features.flatten(0, 1))
        top = cosines.argsort(descending=True)[:4]
        weight = torch.exp(cosines[top] / 0.1)
        assert torch.allclose(scores, weight @ labels[top] / weight.sum(), atol=1e-5)


def test_the_memory_prefers_rare_classes_and_leaves_unlabelled_patches_out() -> None:
    targets = torch.zeros(2, 20, 3)
    targets[:, :17, 0] = 1
    targets[:, 17:19, 1] = 1  # two patches of a rare class, one without a label
    source = TensorPatches(normal(2, 20, 4))
    settings = in_context.InContextSettings(memory_patches=8)
    share = 0.0
    for seed in range(50):
        memory = in_context.fill_memory(source, targets, settings, seed)
        assert len(memory.numbers) == 8
        assert not bool((memory.numbers % 20 == 19).any())
        assert (memory.numbers < 20).sum() == 4
        share += float(memory.classes[:, 1].mean()) / 50
    assert share > 0.35  # of 0.1 of all patches
    everything = in_context.fill_memory(source, targets, in_context.InContextSettings(), 0)
    assert len(everything.numbers) == 38
    with pytest.raises(DataError, match="no training patch has a label: the memory would be"):
        in_context.fill_memory(source, targets * 0, settings, 0)


def write_photos(root: Path, split: str, count: int, seed: int) -> None:
    from PIL import Image

    draw = np.random.default_rng(seed)
    for name, color in zip(("red", "green", "blue"), COLORS, strict=True):
        (root / split / name).mkdir(parents=True)
        for index in range(count):
            pixels = (color + draw.integers(-40, 40, (40, 40, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / split / name / f"{index}.png")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> ProbeData:
    root = tmp_path_factory.mktemp("photos")
    write_photos(root, "train", 10, 1)
    write_photos(root, "test", 6, 2)
    train = open_labelled_images(root / "train")
    return probe_data("photos", train, open_labelled_images(root / "test", classes=train.classes))


def test_image_neighbors_vote_by_similarity(photos: ProbeData) -> None:
    outcome = run_protocol("image-knn", Seeing(), photos, changes=TINY, workers=1)
    assert outcome.value == 1.0
    assert outcome.measure == "accuracy"
    assert outcome.details["class_accuracy"] == {"blue": 1.0, "green": 1.0, "red": 1.0}
    assert run_protocol("image-knn", Blind(), photos, changes=TINY, workers=1).value < 0.75


def test_image_neighbors_are_those_of_a_plain_loop(
    photos: ProbeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from densescope.evaluation.probes import engines
    from densescope.evaluation.probes.splits import split_features

    kept: dict[str, Any] = {}

    def spy(task: Any, part: str) -> Any:
        kept[part] = split_features(task, part)
        return kept[part]

    monkeypatch.setattr(engines, "split_features", spy)
    changes = {**TINY, "neighbors": 5}
    found = run_protocol("image-knn", Blind(), photos, changes=changes, workers=1)
    keys, queries = (kept[part].image.whole().double() for part in ("train", "test"))
    right = 0
    for query, label in zip(queries, kept["test"].labels.tolist(), strict=True):
        cosines = [float(torch.cosine_similarity(query, key, dim=0)) for key in keys]
        votes = [0.0, 0.0, 0.0]
        for index in sorted(range(len(keys)), key=lambda i: -cosines[i])[:5]:
            votes[int(kept["train"].labels[index])] += math.exp(cosines[index] / 0.07)
        right += votes.index(max(votes)) == label
    assert found.value == pytest.approx(right / len(queries))


def write_depths(root: Path, split: str, count: int, seed: int) -> None:
    """Red blocks are one meter away, green two, blue four; a corner was not measured."""
    from PIL import Image

    draw = np.random.default_rng(seed)
    for kind in ("photos", "depths"):
        (root / kind / split).mkdir(parents=True)
    for index in range(count):
        classes = draw.integers(0, 3, (2, 2)).repeat(16, 0).repeat(16, 1)
        pixels = (COLORS[classes] + draw.integers(-20, 20, (32, 32, 3))).clip(0, 255)
        depth = np.array([1.0, 2.0, 4.0], dtype=np.float32)[classes]
        depth[:4, :4] = 0
        Image.fromarray(pixels.astype(np.uint8)).save(
            root / "photos" / split / f"{split}{index}.png"
        )
        np.save(root / "depths" / split / f"{split}{index}.npy", depth)


def test_depth_is_learned_from_features_that_hold_it(tmp_path: Path) -> None:
    halves = []
    for split, count in (("train", 16), ("test", 6)):
        write_depths(tmp_path, split, count, len(split))
        halves.append(open_depth(tmp_path / "photos" / split, tmp_path / "depths" / split))
    data = probe_data("steps", *halves)
    changes = {**TINY, "steps": 120, "bins": 16, "batch_images": 8}
    seeing = run_protocol("depth-linear", Seeing(), data, changes=changes, workers=1)
    blind = run_protocol("depth-linear", Blind(), data, changes=changes, workers=1)
    assert seeing.measure == "rmse"
    assert seeing.value < 0.6
    assert seeing.details["delta_1"][0] > 0.6
    assert blind.value > 2 * seeing.value
    assert seeing.details["bins_meters"] == [1.0, 4.0]
    assert data.task == "depth"


def test_depth_errors_by_hand() -> None:
    truth = torch.tensor([[1.0, 2.0], [0.0, 4.0]])
    found = torch.tensor([[1.2, 4.0], [9.0, 4.0]])
    errors = depth_errors(found, truth)
    assert errors.rmse == pytest.approx(math.sqrt((0.04 + 4) / 3), rel=1e-6)
    assert errors.delta_1 == pytest.approx(2 / 3)
    assert errors.absolute_relative == pytest.approx((0.2 + 1) / 3, rel=1e-6)
    assert (errors + errors).rmse == pytest.approx(errors.rmse)
    assert math.isnan(DepthErrors().rmse)


def test_kinds_of_data_do_not_mix(photos: ProbeData, tmp_path: Path) -> None:
    blocks = world(tmp_path, train=3, test=2)
    with pytest.raises(InputError, match="training data is for classification, test data for segm"):
        probe_data("mixed", photos.train, blocks.test)
    with pytest.raises(InputError, match="protocol image-knn is for classification, this data is"):
        run_protocol("image-knn", Seeing(), blocks, changes=TINY)
    other = replace(blocks.test, classes=("a", "b", "c"))  # type: ignore[type-var]
    with pytest.raises(DataError, match="training and test data have unlike classes: open both"):
        probe_data("blocks", blocks.train, other)
    with pytest.raises(DataError, match="there are no test images: a probe needs both halves, so"):
        probe_data("blocks", blocks.train, blocks.test.subset([]))
    with pytest.raises(DataError, match="there are no training images"):
        probe_data("blocks", blocks.train.subset([]), blocks.test)


def test_fingerprints_notice_a_changed_label(photos: ProbeData, tmp_path: Path) -> None:
    train = photos.train
    swapped = replace(train, labels=tuple(reversed(train.labels)))  # type: ignore[union-attr, type-var]
    changed = probe_data("photos", swapped, photos.test).fingerprints
    assert changed["train"] != photos.fingerprints["train"]
    assert changed["test"] == photos.fingerprints["test"]


def test_predicted_masks_lie_on_the_image(tmp_path: Path) -> None:
    data = world(tmp_path)
    changes = {**TINY, "epochs": 30, "batch_patches": 64}
    outcome = run_protocol("linear-sgd", Seeing(), data, changes=changes, workers=1)
    half = open_world(tmp_path, "test")
    pixels = torch.stack([half.image(index) for index in range(3)])
    masks = predict.predict_masks(outcome.head, Seeing(), pixels)
    truth = torch.stack([half.mask(index) for index in range(3)])
    assert masks.shape == truth.shape == (3, SIZE, SIZE)
    assert float((masks == truth).float().mean()) > 0.85
    with pytest.raises(InputError, match="this head reads 16 dimensions, the backbone has 8: use"):
        predict.predict_masks(outcome.head, Seeing(dim=8), pixels)
    with pytest.raises(InputError, match="only a head of the protocol linear or linear-sgd draws"):
        predict.predict_masks(None, Seeing(), pixels)


def test_a_choice_at_the_edge_of_a_fixed_grid_is_said() -> None:
    found = edge_note("learning rate", [1e-2, 1e-2], (1e-4, 1e-3, 1e-2))
    grid = "the edge of the protocol's grid, 0.0001 to 0.01"
    assert found == {"note": f"the chosen learning rate 0.01 is at {grid}", "at_edge": True}
    assert edge_note("learning rate", [1e-3], (1e-4, 1e-3, 1e-2)) == {}
    assert edge_note("k", [1], (1, 3, 10)) == {}
    assert "the chosen k 10 is at" in edge_note("k", [1, 10], (1, 3, 10))["note"]
