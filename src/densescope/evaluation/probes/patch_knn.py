"""k-NN on patches: a patch takes, pixel by pixel, the labels most of its neighbors have."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from densescope.errors import DataError
from densescope.evaluation.pixel_counts import PixelCounts, count_pixels, joined
from densescope.evaluation.probes.neighbors import NeighborIndex, image_parts
from densescope.evaluation.probes.row import EngineResult, ProbeTask, edge_note, measured
from densescope.evaluation.probes.sources import PatchSource, patch_source, standardization
from densescope.evaluation.probes.splits import SplitFeatures, held_out, split_features
from densescope.numerics.workers import map_pieces

VOTES = 64


@dataclass(frozen=True)
class PatchKnnSettings:
    """Numbers of the patch k-NN.

    Attributes:
        neighbors: values of k to choose from.
        distances: distances to choose from.
        held_out_fraction: part of the training images on which both are chosen.
    """

    neighbors: tuple[int, ...] = (1, 3, 10, 30)
    distances: tuple[str, ...] = ("cosine", "L2")
    held_out_fraction: float = 0.1


@dataclass(frozen=True)
class PatchLabels:
    """Labels cut into patches.

    Attributes:
        pixels: ``images patches pixels``.
        majority: ``images patches``: the commonest label, 255 included.
        size: rows and columns of a patch in label pixels.
    """

    pixels: Tensor
    majority: Tensor
    size: tuple[int, int]


def cut(labels: Tensor, grid: tuple[int, int]) -> PatchLabels:
    """Cut masks ``images rows columns`` into the patches of a grid that divides them.

    Raises:
        DataError: the grid does not divide the masks.
    """
    rows, columns = labels.shape[1] // grid[0], labels.shape[2] // grid[1]
    if (rows * grid[0], columns * grid[1]) != tuple(labels.shape[1:]):
        raise DataError(
            f"masks of {labels.shape[1]} x {labels.shape[2]} pixels cannot be cut into "
            f"{grid[0]} x {grid[1]} patches: choose a label_size that is a multiple of the grid"
        )
    pieces = labels.unflatten(1, (grid[0], rows)).unflatten(3, (grid[1], columns))  # type: ignore[no-untyped-call]
    pixels = pieces.permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2).contiguous()
    return PatchLabels(pixels, pixels.mode(dim=-1).values, (rows, columns))


def patch_knn(task: ProbeTask) -> EngineResult:
    """Engine: choose k and distance on held-out training images, then read the test half."""
    settings: PatchKnnSettings = task.row.settings
    train = split_features(task, "train")
    labels = cut(train.labels, train.grid)
    source = patch_source(train.patches[0])
    chosen = [_choose(source, labels, task, settings, seed) for seed in task.seeds]
    test = split_features(task, "test")
    counts = [_read(source, labels, test, task, settings, seed, best) for seed, best, _ in chosen]
    tables = [table for _, _, table in chosen]
    details = {
        "neighbors": [best[0] for _, best, _ in chosen],
        "distance": [best[1] for _, best, _ in chosen],
        "held_out_miou": tables,
        **edge_note("k", [best[0] for _, best, _ in chosen], settings.neighbors),
    }
    return measured(counts, details)


Choice = tuple[int, str]


def _choose(
    source: PatchSource,
    labels: PatchLabels,
    task: ProbeTask,
    settings: PatchKnnSettings,
    seed: int,
) -> tuple[int, Choice, dict[str, float]]:
    kept, out = held_out(source.images, settings.held_out_fraction, seed)
    memory = _Memory(source, labels, kept, task.data.classes, task.data.ignore)
    table: dict[Choice, float] = {}
    for distance in settings.distances:
        matrices = memory.matrices(
            (source, labels, out), memory.possible(settings.neighbors), distance
        )
        for k, matrix in matrices.items():
            table[k, distance] = matrix.mean_iou
    best = max(table, key=lambda choice: table[choice])
    return seed, best, {f"{k} {distance}": value for (k, distance), value in table.items()}


def _read(
    source: PatchSource,
    labels: PatchLabels,
    test: SplitFeatures,
    task: ProbeTask,
    settings: PatchKnnSettings,
    seed: int,
    best: Choice,
) -> PixelCounts:
    kept, out = held_out(source.images, settings.held_out_fraction, seed)
    memory = _Memory(
        source, labels, torch.cat([kept, out]), task.data.classes, task.data.ignore, fitted_on=kept
    )
    queries = patch_source(test.patches[0])
    truth = cut(test.labels, test.grid)
    everything = (queries, truth, torch.arange(queries.images))
    return memory.matrices(everything, (best[0],), best[1])[best[0]]


class _Memory:
    """Labelled patches; those mostly without a label are left out."""

    def __init__(
        self,
        source: PatchSource,
        labels: PatchLabels,
        images: Tensor,
        classes: int,
        ignore: int | None,
        fitted_on: Tensor | None = None,
    ) -> None:
        within = torch.arange(source.patches)
        counted = labels.majority != (-1 if ignore is None else ignore)
        fitted = torch.zeros_like(counted)
        fitted[images if fitted_on is None else fitted_on] = True
        self.standardize = standardization(source, torch.ones_like(counted) & fitted)
        numbers = (images[:, None] * source.patches + within).flatten()
        self.numbers = numbers[counted.flatten()[numbers]]
        if not len(self.numbers):
            raise DataError(f"every training patch is mostly {ignore}, the label to ignore")
        self.source, self.classes, self.ignore = source, classes, ignore
        self.pixels = labels.pixels.flatten(0, 1)
        self.majority = labels.majority.flatten()

    def possible(self, neighbors: tuple[int, ...]) -> tuple[int, ...]:
        """The values of k there are enough patches for; all of them where none fits."""
        fits = tuple(k for k in neighbors if k <= len(self.numbers))
        return fits or (len(self.numbers),)

    def matrices(
        self, asked: tuple[PatchSource, PatchLabels, Tensor], ks: tuple[int, ...], distance: str
    ) -> dict[int, PixelCounts]:
        """Counts of the images asked about, for every k."""
        source, truth, images = asked
        index = NeighborIndex(self._keys, count=len(self.numbers), distance=distance)

        def one(part: Tensor) -> list[PixelCounts]:
            answers = truth.pixels[images[part]]
            queries = self.standardize(source.of(images[part])).flatten(0, 1)
            _, near = index.search(queries, max(ks))
            voted = (self._vote(self.numbers[near[:, :k]]).view(answers.shape) for k in ks)
            return [
                count_pixels(v, answers, classes=self.classes, ignore=self.ignore) for v in voted
            ]

        like = torch.empty(1).expand(len(self.numbers), source.dim)
        parts = map_pieces(one, image_parts(len(images), source.patches), like)
        return {k: joined(own) for k, own in zip(ks, zip(*parts, strict=True), strict=True)}

    def _keys(self, places: Tensor) -> Tensor:
        return self.standardize(self.source.take(self.numbers[places]))

    def _vote(self, near: Tensor) -> Tensor:
        """Commonest label per pixel among neighbors, ``queries pixels``; ties to the lower id."""
        voted = []
        for part in torch.split(near, VOTES):
            ballots = self.pixels[part].long()
            counts = torch.zeros(len(part), self.classes + 1, ballots.shape[2], dtype=torch.int32)
            box = torch.where(ballots == self._ignored, self.classes, ballots)
            counts.scatter_add_(1, box, torch.ones_like(box, dtype=torch.int32))
            # The greatest of votes * classes + rank is found much faster than where it is.
            rank = torch.arange(self.classes - 1, -1, -1, dtype=torch.int32)[:, None]
            most = counts[:, : self.classes].mul_(self.classes).add_(rank).amax(1)
            winner = self.classes - 1 - most % self.classes
            fallback = self.majority[part[:, 0]].to(torch.int32)[:, None]
            voted.append(torch.where(most < self.classes, fallback, winner).long())
        return torch.cat(voted)

    @property
    def _ignored(self) -> int:
        return -1 if self.ignore is None else self.ignore
