"""A batch of photos through every labeller, so that a bad photo does not take others with it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from semsam.utils.batching import is_out_of_memory

from .records import Labels, MaskedPhoto

logger = logging.getLogger(__name__)

#: Longer reasons are cut: some errors print tensors.
_MAX_REASON = 500


@dataclass(frozen=True)
class Annotated:
    """What the labellers together say of a photo.

    Attributes:
        result: the photo's fields, ``annotations`` with theirs, and those of the labellers.
        names: for each mask what a picture calls it, "" where nothing is known.
        labelled: masks of which a labeller could say something.
    """

    result: dict[str, Any]
    names: list[str]
    labelled: int


@dataclass(frozen=True)
class Failure:
    """A photo that could not be done: where, and why."""

    stage: str
    reason: str


def annotate_photos(
    labelers: Mapping[str, Any], photos: Sequence[MaskedPhoto]
) -> list[Annotated | Failure]:
    """Label the masks of some photos, which go through each labeller together.

    A labeller that fails is called again photo by photo.

    Args:
        labelers: by name, in the order in which they run. Of a field that two give, or that the
            photo has, the first keeps the name; the other's is called ``"<name>.<field>"``.
        photos: any number.

    Raises:
        RuntimeError: if the GPU is in a state in which no further call can succeed.
    """
    said: list[dict[str, Labels]] = [{} for _ in photos]
    failed: dict[int, Failure] = {}
    for name, labeler in labelers.items():
        indices = [index for index in range(len(photos)) if index not in failed]
        given = _label(name, labeler, [photos[index] for index in indices])
        for index, labels in zip(indices, given, strict=True):
            if isinstance(labels, Failure):
                failed[index] = labels
            else:
                said[index][name] = labels
    return [
        failed[index] if index in failed else _merge(photo, said[index])
        for index, photo in enumerate(photos)
    ]


def failure(stage: str, error: Exception) -> Failure:
    """What is to be noted of an error.

    Raises:
        RuntimeError: if the GPU is in a state in which no further call can succeed.
    """
    text = " ".join(str(error).split())
    if "CUDA error" in text and not is_out_of_memory(error):
        raise RuntimeError(f"{stage}: the GPU cannot go on, start again to resume") from error
    return Failure(stage, f"{type(error).__name__}: {text}"[:_MAX_REASON])


def _label(name: str, labeler: Any, photos: list[MaskedPhoto]) -> list[Labels | Failure]:
    if not photos:
        return []
    try:
        with torch.no_grad():
            return _checked(labeler.label(photos), photos)
    except Exception as error:
        failed = failure(name, error)
        logger.warning(
            "%s failed on %s: %s",
            name,
            ", ".join(photo.name for photo in photos),
            failed.reason,
            # Where in a labeller it comes from is told once a photo, and not for lack of memory.
            exc_info=len(photos) == 1 and not is_out_of_memory(error),
        )
    # Here and not above: the error's frames held the tensors of the call that failed.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(photos) == 1:
        return [failed]
    return [labels for photo in photos for labels in _label(name, labeler, [photo])]


def _checked(given: Sequence[Labels], photos: list[MaskedPhoto]) -> list[Labels | Failure]:
    """What a labeller gave, if it is one a photo, of one region a mask."""
    if len(given) != len(photos):
        raise ValueError(f"it gave labels of {len(given)} photos for {len(photos)}")
    for labels, photo in zip(given, photos, strict=True):
        if len(labels.regions) != len(photo.annotations):
            raise ValueError(
                f"it gave labels of {len(labels.regions)} masks for the {len(photo.annotations)} "
                f"of {photo.name}"
            )
    return list(given)


def _merge(photo: MaskedPhoto, said: Mapping[str, Labels]) -> Annotated:
    regions = [dict(annotation) for annotation in photo.annotations]
    names, labelled = [""] * len(regions), [False] * len(regions)
    beside: dict[str, Any] = {}
    known = {field for region in regions for field in region}
    known_beside = {"annotations", *photo.fields}
    for labeler, labels in said.items():
        given = dict.fromkeys(field for region in labels.regions for field in region)
        called = {f: f"{labeler}.{f}" if f in known else f for f in given}
        known.update(called.values())
        for index, region in enumerate(labels.regions):
            regions[index].update({called[field]: value for field, value in region.items()})
            labelled[index] |= any(value is not None and value != [] for value in region.values())
            texts = (value for value in region.values() if isinstance(value, str))
            names[index] = names[index] or next(texts, "")
        for field, value in labels.photo.items():
            beside[f"{labeler}.{field}" if field in known_beside else field] = value
        known_beside.update(beside)
    # Boxes come with the name that they were found by.
    names = [name or str(r.get("class_name") or "") for name, r in zip(names, regions, strict=True)]
    result = {**photo.fields, "annotations": regions, **beside}
    return Annotated(result, names, sum(labelled))
