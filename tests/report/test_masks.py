from __future__ import annotations

import base64
import io

import pytest
import torch
from PIL import Image

from densescope.errors import InputError
from densescope.report.masks import CLASS_COLORS, OTHER_COLOR, Masks, build_masks
from tests.report.probed import masks

LABELS = {"a.pth": "pick, epoch 1", "b.pth": "last, epoch 2"}


def pixels(uri: str) -> set[tuple[int, int, int]]:
    image = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB")
    return {color for _, color in image.getcolors() or ()}


def plain(truth: torch.Tensor, **predicted: torch.Tensor) -> Masks:
    images = torch.zeros(len(truth), 3, 8, 8, dtype=torch.uint8)
    return Masks(images, truth, {f"{name}.pth": mask for name, mask in predicted.items()})


def test_rows_are_image_truth_pick_and_last_of_four_images_at_most() -> None:
    panel = build_masks(masks(["a.pth", "b.pth"], images=6), LABELS)
    assert panel is not None
    assert [row.label for row in panel.rows] == [
        "image",
        "truth",
        "prediction, pick, epoch 1",
        "prediction, last, epoch 2",
    ]
    assert {len(row.pictures) for row in panel.rows} == {4}
    assert panel.rows[1].pictures[2].alt == "Truth, test image 3"


def test_a_missing_prediction_is_left_out_and_without_any_there_is_no_panel() -> None:
    panel = build_masks(masks(["b.pth"]), LABELS)
    assert panel is not None
    assert [row.label for row in panel.rows[2:]] == ["prediction, last, epoch 2"]
    assert build_masks(masks([]), LABELS) is None
    assert build_masks(masks(["c.pth"]), LABELS) is None


def test_a_class_has_one_color_in_truth_prediction_and_legend() -> None:
    truth = torch.full((1, 8, 8), 7, dtype=torch.uint8)
    truth[0, 0] = 3
    guess = torch.full((1, 8, 8), 3, dtype=torch.uint8)
    panel = build_masks(plain(truth, a=guess), LABELS)
    assert panel is not None
    assert pixels(panel.rows[1].pictures[0].uri) == set(CLASS_COLORS[:2])
    assert pixels(panel.rows[2].pictures[0].uri) == {CLASS_COLORS[1]}
    assert [row.name for row in panel.legend] == ["class 7", "class 3"]
    assert panel.legend[0].color == "#{:02x}{:02x}{:02x}".format(*CLASS_COLORS[0])
    assert not panel.ignored


def test_ignored_pixels_are_hatched_white_and_have_no_row() -> None:
    truth = torch.full((1, 16, 16), 255, dtype=torch.uint8)
    guess = torch.zeros(1, 16, 16, dtype=torch.uint8)
    panel = build_masks(plain(truth, a=guess), LABELS, classes=["sky"])
    assert panel is not None
    shown = pixels(panel.rows[1].pictures[0].uri)
    assert (255, 255, 255) in shown
    assert len(shown) == 2
    assert not shown & set(CLASS_COLORS)
    assert panel.ignored
    assert [row.name for row in panel.legend] == ["sky"]


def test_the_legend_names_classes_and_gives_their_iou() -> None:
    scores = {"a.pth": [0.1, None, 0.3], "b.pth": [0.2, 0.4]}
    panel = build_masks(
        masks(["a.pth", "b.pth"], classes=3), LABELS, classes=["sky", "road"], scores=scores
    )
    assert panel is not None
    assert {row.name: row.scores for row in panel.legend} == {
        "sky": (0.1, 0.2),
        "road": (None, 0.4),
        "class 2": (0.3, None),
    }
    assert panel.heads == tuple(LABELS.values())
    bare = build_masks(masks(["a.pth"]), LABELS)
    assert bare is not None
    assert bare.heads == ()
    assert {row.scores for row in bare.legend} == {()}


def test_more_classes_than_colors_share_one_and_are_counted() -> None:
    truth = torch.arange(36, dtype=torch.uint8).reshape(1, 6, 6)
    panel = build_masks(plain(truth, a=truth), LABELS)
    assert panel is not None
    assert len(panel.legend) == len(CLASS_COLORS) == len(set(CLASS_COLORS))
    assert panel.others == 36 - len(CLASS_COLORS)
    assert pixels(panel.rows[1].pictures[0].uri) == {*CLASS_COLORS, OTHER_COLOR}


def test_large_masks_become_small_pictures() -> None:
    truth = torch.zeros(1, 600, 600, dtype=torch.uint8)
    panel = build_masks(plain(truth, a=truth), LABELS)
    assert panel is not None
    uri = panel.rows[1].pictures[0].uri
    assert Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).size == (200, 200)


@pytest.mark.parametrize(
    ("images", "truth", "guess", "message"),
    [
        (torch.zeros(2, 3, 4, 4), None, None, "images under the masks are torch.float32"),
        (None, torch.zeros(2, 4, 4), None, "masks of the truth are torch.float32"),
        (None, torch.zeros(3, 4, 4, dtype=torch.uint8), None, "masks of the truth"),
        (None, None, torch.zeros(2, 4, 5, dtype=torch.uint8), "as large as the truth"),
    ],
)
def test_what_does_not_fit_is_refused(
    images: torch.Tensor | None,
    truth: torch.Tensor | None,
    guess: torch.Tensor | None,
    message: str,
) -> None:
    mask = torch.zeros(2, 4, 4, dtype=torch.uint8)
    with pytest.raises(InputError, match=message):
        Masks(
            torch.zeros(2, 3, 4, 4, dtype=torch.uint8) if images is None else images,
            mask if truth is None else truth,
            {"a.pth": mask if guess is None else guess},
        )
