"""Boxes with names and the names' embeddings, as the data engine makes them, in TSV shards.

A row is a photo's name, json, base64 image. The json is that of regions (see
``semsam.data.datasets.regions``) with, beside the regions, ``captions``; ``candidates``, names that
were looked for, with ``sources`` of ``caption`` and ``template``; ``generated_by``, the models'
names and the templates; and ``text_embeddings``: ``encoder``, ``dim``, ``texts`` (the names, then
the captions) and ``float16``, their unit vectors as base64. A region has ``phrases``, its one name,
``score``, and the numbers of its ``candidate`` and of its ``text_embedding``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semsam.data.datasets.regions import corners
from semsam.data.datasets.tsv import TsvRecords
from semsam.data.records import BadRecordError, LazyImage, blame, check_region

#: What a row keeps of a result beside its regions.
_BESIDE = ("captions", "candidates", "generated_by", "text_embeddings")


def encode_embeddings(vectors: NDArray[np.floating]) -> dict[str, Any]:
    """(N, D) unit vectors as json holds them: ``dim`` and ``float16`` (little-endian, base64)."""
    data = np.ascontiguousarray(vectors, dtype="<f2").tobytes()
    return {"dim": vectors.shape[1], "float16": base64.b64encode(data).decode()}


def decode_embeddings(content: dict[str, Any]) -> NDArray[np.float32]:
    """(N, D) float32 of unit length, from what ``encode_embeddings`` gives.

    Raises:
        KeyError: if a key is missing.
        ValueError: if the data is no base64, or no whole number of finite vectors.
    """
    return to_unit_length(stored_embeddings(content))


def stored_embeddings(content: dict[str, Any]) -> NDArray[np.float16]:
    """(N, D) as they are stored; errors as ``decode_embeddings``, which checks them as well."""
    data = np.frombuffer(base64.b64decode(content["float16"], validate=True), dtype="<f2")
    return data.reshape(-1, content["dim"])


def to_unit_length(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """(N, D) embeddings, made as long as they were before they were stored in half the precision.

    Raises:
        ValueError: if one is zero or not finite.
    """
    vectors = vectors.astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise ValueError("an embedding is zero or not finite")
    return vectors / lengths


class TextRegionsTsv(TsvRecords):
    """Records of shards of boxes with embeddings.

    A record has ``image_id``, ``image_bytes``, ``height``, ``width``, ``regions``, ``captions``,
    ``encoder`` (the name of the text encoder), ``text_embeddings``, (R, D) float32 of unit length
    for the R regions, and ``caption_embeddings``, (C, D) for the C captions. A region has
    ``score`` and ``candidate`` too.

    Args:
        folder: where the shards lie.

    Raises:
        FileNotFoundError: if a shard or an index is missing.
        ValueError: if an index or a label file does not fit its shard.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder, _parse)


def _parse(text: bytes) -> dict[str, Any]:
    content = json.loads(text)
    embeddings = content["text_embeddings"]
    vectors = decode_embeddings(embeddings)
    texts = {name: number for number, name in enumerate(embeddings["texts"])}
    if len(texts) != len(vectors):
        raise ValueError(f"{len(vectors)} embeddings for {len(texts)} texts")
    kept = {key: content[key] for key in ("image_id", "height", "width", "regions", "captions")}
    return {
        **kept,
        "encoder": embeddings["encoder"],
        "text_embeddings": vectors[[region.pop("text_embedding") for region in kept["regions"]]],
        "caption_embeddings": vectors[[texts[caption] for caption in content["captions"]]],
    }


def text_region_row(name: str, image_file: bytes, result: dict[str, Any]) -> list[bytes]:
    """The columns of a photo in a shard; for arguments see ``describe_photo``.

    Raises:
        BadRecordError: as ``describe_photo``, and if the name has a tab or a line break.
    """
    if any(mark in name for mark in "\t\n\r"):
        raise BadRecordError(f"{name!r}: a row's name has no tab or line break")
    text = json.dumps(describe_photo(name, image_file, result)).encode()
    return [name.encode(), text, base64.b64encode(image_file)]


def describe_photo(name: str, image_file: bytes, result: dict[str, Any]) -> dict[str, Any]:
    """The json of a photo, checked.

    Args:
        name: of the photo.
        image_file: its file.
        result: of the data engine, with embeddings.

    Raises:
        BadRecordError: if there is no box, a box lies outside, or an embedding is missing.
    """
    with blame(name):
        image = LazyImage({"file_name": name, "image_bytes": image_file})
        height, width = image.size
        if not result["annotations"]:
            raise ValueError("no box")
        regions = []
        for annotation in result["annotations"]:
            region = {
                "region_id": annotation["id"],
                "bbox": round_box(corners(*annotation["bbox"])),
                "phrases": [annotation["class_name"]],
                **{key: annotation[key] for key in ("score", "candidate", "text_embedding")},
            }
            regions.append(check_region(region, (height, width)))
        content = {
            "image_id": name,
            "height": height,
            "width": width,
            "regions": regions,
            **{key: result[key] for key in _BESIDE},
        }
        _parse(json.dumps(content).encode())
    return content


def round_box(box: Sequence[float]) -> list[float]:
    """To a ten-thousandth of a pixel: finer digits hang on the unit that a box is stored in."""
    return [round(float(value), 4) for value in box]
