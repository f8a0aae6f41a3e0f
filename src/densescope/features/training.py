"""How a checkpoint was trained, as far as plain values in its file say."""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from densescope.features.inert import Inert, stored_fields

MOST_SETTINGS = 256
MOST_VISITED = 20_000  # values of a file that are looked at
MOST_ITEMS = 4_096  # of one container
DEEPEST = 8  # containers inside each other
LONGEST_TEXT = 120  # characters; a longer text is known by its hash
LONGEST_LIST = 16
LONGEST_PATH = 512  # characters of a dotted name
SETTINGS = (
    *("args", "config", "cfg", "hyper_parameters", "hparams", "settings", "arguments"),
    *("opts", "options", "train_args", "training_args", "densescope"),
)
BESIDE = ("batch_size", "world_size")  # settings that some files hold beside their weights
SCHEDULES = ("lr_scheduler", "lr_schedulers", "scheduler", "schedulers", "schedule")
_SCHEDULE_SETTINGS = """
T_0 T_max T_mult base_lrs eta_min gamma max_epochs max_lrs milestones step_size total_iters
total_steps warmup_epochs warmup_iters warmup_start_lr warmup_steps
"""
SCHEDULE_SETTINGS = frozenset(_SCHEDULE_SETTINGS.split())
COUNTERS = ("epoch", "global_step", "step", "iteration", "iter", "it", "global_iter")
# Where a run is kept and on what it runs says nothing of how it is trained, and secrets stay out.
_ELSEWHERE = """
addr auto backend cache checkpoint checkpoints ckpt cluster comment cpu cpus cudnn date debug dir
directory dist entity eval exp experiment file files folder freq git gpu gpus host id interval job
keep launcher log logger logging logs master mem node output path paths period pin port prefetch
print project rank resume resumed root run save saving seed sha slurm start tag tags tensorboard
time timeout tmp url user verbose version versions visible wandb worker workers
"""
_SECRET = "api auth credential credentials key password secret token"
ELSEWHERE = frozenset([*_ELSEWHERE.split(), *_SECRET.split()])
NUMPY_KINDS = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "b1": "?"}
PARTS_OF_THE_BATCH = frozenset(("world_size", "num_nodes", "ngpus_per_node"))


def training_facts(content: Any) -> dict[str, Any]:
    """Learning rate, weight decay, counters, resume marks and settings in a training file.

    Tensors are never touched, nothing is run, and what is odd about a file is passed over: a
    file that says nothing gives an empty document.

    Args:
        content: of a :class:`~densescope.features.checkpoints.Container`.

    Returns:
        Plain values: ``learning_rate`` and ``weight_decay`` (the largest of all groups of
        parameters), ``counters`` (``epoch``, ``global_step``, ...), ``resumed`` (what says that the
        run began from another file) and ``settings`` (dotted name to value, at most 256).
    """
    try:
        return _facts(content)
    except Exception:  # a file may hold anything, and no score depends on this
        return {}


def trainer_facts(folder: Path) -> dict[str, Any]:
    """The same of a folder of Transformers' Trainer, from its ``trainer_state.json``.

    Its loss and log are left out but for the last learning rate.
    """
    try:
        state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        logged = [row["learning_rate"] for row in state["log_history"] if "learning_rate" in row]
        named = ("max_steps", "num_train_epochs", "train_batch_size")
        found = {
            "learning_rate": _plain(logged[-1]) if logged else None,
            "counters": {"global_step": state["global_step"]},
            "settings": {name: _plain(state[name]) for name in named if name in state},
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {key: value for key, value in found.items() if value not in ({}, None)}


def _facts(content: Any) -> dict[str, Any]:
    top = _items(content)
    found: dict[str, Any] = {}
    groups = list(_groups(top))
    for name, key in (("learning_rate", "lr"), ("weight_decay", "weight_decay")):
        values = [_plain(group.get(key)) for group in groups]
        numbers = [value for value in values if isinstance(value, int | float)]
        if numbers:
            found[name] = max(numbers)
    meta = _items(top.get("meta"))
    counts = {key: _plain(top.get(key, meta.get(key))) for key in COUNTERS}
    counters = {key: count for key, count in counts.items() if _is_count(count)}
    settings, resumed = _settings(top, meta)
    known = {**found, "counters": counters, "resumed": resumed, "settings": settings}
    return {key: value for key, value in known.items() if value not in ({}, None)}


def _groups(top: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The groups of parameters of every optimizer, wherever it lies near the top."""
    queue = deque((value, 0) for value in top.values())
    seen: set[int] = set()
    while queue and len(seen) < MOST_VISITED:
        value, depth = queue.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        inside = _items(value)
        groups = inside.get("param_groups")
        if isinstance(groups, list | tuple):
            yield from (_items(group) for group in groups)
        elif depth < 3 and len(queue) < MOST_VISITED:
            children = value[:MOST_ITEMS] if isinstance(value, list | tuple) else inside.values()
            queue.extend((child, depth + 1) for child in children if _is_container(child))


def _settings(
    top: Mapping[str, Any], meta: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings that decide the training, and what marks a resumed run."""
    settings: dict[str, Any] = {}
    resumed: dict[str, Any] = {}
    config = {"config": meta["config"]} if "config" in meta else {}
    chosen = {key: top[key] for key in (*SETTINGS, *BESIDE) if key in top} | config
    for name, value in _walk(chosen):
        leaf = name.rpartition(".")[2]
        words = set(re.split(r"[^a-z0-9]+", leaf.lower()))
        if leaf in ("resume", "start_epoch", "resume_from", "resume_from_checkpoint"):
            if value not in (None, "", False, 0, "None"):
                resumed[leaf] = value
        elif _decides(leaf, words) and len(settings) < MOST_SETTINGS:
            settings[name] = value
    for name, value in _walk({key: top[key] for key in SCHEDULES if key in top}):
        if set(name.split(".")) & SCHEDULE_SETTINGS and len(settings) < MOST_SETTINGS:
            settings[name] = value
    return settings, resumed


def _decides(leaf: str, words: set[str]) -> bool:
    if leaf in COUNTERS:
        return False
    return "batch" in words or leaf in PARTS_OF_THE_BATCH or not words & ELSEWHERE


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Dotted names and plain values below a value, breadth first; each object once."""
    queue: deque[tuple[str, Any, int]] = deque([("", value, 0)])
    seen: set[int] = set()
    visited = 0
    while queue and visited < MOST_VISITED:
        name, here, depth = queue.popleft()
        if id(here) in seen or depth > DEEPEST:
            continue
        seen.add(id(here))
        for key, child in _opened(here).items():
            if key == "param_groups":  # of an optimizer; `_groups` reads them
                continue
            visited += 1
            path = key if not name else f"{name}.{key}"
            if len(path) > LONGEST_PATH:
                continue
            plain = _plain(child)
            if plain is not NOTHING:
                yield path, plain
            elif _is_container(child) or _is_json(child):
                queue.append((path, child, depth + 1))


def _opened(value: Any) -> Mapping[str, Any]:
    """The content of a container, with JSON text parsed and config objects unwrapped."""
    if isinstance(value, str):
        return _items(json.loads(value))
    if isinstance(value, list | tuple):
        return {str(index): child for index, child in enumerate(value[:MOST_ITEMS])}
    inside = _items(value)
    if "_content" in inside:  # omegaconf: a node holds its children and a link to its parent
        inside = _items(inside["_content"])
    return {key: _unwrapped(child) for key, child in inside.items()}


def _unwrapped(value: Any) -> Any:
    inside = stored_fields(value) if isinstance(value, Inert) else {}
    return inside.get("_val", value)


def _items(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return {str(key): child for key, child in islice(value.items(), MOST_ITEMS)}
    return stored_fields(value)


def _is_container(value: Any) -> bool:
    return isinstance(value, Mapping | Inert | list | tuple)


def _is_json(value: Any) -> bool:
    return isinstance(value, str) and value.lstrip().startswith("{") and _reads(value)


def _reads(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


NOTHING = object()


def _plain(value: Any) -> Any:
    """A value as a record keeps it, or ``NOTHING`` for what is no plain value."""
    if isinstance(value, Inert) and type(value).__name__ == "scalar":
        value = _numpy_scalar(value)
    elif type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return NOTHING if _is_json(value) else _shortened(value)
    if isinstance(value, list | tuple) and len(value) <= LONGEST_LIST:
        parts = [_plain(part) for part in value]
        return NOTHING if any(part is NOTHING for part in parts) else parts
    return NOTHING


def _numpy_scalar(value: Inert) -> Any:
    """The number that NumPy stored as its dtype and its bytes."""
    dtype, data = value.arguments
    kind = str(dtype.arguments[0]).lstrip("<=|")
    return struct.unpack(f"<{NUMPY_KINDS[kind]}", data)[0] if kind in NUMPY_KINDS else value


def _shortened(text: str) -> str:
    if len(text) <= LONGEST_TEXT:
        return text
    return f"text {hashlib.sha256(text.encode()).hexdigest()[:12]}"
