"""The regularizer: the metric's value, and a gradient that training survives whatever comes."""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from densescope.errors import InputError
from densescope.numerics.assignment import assign
from densescope.numerics.regularizer import FLOOR, DenseStructureLoss, bounded_structure
from densescope.numerics.spectrum import effective_rank
from densescope.numerics.structure import dense_structure
from tests.numerics.regularizer_rank import make_layer, train
from tests.processes import begin, ended

SMALL: dict[str, Any] = {"local_clusters": 3, "global_clusters": 5, "group_size": 4}

# Most tests look at values only.
pytestmark = pytest.mark.filterwarnings("ignore:DenseStructureLoss got tokens without gradients")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tokens(images: int = 10, patches: int = 12, dim: int = 9) -> Tensor:
    noise = torch.randn(images, patches, dim, generator=seeded(3))
    return noise + torch.randn(images, 1, dim, generator=seeded(4))


def around_one_point(spread: float, *, norm: float = 1.0, images: int = 16) -> Tensor:
    """Patches of unit length (times ``norm``) at about this distance from their mean."""
    center = torch.randn(32, generator=seeded(5))
    offsets = torch.randn(images, 49, 32, generator=seeded(6)) / 32**0.5
    return norm * (center / center.norm() + spread * offsets)


def graded(features: Tensor, **settings: Any) -> tuple[Tensor, Tensor]:
    """The term with ``beta = 1``, and its gradient."""
    features = features.detach().clone().requires_grad_()
    term = DenseStructureLoss(1.0, **{**SMALL, **settings})(features)
    term.backward()
    assert features.grad is not None
    return term.detach(), features.grad


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("images", [8, 10])
def test_same_labels_same_value_as_the_metric(normalize: bool, images: int) -> None:
    features = tokens(images)
    metric = dense_structure(features, normalize=normalize, generator=seeded(7), **SMALL)
    dense = DenseStructureLoss(0.5, normalize=normalize, seed=7, **SMALL)
    assert dense(features) == -0.5 * metric.dse
    assert dense.last is not None
    for name in ("inter", "intra", "intra_image", "intra_batch", "effective_rank", "dse"):
        assert torch.equal(getattr(dense.last, name), getattr(metric, name)), name
        assert not getattr(dense.last, name).requires_grad


def test_the_gradient_is_the_metrics_while_features_are_spread_out() -> None:
    features = tokens().requires_grad_()
    dse = dense_structure(features, generator=seeded(), **SMALL).dse
    assert dse is not None
    (expected,) = torch.autograd.grad(-dse, features)
    torch.testing.assert_close(graded(features)[1], expected, rtol=0, atol=0)


@pytest.mark.parametrize("normalize", [True, False])
def test_gradients_agree_with_finite_differences(normalize: bool) -> None:
    rows = tokens(6, 5, 4).double()
    given = assign(
        rows,
        local_clusters=2,
        global_clusters=3,
        group_size=4,
        normalize=normalize,
        generator=seeded(),
    )

    def dse(values: Tensor) -> Tensor:
        return bounded_structure(values, values.detach(), torch.tensor(True), given)[0]

    assert torch.autograd.gradcheck(dse, rows.requires_grad_())


@pytest.mark.shared
@pytest.mark.parametrize("name", ["vit_like", "resnet_like", "collapsed"])
def test_only_dim_differs_from_the_released_regularizer(name: str, shared: Path) -> None:
    array = np.load(shared / "golden" / "features.npz")[name].astype(np.float32)
    document = json.loads((shared / "golden" / "expected.json").read_text())
    printed = torch.tensor(document[name]["regularizer"])
    features = torch.from_numpy(array)
    dense, classes = DenseStructureLoss(), []
    for _ in range(10):
        dense(features)
        assert dense.last is not None
        classes.append(dense.last.inter - dense.last.intra)
    rows = nn.functional.normalize(features, dim=-1).flatten(0, 1)
    found = torch.stack(classes) + effective_rank(rows, epsilon=1e-12, fraction=True).float()
    error = ((found.var() + printed.var()) / 10).sqrt()
    assert (found.mean() - printed.mean()).abs() < 4 * error


@pytest.mark.gpu
def test_the_gpu_gives_the_value_and_gradient_of_the_cpu() -> None:
    features = tokens()
    on_gpu, slope = graded(features.cuda(), images=8)
    expected, expected_slope = graded(features, images=8)
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(slope.cpu(), expected_slope, rtol=1e-3, atol=1e-7)


def test_a_small_step_along_the_gradient_raises_dse() -> None:
    features = tokens()
    term, slope = graded(features)
    after, _ = graded(features - 0.01 * slope / slope.norm())
    assert after < term


@pytest.mark.parametrize("spread", [1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8])
@pytest.mark.parametrize(("normalize", "norm"), [(True, 1.0), (True, 20.0), (False, 20.0)])
def test_the_gradient_is_bounded_near_collapse(spread: float, normalize: bool, norm: float) -> None:
    features = around_one_point(spread, norm=norm)
    term, slope = graded(features, normalize=normalize, global_clusters=24, group_size=8)
    assert torch.isfinite(term)
    largest = slope.norm(dim=-1).max() * 16 * 49 * norm
    assert largest < 3 / FLOOR
    if spread >= 1e-4:
        assert largest > 0.5 / FLOOR  # a bound, not an end: the direction stays


def test_just_above_the_floor_nothing_is_changed() -> None:
    features = around_one_point(2 * FLOOR).requires_grad_()
    dse = dense_structure(features, **SMALL).dse
    assert dse is not None
    (expected,) = torch.autograd.grad(-dse, features)
    torch.testing.assert_close(graded(features)[1], expected, rtol=0, atol=0)
    below = around_one_point(FLOOR / 10).requires_grad_()
    dse = dense_structure(below, **SMALL).dse
    assert dse is not None
    (unbounded,) = torch.autograd.grad(-dse, below)
    assert graded(below)[1].norm() < 0.2 * unbounded.norm()


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.3])
def test_full_collapse_is_zero_with_zero_gradient(normalize: bool, value: float) -> None:
    collapsed = torch.full((8, 12, 9), value)
    collapsed[..., 0] *= 3
    term, slope = graded(collapsed, normalize=normalize)
    assert term == 0
    assert not slope.any()
    dense = DenseStructureLoss(**SMALL)
    dense(collapsed)
    assert dense.last is not None
    assert dense.last.dse is not None
    assert dense.last.dse.isnan()


def hard_cases() -> dict[str, Tensor]:
    """Features on which decompositions and divisions have no gradient."""
    rows = tokens()
    line = torch.zeros_like(rows)
    line[..., 0] = rows[..., 0]
    one_image, one_cluster, zero, tiny = (rows.clone() for _ in range(4))
    one_image[0] = rows[0, :1]
    one_cluster[:] = rows[:1, :1]
    one_cluster[0, 0] = -rows[0, 0]
    zero[2], zero[3, 4] = 0, 0
    tiny[3, 4] *= 1e-12
    corners = torch.eye(9)[torch.arange(120) % 9].reshape(10, 12, 9)
    return {
        "rank one": line,
        "rank two": rows[..., :2] @ rows[0, :2, :],
        "one image of one patch": one_image,
        "one patch differs": one_cluster,
        "zero patches": zero,
        "a patch of length 1e-12": tiny,
        "repeated singular values": corners,
        "every patch twice": rows[:, :6].repeat(1, 2, 1),
        "all images alike": rows[:1].expand(10, -1, -1).clone(),
        "large": rows * 1e6,
        "small": rows * 1e-6,
    }


@pytest.mark.parametrize("name", hard_cases())
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_and_bounded(name: str, normalize: bool, dtype: torch.dtype) -> None:
    features = hard_cases()[name].to(dtype)
    term, slope = graded(features, normalize=normalize)
    assert torch.isfinite(term)
    assert torch.isfinite(slope).all()
    length = features.norm(dim=-1).mean()
    assert slope.norm(dim=-1).max() * 120 * length < 3 / FLOOR


@pytest.mark.parametrize("clusters", [1, 12])
def test_one_local_cluster_or_as_many_as_patches(clusters: int) -> None:
    term, slope = graded(tokens(), local_clusters=clusters)
    assert torch.isfinite(term)
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinity_go_through(value: float) -> None:
    features = tokens()
    features[3, 2, 1] = value
    term, slope = graded(features)
    assert term.isnan()
    assert slope.isnan().all()
    dense = DenseStructureLoss(**SMALL)
    dense(features)
    assert dense.last is not None
    assert dense.last.effective_rank.isnan()


def test_the_scaler_skips_a_step_that_overflowed() -> None:
    layer = nn.Linear(9, 9)
    before = layer.weight.detach().clone()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu")
    dense = DenseStructureLoss(1.0, **SMALL)
    for broken in (True, False):
        with torch.autocast("cpu", torch.float16):
            features = layer(tokens())
            assert features.dtype == torch.float16
            if broken:
                features = features * torch.inf
            term = dense(features)
        assert term.dtype == torch.float32
        optimizer.zero_grad()
        scaler.scale(term).backward()
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(layer.weight, before) == broken
        assert torch.isfinite(layer.weight).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    halves = tokens().to(dtype)
    expected, slope = graded(halves.float())
    with torch.autocast("cpu", torch.bfloat16):
        found, half_slope = graded(halves)
    assert found == expected
    assert found.dtype == torch.float32
    assert torch.equal(half_slope, slope.to(dtype))


@pytest.mark.parametrize("rank", ["per-position", "pooled"])
def test_a_backward_pass_inside_autocast_is_not_rounded(rank: str) -> None:
    features = tokens(16, 30, 40)
    expected = graded(features, rank=rank)
    with torch.autocast("cpu", torch.bfloat16):
        found = graded(features, rank=rank)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_chance_is_its_own_and_is_new_each_time() -> None:
    before = torch.get_rng_state()
    dense = DenseStructureLoss(images=8, **SMALL)
    first, second = dense(tokens()), dense(tokens())
    assert torch.equal(before, torch.get_rng_state())
    assert first != second
    assert DenseStructureLoss(images=8, **SMALL)(tokens()) == first
    assert DenseStructureLoss(images=8, seed=1, **SMALL)(tokens()) != first


def test_a_resumed_run_draws_the_same(tmp_path: Path) -> None:
    settings = {"images": 8, "every": 2, **SMALL}
    dense = DenseStructureLoss(**settings)
    for _ in range(3):
        dense(tokens())
    torch.save(dense.state_dict(), tmp_path / "state.pth")
    expected = [dense(tokens()) for _ in range(4)]
    resumed = DenseStructureLoss(seed=5, **settings)
    resumed.load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True))
    assert [resumed(tokens()) for _ in range(4)] == expected
    assert [bool(term != 0) for term in expected] == [False, True, False, True]


def test_copies_go_on_from_the_same_place() -> None:
    dense = DenseStructureLoss(images=8, **SMALL)
    dense(tokens())
    copies = [copy.deepcopy(dense), pickle.loads(pickle.dumps(dense))]
    expected = dense(tokens())
    assert [other(tokens()) for other in copies] == [expected, expected]


def test_evaluation_computes_every_time_and_moves_nothing() -> None:
    dense = DenseStructureLoss(images=8, every=3, **SMALL).eval()
    first, again = dense(tokens()), dense(tokens())
    assert first == again != 0
    assert dense.calls == 0
    assert dense.train()(tokens()) == 3 * first


def test_every_keeps_the_mean_over_calls() -> None:
    # the labels are drawn anew on each call, and only there: compare means
    always, seldom = (DenseStructureLoss(1.0, every=n, **SMALL) for n in (1, 4))
    means = [torch.stack([d(tokens()) for _ in range(80)]).mean() for d in (always, seldom)]
    terms = torch.stack([seldom(tokens()) for _ in range(8)])
    assert (terms != 0).tolist() == [True, False, False, False] * 2
    torch.testing.assert_close(means[1], means[0], rtol=0.02, atol=0)


def test_a_skipped_call_still_reaches_every_parameter() -> None:
    layer = nn.Linear(9, 9)
    dense = DenseStructureLoss(every=2, **SMALL)
    dense(layer(tokens()))
    skipped = dense(layer(tokens()))
    skipped.backward()
    assert skipped == 0
    assert layer.weight.grad is not None
    assert not layer.weight.grad.any()


def test_a_sample_takes_images_from_everywhere() -> None:
    features = tokens().requires_grad_()
    seen = torch.zeros(10, dtype=torch.bool)
    dense = DenseStructureLoss(images=4, **SMALL)
    for _ in range(20):
        (slope,) = torch.autograd.grad(dense(features), features)
        touched = slope.flatten(1).any(1)
        assert touched.sum() == 4
        seen |= touched
    assert seen.all()


def test_a_sample_as_large_as_the_batch_is_the_batch() -> None:
    whole = DenseStructureLoss(**SMALL)(tokens())
    assert DenseStructureLoss(images=10, **SMALL)(tokens()) == whole
    assert DenseStructureLoss(images=99, **SMALL)(tokens()) == whole


def test_beta_is_a_plain_attribute() -> None:
    dense = DenseStructureLoss(0.0, **SMALL).eval()
    assert dense(tokens()) == 0
    dense.beta = 2.0
    assert dense.last is not None
    assert dense(tokens()) == -2 * dense.last.dse  # type: ignore[operator]


def test_gradients_accumulate() -> None:
    layer = nn.Linear(9, 9)
    dense = DenseStructureLoss(1.0, **SMALL).eval()
    parts = [tokens()[:5], tokens()[5:]]
    alone = [torch.autograd.grad(dense(layer(part)), layer.weight)[0] for part in parts]
    for part in parts:
        dense(layer(part)).backward()
    torch.testing.assert_close(layer.weight.grad, alone[0] + alone[1])


def test_a_last_group_too_small_is_left_out() -> None:
    features = tokens(9, 4)  # the last group is one image of 4 patches, for 5 clusters
    expected = DenseStructureLoss(1.0, **SMALL)(features[:8])
    term, slope = graded(features)
    assert float(term) == pytest.approx(float(expected), rel=1e-6)  # one without gradients
    assert not slope[8].any()
    assert slope[:8].flatten(1).any(1).all()


@pytest.mark.parametrize(
    ("features", "found"),
    [(tokens(1), r"1 image\(s\) with 12"), (tokens(1, 4), r"1 image\(s\) with 4")],
)
def test_a_batch_of_too_little_is_zero_and_says_so(features: Tensor, found: str) -> None:
    features.requires_grad_()
    said = f"got {found} patches in all and needs at least 2 images and 5 patches: its term is 0"
    with pytest.warns(UserWarning, match=said):
        term = DenseStructureLoss(**SMALL)(features)
    term.backward()
    assert term == 0
    assert features.grad is not None
    assert not features.grad.any()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"beta": -1e-3}, "beta is -0.001; it must be a finite number of at least 0"),
        ({"beta": float("nan")}, "beta is nan; it must be a finite number"),
        ({"beta": "strong"}, "beta is strong; it must be a finite number"),
        (
            {"definition": "paper"},
            "definition is 'paper', whose effective rank is a raw rank of up to hun",
        ),
        ({"definition": "mine"}, "definition is 'mine'; the loss has released only"),
        ({"images": 1}, "images is 1; it must be at least 2"),
        ({"every": 0}, "every is 0; it must be at least 1"),
        ({"local_clusters": 0}, "local_clusters is 0; it must be at least 1"),
        ({"global_clusters": 1}, "global_clusters is 1; it must be at least 2"),
        ({"group_size": 0}, "group_size is 0; it must be at least 1"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        DenseStructureLoss(**settings)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("features", "sentence"),
    [
        (torch.ones(4, 9), "features has shape (4, 9); it must have 3 axes: images patches dim"),
        (torch.ones(4, 9, 3, 3), "becomes tokens by features.flatten(2).mT"),
        (torch.ones(4, 9, 3, dtype=torch.int64), "features holds torch.int64; the loss takes a"),
        ([1.0], "features holds list; the loss takes a floating point tensor"),
        (torch.ones(4, 2, 3), "an image has 2 patches for 3 clusters; ask for fewer"),
        (torch.ones(4, 5, 3), "a group has 20 patches for 24 clusters; ask for fewer"),
        (torch.ones(0, 9, 3), "features has no images: its shape (0, 9, 3)"),
    ],
)
def test_tensors_are_checked(features: Any, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        DenseStructureLoss(group_size=4)(features)
    assert sentence in str(caught.value)


def test_a_state_of_something_else_is_refused() -> None:
    with pytest.raises(InputError, match="this is not the state of a DenseStructureLoss"):
        DenseStructureLoss().set_extra_state({"step": 3})


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own, about gradients it looks at
def test_it_works_in_a_compiled_step() -> None:
    layer = nn.Linear(9, 9)
    dense = DenseStructureLoss(1.0, every=2, images=8, **SMALL)

    def step(features: Tensor) -> Tensor:
        out = layer(features).tanh()
        return out.square().mean() + dense(out * 2)

    compiled = torch.compile(step, backend="aot_eager")
    found = [torch.autograd.grad(compiled(tokens()), layer.weight)[0] for _ in range(4)]
    dense.load_state_dict(DenseStructureLoss().state_dict())
    expected = [torch.autograd.grad(step(tokens()), layer.weight)[0] for _ in range(4)]
    torch.testing.assert_close(found, expected)
    assert dense.calls == 4


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_one_whole_graph_it_cannot_be() -> None:
    dense = DenseStructureLoss(**SMALL)
    whole = torch.compile(lambda x: dense(x) + 1, backend="aot_eager", fullgraph=True)
    with pytest.raises(Exception, match="disable"):
        whole(tokens())


@pytest.mark.slow
def test_two_processes_average_the_gradients_of_their_own_images(tmp_path: Path) -> None:
    address = str(tmp_path / "meeting")
    running = [begin(train, rank, address) for rank in range(2)]
    assert [ended(process) for process in running] == [0, 0]
    found = [torch.load(f"{address}.{rank}", weights_only=True) for rank in range(2)]

    torch.testing.assert_close(found[0]["slopes"], found[1]["slopes"], rtol=0, atol=0)
    assert found[0]["terms"] != found[1]["terms"]
    dense = [DenseStructureLoss(1.0, every=2, seed=0, **SMALL) for _ in range(2)]
    layer = make_layer()
    for step, slope in enumerate(found[0]["slopes"]):
        terms = [dense[rank](layer(tokens()[rank * 5 : rank * 5 + 5])) for rank in range(2)]
        assert [term.item() for term in terms] == [found[rank]["terms"][step] for rank in range(2)]
        (expected,) = torch.autograd.grad(sum(terms) / 2, layer.weight)  # type: ignore[arg-type]
        torch.testing.assert_close(slope, expected)


def test_tokens_without_gradients_are_pointed_out_in_training() -> None:
    features = tokens(8)
    with pytest.warns(UserWarning, match="without gradients: its term changes no weight; give"):
        DenseStructureLoss(**SMALL)(features)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DenseStructureLoss(**SMALL).eval()(features)
        with torch.no_grad():
            DenseStructureLoss(**SMALL)(features)
        DenseStructureLoss(**SMALL)(features.clone().requires_grad_())
