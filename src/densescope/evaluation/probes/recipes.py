"""Published recipes for a linear segmentation head, as rows of the table of protocols."""

from __future__ import annotations

from dataclasses import replace

from densescope.evaluation.probes import training
from densescope.evaluation.probes.augment import Augmentation
from densescope.evaluation.probes.heads import HeadSettings
from densescope.evaluation.probes.row import ProbeProtocol

_CROPS = Augmentation(
    kind="scale-crop", scale=(0.5, 2.0), largest_class=0.75, flip=0.5, photometric=True
)
_FRAMEWORK = (
    "test images are resized to a short side of 512 pixels with Pillow's bilinear filter, and "
    "training crops with the same (published: OpenCV, without antialiasing)"
)
_DINOV2 = HeadSettings(
    optimizer="adamw",
    learning_rate=1e-3,
    weight_decay=1e-4,
    steps=40_000,
    batch=16,
    schedule="poly",
    warmup_steps=1500,
    batch_norm=True,
    stride=341,
    augmentation=_CROPS,
)

RECIPES = (
    ProbeProtocol(
        name="dinov3-linear",
        title="Linear segmentation as in DINOv3",
        task="segmentation",
        measure="miou",
        head="dropout of channels 0.1, batch norm, 1 x 1 convolution on the last block",
        engine=training.train_on_crops,
        settings=replace(_DINOV2, weight_decay=1e-3, schedule="warmup-cosine", dropout=0.1),
        image_size=512,
        resize="slide",
        label_size=None,
        cached=False,
        source="facebookresearch/dinov3, config-ade20k-linear-training.yaml and schedulers.py",
        deviations=(
            _FRAMEWORK,
            "the rate of a step is that of its own number (published: the first two steps share "
            "one, and later steps lag by one)",
        ),
    ),
    ProbeProtocol(
        name="dinov2-linear",
        title="Linear segmentation as in DINOv2",
        task="segmentation",
        measure="miou",
        head="batch norm, 1 x 1 convolution on the last block",
        engine=training.train_on_crops,
        settings=_DINOV2,
        image_size=512,
        resize="slide",
        label_size=None,
        cached=False,
        source="linear head configurations released with facebookresearch/dinov2",
        deviations=(
            _FRAMEWORK,
            "backbones whose patch does not divide 512 are loaded at another size, which the "
            "record says (published: padded to a multiple of 14)",
        ),
    ),
    ProbeProtocol(
        name="dinov2-linear-cached",
        title="The head and optimizer of dinov2-linear on cached features",
        task="segmentation",
        measure="miou",
        head="batch norm, 1 x 1 convolution on the last block",
        engine=training.train_on_cached,
        settings=replace(
            _DINOV2,
            steps=4000,
            warmup_steps=150,
            stride=None,
            augmentation=Augmentation(),
            loss_at="grid",
        ),
        image_size=512,
        resize="squash",
        label_size=512,
        source="linear head configurations released with facebookresearch/dinov2",
        deviations=(
            "features are computed once: no random scale, crop, mirror or color",
            "4,000 steps, warm-up in proportion (published: 40,000): without augmentation, more "
            "steps repeat the same images",
            "the loss is taken on the grid of the features, against the part of each patch that "
            "every class has (published: scores brought to the size of the masks)",
            "images are squashed to a square and masks compared at that size (published: windows "
            "at the image's own aspect ratio, masks as stored): never in one table with "
            "dinov2-linear",
        ),
    ),
    ProbeProtocol(
        name="ibot-linear",
        title="Linear segmentation as in iBOT",
        task="segmentation",
        measure="miou",
        head="1 x 1 convolution on four blocks of twelve, concatenated",
        engine=training.train_on_crops,
        settings=HeadSettings(
            optimizer="adamw",
            learning_rate=7e-4,
            small_learning_rate=3e-5,
            weight_decay=0.05,
            steps=160_000,
            batch=16,
            schedule="poly",
            warmup_steps=1500,
            stride=341,
            augmentation=replace(_CROPS, long_side=2048),
        ),
        image_size=512,
        resize="slide",
        label_size=None,
        layers=(-9, -7, -5, -1),
        cached=False,
        source="bytedance/ibot, evaluation/semantic_segmentation/configs/linear",
        deviations=(
            _FRAMEWORK,
            "all four blocks pass through the backbone's final norm",
            "blocks count from the end: 3, 5, 7 and 11 of a backbone of twelve, and other ones "
            "than published for deeper backbones",
        ),
    ),
    ProbeProtocol(
        name="neco-linear",
        title="Linear segmentation as in NeCo and Leopart",
        task="segmentation",
        measure="miou",
        head="1 x 1 convolution on features brought to 100 x 100",
        engine=training.train_on_crops,
        settings=HeadSettings(
            optimizer="sgd",
            learning_rate=0.01,
            weight_decay=1e-4,
            momentum=0.9,
            steps=None,
            epochs=25,
            batch=128,
            schedule="drop",
            drop_at=0.8,
            feature_size=100,
            initial="uniform",
            loss_over="counted",
            augmentation=Augmentation(kind="area-crop", scale=(0.8, 1.0), flip=0.5),
        ),
        image_size=448,
        resize="squash",
        label_size=100,
        cached=False,
        source="vpariza/NeCo, experiments/linear_segmentation",
        deviations=(
            "25 epochs with the rate divided by ten after 20, as in the paper's text (the released "
            "configurations stop at 20)",
            "masks go from their own size to 100 x 100 in one step, taken at pixel centers "
            "(published: nearest neighbor twice, by way of 448)",
            "the head after the last step is read (published: the best of all epochs on the "
            "reported images)",
        ),
    ),
    ProbeProtocol(
        name="stego-linear",
        title="The linear probe of STEGO, on the backbone's own features",
        task="segmentation",
        measure="miou",
        head="1 x 1 convolution, scores brought to the size of the labels",
        engine=training.train_on_crops,
        settings=HeadSettings(
            optimizer="adam",
            learning_rate=5e-3,
            weight_decay=0.0,
            steps=5000,
            batch=16,
            schedule="constant",
            initial="uniform",
            loss_over="counted",
        ),
        image_size=224,
        resize="short-side-crop",
        label_size=224,
        cached=False,
        source="mhamilton723/STEGO, src/train_segmentation.py",
        deviations=(
            "patch features of the backbone are read (published: STEGO's own code of 70 "
            "dimensions, which is trained meanwhile)",
            "test images have 224 pixels as training images do (published: 320)",
            "no five-crop of the training images",
        ),
    ),
)
