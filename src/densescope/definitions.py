"""The definitions of DSE that are in use, under their names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from densescope.errors import InputError

DefinitionName = Literal["released", "paper", "pooled"]
DEFINITION_NAMES: tuple[DefinitionName, ...] = get_args(DefinitionName)


@dataclass(frozen=True)
class Definition:
    """One definition of the dense representation structure estimator.

    Attributes:
        name: as in metric names (``"released.inter"``) and options.
        separability_unit: of ``M_inter - M_intra``.
        rank_unit: of ``M_dim``.
        lambda_by_default: lambda where the checkpoints of a run do not define one; ``None`` where
            no value is sensible without a run, so that one checkpoint has no DSE.
        about: how it differs from the others, as a sentence.
    """

    name: str
    separability_unit: str
    rank_unit: str
    lambda_by_default: float | None
    about: str


DEFINITIONS: dict[str, Definition] = {
    row.name: row
    for row in (
        Definition(
            "released",
            "distance / mean spread",
            "fraction of full rank",
            1.0,
            "As the authors' released code computes it: distances in units of the mean distance to "
            "the mean patch, the effective rank as a fraction of the largest possible.",
        ),
        Definition(
            "paper",
            "distance (unit vectors)",
            "effective rank (dimensions)",
            None,
            "As the paper's formulas have it: plain distances and a plain effective rank.",
        ),
        Definition(
            "pooled",
            "distance (unit vectors)",
            "effective rank (dimensions)",
            None,
            "A third reading of the paper: radii divided by a square root, distances within one "
            "image, too, and one effective rank of the centered patches of all images.",
        ),
    )
}


def check_definition(name: str) -> Definition:
    """The row of ``DEFINITIONS``.

    Raises:
        InputError: there is no such definition.
    """
    if name not in DEFINITIONS:
        raise InputError(f"definition is {name!r}; it must be one of {', '.join(DEFINITIONS)}")
    return DEFINITIONS[name]
