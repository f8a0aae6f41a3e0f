"""Where the checkpoints of a sweep are scored: in this process, or in others beside it."""

from __future__ import annotations

import multiprocessing.connection
import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch

from densescope.errors import InputError
from densescope.features.discovery import RunCheckpoint
from densescope.features.extraction import resolve_device
from densescope.features.images import ImageSubset, open_images
from densescope.features.spec import BackboneSpec
from densescope.files import is_local
from densescope.locks import exclusive
from densescope.metrics import ScoreSettings
from densescope.records import ScoreRecord
from densescope.runs.prefetch import Prefetcher
from densescope.runs.scorer import CheckpointScorer, Compute, ExtractedCheckpoint
from densescope.runs.store import RunStore
from densescope.writing import IN_USE, SHARED, remove_shared_images

Report = Callable[[Literal["scoring", "again"], RunCheckpoint], None]
LOST_TWICE = (
    "the process that scored it died {count} times without a word: most likely it ran out of "
    "memory; try fewer processes or a smaller batch size"
)
TRIES = 3


@dataclass(frozen=True)
class Plan:
    """All that a process needs to score checkpoints of a run; it travels by pickle.

    Attributes:
        output: folder of the records.
        images: where the images come from.
        names: of the fixed images, in order.
        seed: what they were drawn with.
        fingerprint: of these images.
        skipped: images that cannot be decoded, with reasons.
        spec: how a file becomes a backbone.
        settings: what the numbers depend on.
        compute: device, batch size, threads, and where decoded images are shared.
    """

    output: Path
    images: str
    names: tuple[str, ...]
    seed: int
    fingerprint: str
    skipped: Mapping[str, str]
    spec: BackboneSpec
    settings: ScoreSettings
    compute: Compute

    def scorer(self) -> CheckpointScorer:
        """A scorer that writes into the run's folder; images are not read before they are used."""
        source = open_images(self.images)
        subset = ImageSubset(source, self.names, self.seed, self.fingerprint, skipped=self.skipped)
        store = RunStore(self.output)
        return CheckpointScorer(self.spec, subset, self.settings, self.compute, store)


@runtime_checkable
class Executor(Protocol):
    """Scores checkpoints somewhere. Records are written where they are made, each at once."""

    def score(
        self, jobs: Sequence[RunCheckpoint], plan: Plan, report: Report
    ) -> Iterator[tuple[RunCheckpoint, ScoreRecord]]:
        """Every job with its record, in the order in which they are done.

        Args:
            jobs: what to score.
            plan: of the run.
            report: called with ``"scoring"`` and a job when its work begins, where that is known;
                ``"again"`` when it begins again because the process died that did it.
        """
        ...


@dataclass(frozen=True)
class InProcess:
    """One checkpoint after the other, in this process.

    A thread reads the weights of the next one meanwhile. On an accelerator another one shows the
    images to the next checkpoint while the numbers of this one are computed: they leave gaps on
    the device that forward passes fill. So the features of two checkpoints are in memory, and the
    weights of a third.

    Attributes:
        overlap: whether numbers and forward passes overlap; on an accelerator only by default, as
            on the CPU each of them fills all cores.
    """

    overlap: bool | None = None

    def score(
        self, jobs: Sequence[RunCheckpoint], plan: Plan, report: Report
    ) -> Iterator[tuple[RunCheckpoint, ScoreRecord]]:
        """As :meth:`Executor.score`, in the order of the jobs."""
        scorer = plan.scorer()
        after = {job.path: following.path for job, following in pairwise(jobs)}

        def extract(path: Path) -> ExtractedCheckpoint:
            return scorer.extract(path, partial(reader.take, path, after.get(path)))

        with (
            Prefetcher(scorer.read, "read") as reader,
            Prefetcher(extract, "forward") as extractor,
            closing(scorer),  # first of the three, so that work that is under way stops
        ):
            if jobs:
                reader.begin(jobs[0].path)
                scorer.prepare()
            for job in jobs:
                report("scoring", job)
                if self._overlaps(plan):
                    extracted = partial(extractor.take, job.path, after.get(job.path))
                else:
                    extracted = partial(extract, job.path)
                yield job, _scored(scorer, job, extracted)

    def _overlaps(self, plan: Plan) -> bool:
        if self.overlap is not None:
            return self.overlap
        return resolve_device(plan.compute.device).type != "cpu"


@dataclass(frozen=True)
class Processes:
    """Several processes on this machine, each with its share of the cores.

    Attributes:
        count: how many; on a machine with several GPUs they take turns at them.
    """

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"{self.count} processes cannot score anything: use at least 1")

    def score(
        self, jobs: Sequence[RunCheckpoint], plan: Plan, report: Report
    ) -> Iterator[tuple[RunCheckpoint, ScoreRecord]]:
        """As :meth:`Executor.score`; reports only what begins again.

        When a process dies, what was in work then is scored again alone, so that only the
        checkpoint to blame is given up.
        """
        waiting = list(jobs)
        while waiting:
            with self._pool(plan) as pool:
                futures = {pool.submit(score_job, plan, job): job for job in waiting}
                yield from _finished(futures, waiting)
            suspects, waiting = waiting[: self.count], waiting[self.count :]
            for job in suspects:
                report("again", job)
                yield job, replace(self, count=1)._alone(job, plan)

    def _alone(self, job: RunCheckpoint, plan: Plan) -> ScoreRecord:
        for _ in range(TRIES - 1):
            with self._pool(plan) as pool:
                try:
                    return pool.submit(score_job, plan, job).result()
                except BrokenProcessPool:
                    continue
        return failed_record(plan, job)

    @contextmanager
    def _pool(self, plan: Plan) -> Iterator[ProcessPoolExecutor]:
        """Processes that end with this block: at once where an error or an interrupt ends it."""
        # Forking a process whose threads hold locks, or that uses a GPU, can hang.
        context = multiprocessing.get_context("spawn")
        threads = max(torch.get_num_threads() // self.count, 1)
        turns = context.Value("i", 0)
        device = resolve_device(plan.compute.device)
        several = plan.compute.device in ("auto", "cuda") and device.type == "cuda"
        devices = torch.cuda.device_count() if several else 1
        others = set(multiprocessing.active_children())
        given = (threads, turns, devices)
        processes = ProcessPoolExecutor(self.count, context, initializer=_settle, initargs=given)
        with processes as pool:
            try:
                with _deaf_to_interrupts():
                    pool.submit(os.getpid)  # the first piece of work starts all of them
                yield pool
            except BaseException:
                for process in set(multiprocessing.active_children()) - others:
                    process.terminate()
                raise


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes started in this block ignore Ctrl-C, which a terminal sends to all of them.

    It is for the first one to end the others, each of which would print a traceback.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def shared_images(plan: Plan, executor: Executor) -> Iterator[Plan]:
    """A plan whose processes decode each image once between them, unless one process does all."""
    if isinstance(executor, InProcess) or plan.compute.image_cache is not None:
        yield plan
        return
    output = plan.output.resolve() if is_local(plan.output) else Path(tempfile.gettempdir())
    remove_shared_images(output)
    folder = output / f"{SHARED}{secrets.token_hex(8)}"
    with exclusive(folder / IN_USE, wait=True):
        try:
            yield replace(plan, compute=replace(plan.compute, image_cache=folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)


_scorers: dict[str, CheckpointScorer] = {}
_device: list[str] = []


def score_job(plan: Plan, job: RunCheckpoint) -> ScoreRecord:
    """Score one checkpoint in a process of its own; the scorer stays for the next one."""
    key = repr(replace(plan, names=()))
    if key not in _scorers:
        compute = replace(plan.compute, device=_device[0]) if _device else plan.compute
        _scorers.clear()
        _scorers[key] = replace(plan, compute=compute).scorer()
    return _scored(_scorers[key], job)


def _scored(
    scorer: CheckpointScorer,
    job: RunCheckpoint,
    extracted: Callable[[], ExtractedCheckpoint] | None = None,
) -> ScoreRecord:
    record = scorer.score(job, extracted)
    assert scorer.store is not None
    scorer.store.write(record)
    return record


def _settle(threads: int, turns: Any, devices: int) -> None:
    """Give a new process its share of the cores, and its GPU where there are several."""
    threading.Thread(target=_end_with_parent, name="densescope-end", daemon=True).start()
    torch.set_num_threads(threads)
    if devices > 1:
        with turns.get_lock():
            _device[:] = [f"cuda:{turns.value % devices}"]
            turns.value += 1


def _end_with_parent() -> None:
    """A parent that is killed cannot tell its processes to stop: they would stay for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _finished(
    futures: dict[Future[ScoreRecord], RunCheckpoint], waiting: list[RunCheckpoint]
) -> Iterator[tuple[RunCheckpoint, ScoreRecord]]:
    """Finished jobs, taken off the list; ends early when a process dies."""
    pending = set(futures)
    try:
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                record = future.result()
                waiting.remove(futures[future])
                yield futures[future], record
    except BrokenProcessPool:
        return


def failed_record(plan: Plan, job: RunCheckpoint) -> ScoreRecord:
    """The record of a checkpoint whose process died every time; it is written."""
    scorer = plan.scorer()
    record = scorer.failed(job, InputError(LOST_TWICE.format(count=TRIES)))
    RunStore(plan.output).write(record)
    return record
