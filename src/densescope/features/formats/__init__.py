"""Where each public training code keeps its backbone: one row per code base and layout.

A format is named by the user and never guessed. A row carries the options of its architecture
too, because weights that load strictly into the wrong head count or epsilon give wrong features
without an error.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from densescope.errors import CheckpointError
from densescope.features.formats.dino23 import DINO23_ROWS
from densescope.features.formats.general import GENERAL_ROWS
from densescope.features.formats.resnets import RESNET_ROWS
from densescope.features.formats.row import FileNames as FileNames
from densescope.features.formats.row import Format as Format
from densescope.features.formats.row import Weights as Weights
from densescope.features.formats.transformers import TRANSFORMER_ROWS

_ROWS = (*TRANSFORMER_ROWS, *RESNET_ROWS, *DINO23_ROWS, *GENERAL_ROWS)
FORMATS: Mapping[str, Format] = MappingProxyType({row.name: row for row in _ROWS})


def find_format(name: str) -> Format:
    """The row of a name.

    Raises:
        CheckpointError: no such format; the sentence names the closest ones.
    """
    if name in FORMATS:
        return FORMATS[name]
    close = difflib.get_close_matches(name.lower(), FORMATS, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(FORMATS)}"
    raise CheckpointError(f"there is no format {name!r}; {hint}")
