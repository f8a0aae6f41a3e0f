from __future__ import annotations

import base64
import io
import math
from dataclasses import replace

import pytest
import torch
from PIL import Image

from densescope.errors import InputError
from densescope.report.maps import (
    build_maps,
    matched_labels,
    principal_scores,
    score_colors,
    turned,
)
from densescope.report.pictures import CLUSTER_COLORS, SIMILARITY_COLORS, png, shade
from densescope.report.previews import Previews
from tests.report.synthetic import nearest_of_first, previews

LABELS = {"a": "first, epoch 1", "b": "pick, epoch 2"}


def picture(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")


def colors_of(uri: str) -> set[tuple[int, ...]]:
    return {color for _, color in picture(uri).getcolors(1 << 20)}


def points(generator: torch.Generator) -> torch.Tensor:
    scale = torch.tensor([9.0, 4.0, 2.0, 0.5, 0.1])
    return torch.randn(60, 5, generator=generator) * scale


def test_scores_are_those_of_a_covariance(generator: torch.Generator) -> None:
    rows = points(generator).double()
    centered = rows - rows.mean(0)
    _, vectors = torch.linalg.eigh(centered.T @ centered)
    expected = centered @ vectors[:, [-1, -2, -3]]
    expected = expected / expected.norm(dim=0)
    correlation = (principal_scores(rows.float()).double() * expected).sum(0).abs()
    assert correlation.tolist() == pytest.approx([1, 1, 1], abs=1e-5)


def test_scores_do_not_depend_on_sign_or_place(generator: torch.Generator) -> None:
    rows = points(generator)
    turn, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator))
    torch.testing.assert_close(
        principal_scores(rows), principal_scores(rows @ turn + 3.0), atol=1e-4, rtol=0
    )


def test_collapsed_patches_are_grey_instead_of_stretched_noise() -> None:
    rows = torch.full((50, 8), 0.3) + 1e-9 * torch.arange(50.0)[:, None]
    assert principal_scores(rows).abs().sum() == 0
    assert score_colors(principal_scores(rows)).unique().tolist() == [127.5]


def test_a_line_of_patches_has_one_component(generator: torch.Generator) -> None:
    line = torch.randn(50, 1, generator=generator) * torch.tensor([[1.0, 2.0, 2.0]])
    assert principal_scores(line).norm(dim=0).tolist() == pytest.approx([1, 0, 0], abs=1e-6)


def test_turning_undoes_a_turn(generator: torch.Generator) -> None:
    target = principal_scores(points(generator))
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator))
    torch.testing.assert_close(turned(target @ turn, target), target, atol=1e-5, rtol=0)


def test_matching_undoes_a_renaming(generator: torch.Generator) -> None:
    target = torch.randint(5, (200,), generator=generator)
    names = torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(matched_labels(names[target], target, 5), target)


def test_matching_is_one_to_one() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1])
    target = torch.tensor([2, 2, 2, 2, 2])
    renamed = matched_labels(labels, target, 3)
    assert renamed[:3].unique().tolist() == [2]
    assert renamed[3:].unique().tolist() != [2]


def test_the_similarity_scale_runs_from_its_first_to_its_last_color() -> None:
    ends = shade(torch.tensor([[-0.5, 0.0, 1.0]]))[0].tolist()
    assert ends == [list(map(float, SIMILARITY_COLORS[i])) for i in (0, 0, -1)]


def test_a_patch_is_a_tile_of_one_color() -> None:
    colors = torch.tensor([[[255.0, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 9, 9]]])
    image = picture(png(colors))
    assert image.size == (168, 168)
    assert image.getpixel((83, 83)) == (255, 0, 0)
    assert image.getpixel((84, 83)) == (0, 255, 0)
    assert image.getpixel((0, 167)) == (0, 0, 255)


def test_three_panels_with_a_row_per_checkpoint() -> None:
    panels = build_maps(previews(("a", "b")), LABELS, reference="b", cluster=nearest_of_first)
    assert [panel.kind for panel in panels] == ["components", "clusters", "similarity"]
    for panel in panels:
        assert [row.label for row in panel.rows] == ["image", *LABELS.values()]
        assert all(len(row.pictures) == 4 for row in panel.rows)
    assert panels[0].rows[2].pictures[3].alt == "Principal components of image 4, pick, epoch 2"


def test_clusters_wear_the_colors_of_the_palette() -> None:
    panels = build_maps(previews(("a", "b")), LABELS, reference="b", cluster=nearest_of_first)
    for row in panels[1].rows[1:]:
        for item in row.pictures:
            assert colors_of(item.uri) <= set(CLUSTER_COLORS)


def test_equal_checkpoints_look_equal() -> None:
    one = previews(("a",))
    both = Previews(one.images, {"a": one.patches["a"], "b": one.patches["a"].clone()})
    for panel in build_maps(both, LABELS, reference="b", cluster=nearest_of_first):
        assert [p.uri for p in panel.rows[1].pictures] == [p.uri for p in panel.rows[2].pictures]


def test_the_query_is_framed_on_images_and_maps_of_similarity() -> None:
    panels = build_maps(previews(("a",)), LABELS, reference="a", cluster=nearest_of_first)
    framed = picture(panels[2].rows[1].pictures[0].uri)
    assert framed.getpixel((7 * 12 - 2, 7 * 12 - 2)) == (213, 94, 0)
    assert panels[2].rows[0].pictures[0].uri != panels[0].rows[0].pictures[0].uri


def test_constant_patches_are_wholly_similar() -> None:
    images = previews(()).images
    panels = build_maps(
        Previews(images, {"a": torch.ones(4, 8, 14, 14)}),
        LABELS,
        reference="a",
        cluster=nearest_of_first,
    )
    seen = colors_of(panels[2].rows[1].pictures[0].uri)
    assert seen == {SIMILARITY_COLORS[-1], (213, 94, 0), (255, 255, 255)}


def test_patches_that_are_not_finite_are_left_out() -> None:
    good = previews(("a", "b"))
    bad = replace(good, patches={**good.patches, "b": good.patches["b"] * math.nan})
    panels = build_maps(bad, LABELS, reference="b", cluster=nearest_of_first)
    assert [row.label for row in panels[0].rows] == ["image", "first, epoch 1"]
    assert build_maps(replace(good, patches={}), LABELS, reference="b") == ()


def test_images_must_be_bytes() -> None:
    with pytest.raises(InputError, match=r"preview images are torch.float32 of shape .2, 3, 8, 8."):
        Previews(torch.zeros(2, 3, 8, 8), {})


def test_patches_must_belong_to_the_images() -> None:
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(InputError, match=r"preview patches of a\.pth .* \(2, dim, rows, columns\)"):
        Previews(images, {"a.pth": torch.zeros(3, 4, 2, 2)})
    with pytest.raises(InputError, match=r"have 2 sizes, \[\(2, 2\), \(3, 3\)\]"):
        Previews(images, {"a": torch.zeros(2, 4, 2, 2), "b": torch.zeros(2, 4, 3, 3)})
