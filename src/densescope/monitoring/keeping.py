"""Keep the checkpoints with the highest DSE, and no others."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from densescope.errors import InputError, RecordError
from densescope.records import read_json, write_json
from densescope.writing import replacing

INDEX = "kept.json"


@dataclass(frozen=True)
class Kept:
    """One checkpoint on disk.

    Attributes:
        step: when it was saved.
        name: its file in the folder.
        dse: what it was kept for.
    """

    step: int
    name: str
    dse: float


class DenseCheckpoint:
    """The checkpoints with the highest DSE so far, by a save function of the user's.

    DSE is that of the released definition with lambda = 1, as it is logged: the lambda of a run is
    known only at its end, when a checkpoint that was let go cannot be brought back.
    ``densescope select`` on the monitor's records uses the run's lambda. A file appears whole or
    not at all, and the fallen one is removed only after the new one is there. A restarted job goes
    on from ``kept.json``; a step that comes again replaces its file.

    Args:
        folder: made when missing.
        save: writes the training state to the path it is given, e.g.
            ``lambda path: torch.save(model.state_dict(), path)``.
        top: how many to keep.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     keeper = DenseCheckpoint(folder, lambda path: path.write_text("state"), top=1)
        ...     kept = [keeper.offer(step, dse) for step, dse in ((1, 0.5), (2, 0.9), (3, 0.7))]
        ...     keeper.best.name
        'step00000002.pt'
        >>> kept
        [True, True, False]
    """

    def __init__(
        self, folder: str | os.PathLike[str], save: Callable[[Path], object], *, top: int = 3
    ) -> None:
        if top < 1:
            raise InputError(f"top is {top}: keep at least 1 checkpoint")
        self.folder = Path(folder)
        self.save = save
        self.top = top
        self.kept = self._stored()

    @property
    def best(self) -> Kept | None:
        """The one with the highest DSE, the earlier of equals."""
        return self.kept[0] if self.kept else None

    def offer(self, step: int, dse: float) -> bool:
        """Save the state of this step if it is among the best so far.

        Args:
            step: where the run is.
            dse: a number; NaN is never kept.

        Returns:
            Whether it was saved.

        Raises:
            Exception: what ``save`` raised; the files kept before are still there.
        """
        others = [kept for kept in self.kept if kept.step != step]
        new = Kept(step, checkpoint_name(step), dse)
        candidates = others if math.isnan(dse) else [*others, new]
        remaining = sorted(candidates, key=lambda kept: (-kept.dse, kept.step))[: self.top]
        saved = new in remaining
        if saved:
            self._write(new)
        if remaining != self.kept:
            names = {kept.name for kept in remaining}
            fallen = [kept for kept in self.kept if kept.name not in names]
            self.kept = remaining
            self._store()
            for kept in fallen:
                (self.folder / kept.name).unlink(missing_ok=True)
        return saved

    def _write(self, new: Kept) -> None:
        with replacing(self.folder / new.name) as temporary:
            self.save(temporary)

    def _store(self) -> None:
        rows = [{"step": k.step, "name": k.name, "dse": k.dse} for k in self.kept]
        write_json({"kept": rows}, self.folder / INDEX)

    def _stored(self) -> list[Kept]:
        path = self.folder / INDEX
        if not path.is_file():
            return []
        try:
            rows = [Kept(**row) for row in read_json(path)["kept"]]
        except (KeyError, TypeError) as cause:
            raise RecordError(f"{path} is not the index of a DenseCheckpoint: {cause!r}") from cause
        return [kept for kept in rows if (self.folder / kept.name).exists()]


def checkpoint_name(step: int) -> str:
    """File name of the checkpoint of a step."""
    return f"step{step:08d}.pt"
