"""DenseCL and VICRegL: what they compare, against loops in NumPy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from densescope.features.augmentation import AugmentationSettings, cell_centers, located_views
from densescope.pretraining.learners.densecl import DenseCl
from densescope.pretraining.learners.vicregl import Vicregl
from tests.pretraining.numeric import array, info_nce, unit, vicreg
from tests.pretraining.tiny import SIZE, images, learner_of

pytest.importorskip("lightly")


def pixels() -> Tensor:
    return images()[:4].float() / 255


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_densecl_is_the_contrast_of_images_and_of_places() -> None:
    learner = learner_of("densecl", DenseCl)
    query, key = (learner.student(view) for view in learner.views(pixels(), seeded()))
    bank, places = (array(q.rows).T for q in (learner.queue, learner.place_queue))
    whole = info_nce(unit(array(query.image)), unit(array(key.image)), bank, 0.2)

    dense = []
    for image in range(4):
        seen, others = (unit(array(one.tokens.patches[image])) for one in (query, key))
        best = (seen @ others.T).argmax(1)
        right = unit(array(key.patches[image]))[best]
        dense.append(info_nce(unit(array(query.patches[image])), right, places, 0.2))

    outcome = learner.loss(pixels(), 0, seeded())
    expected = 0.5 * whole + 0.5 * np.mean(dense)
    assert outcome.loss.item() == pytest.approx(expected, rel=1e-5)


def test_densecl_remembers_whole_images_and_mean_places() -> None:
    learner = learner_of("densecl", DenseCl)
    key = learner.teacher(learner.views(pixels(), seeded())[1])
    before = learner.queue.rows.clone()
    learner.loss(pixels(), 0, seeded())
    learner.loss(pixels(), 1, torch.Generator().manual_seed(4))
    torch.testing.assert_close(
        learner.queue.rows[:4], torch.nn.functional.normalize(key.image, dim=1)
    )
    mean = torch.nn.functional.normalize(key.patches.mean(1), dim=1)
    torch.testing.assert_close(learner.place_queue.rows[:4], mean)
    assert torch.equal(learner.queue.rows[8:], before[8:])
    assert learner.state_dict()["queue.place"].item() == 8


def test_the_teacher_of_densecl_gets_no_gradient() -> None:
    learner = learner_of("densecl", DenseCl)
    learner.loss(pixels(), 0, seeded()).loss.backward()
    assert all(p.grad is None for p in learner.teacher.parameters())
    assert all(p.grad is not None for p in learner.student.parameters())


def test_cells_of_a_box_known_on_paper() -> None:
    whole = cell_centers(torch.tensor([0.0, 0.0, 1.0, 1.0]), 2)
    assert whole[:, :, 0].tolist() == [[-0.5, 0.5], [-0.5, 0.5]]
    assert whole[:, :, 1].tolist() == [[-0.5, -0.5], [0.5, 0.5]]
    mirrored = cell_centers(torch.tensor([[0.5, -0.5, -0.5, 0.25]]), 2)[0]
    assert mirrored[0].tolist() == [[0.75, -0.625], [0.25, -0.625]]


def test_boxes_lie_where_the_views_were_cut_from() -> None:
    """An image whose colors are its own coordinates tells where a view comes from."""
    steps = (torch.arange(32) + 0.5) / 32
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    image = torch.stack([x, y, x * 0]).expand(40, -1, -1, -1)
    settings = AugmentationSettings(scale=(0.2, 0.6), jitter=0.0, grayscale=0.0)
    views, boxes = located_views(image, views=2, size=32, settings=settings, generator=seeded())
    cells = torch.nn.functional.avg_pool2d(views.flatten(0, 1)[:, :2], 8)
    found = cells.permute(0, 2, 3, 1).view(2, 40, 4, 4, 2) * 2 - 1
    torch.testing.assert_close(cell_centers(boxes, 4), found, rtol=0, atol=0.02)
    assert bool((boxes[..., 2] < 0).any())


def nearest(one: Any, other: Any, seen: Any, others: Any, kept: int) -> tuple[Any, Any]:
    """Of every place of the one its nearest of the other, the best ``kept`` pairs per image."""
    pairs = []
    for image in range(len(one)):
        distance = np.linalg.norm(one[image][:, None] - other[image][None], axis=2)
        best = distance.argmin(1)
        order = distance.min(1).argsort(kind="stable")[:kept]
        pairs.append((seen[image][order], others[image][best[order]]))
    return np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs])


def test_vicregl_is_vicreg_of_images_and_of_matched_places() -> None:
    learner = learner_of("vicregl", Vicregl, whole=0.6, matches=(3, 2))
    views, boxes = learner.views_and_boxes(pixels(), seeded())
    student_output = [learner.student(view) for view in views]
    maps = [array(one.patches) for one in student_output]
    where = [array(cell_centers(box, learner.geometry.rows)).reshape(4, -1, 2) for box in boxes]

    local = 0.0
    for a, b in ((0, 1), (1, 0)):
        for by in (maps, where):
            for one, other, kept in ((a, b, 3), (b, a, 2)):
                # lightly halves the covariance of places, as the public code of VICRegL does.
                pairs = nearest(by[one], by[other], maps[one], maps[other], kept)
                local += vicreg(*pairs, covariance=0.5) / 2
    whole = vicreg(*(array(one.image) for one in student_output), covariance=0.5)
    outcome = learner.loss(pixels(), 0, seeded())
    assert outcome.loss.item() == pytest.approx(0.6 * whole + 0.4 * local / 2, rel=1e-4)


def test_a_view_of_vicregl_is_that_of_every_method() -> None:
    learner = learner_of("vicregl", Vicregl)
    recipe = replace(learner.recipe, second=replace(learner.recipe.second, blur=0.9))
    learner.recipe = recipe
    views, boxes = learner.views_and_boxes(pixels(), seeded())
    assert torch.equal(views, learner.views(pixels(), seeded()))
    assert views.shape == (2, 4, 3, SIZE, SIZE)
    assert boxes.shape == (2, 4, 4)
