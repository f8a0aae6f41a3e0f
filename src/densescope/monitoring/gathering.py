"""Features of all ranks come to the first one; its answer goes to all. Nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor

from densescope.errors import DensescopeError, InputError
from densescope.monitoring.collected import CollectedFeatures, concatenated

Answer = dict[str, Any]


class Ranks:
    """The processes that share the work; one, where there is no process group.

    Args:
        group: a process group, or ``None`` for all processes.
        alone: take part in no communication even where there is a group.
    """

    def __init__(self, group: Any = None, *, alone: bool = False) -> None:
        self.group = group
        self.alone = alone

    @property
    def together(self) -> bool:
        """Whether other processes share the work; checked at each call, as groups come and go."""
        if self.alone or not distributed.is_available() or not distributed.is_initialized():
            return False
        return distributed.get_world_size(self.group) > 1

    @property
    def count(self) -> int:
        """How many processes share the work."""
        return distributed.get_world_size(self.group) if self.together else 1

    @property
    def rank(self) -> int:
        """Rank of this process."""
        return distributed.get_rank(self.group) if self.together else 0

    def ask_first(
        self,
        mine: CollectedFeatures,
        problem: str | None,
        answer: Callable[[CollectedFeatures], Answer],
    ) -> Answer:
        """Let the first rank work on the features of all, and send its answer to all.

        Every rank takes part, also one without images and one that failed; so all of them
        return, or all raise.

        Args:
            mine: what this rank has.
            problem: why it has nothing, where something went wrong.
            answer: called on the first rank with everything; gives plain JSON values.

        Raises:
            InputError: a rank has a problem, shapes differ between ranks, or ``answer`` raised.
        """
        if not self.together:
            if problem is not None:
                raise InputError(problem)
            return answer(mine)
        headers = self._headers(mine, problem is not None)
        troubled = (headers[:, 0] != 0).nonzero().flatten().tolist()
        if troubled:
            text = self._spread(problem or "", troubled[0])
            raise InputError(f"rank {troubled[0]}: {text}")
        _check_agree(headers)
        everything = self._bring(mine, headers)
        message = self.broadcast(_answer_or_reason(everything, answer) if self.rank == 0 else None)
        if "reason" in message:
            raise InputError(message["reason"])
        return dict(message["answer"])

    def broadcast(self, message: Answer | None) -> Answer:
        """The message of the first rank (plain JSON values), on every rank.

        Args:
            message: of the first rank; ignored on the others.
        """
        if not self.together:
            return message or {}
        text = json.dumps(message or {}) if self.rank == 0 else ""
        return dict(json.loads(self._spread(text, 0)))

    def _headers(self, mine: CollectedFeatures, failed: bool) -> Tensor:
        """One row per rank: failed, images, and the shape of one image in each tensor."""
        shapes = [size for tensor in mine.tensors for size in tensor.shape[1:]]
        row = torch.tensor([int(failed), len(mine), *shapes], device=self._device)
        rows = [torch.empty_like(row) for _ in range(self.count)]
        distributed.all_gather(rows, row, group=self.group)
        return torch.stack(rows).cpu()

    def _bring(self, mine: CollectedFeatures, headers: Tensor) -> CollectedFeatures:
        if self.rank != 0:
            if len(mine):
                for tensor in (mine.ids, *mine.tensors):
                    self._send(tensor)
            return mine
        parts = [mine]
        layers = len(mine.patches)
        for rank in range(1, self.count):
            images, *shapes = headers[rank, 1:].tolist()
            if not images:
                continue
            ids = self._receive((images,), torch.int64, rank)
            sizes = [(images, *shapes[2 * i : 2 * i + 2]) for i in range(layers)]
            patches = tuple(self._receive(size, torch.float32, rank) for size in sizes)
            image = self._receive((images, shapes[-1]), torch.float32, rank)
            parts.append(CollectedFeatures(ids, patches, image))
        return concatenated(parts, layers)

    def _send(self, tensor: Tensor) -> None:
        if tensor.numel():
            distributed.send(
                tensor.contiguous().to(self._device), self._global(0), group=self.group
            )

    def _receive(self, shape: tuple[int, ...], dtype: torch.dtype, rank: int) -> Tensor:
        received = torch.empty(shape, dtype=dtype, device=self._device)
        if received.numel():
            distributed.recv(received, self._global(rank), group=self.group)
        return received.cpu()

    def _spread(self, text: str, source: int) -> str:
        """A text of one rank, on every rank."""
        encoded = torch.tensor(list(text.encode()), dtype=torch.uint8, device=self._device)
        length = torch.tensor([len(encoded)], device=self._device)
        distributed.broadcast(length, self._global(source), group=self.group)
        if self.rank != source:
            encoded = torch.empty(int(length), dtype=torch.uint8, device=self._device)
        distributed.broadcast(encoded, self._global(source), group=self.group)
        return bytes(encoded.cpu().tolist()).decode()

    def _global(self, rank: int) -> int:
        return rank if self.group is None else distributed.get_global_rank(self.group, rank)

    @property
    def _device(self) -> torch.device:
        """Device for the communication of this group: NCCL handles GPUs only."""
        if "gloo" in str(distributed.get_backend(self.group)):
            return torch.device("cpu")
        return torch.device("cuda", torch.cuda.current_device())


def _answer_or_reason(
    everything: CollectedFeatures, answer: Callable[[CollectedFeatures], Answer]
) -> Answer:
    try:
        return {"answer": answer(everything)}
    except Exception as cause:  # the other ranks wait for an answer
        return {"reason": error_sentence(cause)}


def _check_agree(headers: Tensor) -> None:
    """Every rank sees all headers, so all raise or none does."""
    shapes = {tuple(row[2:]) for row in headers.tolist() if row[1]}
    if len(shapes) > 1:
        raise InputError(
            f"the features of one image have different shapes on different ranks: {sorted(shapes)}"
        )


def error_sentence(cause: BaseException) -> str:
    """An error in one sentence; that of a foreign error begins with its kind."""
    known = isinstance(cause, DensescopeError)
    return str(cause) if known else f"{type(cause).__name__}: {cause}"
