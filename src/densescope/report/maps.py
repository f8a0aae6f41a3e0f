"""What the patch features of a few images look like at the first, picked and last checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from densescope.report.pictures import CLUSTER_COLORS, photo, png, shade
from densescope.report.previews import Previews

CLUSTERS = 6
Cluster = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Picture:
    """A data URI and what it shows, in words."""

    uri: str
    alt: str


@dataclass(frozen=True)
class MapRow:
    """One row of pictures, one picture per image."""

    label: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class MapPanel:
    """One kind of map: a row of the images, then a row per checkpoint."""

    kind: str
    title: str
    caption: str
    rows: tuple[MapRow, ...]


def build_maps(
    previews: Previews, labels: Mapping[str, str], *, reference: str, cluster: Cluster | None = None
) -> tuple[MapPanel, ...]:
    """Component, cluster and similarity maps of some checkpoints.

    Patch vectors are scaled to unit length first, as the metrics do by default.

    Args:
        previews: images and patch grids.
        labels: checkpoint name -> what its row is called; the order is that of the rows.
        reference: the checkpoint whose colors the others follow.
        cluster: points ``points dim`` and a number of clusters -> labels ``points``; by default
            the k-means of the metrics with a fixed seed.

    Returns:
        Three panels; none when no checkpoint has patches or none of them are finite.
    """
    points = {
        name: _points(previews.patches[name])
        for name in labels
        if name in previews.patches and bool(previews.patches[name].isfinite().all())
    }
    if not points:
        return ()
    reference = reference if reference in points else next(iter(points))
    grid = tuple(previews.patches[reference].shape[2:])
    maps = _Maps(previews.images, {name: labels[name] for name in points}, (grid[0], grid[1]))
    return (
        maps.components(points, reference),
        maps.clusters(points, reference, cluster or _kmeans),
        maps.similarities(points),
    )


@dataclass(frozen=True)
class _Maps:
    images: Tensor
    labels: Mapping[str, str]
    grid: tuple[int, int]

    @property
    def query(self) -> tuple[int, int]:
        return self.grid[0] // 2, self.grid[1] // 2

    def components(self, points: Mapping[str, Tensor], reference: str) -> MapPanel:
        target = principal_scores(points[reference])
        colors = {}
        for name, rows in points.items():
            scores = principal_scores(rows)
            colors[name] = score_colors(scores if name == reference else turned(scores, target))
        caption = (
            "The three strongest principal components of the patch features as red, green and "
            "blue, fitted to all images shown of one checkpoint. Colors are turned towards "
            "those of the pick as far as an orthogonal turn can; they are stretched per "
            "checkpoint and show arrangement, not amount."
        )
        return self._panel("components", "Principal components", caption, colors)

    def clusters(self, points: Mapping[str, Tensor], reference: str, cluster: Cluster) -> MapPanel:
        count = min(CLUSTERS, *(len(rows) for rows in points.values()))
        target = cluster(points[reference], count)
        palette = torch.tensor(CLUSTER_COLORS, dtype=torch.float32)
        colors = {}
        for name, rows in points.items():
            labels = target if name == reference else cluster(rows, count)
            colors[name] = palette[matched_labels(labels, target, count)]
        caption = (
            f"{count} clusters of the patches of all images shown, by k-means. Clusters of "
            "the other checkpoints wear the color of the pick's cluster they share most patches "
            "with, one to one."
        )
        return self._panel("clusters", "Clusters", caption, colors)

    def similarities(self, points: Mapping[str, Tensor]) -> MapPanel:
        row, column = self.query
        index = row * self.grid[1] + column
        colors = {}
        for name, rows in points.items():
            patches = rows.reshape(len(self.images), -1, rows.shape[-1])
            cosine = (patches * patches[:, index : index + 1]).sum(-1)
            colors[name] = torch.from_numpy(shade(cosine.flatten()))
        caption = (
            "Cosine similarity of every patch to the framed one at the image center, from 0 or "
            "less (white) to 1 (dark), on one scale for all. All dark means that patches "
            "can hardly be told apart."
        )
        return self._panel("similarity", "Similarity to one patch", caption, colors, self.query)

    def _panel(
        self,
        kind: str,
        title: str,
        caption: str,
        colors: Mapping[str, Tensor],
        mark: tuple[int, int] | None = None,
    ) -> MapPanel:
        photos = tuple(
            Picture(photo(image, mark=mark, grid=self.grid), f"Image {number}")
            for number, image in enumerate(self.images, start=1)
        )
        rows = [MapRow("image", photos)]
        for name, flat in colors.items():
            tiles = flat.reshape(len(self.images), *self.grid, 3)
            pictures = tuple(
                Picture(png(tile, mark=mark), f"{title} of image {number}, {self.labels[name]}")
                for number, tile in enumerate(tiles, start=1)
            )
            rows.append(MapRow(self.labels[name], pictures))
        return MapPanel(kind, title, caption, tuple(rows))


def _points(patches: Tensor) -> Tensor:
    rows = patches.detach().cpu().float().movedim(1, -1).flatten(0, 2)
    return torch.nn.functional.normalize(rows, dim=-1)


def principal_scores(points: Tensor) -> Tensor:
    """Scores on the three strongest principal components, each scaled to unit length.

    Centred; a component turns its largest score upwards, so the result does not depend on the
    sign that the decomposition happens to return. Components that are rounding noise are zero.

    Args:
        points: ``points dim``.

    Returns:
        ``points 3``, float32.
    """
    centered = points.double() - points.double().mean(0)
    left, strength, _ = torch.linalg.svd(centered, full_matrices=False)
    bound = torch.finfo(torch.float32).eps * max(points.shape) * float(points.double().norm())
    scores = torch.zeros(len(points), 3, dtype=torch.float64)
    kept = min(3, int((strength > bound).sum()))
    scores[:, :kept] = left[:, :kept]
    peaks = scores.gather(0, scores.abs().argmax(0, keepdim=True))
    return (scores * torch.where(peaks < 0, -1.0, 1.0)).float()


def turned(scores: Tensor, target: Tensor) -> Tensor:
    """Scores after the orthogonal turn that brings them nearest to the target.

    Source: orthogonal Procrustes problem, Schönemann (1966).
    """
    left, _, right = torch.linalg.svd(scores.T @ target)
    turn: Tensor = left @ right
    return scores @ turn


def score_colors(scores: Tensor) -> Tensor:
    """Scores (``points 3``) as colors in 0..255; the middle 96 % of each fill the range."""
    low, high = torch.quantile(scores, torch.tensor([0.02, 0.98]), dim=0)
    width = high - low
    flat = width <= torch.finfo(torch.float32).eps
    stretched = (scores - low) / torch.where(flat, 1.0, width)
    return 255 * torch.where(flat, 0.5, stretched.clamp(0, 1))


def matched_labels(labels: Tensor, target: Tensor, clusters: int) -> Tensor:
    """Labels renamed one to one so that as many points as possible agree with the target.

    Source: assignment problem, Kuhn (1955).
    """
    from scipy.optimize import linear_sum_assignment

    shared = torch.bincount(labels * clusters + target, minlength=clusters**2)
    ours, theirs = linear_sum_assignment(shared.view(clusters, clusters).numpy(), maximize=True)
    renamed = torch.empty(clusters, dtype=torch.long)
    renamed[torch.as_tensor(ours)] = torch.as_tensor(theirs)
    return renamed[labels]


def _kmeans(points: Tensor, clusters: int) -> Tensor:
    from densescope.numerics.clustering import kmeans

    generator = torch.Generator().manual_seed(0)
    labels: Tensor = kmeans(points.unsqueeze(0), clusters, generator=generator).labels
    return labels[0].cpu()
