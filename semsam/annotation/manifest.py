"""What results are made with: versions, models by the digest of their weights, settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

from torch import nn

from semsam.config import CfgNode
from semsam.utils.digest import digest_tensors

_PACKAGES = ("semsam", "torch", "torchvision", "transformers", "open_clip_torch", "spacy", "pillow")
#: Ends of keys of the configuration that make a run faster or slower and leave its results.
_SPEED_KEYS = ("BATCH_SIZE", "PER_BATCH", "NUM_THREADS")


def find_models(part: Any) -> dict[str, nn.Module]:
    """The models that a labeller or a source of masks holds, by the attribute's dotted name.

    Attributes are searched, those of lists and dicts, and those of objects of semsam's classes or
    of the part's own module; what is a piece of a model that was found is not listed again.
    """
    homes = {"semsam", type(part).__module__.partition(".")[0]}
    return dict(_walk(part, "", homes, set()))


def describe_models(part: Any) -> dict[str, dict[str, Any]]:
    """Class, dtype, number of parameters and sha256 of the weights of each model of a part."""
    return {name: _describe(model) for name, model in find_models(part).items()}


def model_bytes(model: nn.Module) -> int:
    """Bytes of a model's parameters and buffers."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def make_manifest(
    masks: Any, labelers: Mapping[str, Any], device: str, settings: dict[str, Any]
) -> dict[str, Any]:
    """What decides the results of an annotation run; nothing of machine, time or ranks.

    Args:
        masks: the source of masks.
        labelers: by name, in their order.
        device: ``"cpu"`` or ``"cuda"``: results differ by the rounding of the two.
        settings: further values; what json can hold.
    """
    return {
        "packages": dict(_versions()),
        "device": device,
        "masks": {"class": type(masks).__name__, "models": describe_models(masks)},
        "labelers": {name: describe_models(labeler) for name, labeler in labelers.items()},
        "settings": settings,
    }


def settings_of(node: CfgNode) -> dict[str, Any]:
    """A configuration as plain dicts, without what only makes a run faster or slower."""
    return {
        key: settings_of(value) if isinstance(value, CfgNode) else value
        for key, value in node.items()
        if not key.endswith(_SPEED_KEYS)
    }


def _walk(
    value: Any, name: str, homes: set[str], seen: set[int]
) -> Iterator[tuple[str, nn.Module]]:
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, nn.Module):
        seen.update(id(module) for module in value.modules())
        yield name, value
        return
    if isinstance(value, Mapping):
        children = [(str(key), child) for key, child in value.items()]
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        children = [(str(index), child) for index, child in enumerate(value)]
    elif type(value).__module__.partition(".")[0] in homes:
        children = list(getattr(value, "__dict__", {}).items())
    else:
        return
    for key, child in children:
        yield from _walk(child, f"{name}.{key}" if name else key, homes, seen)


def _describe(model: nn.Module) -> dict[str, Any]:
    state = model.state_dict()
    return {
        "class": type(model).__name__,
        "dtype": sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters()}),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "sha256": digest_tensors(state),
    }


def _versions() -> Iterator[tuple[str, str]]:
    for package in _PACKAGES:
        try:
            yield package, metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
