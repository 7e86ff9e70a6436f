"""Boxes with names and the names' embeddings in tar shards, as open-vocabulary SAM was trained on.

A sample is a photo's ``jpg``; ``txt``, its caption; ``json`` with N ``boxes`` (or ``bboxes``; x0,
y0, x1, y1 as 1/1024 of the photo's width and height), ``phrases``, ``logits`` (scores), and
``original_width`` and ``original_height``; ``clip_emb_phrases.npy`` (or ``text_features.npy``),
(N, D); and perhaps ``clip_caption.npy``, (D,). Its ``masks.npy`` are not read.

Those that are written here are read by the same readers, and say more: ``txt`` has a line for each
of C captions, ``clip_caption.npy`` is (C, D) where C is above 1, and the json has ``image_id``,
``encoder``, ``captions``, ``candidates`` and ``generated_by`` as a TSV row has them, and
``regions``, with ``region_id`` and ``candidate`` of each box.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semsam.data.datasets.tar import TarRecords, image_kind
from semsam.data.datasets.text_regions import (
    describe_photo,
    round_box,
    stored_embeddings,
    to_unit_length,
)
from semsam.data.records import LazyImage, blame, check_region

#: Boxes are stored as if each photo were a square of this side.
_UNITS = 1024
_PHRASES = "clip_emb_phrases.npy"
_OTHER_PHRASES = "text_features.npy"
_CAPTION = "clip_caption.npy"
#: What the json keeps of a row's as it is.
_KEPT = ("image_id", "captions", "candidates", "generated_by")


class TextRegionsTar(TarRecords):
    """Records of tar shards of boxes with embeddings.

    A record is that of ``TextRegionsTsv``. Without a ``clip_caption.npy`` it has no
    ``caption_embeddings``. A box of a shard that was not written here is left out if its phrase is
    empty or it has no area inside the photo.

    Args:
        path: a folder of shards, or one shard, ``NAME.tar``.
        encoder: the text encoder of embeddings, for shards that do not state it.

    Raises:
        FileNotFoundError: if a shard is missing.
        ValueError: if a shard is no tar file, or was cut; if the first sample states no encoder,
            and none was given.
    """

    def __init__(self, path: str | Path, encoder: str = "") -> None:
        kinds = ("json", "txt", _PHRASES, _OTHER_PHRASES, _CAPTION)
        super().__init__(path, kinds, self._parse_members)
        self._encoder = encoder
        if not encoder and not self._states_encoder():
            raise ValueError(
                f"the shards of '{path}' do not state which text encoder their embeddings are of; "
                f"name it: text_regions_tar://{path}?encoder=NAME"
            )

    def _states_encoder(self) -> bool:
        """Whether the first sample does, or cannot be read; it is then found bad when it is due."""
        text = self.shards[0].read(0, ["json"]).get("json", b"")
        try:
            return "encoder" in json.loads(text)
        except (ValueError, TypeError):
            return True

    def _parse_members(self, record: dict[str, Any], members: dict[str, bytes]) -> dict[str, Any]:
        content = json.loads(members["json"])
        encoder = content.get("encoder", self._encoder)
        if self._encoder not in ("", encoder):
            raise ValueError(f"the embeddings are of '{encoder}', not of '{self._encoder}'")
        size = LazyImage(record).size
        vectors = _read_vectors(members[_PHRASES if _PHRASES in members else _OTHER_PHRASES])
        regions = _regions(content, size)
        if len(vectors) != len(regions):
            raise ValueError(f"{len(vectors)} embeddings for {len(regions)} boxes")
        usable = list(range(len(regions)))
        if "regions" not in content:
            usable = [number for number in usable if _is_usable(regions[number], size)]
        keys = {
            "image_id": content.get("image_id", record["image_id"]),
            "height": size[0],
            "width": size[1],
            "regions": [regions[number] for number in usable],
            "captions": content.get("captions", [members.get("txt", b"").decode().strip()]),
            "encoder": encoder,
            "text_embeddings": vectors[usable],
        }
        if _CAPTION in members:
            keys["caption_embeddings"] = _read_vectors(members[_CAPTION])
            number = len(keys["caption_embeddings"])
            if number != len(keys["captions"]):
                raise ValueError(f"{number} embeddings for {len(keys['captions'])} captions")
        return keys


def text_region_sample(name: str, image_file: bytes, result: dict[str, Any]) -> dict[str, bytes]:
    """The members of a photo's sample; for arguments and errors see ``describe_photo``.

    Raises:
        BadRecordError: also if the image is of a format that samples do not have.
    """
    content = describe_photo(name, image_file, result)
    with blame(name):
        kind = image_kind(image_file)
        size = content["height"], content["width"]
        regions, table = content["regions"], content["text_embeddings"]
        vectors = stored_embeddings(table)
        texts = {text: number for number, text in enumerate(table["texts"])}
        of_captions = vectors[[texts[caption] for caption in content["captions"]]]
        told = {
            "boxes": [(np.array(region["bbox"]) / _unit(size)).tolist() for region in regions],
            "phrases": [region["phrases"][0] for region in regions],
            "logits": [region["score"] for region in regions],
            "original_width": size[1],
            "original_height": size[0],
            "regions": [{key: r[key] for key in ("region_id", "candidate")} for r in regions],
            "encoder": table["encoder"],
            **{key: content[key] for key in _KEPT},
        }
    members = {
        kind: image_file,
        "txt": "\n".join(content["captions"]).encode(),
        "json": json.dumps(told).encode(),
        _PHRASES: _write_vectors(vectors[[region["text_embedding"] for region in regions]]),
    }
    if content["captions"]:
        one = len(of_captions) == 1
        members[_CAPTION] = _write_vectors(of_captions[0] if one else of_captions)
    return members


def _regions(content: dict[str, Any], size: tuple[int, int]) -> list[dict[str, Any]]:
    """The boxes of a sample in pixels of its photo of (height, width).

    Raises:
        KeyError: if a key is missing.
        ValueError: if lists are of different lengths, or a box has not four numbers.
    """
    boxes = content["boxes"] if "boxes" in content else content["bboxes"]
    names = content.get("regions", [{"region_id": number} for number in range(len(boxes))])
    lists = {"boxes": boxes, "regions": names, **{k: content[k] for k in ("phrases", "logits")}}
    if len({len(values) for values in lists.values()}) > 1:
        lengths = ", ".join(f"{len(values)} {name}" for name, values in lists.items())
        raise ValueError(f"the json has {lengths}")
    pixels = np.array(boxes, dtype=np.float64).reshape(-1, 4) * _unit(size)
    return [
        {**name, "bbox": round_box(box), "phrases": [phrase], "score": score}
        for name, box, phrase, score in zip(
            names, pixels.tolist(), content["phrases"], content["logits"], strict=True
        )
    ]


def _unit(size: tuple[int, int]) -> NDArray[np.float64]:
    """(4,) pixels of a photo of (height, width) that are one unit of a stored x0, y0, x1, y1."""
    return np.array([size[1], size[0]] * 2, dtype=np.float64) / _UNITS


def _is_usable(region: dict[str, Any], size: tuple[int, int]) -> bool:
    try:
        check_region(region, size)
    except ValueError:
        return False
    return True


def _write_vectors(vectors: NDArray[np.floating]) -> bytes:
    file = io.BytesIO()
    np.save(file, vectors)
    return file.getvalue()


def _read_vectors(content: bytes) -> NDArray[np.float32]:
    """(N, D) of unit length; (D,) are read as (1, D).

    Raises:
        ValueError: if it is no array of them.
    """
    try:
        vectors = np.load(io.BytesIO(content), allow_pickle=False)
    except EOFError as error:
        raise ValueError("an array of embeddings is empty") from error
    if vectors.dtype.kind != "f" or vectors.ndim not in (1, 2):
        raise ValueError(f"embeddings are no {vectors.shape} array of {vectors.dtype}")
    return to_unit_length(np.atleast_2d(vectors))
