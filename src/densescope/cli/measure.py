"""``sweep``, ``score``, ``select`` and ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from densescope.cli import options as o
from densescope.cli.tables import score_table, selection_table, sweep_table
from densescope.records import ScoreRecord, write_record

FAILED_CHECKPOINTS = 3


def sweep(
    run_folder: Annotated[Path, typer.Argument(help="The folder of checkpoints.")],
    images: o.ImagesOption,
    output: Annotated[Path, typer.Option("--output", help="Folder for the records.")],
    format: o.FormatOption,
    architecture: o.ArchitectureOption = None,
    architecture_option: o.ArchitectureOptions = None,
    weights: o.WeightsOption = None,
    image_size: o.ImageSizeOption = None,
    loader: o.LoaderOption = None,
    images_count: o.ImagesCountOption = 2048,
    layers: o.LayersOption = "-1",
    seed: o.SeedOption = 0,
    normalize: o.NormalizeOption = True,
    local_clusters: o.LocalClustersOption = 3,
    global_clusters: o.GlobalClustersOption = 24,
    group_size: o.GroupSizeOption = 8,
    images_per_batch: o.ImagesPerBatchOption = 1024,
    lidar_images: o.LidarImagesOption = 256,
    lidar_views: o.LidarViewsOption = 10,
    device: o.DeviceOption = "auto",
    batch_size: o.BatchSizeOption = 64,
    precision: o.PrecisionOption = "float32",
    workers: o.WorkersOption = 4,
    config: o.ConfigOption = None,
) -> None:
    """Score every checkpoint of a run; call again to go on or to take up new ones.

    Exit code 3 when some checkpoints could not be scored; they are named, the rest is kept.
    """
    from densescope.cli.progress import SweepProgress
    from densescope.evaluation.scoring import ScoreSettings
    from densescope.runs.sweep import Compute
    from densescope.runs.sweep import sweep as run_sweep

    settings = ScoreSettings(
        layers=o.layers(layers),
        normalize=normalize,
        local_clusters=local_clusters,
        global_clusters=global_clusters,
        group_size=group_size,
        images_per_batch=images_per_batch,
        lidar_images=lidar_images,
        lidar_views=lidar_views,
        seed=seed,
        precision=precision,
    )
    console = Console()
    with SweepProgress(console) as progress:
        records = run_sweep(
            run_folder,
            images=images,
            output=output,
            format=format,
            architecture=architecture,
            architecture_options=o.architecture_options(architecture_option),
            weights=weights,
            image_size=image_size,
            loader=loader,
            images_count=images_count,
            settings=settings,
            compute=Compute(device=device, batch_size=batch_size, workers=workers),
            on_event=progress,
        )
    console.print(sweep_table(records))
    _finish(console, output, records)


def _finish(console: Console, output: Path, records: list[ScoreRecord]) -> None:
    failed = [record for record in records if record.status == "failed"]
    scored = len(records) - len(failed)
    console.print(f"{scored} of {len(records)} checkpoints scored; records in {output}")
    console.print(f"next: densescope select {output}; densescope report {output}")
    for record in failed:
        typer.echo(f"densescope: {record.name}: {record.error}", err=True)
    if failed:
        raise typer.Exit(FAILED_CHECKPOINTS)
