"""What a text encoder promises, and what it is called in the files that are made with it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from semsam.utils.digest import digest_tensors

#: Between a model's label and the digest of its weights.
_MARK = "@"


class TextEncoder(Protocol):
    """Sentences -> a space that embeddings of masks share.

    Attributes:
        dim: D, channels of the space.
        name: label and digest of the weights, as :func:`encoder_name` joins them.
    """

    dim: int

    @property
    def name(self) -> str: ...  # noqa: D102

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(N, D) float32 of unit length; what is beyond the encoder's limit is not read."""


def model_label(model: str) -> str:
    """A model's name without the place where it lies on this machine.

    Args:
        model: a name on the hub, which is its own label; a folder; or as open_clip's are written,
            ``open_clip:ARCHITECTURE:WEIGHTS``, ``hf-hub:OWNER/NAME``, ``local-dir:FOLDER``.
    """
    head, colon, last = model.rpartition(":")
    if head == "hf-hub":
        return last
    if head == "local-dir" or Path(last).exists():
        last = Path(last).resolve().name
        return last if head in ("", "local-dir") else f"{head}{colon}{last}"
    return model


def encoder_name(label: str, weights: Mapping[str, Tensor]) -> str:
    """Label and digest of an encoder.

    Args:
        label: as :func:`model_label` gives it.
        weights: by name. The names do not count, which differ between versions of a library; and
            values are rounded to float16, so that an encoder has one name on a CPU, where it is
            float32, and on a GPU.
    """
    floats = (value for value in weights.values() if value.is_floating_point())
    digests = sorted(digest_tensors({"": value.half()}) for value in floats)
    return f"{label}{_MARK}{hashlib.sha256(''.join(digests).encode()).hexdigest()[:12]}"


def is_same_encoder(first: str, second: str) -> bool:
    """Whether two names are of one encoder: by digest where both have one, else by label."""
    label, _, digest = first.partition(_MARK)
    other_label, _, other_digest = second.partition(_MARK)
    return digest == other_digest if digest and other_digest else label == other_label
