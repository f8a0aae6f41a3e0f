"""``demo`` and ``pretrain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from densescope.cli.tables import console as make_console
from densescope.cli.tables import selection_table


def demo(
    output: Annotated[Path, typer.Option(help="Folder for everything; emptied first.")] = Path(
        "demo"
    ),
    steps: Annotated[int, typer.Option(min=48, help="Training steps.")] = 264,
    seed: Annotated[int, typer.Option(help="Seed of scenes, training and scoring.")] = 0,
) -> None:
    """Pretrain, sweep, select, report and probe on images the package makes itself."""
    from dataclasses import replace

    from densescope.cli.progress import SweepProgress, TrainingProgress
    from densescope.demo import DemoSettings, probe_sentences, run_demo
    from densescope.runs.environment import settle_threads

    console = make_console()
    console.print(f"working with {settle_threads()} thread(s)")
    default = DemoSettings()
    every = max(steps // 22, 1)
    settings = replace(
        default,
        seed=seed,
        pretrain=replace(default.pretrain, steps=steps, checkpoint_every=every, seed=seed),
        score=replace(default.score, seed=seed),
    )
    with TrainingProgress(console) as training, SweepProgress(console, quiet=True) as sweeping:
        result = run_demo(
            output,
            settings=settings,
            say=lambda line: console.print(line, markup=False),
            on_step=training,
            on_event=sweeping,
        )
    console.print(selection_table(result.selection))
    console.print(result.selection.verdict, markup=False)
    console.print("\nWith labels, a linear probe on 200 other scenes:")
    for line in probe_sentences(result):
        console.print(line, markup=False)
    total = sum(result.seconds.values())
    console.print(f"\n{total:.0f} s in all. Open {result.report} in a browser.", markup=False)
    console.print(
        f"The same by hand: densescope select {result.report.parent}; "
        f"densescope report {result.report.parent}",
        markup=False,
    )


def pretrain(
    images: Annotated[Path, typer.Option(help="A folder of images or tar shards.")],
    output: Annotated[Path, typer.Option(help="Folder for the checkpoints.")],
    method: Annotated[str, typer.Option(help="A row of METHODS.")] = "dino",
    images_count: Annotated[int, typer.Option(min=2, help="Images to train on.")] = 100_000,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps.")] = 340,
    batch_size: Annotated[int, typer.Option(min=2, help="Images per step.")] = 64,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between them.")] = 20,
    learning_rate: Annotated[float, typer.Option(help="Its highest value.")] = 1e-3,
    image_size: Annotated[int, typer.Option(help="Pixels.")] = 64,
    patch_size: Annotated[int, typer.Option(help="Pixels.")] = 8,
    dim: Annotated[int, typer.Option(help="Width of the ViT.")] = 128,
    depth: Annotated[int, typer.Option(help="Blocks of the ViT.")] = 5,
    heads: Annotated[int, typer.Option(help="Attention heads.")] = 4,
    seed: Annotated[int, typer.Option(help="Of weights, order and views.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Pretrain a small ViT and leave checkpoints in the layout of the method's own code."""
    from densescope.cli.progress import TrainingProgress
    from densescope.features.images import decode_subset, draw_subset, open_images
    from densescope.pretraining.settings import BackboneShape, PretrainSettings
    from densescope.pretraining.trainer import pretrain as run_pretraining
    from densescope.runs.environment import settle_threads

    console = make_console()
    console.print(f"working with {settle_threads()} thread(s)")
    shape = BackboneShape(
        image_size=image_size, patch_size=patch_size, dim=dim, depth=depth, heads=heads
    )
    settings = PretrainSettings(
        method=method,
        steps=steps,
        batch_size=batch_size,
        checkpoint_every=checkpoint_every,
        learning_rate=learning_rate,
        seed=seed,
        backbone=shape,
        device=device,
    )
    subset = draw_subset(open_images(images), images_count, seed)
    pixels = decode_subset(subset, image_size=image_size, resize_size=image_size)
    console.print(f"training on {len(subset)} images of {images}", markup=False)
    with TrainingProgress(console) as progress:
        files = run_pretraining(settings, pixels, output, progress)
    options = " ".join(
        f"--architecture-option {key}={value}"
        for key, value in shape.options.items()
        if key != "num_classes"
    )
    console.print(f"{len(files)} checkpoints in {output}")
    console.print(
        f"next: densescope sweep {output} --format {method} --architecture {shape.model} "
        f"{options} --images DIR --output SCORES",
        markup=False,
        soft_wrap=True,
    )
