"""Photos with one class each, for image-level scores such as k-NN accuracy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from densescope.errors import DataError, InputError
from densescope.features.images import ImageSource, open_images

RULES = ("folder", "prefix")


@dataclass(frozen=True)
class LabelledImages:
    """Images by name, with a class id each.

    Attributes:
        source: where they come from; ``source.read(name)`` has the encoded bytes.
        names: their names in sorted order.
        labels: class ids, in the order of ``names``.
        classes: class names; the position is the class id.
    """

    source: ImageSource
    names: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def image_bytes(self, index: int) -> bytes:
        """The encoded image file."""
        return self.source.read(self.names[index])

    def subset(self, indices: Sequence[int]) -> LabelledImages:
        """The same set with only these images, in this order; classes stay as they are."""
        return replace(
            self,
            names=tuple(self.names[index] for index in indices),
            labels=tuple(self.labels[index] for index in indices),
        )


def open_labelled_images(
    location: str | os.PathLike[str],
    *,
    rule: str | None = None,
    classes: Sequence[str] | None = None,
) -> LabelledImages:
    """Open images whose class is in their name.

    Args:
        location: anything :func:`densescope.features.images.open_images` reads.
        rule: ``"folder"``: the first folder below the location (ImageNet's layout);
            ``"prefix"``: the file name up to its first ``_``. When left out, ``"folder"`` for
            folders and ``"prefix"`` for tar shards.
        classes: all class names in the order of their ids. Give the training set's classes when
            opening the test set: sorted alone, a set that lacks one class would shift the ids of
            all that follow. Sorted names of this set when left out.

    Returns:
        Names, class ids and class names. Nothing is decoded.

    Raises:
        InputError: no such rule, or a class is given twice.
        DataError: nothing is there, a name has no class, or a class is not in ``classes``.
    """
    source = open_images(location)
    rule = rule if rule is not None else {"folder": "folder", "shards": "prefix"}.get(source.kind)
    if rule not in RULES:
        raise InputError(
            f"{rule!r} does not say where the class of an image is named: "
            f"give rule={' or '.join(repr(known) for known in RULES)}"
        )
    found = [_class_of(source, name, rule) for name in source.names]
    ordered = tuple(sorted(set(found)) if classes is None else classes)
    ids = {name: index for index, name in enumerate(ordered)}
    if len(ids) < len(ordered):
        raise InputError("classes has a name twice: every class needs its own")
    unknown = sorted(set(found) - set(ids))
    if unknown:
        raise DataError(
            f"{source.location} has {len(unknown)} class(es) that are not among the {len(ids)} "
            f"given, such as {unknown[0]}: give the classes of both sets, or leave them out"
        )
    return LabelledImages(source, source.names, tuple(ids[name] for name in found), ordered)


def _class_of(source: ImageSource, name: str, rule: str) -> str:
    folder, _, base = name.rpartition("/")
    if rule == "folder":
        first = folder.split("/")[0]
        if source.kind == "folder" and first:
            return first
        raise DataError(
            f"{name} of {source.location} lies in no class folder: use class/image.jpg, or "
            "rule='prefix' for names such as class_1.jpg"
        )
    prefix, underscore, _ = base.partition("_")
    if underscore and prefix:
        return prefix
    raise DataError(
        f"{name} of {source.location} has no class before an underscore: rename the files to "
        "class_1.jpg, or use rule='folder' for class/1.jpg"
    )
