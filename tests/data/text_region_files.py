"""A photo, and a result of the data engine for it."""

import io

import numpy as np
from PIL import Image

from semsam.data.datasets.text_regions import encode_embeddings


def jpg(width=64, height=48, turned=False):
    exif = Image.Exif()
    if turned:
        exif[0x0112] = 6
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "JPEG", exif=exif)
    return file.getvalue()


def make_result():
    """Two boxes of one name and one of another, and a caption that is a name too."""
    vectors = np.random.default_rng(0).normal(size=(3, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = ["dog", "tree", "dog"]
    return {
        "annotations": [
            {
                "id": number,
                "bbox": [2.5 + number, 3.0, 10.0, 12.25],
                "class_name": name,
                "score": 0.5,
                "candidate": names.index(name),
                "text_embedding": names.index(name),
            }
            for number, name in enumerate(names)
        ],
        "captions": ["a dog and a tree", "tree"],
        "candidates": [{"name": name, "sources": []} for name in names[:2]],
        "generated_by": {"language_model": "m", "detector": "d", "templates": []},
        "text_embeddings": {
            "encoder": "clip",
            "texts": ["dog", "tree", "a dog and a tree"],
            **encode_embeddings(vectors),
        },
    }
