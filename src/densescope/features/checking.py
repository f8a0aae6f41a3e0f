"""Does a checkpoint load, and if not, which step failed and which formats would fit?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from densescope.errors import CheckpointError
from densescope.features.backbones import load_backbone
from densescope.features.checkpoints import read_checkpoint
from densescope.features.detection import describe_fits, resolve_spec
from densescope.features.fitting import Fit, fits_of
from densescope.features.formats import FORMATS, find_format
from densescope.features.formats.row import EMA
from densescope.features.layouts import LAYOUT_STEPS
from densescope.features.layouts import STEPS as STEPS
from densescope.features.loaded import LoadedBackbone
from densescope.features.spec import AUTO, BackboneSpec
from densescope.files import location


@dataclass(frozen=True)
class CheckReport:
    """What :func:`check_checkpoint` found.

    Attributes:
        path, format: what was asked.
        loaded: the backbone, or ``None``.
        step: the step that failed (one of ``STEPS``), or ``None``.
        message: the sentence of the error, or what was loaded.
        fitting: formats whose keys and tensor names are in the file.
        listed: the sentence that names them, and says which would give other features.
    """

    path: Path
    format: str
    loaded: LoadedBackbone | None
    step: str | None
    message: str
    fitting: tuple[str, ...]
    listed: str

    @property
    def fits(self) -> bool:
        """Whether every tensor of the backbone was loaded."""
        return self.loaded is not None

    @property
    def text(self) -> str:
        """The message, with the formats that fit where it does not name them itself."""
        if not self.fitting or self.step in LAYOUT_STEPS:
            return self.message
        return f"{self.message}\n{self.listed}"


def check_checkpoint(path: str | Path, spec: BackboneSpec) -> CheckReport:
    """Try to load a checkpoint, and report instead of raising when it does not fit.

    Args:
        path, spec: as for :func:`~densescope.features.backbones.load_backbone`.

    Raises:
        CheckpointError: the format itself does not exist.
    """
    path, format = location(path), spec.format
    if format != AUTO:
        find_format(format)
    try:
        found = resolve_spec(path, spec)
        loaded = load_backbone(path, found.spec)
    except CheckpointError as error:
        step = getattr(error, "step", "read")
        return CheckReport(path, format, None, step, str(error), *_fitting(path, spec))
    message = "\n".join(filter(None, (found.sentence, _praise(loaded))))
    return CheckReport(
        path, loaded.format, loaded, None, message, *_fitting(path, spec, loaded.format)
    )


def _fitting(path: Path, spec: BackboneSpec, loaded: str = "") -> tuple[tuple[str, ...], str]:
    """Formats that fit, and the sentence that tells them and the one that was loaded apart."""
    try:
        container = read_checkpoint(path)
    except CheckpointError:
        return (), ""
    fits = fits_of(container)
    names = tuple(map(str, fits))
    row = FORMATS.get(loaded)
    if row is not None and row.reader == "weights" and loaded not in [fit.format for fit in fits]:
        fits.append(Fit(loaded, tuple(filter(None, [spec.weights]))))
    automatic, listed = describe_fits(container, spec, fits)
    known = f"{automatic}. " if automatic and spec.format != AUTO else ""
    return names, f"{known}Formats whose layout fits this file: {listed}"


def _praise(loaded: LoadedBackbone) -> str:
    coverage = loaded.coverage
    dropped = sum(count for _, _, count in coverage.dropped)
    sentence = (
        f"all {coverage.matched} tensors of {loaded.architecture} were loaded from the "
        f"{coverage.weights} weights; {dropped} more of these weights are not "
        f"part of the backbone and were left out; {coverage.outside} belong to other "
        "parts of the file"
    )
    if coverage.positions is not None:
        trained, evaluated = coverage.positions
        sentence += f"; positions were resampled from {trained} to {evaluated} pixels"
    if coverage.weights == EMA.name:
        sentence += f"; they are the average under {'/'.join(coverage.path)!r}"
    if coverage.averaged:
        sentence += f"; an average lies beside them under {coverage.averaged!r}: --weights ema"
    return sentence
