"""How long a long run takes: thousands of records, and a draw among many images.

``python -m benchmarks.load --before SRC`` also measures the package in another ``src`` folder, in
turns with this one, so that both meet the same load of the machine.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from densescope.estimate import Estimate
from densescope.metrics import METRICS
from densescope.records import ProbeRecord, ScoreRecord
from densescope.runs.store import RunStore

BLOCKS = 16
BACKBONE = {"format": "dino", "architecture": "vit_small_patch16_224", "weights": "teacher"}
IMAGES = {"source": "images", "seed": 0, "count": 2048, "fingerprint": "0" * 64}
MANIFEST = {"backbone": BACKBONE, "settings": {"seed": 0}, "images": IMAGES, "run_folder": ""}
DRAW = """
import sys
from densescope.features.images import draw_subset, open_images
draw_subset(open_images(sys.argv[1]), 64, 0)
"""


def write_run(folder: Path, count: int) -> None:
    """Records and probes of a made-up run that rises and falls."""
    chance, store = random.Random(0), RunStore(folder)
    store.open(MANIFEST)
    common = [chance.gauss(0, 1) for _ in range(BLOCKS)]
    names = [metric.name for metric in METRICS.values() if metric.is_stored]
    for step in range(count):
        place = step / count
        height = 0.4 * min(place / 0.4, 1) - 0.2 * max(place - 0.5, 0)

        def estimate(scale: float, height: float = height) -> Estimate:
            value = scale * (1 + height + 0.005 * chance.gauss(0, 1))
            spread = [0.003 * scale * (one + chance.gauss(0, 1)) for one in common]
            return Estimate(value, tuple(value + one for one in spread), 0.001 * scale)

        scales = {name: 100.0 if "rank" in name and "." not in name else 0.5 for name in names}
        name = f"checkpoint{step:06d}.pth"
        record = ScoreRecord(
            name,
            step,
            scores={"-1": {metric: estimate(scale) for metric, scale in scales.items()}},
            checkpoint={"sha256": f"{step:064d}", "bytes": 1, "hashed": "tensors", **BACKBONE},
            provenance={**MANIFEST, "image_size": 224, "versions": {}, "device": "cpu"},
            timing={"load_seconds": 0.5, "forward_seconds": 1.5},
        )
        store.write(record)
        value = 0.2 + 0.1 * height + 0.002 * chance.gauss(0, 1)
        probe = ProbeRecord(name, step, "epoch", "linear", "camvid", "miou", (value, value + 0.001))
        store.write_probe("camvid-linear", probe)


def write_images(folder: Path, count: int) -> None:
    """Many copies of one small image, in folders of a thousand."""
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (64, 48), (90, 120, 30)).save(stream, "PNG")
    for index in range(count):
        below = folder / f"{index // 1000:04d}"
        if index % 1000 == 0:
            below.mkdir(parents=True)
        (below / f"{index:06d}.png").write_bytes(stream.getvalue())


def measure(source: Path, *words: object) -> tuple[float, float, float]:
    """Seconds, seconds of the processor, and peak megabytes of a command."""
    environment = {**os.environ, "PYTHONPATH": str(source)}
    began = time.perf_counter()
    line = [sys.executable, *map(str, words)]
    process = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{line} ended with {process.returncode}")
    seconds = time.perf_counter() - began
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    """Print one line per verb and version."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--before", type=Path, help="the src folder of another version")
    parser.add_argument("--write", type=Path, help="only write the records of the run here")
    options = parser.parse_args()
    if options.write:
        write_run(options.write, options.records)
        return
    here = Path(__file__).resolve().parents[1] / "src"
    versions = {"before": options.before, "now": here} if options.before else {"now": here}
    with tempfile.TemporaryDirectory() as scratch:
        images = Path(scratch) / "images"
        write_images(images, options.images)
        for version, source in versions.items():  # each reads what it wrote
            words = ("-m", "benchmarks.load", "--write", Path(scratch) / version)
            measure(source, *words, "--records", options.records)
        print(f"load {os.getloadavg()[0]:.1f}; seconds, processor seconds, peak MB")
        for verb in ("select", "correlate", "report", "draw"):
            for version, source in versions.items():
                run = Path(scratch) / version
                words = ("-c", DRAW, images) if verb == "draw" else ("-m", "densescope", verb, run)
                seconds, processor, peak = measure(source, *words)
                page = run / "report.html"
                size = f", page {page.stat().st_size / 1e6:.1f} MB" if verb == "report" else ""
                print(f"{verb:10}{version:8}{seconds:6.1f}{processor:6.1f}{peak:6.0f}{size}")


if __name__ == "__main__":
    main()
