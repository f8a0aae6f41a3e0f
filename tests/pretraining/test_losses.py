"""The loss of each method against a plain re-derivation in NumPy, and against its chance value."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from densescope.errors import InputError
from densescope.pretraining.contrastive import Queue, info_nce, info_nce_with_queue
from densescope.pretraining.encoders import EncoderOutput
from densescope.pretraining.learners.esvit import region_entropy
from densescope.pretraining.learners.mugs import MugsOutput, with_neighbors
from densescope.pretraining.masking import block_masks, random_keep, target_blocks
from densescope.pretraining.methods import METHODS, resolve_settings
from tests.pretraining.tiny import images, tiny

pytest.importorskip("lightly")

Array = np.ndarray[Any, np.dtype[Any]]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def built(method: str, **recipe: Any) -> Any:
    settings = tiny(method)
    assert settings.recipe is not None
    settings = resolve_settings(replace(settings, recipe=replace(settings.recipe, **recipe)))
    return METHODS[method].build(settings, settings.recipe)


def loss_of(method: str, **recipe: Any) -> Tensor:
    """The loss of a step with weights, views and dropped paths of their own seed."""
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        learner = built(method, **recipe)
        batch = images()[:8].float() / 255
        loss: Tensor = learner.loss(batch, 1, torch.Generator().manual_seed(0)).loss.detach()
    return loss


def log_softmax(x: Array) -> Array:
    x = x - x.max(-1, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(-1, keepdims=True)))


def unit(x: Array) -> Array:
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True))


def test_contrast_is_cross_entropy_of_cosines() -> None:
    queries, keys = draw(5, 7), draw(5, 7, seed=1)
    cosines = unit(queries.numpy()) @ unit(keys.numpy()).T / 0.2
    expected = -np.diag(log_softmax(cosines)).mean()
    assert float(info_nce(queries, keys, 0.2)) == pytest.approx(expected, rel=1e-5)


def test_contrast_at_chance() -> None:
    same = torch.ones(6, 3)
    assert float(info_nce(same, same, 0.2)) == pytest.approx(math.log(6))
    learner = built("mocov3", temperature=0.3)
    assert float(learner.prediction_loss(same, same)) == pytest.approx(0.6 * math.log(6))


def test_contrast_with_others_is_cross_entropy_of_cosines() -> None:
    queries, keys, others = draw(5, 7), draw(5, 7, seed=1), draw(9, 7, seed=2)
    right = (unit(queries.numpy()) * unit(keys.numpy())).sum(1, keepdims=True)
    wrong = unit(queries.numpy()) @ unit(others.numpy()).T
    expected = -log_softmax(np.concatenate([right, wrong], 1) / 0.2)[:, 0].mean()
    assert float(info_nce_with_queue(queries, keys, others, 0.2)) == pytest.approx(
        expected, rel=1e-5
    )


def test_a_queue_keeps_the_newest_rows_and_is_saved() -> None:
    queue = Queue(5, 2)
    assert torch.allclose(queue.rows.norm(dim=1), torch.ones(5))
    rows = torch.arange(16.0).view(8, 2)
    queue.put(rows[:3])
    queue.put(rows[3:6])
    assert sorted(queue.rows[:, 0].tolist()) == [2, 4, 6, 8, 10]
    assert int(queue.place) == 1
    queue.put(torch.arange(14.0).view(7, 2))
    assert sorted(queue.rows[:, 0].tolist()) == [4, 6, 8, 10, 12]
    assert set(queue.state_dict()) == {"rows", "place"}
    with pytest.raises(InputError, match="a queue of 0 rows is impossible"):
        Queue(0, 2)


@pytest.mark.parametrize(
    ("method", "scale", "unrelated"), [("simsiam", -0.5, 0.0), ("byol", -2.0, 2.0)]
)
def test_one_direction_of_a_siamese_loss_is_linear_in_the_cosine(
    method: str, scale: float, unrelated: float
) -> None:
    learner = built(method)
    prediction, target = draw(4, 6), draw(4, 6, seed=1)
    cosine = (unit(prediction.numpy()) * unit(target.numpy())).sum(1).mean()
    found = float(learner.prediction_loss(prediction, target))
    assert found == pytest.approx(unrelated + scale * cosine, rel=1e-5)


def test_both_directions_of_a_siamese_loss_count_and_targets_get_no_gradient() -> None:
    learner = built("byol").eval()
    views = draw(2, 4, 3, 16, 16)
    with torch.no_grad():
        student_output = [learner.predictor(learner.student(view)[0]) for view in views]
        teacher_output = [learner.teacher(view)[0] for view in views]
        first, second = (learner.student(view)[0] for view in views)
        found = learner.compare(first, second, views, 0)
    expected = learner.prediction_loss(
        student_output[0], teacher_output[1]
    ) + learner.prediction_loss(student_output[1], teacher_output[0])
    torch.testing.assert_close(found, expected)
    assert not any(parameter.requires_grad for parameter in learner.teacher.parameters())


def test_the_loss_of_dino_is_the_mean_cross_entropy_over_pairs_of_views() -> None:
    learner = built("dino")
    teacher_output, student_output = draw(2, 4, 32), draw(3, 4, 32, seed=1)
    center = draw(32, seed=2)
    learner.criterion.center.copy_(center)
    found = learner.criterion(list(teacher_output), list(student_output), teacher_temp=0.04)
    target = np.exp(log_softmax((teacher_output.numpy() - center.numpy()) / 0.04))
    logits = log_softmax(student_output.numpy() / 0.1)
    pairs = [-(target[t] * logits[s]).sum(1).mean() for t in range(2) for s in range(3) if s != t]
    assert float(found) == pytest.approx(np.mean(pairs), rel=1e-4)
    moved = 0.9 * center + 0.1 * teacher_output.mean((0, 1))
    torch.testing.assert_close(learner.criterion.center.flatten(), moved)


def test_a_center_begins_at_the_first_outputs_and_only_then() -> None:
    learner = built("dino")
    center, teacher_output = torch.zeros(1, 1, 3), draw(5, 3)
    learner.begin_center(center, teacher_output, 1)
    assert not center.any()
    learner.begin_center(center, teacher_output, 0)
    torch.testing.assert_close(center[0, 0], teacher_output.mean(0))
    learner.begin_center(center, teacher_output + 1, 0)
    torch.testing.assert_close(center[0, 0], teacher_output.mean(0))


def test_the_loss_of_hidden_patches_is_a_mean_over_the_patches_of_each_view() -> None:
    learner = built("ibot", head_batch_norm=False).eval()
    seen, hidden = draw(3, 16, 16), draw(3, 16, 16, seed=1)
    mask = torch.zeros(3, 16, dtype=torch.bool)
    mask[0, :4], mask[2, 5] = True, True
    with torch.no_grad():
        teacher_output = learner.teacher.head(seen).numpy()
        student_output = learner.student.head(hidden).numpy()
        found = learner._of_patches(seen, hidden, mask, step=1)
    entropy = -(np.exp(log_softmax(teacher_output / 0.04)) * log_softmax(student_output / 0.1)).sum(
        -1
    )
    expected = (entropy[0, :4].mean() + entropy[2, 5]) / 3
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_without_hidden_patches_their_loss_is_0() -> None:
    weighed, left_out = (loss_of("ibot", hidden_views=0.0, patch_weight=w) for w in (1.0, 0.0))
    assert weighed > 0
    torch.testing.assert_close(weighed, left_out)
    assert loss_of("ibot", hidden_views=1.0) != loss_of("ibot", hidden_views=1.0, patch_weight=0.0)


def test_what_stands_under_a_mask_does_not_reach_the_student() -> None:
    learner = built("ibot").eval()
    views = draw(1, 3, 16, 16)
    mask = torch.zeros(1, 16, dtype=torch.bool)
    mask[0, 0] = True
    other = views.clone()
    other[:, :, :4, :4] = 0
    with torch.no_grad():
        first, second = (
            learner.student.backbone.with_masks(x, mask, learner.mask_token).patches
            for x in (views, other)
        )
    torch.testing.assert_close(first, second)


def test_every_region_is_compared_with_the_most_similar_one() -> None:
    teacher_output, student_output = draw(2, 3, 6).softmax(2), draw(2, 4, 6, seed=1)
    teacher, student = draw(2, 3, 5, seed=2), draw(2, 4, 5, seed=3)
    found = []
    for image in range(2):
        for region in range(4):
            cosines = unit(teacher[image].numpy()) @ unit(student[image, region].numpy())
            target = teacher_output[image, int(cosines.argmax())].numpy()
            found.append(-(target * log_softmax(student_output[image, region].numpy() / 0.1)).sum())
    entropy = region_entropy(teacher_output, student_output, teacher, student, 0.1)
    assert float(entropy) == pytest.approx(np.mean(found), rel=1e-5)


def test_esvit_at_chance_and_its_two_halves() -> None:
    learner = built("esvit", head_batch_norm=False)
    for network in (learner.student, learner.teacher):
        for head in (network.head, network.dense):
            torch.nn.init.zeros_(head.last_layer.weight_g)
    outcome = learner.loss(images()[:8].float() / 255, 1, torch.Generator().manual_seed(0))
    assert float(outcome.loss.detach()) == pytest.approx(math.log(32), rel=1e-5)
    whole, of_views, of_regions = (loss_of("esvit", region_weight=w) for w in (0.5, 0.0, 1.0))
    torch.testing.assert_close(whole, (of_views + of_regions) / 2)
    assert not torch.isclose(of_views, of_regions)


@pytest.mark.parametrize("method", ["dino", "ibot", "esvit", "mugs"])
@pytest.mark.parametrize("unit", [True, False])
def test_prototypes_keep_their_length_or_learn_it(method: str, unit: bool) -> None:
    learner = built(method, unit_prototypes=unit)
    outcome = learner.loss(images()[:8].float() / 255, 1, torch.Generator().manual_seed(0))
    outcome.loss.backward()
    gradient = learner.student.head.last_layer.weight_g.grad
    assert (gradient is None) == unit


def test_only_a_vits_predictor_of_mocov3_ends_in_a_batch_norm() -> None:
    for family, ends in (("vit", True), ("resnet", False)):
        settings = resolve_settings(tiny("mocov3", family))
        learner: Any = METHODS["mocov3"].build(settings, settings.recipe)
        assert isinstance(learner.predictor.layers[-1], torch.nn.BatchNorm1d) == ends


@pytest.mark.parametrize("method", ["dino", "ibot", "esvit"])
def test_heads_that_say_nothing_are_at_chance(method: str) -> None:
    changes = {"hidden_views": 1.0} if method == "ibot" else {}
    learner = built(method, head_batch_norm=False, **changes)
    for name, value in learner.named_parameters():
        if name.endswith("weight_g"):
            torch.nn.init.zeros_(value)
    outcome = learner.loss(images()[:8].float() / 255, 1, torch.Generator().manual_seed(0))
    chance_loss = METHODS[method].chance_loss
    assert chance_loss is not None
    assert float(outcome.loss.detach()) == pytest.approx(chance_loss(learner.recipe, 8), rel=1e-5)


def test_the_center_of_regions_follows_the_teacher() -> None:
    learner = built("esvit")
    teacher_output = draw(4, 5, 32)
    learner.region_center.fill_(1.0)
    learner._move_center(teacher_output)
    torch.testing.assert_close(learner.region_center[0], 0.9 + 0.1 * teacher_output.mean((0, 1)))


def test_neighbors_are_the_nearest_by_cosine_and_get_no_gradient() -> None:
    rows, memory = draw(3, 4).requires_grad_(), draw(9, 4, seed=1)
    mixed = with_neighbors(rows, memory, 2)
    for row in range(3):
        cosines = unit(memory.numpy()) @ unit(rows.detach()[row].numpy())
        best = np.argsort(-cosines)[:2].tolist()
        torch.testing.assert_close(mixed[row, 1:], memory[best])
    mixed.sum().backward()
    assert torch.equal(rows.grad, torch.ones_like(rows))  # type: ignore[arg-type]
    assert with_neighbors(rows, memory, 20).shape == (3, 10, 4)


def test_mugs_weighs_global_and_small_views_alike() -> None:
    learner = built("mugs")
    learner.image_predictor = learner.group_predictor = torch.nn.Identity()
    teacher_output, views = (
        [MugsOutput(*draw(3, 4, 32, seed=10 * n + k)) for k in range(2)] for n in (1, 2)
    )
    views += [MugsOutput(*draw(3, 4, 32, seed=30 + k)) for k in range(3)]
    center = learner.criterion.center.copy_(draw(1, 1, 32)).clone()
    terms = learner._compare(teacher_output, views, 1)

    def one(target: MugsOutput, student_output: MugsOutput) -> list[float]:
        image = info_nce_with_queue(
            student_output.image, target.image, learner.image_queue.rows, 0.2
        )
        group = info_nce_with_queue(
            student_output.group, target.group, learner.group_queue.rows, 0.2
        )
        wanted = np.exp(log_softmax((target.clusters - center[0]).numpy() / 0.04))
        clusters = -(wanted * log_softmax(student_output.clusters.numpy() / 0.1)).sum(1).mean()
        return [float(image), float(group), float(clusters)]

    large = np.mean([one(teacher_output[0], views[1]), one(teacher_output[1], views[0])], axis=0)
    small = np.mean(
        [one(target, student_output) for target in teacher_output for student_output in views[2:]],
        axis=0,
    )
    found = [float(term) for term in terms]
    assert found == pytest.approx(((large + small) / 2).tolist(), rel=1e-5)
    mean = torch.stack([target.clusters for target in teacher_output]).mean((0, 1))
    expected = 0.9 * center[0, 0] + 0.1 * mean
    torch.testing.assert_close(learner.criterion.center[0, 0], expected)


def test_mugs_normalizes_what_is_mixed_with_neighbors() -> None:
    branch = built("mugs").student
    torch.nn.init.zeros_(branch.backbone.model.norm.weight)
    tokens = EncoderOutput(draw(3, 16), draw(3, 16, 16))
    group = branch.eval().say(tokens, draw(9, 16), 2).group
    torch.testing.assert_close(group[0], group[2])


def test_mugs_puts_what_the_teacher_says_into_its_queues() -> None:
    learner = built("mugs")
    outcome = learner.loss(images()[:8].float() / 255, 1, torch.Generator().manual_seed(0))
    assert [int(q.place) for q in (learner.image_queue, learner.group_queue)] == [16, 16]
    expected = learner.teacher.backbone(outcome.views[:8]).patches.mean(1)
    torch.testing.assert_close(learner.memory.rows[:8], expected)
    weights = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    parts = [loss_of("mugs", weights=one) for one in weights]
    torch.testing.assert_close(loss_of("mugs"), torch.stack(parts).mean())
    # Random queues and heads: close to chance.
    at_chance = math.log(1 + 32)
    assert float(parts[0]) == pytest.approx(at_chance, rel=0.5)


def test_mae_paints_pixels_in_units_of_their_patch() -> None:
    learner = built("mae")
    views = draw(2, 3, 16, 16)
    found = learner.targets(views).numpy()
    patch = views[1, :, 4:8, 8:12].permute(1, 2, 0).numpy().reshape(-1)
    expected = (patch - patch.mean()) / patch.std(ddof=1)
    np.testing.assert_allclose(found[1, 1 * 4 + 2], expected, atol=1e-4)
    # Painting gray costs the variance: 1, short of 1 over the 48 pixels of a patch.
    assert float((found**2).mean()) == pytest.approx(1 - 1 / 48, rel=1e-4)


def test_the_loss_of_mae_is_that_of_hidden_patches_only() -> None:
    learner = built("mae").eval()
    batch = images()[:8].float() / 255
    with torch.no_grad():
        outcome = learner.loss(batch, 0, torch.Generator().manual_seed(0))
        assert outcome.kept is not None
        hide = torch.stack(
            [torch.tensor([p for p in range(16) if p not in row]) for row in outcome.kept.tolist()]
        )
        seen, _ = learner._encoded(outcome.views, outcome.kept)
        painted = learner._painted(seen, outcome.kept, hide).numpy()
    wanted = np.take_along_axis(
        learner.targets(outcome.views).numpy(), hide.numpy()[:, :, None], axis=1
    )
    assert outcome.kept.shape == (8, 4)
    assert float(outcome.loss) == pytest.approx(((painted - wanted) ** 2).mean(), rel=1e-5)


def test_a_vit_that_sees_all_patches_in_order_says_what_it_always_says() -> None:
    encoder = built("mae").student.eval()
    views = draw(2, 3, 16, 16)
    every = torch.arange(16).expand(2, -1)
    with torch.no_grad():
        torch.testing.assert_close(encoder.visible(views, every), encoder(views))


def test_the_loss_of_ijepa_is_the_smooth_distance_to_normalized_targets() -> None:
    learner = built("ijepa").eval()
    predictions: list[Tensor] = []
    learner.predictor.register_forward_hook(lambda *given: predictions.append(given[2]))
    blocks: list[Tensor] = []
    learner.predictor.register_forward_pre_hook(lambda _, given: blocks.extend(given[2]))
    with torch.no_grad():
        outcome = learner.loss(images()[:8].float() / 255, 0, torch.Generator().manual_seed(0))
        teacher_output = learner.teacher(outcome.views).patches.numpy()
    teacher_output = (teacher_output - teacher_output.mean(-1, keepdims=True)) / np.sqrt(
        teacher_output.var(-1, keepdims=True) + 1e-5
    )
    wanted = np.concatenate(
        [np.take_along_axis(teacher_output, b.numpy()[:, :, None], 1) for b in blocks]
    )
    apart = np.abs(predictions[0].numpy() - wanted)
    expected = np.where(apart < 1, apart**2 / 2, apart - 0.5).mean()
    assert float(outcome.loss) == pytest.approx(expected, rel=1e-4)


def test_random_keep_is_a_fair_partition() -> None:
    keep, hide = random_keep(500, 8, kept=2, generator=torch.Generator().manual_seed(0))
    assert (torch.cat([keep, hide], 1).sort(1).values == torch.arange(8)).all()
    share = torch.bincount(keep.flatten(), minlength=8) / 500
    assert float((share - 0.25).abs().max()) < 0.08


def test_block_masks_hide_as_much_as_they_were_asked_to() -> None:
    masks = block_masks(
        400,
        14,
        ratio=(0.1, 0.5),
        probability=0.5,
        aspect=(0.3, 1 / 0.3),
        generator=torch.Generator().manual_seed(0),
    )
    hidden = masks.float().mean(1)
    some = hidden[hidden > 0]
    assert 0.4 < len(some) / 400 < 0.6
    assert float(some.max()) <= 0.5 + 1e-6
    assert float(some.mean()) == pytest.approx(0.3, abs=0.03)
    # Blocks: a hidden patch's right neighbor is hidden far more often than chance would have it.
    grid = masks.view(400, 14, 14)
    assert float(grid[:, :, 1:][grid[:, :, :-1]].float().mean()) > 0.7


def test_contexts_hold_no_target_and_targets_are_rectangles() -> None:
    kept, targets = target_blocks(
        64,
        8,
        blocks=4,
        scale=(0.15, 0.2),
        aspect=(0.75, 1.5),
        context=(0.85, 1.0),
        generator=torch.Generator().manual_seed(0),
    )
    assert len(targets) == 4
    for image in range(64):
        seen = set(kept[image].tolist())
        assert len(seen) == kept.shape[1] >= 12
        for target in targets:
            places = target[image].tolist()
            assert seen.isdisjoint(places)
            rows, columns = {p // 8 for p in places}, {p % 8 for p in places}
            assert len(places) == len(rows) * len(columns)
            assert max(rows) - min(rows) + 1 == len(rows)


def test_a_grid_too_small_for_its_targets_is_a_sentence() -> None:
    with pytest.raises(InputError, match="on a grid of 1 x 1 patches 4 targets leave no context"):
        target_blocks(
            2,
            1,
            blocks=4,
            scale=(0.15, 0.2),
            aspect=(1, 1),
            context=(1, 1),
            generator=torch.Generator().manual_seed(0),
        )
