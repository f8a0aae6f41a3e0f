"""The regularizer's share of a DINO step: ``python -m benchmarks.regularizer``.

ViT-S/16, two crops of 224 and eight of 96 pixels, head of 65,536 prototypes, AdamW, moving
average: 16 images on a CPU, 256 on a GPU. Pixels are noise, as speed does not look at them. The
term is computed on the student's patch tokens of the large crops, which the step has anyway.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from benchmarks.estimator import RESULTS, environment, seeded, table, vit_like
from densescope.features.live import tokens_of
from densescope.numerics.assignment import assign
from densescope.numerics.regularizer import DenseStructureLoss

PARTS = ("inter", "intra", "effective_rank", "dse")
Row = dict[str, object]


@dataclass(frozen=True)
class Sizes:
    """Sides of the crops in pixels, width of the head, and blocks of the ViT-S."""

    large: int = 224
    small: int = 96
    prototypes: int = 65536
    depth: int = 12


DECOMPOSITIONS = ("aten::_linalg_eigh", "aten::_linalg_svd")
PRODUCTS = ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm")
TRIAL = Sizes(64, 32, 512, 1)


class Network(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        from lightly.models.modules import DINOProjectionHead

        super().__init__()
        name = "vit_small_patch16_224"
        self.backbone = timm.create_model(
            name, num_classes=0, dynamic_img_size=True, depth=sizes.depth
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self.head = DINOProjectionHead(384, 2048, 256, sizes.prototypes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        out = self.backbone.forward_features(images)
        return self.head(out[:, 0]), tokens_of(self.backbone, out)


class Step:
    """One training step of DINO, with or without a term on the patch tokens."""

    def __init__(self, batch: int, device: str, sizes: Sizes) -> None:
        from lightly.loss import DINOLoss

        torch.default_generator.manual_seed(0)
        self.student, self.teacher = (
            Network(sizes).to(device),
            Network(sizes).to(device).requires_grad_(False),
        )
        self.teacher.load_state_dict(self.student.state_dict())
        self.criterion = DINOLoss(output_dim=sizes.prototypes).to(device)
        self.optimizer = torch.optim.AdamW(self.student.parameters(), lr=1e-4)
        generator = seeded()
        self.large = torch.randn(2 * batch, 3, sizes.large, sizes.large, generator=generator).to(
            device
        )
        self.small = torch.randn(8 * batch, 3, sizes.small, sizes.small, generator=generator).to(
            device
        )
        self.half = torch.autocast(device, torch.bfloat16, enabled=device != "cpu")

    def __call__(self, dense: DenseStructureLoss | None) -> None:
        with self.half:
            with torch.no_grad():
                told, _ = self.teacher(self.large)
            said, tokens = self.student(self.large)
            more, _ = self.student(self.small)
            views = [*said.chunk(2), *more.chunk(8)]
            loss = self.criterion(list(told.chunk(2)), views, teacher_temp=0.04)
        if dense is not None:
            loss = loss + dense(tokens)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            pairs = list(self.teacher.parameters()), list(self.student.parameters())
            torch._foreach_lerp_(*pairs, 0.004)


def seconds(work: Callable[[], object], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def term_seconds(dense: DenseStructureLoss, tokens: Tensor, device: str, repeats: int) -> float:
    """Mean over calls of forward and backward of the term alone, whole periods of ``every``."""

    def work() -> None:
        for _ in range(dense.every):
            dense(tokens.detach().requires_grad_()).backward()

    work()
    return statistics.median(seconds(work, device) for _ in range(repeats)) / dense.every


def measure_steps(batch: int, device: str, repeats: int, sizes: Sizes) -> tuple[Row, float]:
    """Steps with and without the term in turn, so that load falls on both."""
    step = Step(batch, device, sizes)
    choices: dict[str, Any] = {"without": None, "with": DenseStructureLoss()}
    times: dict[str, list[float]] = {name: [] for name in choices}
    if device == "cuda":
        step(choices["with"])
    for _ in range(repeats):
        for name, dense in choices.items():
            times[name].append(seconds(lambda dense=dense: step(dense), device))
    plain, full = (statistics.median(times[name]) for name in choices)
    row: Row = {"batch": batch, "images with tokens": 2 * batch, "repeats": repeats}
    row |= {"step median s": plain, "with all images s": full, "more %": 100 * (full / plain - 1)}
    return row | {"load": os.getloadavg()[0]}, plain


def measure_terms(batch: int, device: str, repeats: int, step: float) -> list[Row]:
    tokens = vit_like(2 * batch, 196, 384).to(device)
    rows = []
    for images, every in ((None, 1), (16, 1), (8, 1), (None, 4), (8, 4)):
        dense = DenseStructureLoss(images=images, every=every)
        taken = term_seconds(dense, tokens, device, repeats)
        row: Row = {"images": images or "all", "every": every, "term s per step": taken}
        rows.append(row | {"% of the step": 100 * taken / step, "load": os.getloadavg()[0]})
    return rows


def measure_lightly(counts: Sequence[int], device: str, repeats: int) -> list[Row]:
    """Forward and backward beside lightly's class, in turn, so that load falls on both.

    Seconds on the clock, and of the processor, which other work on the machine changes less.
    """
    from lightly.loss.regularizer import DSERegularizer

    rows = []
    for count in counts:
        tokens = vit_like(count, 196, 384).to(device)
        terms: dict[str, nn.Module] = {
            "per position": DenseStructureLoss(),
            "pooled": DenseStructureLoss(rank="pooled"),
            "lightly": DSERegularizer(),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in terms}
        for _ in range(repeats):
            for name, term in terms.items():
                live = tokens.clone().requires_grad_()

                def work(term: nn.Module = term, live: Tensor = live) -> None:
                    term(live).backward()

                began = time.process_time()
                taken = seconds(work, device)
                times[name].append((taken, time.process_time() - began))
        for unit, place in (("clock", 0), ("processor", 1)):
            median = {n: statistics.median(t[place] for t in times[n]) for n in terms}
            row: Row = {"images": count, "seconds": unit, **median}
            for name in ("per position", "pooled"):
                row[f"lightly / {name}"] = median["lightly"] / median[name]
            rows.append(row | {"load": os.getloadavg()[0]})
    return rows


def within(work: Callable[[], object], operations: Sequence[str]) -> float:
    """Seconds of the processor that some operations of torch take in one call."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        work()
    events = (event for event in profiled.key_averages() if event.key in operations)
    return sum(event.self_cpu_time_total / 1e6 for event in events)


def measure_bound(counts: Sequence[int], repeats: int) -> list[Row]:
    """What would remain if all but a few operations took no time, on one thread."""
    from lightly.loss.regularizer import DSERegularizer

    rows = []
    for count in counts:
        tokens = vit_like(count, 196, 384)

        def call(term: nn.Module, tokens: Tensor = tokens) -> None:
            term(tokens.clone().requires_grad_()).backward()

        def cluster(tokens: Tensor = tokens) -> None:
            sizes = {"local_clusters": 3, "global_clusters": 24, "group_size": 8}
            with torch.no_grad():
                assign(tokens, **sizes, normalize=True, generator=seeded())

        def median(work: Callable[[], object]) -> float:
            work()
            return statistics.median(seconds(work, "cpu") for _ in range(repeats))

        theirs, means = median(lambda: call(DSERegularizer())), median(cluster)
        for rank in ("per-position", "pooled"):
            term = DenseStructureLoss(rank=rank)
            ours = median(lambda term=term: call(term))
            solved = within(lambda term=term: call(term), DECOMPOSITIONS)
            products = within(lambda term=term: call(term), PRODUCTS) - within(cluster, PRODUCTS)
            row: Row = {"images": count, "rank": rank, "ours": ours, "decompositions": solved}
            row |= {"k-means": means, "products": products, "lightly": theirs}
            row |= {"lightly / ours": theirs / ours}
            row["lightly / (decompositions + k-means)"] = theirs / (solved + means)
            row["lightly / (these + products)"] = theirs / (solved + means + products)
            rows.append(row | {"load": os.getloadavg()[0]})
    return rows


def measure_bias(images: int, draws: int, device: str) -> list[Row]:
    """What a sample says of the batch: its numbers, and where its mean gradient points."""
    tokens = vit_like(images, 196, 384).to(device)
    rows, reference = [], torch.empty(0)
    for count in (images, images // 2, images // 4, images // 8):
        dense = DenseStructureLoss(1.0, images=count)
        slopes, values = torch.zeros_like(tokens), []
        for _ in range(draws):
            live = tokens.clone().requires_grad_()
            dense(live).backward()
            assert live.grad is not None
            assert dense.last is not None
            slopes += live.grad / draws
            values.append([getattr(dense.last, name).item() for name in PARTS])
        reference = slopes if count == images else reference
        means, spreads = torch.tensor(values).mean(0), torch.tensor(values).std(0)
        row: Row = {"images": f"{count} of {images}"}
        row |= {n: f"{m:.3f} +- {s:.3f}" for n, m, s in zip(PARTS, means, spreads, strict=True)}
        cosine = torch.cosine_similarity(slopes.flatten(), reference.flatten(), 0).item()
        row |= {"cosine": cosine, "length": (slopes.norm() / reference.norm()).item()}
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="a trial of the harness itself")
    parser.add_argument("--lightly", action="store_true", help="beside lightly's class alone")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    about = environment()
    if options.lightly:
        parts = [
            "# Beside lightly.loss.regularizer.DSERegularizer",
            "Tokens of 196 x 384, forward and backward, medians of calls in turn: seconds on the "
            "clock, and of the processor over all threads, which load changes less.",
            table(measure_lightly((8, 32, 64), options.device, options.repeats)),
        ]
        if options.device == "cpu":
            torch.set_num_threads(1)
            parts += [
                "Decompositions (LAPACK), k-means and the matrix products of Gram matrices and "
                "gradients alone, one thread: the last two ratios are what a term would reach "
                "whose other work takes no time.",
                table(measure_bound((8, 32, 64), options.repeats)),
            ]
        write("regularizer-lightly", parts, options, about)
        return
    batch = options.batch or (256 if options.device == "cuda" else 16)
    step, plain = measure_steps(
        batch, options.device, options.repeats, TRIAL if options.small else Sizes()
    )
    parts = [
        "# The regularizer's share of a DINO step, ViT-S/16, 2 x 224 + 8 x 96",
        table([step]),
        "The term alone, forward and backward, mean per step, against the step without it",
        table(measure_terms(batch, options.device, options.repeats, plain)),
    ]
    if not options.small:
        parts += [
            "A sample against the whole batch: mean +- standard deviation over 16 calls; cosine "
            "and relative length of the mean gradient over them (the whole batch's own is 1)",
            table(measure_bias(64, 16, options.device)),
        ]
    write("regularizer", parts, options, about)


def write(
    name: str, parts: Sequence[str], options: argparse.Namespace, about: Mapping[str, object]
) -> None:
    text = "\n\n".join([*parts, ", ".join(f"{key} {value}" for key, value in about.items())])
    print(text)
    options.output.mkdir(exist_ok=True)
    (options.output / f"{name}-{options.device}.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
