"""Vectors of earlier batches."""

from __future__ import annotations

from torch import nn


def queue_of(length: int, width: int) -> nn.Module:
    """lightly's memory bank, as a part of checkpoints.

    Called with rows and ``update``, it gives them back with what it held before, ``width length``,
    and takes the rows of all devices in place of the oldest. It begins with random unit vectors.

    Deviations: lightly leaves it out of a state dict, so that a resumed run would begin with
    another queue.
    """
    from lightly.models.modules.memory_bank import MemoryBankModule

    queue: nn.Module = MemoryBankModule((length, width), gather_distributed=True)
    for name, value in list(queue.named_buffers()):
        queue.register_buffer(name, value)
    return queue
