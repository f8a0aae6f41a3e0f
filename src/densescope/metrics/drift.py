"""How far the Gram matrices of patches have moved from those of a reference checkpoint."""

from __future__ import annotations

from math import fsum

from densescope.errors import InputError
from densescope.estimate import Estimate
from densescope.metrics.metric import Derived, Series

NO_SAMPLE = (
    "{name} was scored without a sample of pairs of patches, as earlier versions did: sweep its "
    "run again into another --output"
)
OTHER_PAIRS = (
    "Gram drift compares the same pairs of patches: {name} has {of}, and the reference {reference}"
)


def drift_from_first(cosines: Series) -> Derived:
    """:func:`gram_drift` from the first checkpoint that has token cosines."""
    first = next(iter(cosines), None)
    if first is None:
        return Derived({})
    if cosines[first].sample is None:
        return Derived({}, NO_SAMPLE.format(name=first))
    try:
        drift = {name: gram_drift(one, cosines[first], name) for name, one in cosines.items()}
    except InputError as error:
        return Derived({}, str(error))
    return Derived(drift, f"The reference of the Gram drift is the first checkpoint, {first}.")


def gram_drift(cosines: Estimate, reference: Estimate, name: str = "a checkpoint") -> Estimate:
    """Mean squared difference of cosines of patches between a checkpoint and a reference.

    ``mean over (i, t, s) of (cos(x_it, x_is) - cos(y_it, y_is))^2`` for patches ``t != s`` of image
    ``i``: the squared difference of the off-diagonal entries of both Gram matrices of unit patches.
    From 0 to 4. Symmetric; invariant to rotation and scale of either side, whose widths may differ.

    Args:
        cosines: ``token_cosine`` of the checkpoint, with its sample of pairs.
        reference: that of the reference, on the same images.
        name: of the checkpoint, for messages.

    Returns:
        The mean over the sampled pairs, with replicates that leave out a block of images, which
        hold the noise of the sample as well.

    Raises:
        InputError: no sample, or one of other pairs (another number of patches or images).
    """
    for one, whose in ((cosines, name), (reference, "the reference")):
        if one.sample is None:
            raise InputError(NO_SAMPLE.format(name=whose))
    assert cosines.sample is not None
    assert reference.sample is not None
    ours, theirs = cosines.sample, reference.sample
    if (ours.of, len(ours.values)) != (theirs.of, len(theirs.values)):
        raise InputError(OTHER_PAIRS.format(name=name, of=ours.of, reference=theirs.of))
    squares = [(a - b) ** 2 for a, b in zip(ours.values, theirs.values, strict=True)]
    blocks = len(cosines.replicates)
    total, count = fsum(squares), len(squares)
    if blocks < 2:
        return Estimate(total / count)
    each = count // blocks
    sums = [fsum(squares[b * each : (b + 1) * each]) for b in range(blocks)]
    return Estimate(total / count, tuple((total - one) / (count - each) for one in sums))
