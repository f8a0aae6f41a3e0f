"""Barlow Twins, VICReg, MEC, SwAV and ReSA: what they make of a batch, against NumPy."""

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

from densescope.errors import InputError
from densescope.pretraining.contrastive import info_nce_with_queue
from densescope.pretraining.learners.barlowtwins import BarlowTwins
from densescope.pretraining.learners.mec import Mec, MecRecipe, coding_loss
from densescope.pretraining.learners.resa import Resa, alignment, self_assignment
from densescope.pretraining.learners.swav import Swav
from densescope.pretraining.learners.vicreg import Vicreg
from densescope.pretraining.learners.vicregl import Vicregl
from densescope.pretraining.methods import METHODS
from densescope.pretraining.optimizers import recipe_optimizer, set_rates
from densescope.pretraining.trainer import pretrain
from tests.pretraining.numeric import array, log_softmax, sinkhorn, unit, vicreg
from tests.pretraining.tiny import content, images, learner_of, tiny

pytest.importorskip("lightly")


def pixels(count: int = 8) -> Tensor:
    return images()[:count].float() / 255


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def outputs(learner: Any) -> list[Any]:
    return [array(learner.student(view)[0]) for view in learner.views(pixels(), seeded())]


def test_barlow_twins_is_made_of_correlations() -> None:
    learner = learner_of("barlowtwins", BarlowTwins, redundancy=0.01)
    first, second = ((one - one.mean(0)) / np.sqrt(one.var(0) + 1e-5) for one in outputs(learner))
    table = first.T @ second / 8
    squares = table**2
    expected = ((1 - np.diag(table)) ** 2).sum() + 0.01 * (squares.sum() - np.diag(squares).sum())
    loss = learner.loss(pixels(), 0, seeded()).loss
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_barlow_twins_is_nearly_0_for_equal_views_without_redundancy() -> None:
    criterion = learner_of("barlowtwins", BarlowTwins, redundancy=1.0).criterion
    # Columns of a Hadamard matrix have mean 0 and are orthogonal.
    two = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    rows = torch.kron(torch.kron(two, two), two)[:, 1:]
    assert criterion(rows, rows).item() == pytest.approx(0, abs=1e-6)
    assert criterion(rows, -rows).item() == pytest.approx(7 * 4, rel=1e-4)


def test_barlow_twins_has_a_rate_for_biases_and_norms() -> None:
    learner = learner_of("barlowtwins", BarlowTwins, vector_rate=0.1, warmup=0.0)
    optimizer = recipe_optimizer(learner.parameter_groups(), learner.recipe)
    rate = set_rates(optimizer, learner.settings, learner.recipe, 0)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([rate, 0.1 * rate])
    assert all(p.ndim == 1 for p in optimizer.param_groups[1]["params"])


def test_vicreg_is_made_of_variances_and_covariances() -> None:
    learner = learner_of("vicreg", Vicreg)
    loss = learner.loss(pixels(), 0, seeded()).loss
    assert loss.item() == pytest.approx(vicreg(*outputs(learner)), rel=1e-4)


def test_barlow_twins_of_unrelated_views_is_its_chance_value() -> None:
    learner = learner_of("barlowtwins", BarlowTwins, redundancy=0.5)
    draws = torch.randn(200, 2, 8, 32, generator=seeded())
    found = torch.stack([learner.criterion(*draw) for draw in draws]).mean()
    expected = at_chance("barlowtwins", redundancy=0.5, output_dim=32)
    assert found.item() == pytest.approx(expected, rel=0.01)


def test_constant_outputs_are_at_chance() -> None:
    places = torch.ones(4, 2, 2, 5)
    criterion = learner_of("vicregl", Vicregl, whole=0.6).criterion
    grids = list(torch.rand(2, 4, 2, 2, 2, generator=seeded()))
    same = criterion([(places[:, 0, 0], places), (places[:, 0, 0] + 0, places + 0)], grids)
    assert same.item() == pytest.approx(at_chance("vicregl", whole=0.6))
    assert at_chance("vicreg", variance=7.0) == pytest.approx(7 * 0.99)
    scores = [torch.zeros(8, 24)] * 3
    swav = learner_of("swav", Swav, prototypes=24).criterion
    assert swav(scores[:2], scores[2:]).item() == pytest.approx(at_chance("swav", prototypes=24))
    one = torch.ones(8, 4)
    even = self_assignment(one, one, sharpness=0.05, iterations=3)
    assert alignment(one, one, even, 0.4).item() == pytest.approx(at_chance("resa"))
    eye = torch.eye(8)
    assert coding_loss(eye[:4], eye[4:], 0.5, 4).item() == at_chance("mec") == 0.0
    queue = info_nce_with_queue(one, one, torch.ones(32, 4), 0.2)
    assert queue.item() == pytest.approx(at_chance("densecl", queue=32))


def at_chance(method: str, **changes: Any) -> float:
    """What a row says of eight images."""
    row = METHODS[method]
    assert row.chance_loss is not None
    return row.chance_loss(replace(row.small, **changes), 8)


def test_vicreg_of_a_collapsed_batch_is_its_variance_term() -> None:
    criterion = learner_of("vicreg", Vicreg, variance=7.0).criterion
    rows = torch.ones(8, 4)
    assert criterion(rows, rows).item() == pytest.approx(7 * (1 - 0.01), rel=1e-5)


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("shape", [(4, 4), (3, 7), (7, 3)])
def test_the_coding_loss_of_orthonormal_rows_is_its_series(
    order: int, shape: tuple[int, int]
) -> None:
    """``C = A A'`` of orthonormal rows is the identity; of a frame, a multiple of a projection."""
    rows, width = shape
    count = max(shape)
    frame = torch.linalg.qr(torch.randn(count, count, generator=seeded()))[0][:rows, :width]
    frame = F.normalize(frame, dim=1)
    scale = 0.3
    values = np.linalg.svd(array(frame), compute_uv=False) ** 2 * scale
    series = sum((-1) ** (k + 1) * values**k / k for k in range(1, order + 1)).sum()
    found = coding_loss(frame, frame, scale, order).item()
    assert found == pytest.approx(-series / (scale * rows), rel=1e-5)
    if rows == width:
        alone = sum((-1) ** (k + 1) * scale ** (k - 1) / k for k in range(1, order + 1))
        assert found == pytest.approx(-alone, rel=1e-5)


def test_the_coding_loss_is_near_the_log_determinant() -> None:
    first, second = torch.randn(2, 6, 12, generator=seeded()).unbind()
    table = unit(array(first)) @ unit(array(second)).T
    scale = 0.02
    exact = -np.linalg.slogdet(np.eye(6) + scale * table)[1] / (scale * 6)
    assert coding_loss(first, second, scale, 4).item() == pytest.approx(exact, rel=1e-5)


def test_the_coding_loss_is_symmetric_and_blind_to_length() -> None:
    first, second = torch.randn(2, 5, 3, generator=seeded()).unbind()
    loss = coding_loss(first, second, 0.4, 4)
    torch.testing.assert_close(coding_loss(second, first, 0.4, 4), loss)
    torch.testing.assert_close(coding_loss(3 * first, 5 * second, 0.4, 4), loss)


@pytest.mark.parametrize("degrees", [20, 30, 45, 60])
def test_views_turned_against_each_other_gain_nothing_in_small_batches(degrees: int) -> None:
    # C has the eigenvalues rows / 2 * exp(+-i angle): low rank, where the series is no logarithm
    rows, recipe = 16, METHODS["mec"].small
    assert isinstance(recipe, MecRecipe)
    scale = recipe.output_dim / (rows * recipe.distortion)
    angle = torch.deg2rad(torch.tensor([0.0, 90.0]) + degrees)
    plane = torch.eye(2)
    turned = torch.stack([angle.cos(), angle.sin()], 1)
    one, other = (rows_of.repeat(rows // 2, 1) for rows_of in (plane, turned))
    honest = coding_loss(torch.eye(rows), torch.eye(rows), scale, recipe.order)
    assert coding_loss(one, other, scale, recipe.order) > honest + 0.1


def test_mec_scores_guesses_of_both_views() -> None:
    learner = learner_of("mec", Mec, distortion=4.0, first_distortion=3.0, distortion_warmup=0.4)
    assert [learner.scale(step, 8) for step in (0, 1, 2)] == pytest.approx(
        [32 / 8 / 4 / times for times in (3, 2, 1)]
    )
    views = learner.views(pixels(), seeded())
    teacher_output = [unit(array(learner.teacher(view)[0])) for view in views]
    student_output = [unit(array(learner.predictor(learner.student(view)[0]))) for view in views]
    expected = 0.0
    for one, other in ((0, 1), (1, 0)):
        product = student_output[one] @ teacher_output[other].T / 3
        powers = [np.linalg.matrix_power(product, k).trace() for k in (1, 2, 3, 4)]
        total = powers[0] - powers[1] / 2 + powers[2] / 3 - powers[3] / 4
        expected -= total * 3 / 8 / 2
    loss = learner.loss(pixels(), 0, seeded()).loss
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_an_assignment_shares_images_out_evenly() -> None:
    vectors = torch.randn(2, 16, 5, generator=seeded()).unbind()
    assigned = self_assignment(*vectors, sharpness=0.3, iterations=50)
    torch.testing.assert_close(assigned.sum(1), torch.ones(16))
    torch.testing.assert_close(assigned.sum(0), torch.ones(16), rtol=1e-2, atol=1e-2)
    cosines = unit(array(vectors[0])) @ unit(array(vectors[1])).T
    np.testing.assert_allclose(array(assigned), sinkhorn(cosines, 0.3, 50), rtol=1e-4, atol=1e-6)


def test_alignment_known_on_paper() -> None:
    eye = torch.eye(4)
    sharp = -math.log(math.e / (math.e + 3))
    assert alignment(2 * eye, eye, eye, 1.0).item() == pytest.approx(sharp)
    assert alignment(eye[:1], eye[1:], torch.ones(1, 3) / 3, 0.4).item() == pytest.approx(
        math.log(3)
    )


def test_resa_pulls_towards_what_the_encoder_finds_alike() -> None:
    learner = learner_of("resa", Resa, temperature=0.4)
    views = learner.views(pixels(), seeded())
    teacher_output = [unit(array(learner.teacher(view)[0])) for view in views]
    outs = [learner.student(view) for view in views]
    student_output = [unit(array(learner.predictor(out))) for out, _ in outs]
    vectors = unit(array(outs[0][1].image))
    seen = unit(array(learner.teacher(views[0])[1].image))
    assigned = sinkhorn(vectors @ seen.T, 0.05, 3)
    expected = 0.0
    for one, other in ((0, 1), (1, 0)):
        scores = student_output[one] @ teacher_output[other].T / 0.4
        expected -= (assigned * log_softmax(scores)).sum(1).mean() / 2
    loss = learner.loss(pixels(), 0, seeded()).loss
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def swav_loss(learner: Any, step: int) -> tuple[float, float]:
    """The loss of a step, and what NumPy makes of the same outputs and queues."""
    large = learner.views(pixels(), seeded())
    drawn = seeded()
    learner.views(pixels(), drawn)
    small = learner.local_views(pixels(), drawn)
    branch = learner.student
    vectors = [branch.backbone(views.flatten(0, 1)).image for views in (large, small)]
    rows = unit(array(branch.head(torch.cat(vectors)))).reshape(3, 8, -1)
    directions = unit(array(learner.prototypes.weight))
    scores = rows @ directions.T
    queues = [array(queue.rows) for queue in learner.queues]
    expected = 0.0
    for view in (0, 1):
        known = scores[view]
        if step >= learner.queue_counts:
            known = np.concatenate([known, queues[view] @ directions.T])
        assigned = sinkhorn(known, 0.05, 3)[:8]
        for other in {0, 1, 2} - {view}:
            expected -= (assigned * log_softmax(scores[other] / 0.1)).sum(1).mean() / 4
    return learner.loss(pixels(), step, seeded()).loss.item(), float(expected)


def test_swav_swaps_assignments_and_uses_the_queue_when_it_is_full() -> None:
    learner = learner_of("swav", Swav, queue=32, queue_start=0.2, prototypes=24)
    assert (learner.queue_begins, learner.queue_counts) == (1, 5)
    for step in (0, 1, 5):
        found, expected = swav_loss(learner, step)
        assert found == pytest.approx(expected, rel=1e-4)
    assert [queue.place.item() for queue in learner.queues] == [16, 16]


def test_swav_without_a_queue() -> None:
    learner = learner_of("swav", Swav, queue=0, prototypes=8)
    assert learner.queue_begins == math.inf
    found, expected = swav_loss(learner, 4)
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_prototypes_of_swav_wait() -> None:
    learner = learner_of("swav", Swav, frozen_prototypes=0.4)
    for step, waits in ((0, True), (1, True), (2, False)):
        learner.loss(pixels(), step, seeded()).loss.backward()
        learner.before_step(step)
        assert (learner.prototypes.weight.grad is None) == waits


def test_the_prototypes_of_swav_stay_unit_vectors() -> None:
    learner = learner_of("swav", Swav)
    ones = torch.ones(32)
    torch.testing.assert_close(learner.prototypes.weight.norm(dim=1), ones)
    directions = F.normalize(learner.prototypes.weight.detach().clone() + 0.1, dim=1)
    learner.prototypes.weight.data.add_(0.1)
    learner.after_step(0)
    torch.testing.assert_close(learner.prototypes.weight.detach(), directions)


def test_too_few_images_for_the_prototypes_is_a_sentence(tmp_path: Path) -> None:
    settings = tiny("swav")
    assert settings.recipe is not None
    few: Any = replace(settings.recipe, queue=12)  # type: ignore[call-arg]
    sentence = (
        "SwAV spreads images evenly over 32 prototypes, and a batch with its queue has only 20: "
        "set prototypes to at most that, or queue to at least 24"
    )
    with pytest.raises(InputError, match=sentence):
        pretrain(replace(settings, recipe=few), images(), tmp_path)


KEYS = {
    "barlowtwins": ("model", {"module.backbone", "module.projector"}),
    "vicreg": ("model", {"module.backbone", "module.projector"}),
    "vicregl": ("model", {"module.backbone", "module.projector", "module.maps_projector"}),
    "mec": ("state_dict", {"module.encoder", "module.teacher", "module.predictor"}),
    "resa": (
        "state_dict",
        {
            "module.encoder",
            "module.projector",
            "module.predictor",
            "module.momentum_encoder",
            "module.momentum_projector",
        },
    ),
    "densecl": (
        "state_dict",
        {f"{side}.{place}" for side in ("encoder_q", "encoder_k") for place in "01"},
    ),
}


@pytest.mark.parametrize("method", KEYS)
def test_names_in_the_files_are_those_of_the_methods_own_code(method: str, tmp_path: Path) -> None:
    found = content(pretrain(tiny(method, steps=1), images(), tmp_path)[0])
    place, expected = KEYS[method]
    names = {".".join(name.split(".")[:2]) for name in found[place]}
    if method == "densecl":
        assert found["meta"] == {"epoch": 1, "iter": 2}
        assert {"queue", "queue_ptr", "queue2", "queue2_ptr"} <= names
        assert found["state_dict"]["queue"].shape == (32, 32)
        assert found["state_dict"]["encoder_k.1.mlp2.2.weight"].shape[2:] == (1, 1)
        names = {name for name in names if name.startswith("encoder")}
    else:
        assert found["epoch"] == 1
    assert names == expected


def test_names_in_a_file_of_swav(tmp_path: Path) -> None:
    found = content(pretrain(tiny("swav", steps=1), images(), tmp_path)[0])
    names = set(found["state_dict"])
    assert found["epoch"] == 1
    assert {"module.conv1.weight", "module.prototypes.weight"} <= names
    assert "module.projection_head.3.weight" in names
