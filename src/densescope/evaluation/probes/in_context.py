"""In-context segmentation: a patch is answered by what it attends to in a memory of patches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from densescope.errors import DataError
from densescope.evaluation.pixel_counts import PixelCounts, count_pixels, joined
from densescope.evaluation.probes.neighbors import NeighborIndex, image_parts
from densescope.evaluation.probes.patch_head import patch_targets
from densescope.evaluation.probes.row import EngineResult, ProbeTask, measured
from densescope.evaluation.probes.sources import PatchSource, patch_source
from densescope.evaluation.probes.splits import SplitFeatures, split_features
from densescope.numerics.workers import map_pieces


@dataclass(frozen=True)
class InContextSettings:
    """Numbers of the retrieval.

    Attributes:
        neighbors: k of the retrieval.
        temperature: of the softmax over cosines.
        memory_patches: size of the memory; an equal number is drawn from every image, patches of
            rarer classes first. All patches where there are fewer.
    """

    neighbors: int = 30
    temperature: float = 0.02
    memory_patches: int = 102_400


@dataclass(frozen=True)
class Memory:
    """Patches that answer: their numbers in the source, and the classes each holds."""

    source: PatchSource
    numbers: Tensor
    classes: Tensor

    @property
    def like(self) -> Tensor:
        """As large as the work of a query is."""
        return torch.empty(1).expand(len(self.numbers), self.source.dim)

    def index(self) -> NeighborIndex:
        """The memory's patches, to be searched."""

        def keys(places: Tensor) -> Tensor:
            return self.source.take(self.numbers[places])

        return NeighborIndex(keys, count=len(self.numbers), distance="cosine")


def in_context(task: ProbeTask) -> EngineResult:
    """Engine: fill a memory for every seed, then read the test half."""
    settings: InContextSettings = task.row.settings
    train = split_features(task, "train")
    targets = patch_targets(
        train.labels, classes=task.data.classes, grid=train.grid, ignore=task.data.ignore
    )
    source = patch_source(train.patches[0])
    memories = [fill_memory(source, targets, settings, seed) for seed in task.seeds]
    test = split_features(task, "test")
    counts = [_read(memory, test, task, settings) for memory in memories]
    return measured(counts, {"memory": [len(memory.numbers) for memory in memories]})


def fill_memory(
    source: PatchSource, targets: Tensor, settings: InContextSettings, seed: int
) -> Memory:
    """Draw patches from every image, those whose classes are rare in it with preference.

    The score of a patch is the number of patches of its image that hold one of its classes, summed
    over its classes, times a uniform draw; the lowest scores are taken. Patches without a label
    are never taken.

    Raises:
        DataError: no patch has a label.
    """
    generator = torch.Generator().manual_seed(seed)
    share = max(settings.memory_patches // source.images, 1)
    taken = []
    for index in range(source.images):
        present = (targets[index] > 0).float()
        score = present @ present.sum(0)
        score = score * torch.rand(len(score), generator=generator)
        labelled = present.any(1).nonzero().flatten()
        order = labelled[score[labelled].argsort(stable=True)[:share]]
        taken.append(index * source.patches + order.sort().values)
    numbers = torch.cat(taken)
    if not len(numbers):
        raise DataError("no training patch has a label: the memory would be empty")
    return Memory(source, numbers, targets.flatten(0, 1)[numbers])


def attend(
    queries: Tensor, classes: Tensor, index: NeighborIndex, settings: InContextSettings
) -> Tensor:
    """Class scores of patches, ``queries classes``: the memory's labels, softly retrieved.

    ``sum_j softmax_j(cos(q, k_j) / temperature) v_j`` over the nearest keys.
    """
    near, order = index.search(queries, min(settings.neighbors, index.count))
    weight = (near / settings.temperature).softmax(1)
    return torch.einsum("qk,qkc->qc", weight, classes[order])


def _read(
    memory: Memory, test: SplitFeatures, task: ProbeTask, settings: InContextSettings
) -> PixelCounts:
    classes, ignore = task.data.classes, task.data.ignore
    queries = patch_source(test.patches[0])
    index = memory.index()

    def one(images: Tensor) -> PixelCounts:
        truth = test.labels[images]
        scores = attend(queries.of(images).flatten(0, 1), memory.classes, index, settings)
        grids = scores.view(len(images), *test.grid, classes).permute(0, 3, 1, 2)
        size = (truth.shape[1], truth.shape[2])
        found = torch.empty(truth.shape, dtype=torch.int64)
        for row, own in enumerate(grids):  # scores of all pixels and classes are large
            pixels = F.interpolate(own[None], size, mode="bilinear", align_corners=False)
            found[row] = pixels[0].max(0).indices  # argmax takes several times as long
        return count_pixels(found, truth, classes=classes, ignore=ignore)

    return joined(map_pieces(one, image_parts(queries.images, queries.patches), memory.like))
