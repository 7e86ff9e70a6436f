"""What a run would do, before it does it."""

from __future__ import annotations

from typing import Any

from semsam.data.records import BadRecordError
from semsam.utils import comm

from .engine import AnnotationEngine
from .manifest import find_models, model_bytes
from .mask_models import FoundMasks

#: Photos whose masks are counted where there are too many files to read them all.
_SAMPLE = 20


def describe_plan(engine: AnnotationEngine) -> str:
    """Photos, masks where they are known, labellers, models and their size in memory, as text.

    Raises:
        FileNotFoundError: if there is no photo.
    """
    items = engine.masks.items()
    source = type(engine.masks).__name__
    lines = [
        f"photos: {len(items)}, {engine.images_per_batch} at a time on each of "
        f"{comm.get_world_size()} ranks ({engine.device})",
        f"masks: {_count_masks(engine, items)} ({source})",
    ]
    total = 0
    for name, part in {source: engine.masks, **engine.labelers}.items():
        models = find_models(part)
        lines.append(f"{name}: {len(models)} models" if models else f"{name}: no model")
        for where, model in models.items():
            size = model_bytes(model)
            total += size
            numbers = sum(parameter.numel() for parameter in model.parameters())
            lines.append(
                f"  {where}: {type(model).__name__}, {numbers / 1e6:.1f} M parameters, "
                f"{size / 2**20:.1f} MiB"
            )
    lines.append(f"models in memory: {total / 2**20:.0f} MiB a rank, and what a batch takes")
    return "\n".join(lines)


def _count_masks(engine: AnnotationEngine, items: Any) -> str:
    if isinstance(engine.masks, FoundMasks):
        return "found in each photo"
    known = engine.masks.count_masks()
    if known is not None:
        return str(known)
    counts = []
    for item in items[:_SAMPLE]:
        try:
            counts.append(len(engine.masks.read(item).annotations))
        except BadRecordError as error:
            return f"unknown: {error}"
    if len(items) <= _SAMPLE:
        return str(sum(counts))
    return f"about {len(items) * sum(counts) // len(counts)}, by the first {len(counts)} photos"
