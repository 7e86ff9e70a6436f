"""CLIP, of transformers or open_clip: how well names fit patches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from .batching import Batches
from .crops import pixel_values
from .pretrained import compute_dtype, load_model, load_processor
from .text_features import TextFeatures, tokenize

#: Names of models that open_clip loads; the last is followed by ARCHITECTURE:WEIGHTS.
OPEN_CLIP_PREFIXES = ("hf-hub:", "local-dir:", "open_clip:")
#: open_clip's names of types; norms stay in float32 there.
_PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


class ClipEncoder(Protocol):
    """The two towers of a CLIP model."""

    device: torch.device
    logit_scale: float

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """(N, D) features of unit length; what is beyond the model's limit is not read."""

    def encode_images(self, patches: Sequence[Tensor]) -> Tensor:
        """(N, D) features of unit length of (3, h, w) uint8 patches."""


class TransformersClip:
    """CLIP of transformers.

    Args:
        name: a folder, or a name on the hub.
        device: where it runs.
        key: the configuration key that names it, for messages.
        dtype: of the weights; ``compute_dtype`` if None.

    Raises:
        RuntimeError: if it cannot be loaded.
    """

    def __init__(
        self, name: str, device: torch.device, key: str, dtype: torch.dtype | None = None
    ) -> None:
        from transformers import CLIPModel, CLIPProcessor

        self.device = device
        self.model = load_model(CLIPModel, name, key, device, dtype)
        self._processor = load_processor(CLIPProcessor, name, key)
        self._limit = self.model.config.text_config.max_position_embeddings
        self.logit_scale = float(self.model.logit_scale.exp())

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """As ``ClipEncoder``."""
        tokens = tokenize(self._processor.tokenizer, texts, self._limit)
        output = self.model.get_text_features(**tokens.to(self.device))
        return normalize(output.pooler_output.float(), dim=-1)

    @torch.inference_mode()
    def encode_images(self, patches: Sequence[Tensor]) -> Tensor:
        """As ``ClipEncoder``."""
        pixels = pixel_values(self._processor.image_processor, patches)
        output = self.model.get_image_features(pixels.to(self.device, self.model.dtype))
        return normalize(output.pooler_output.float(), dim=-1)


class OpenClip:
    """CLIP of open_clip.

    Args:
        name: ``open_clip:ARCHITECTURE:WEIGHTS`` (a tag, or a file), ``hf-hub:OWNER/NAME`` or
            ``local-dir:FOLDER``.
        device: where it runs.
        key: the configuration key that names it, for messages.
        dtype: of the weights; ``compute_dtype`` if None.

    Raises:
        RuntimeError: if open_clip is not installed, or the model cannot be loaded.
        ValueError: if the name has no weights.
    """

    def __init__(
        self, name: str, device: torch.device, key: str, dtype: torch.dtype | None = None
    ) -> None:
        try:
            import open_clip
        except ImportError as error:
            raise RuntimeError(
                f"{key}: '{name}' needs open_clip: pip install open_clip_torch"
            ) from error
        architecture, weights = name, None
        if name.startswith("open_clip:"):
            architecture, _, weights = name.removeprefix("open_clip:").partition(":")
            if not weights:
                raise ValueError(f"{key}: '{name}' is not open_clip:ARCHITECTURE:WEIGHTS")
        self._dtype = dtype or compute_dtype(device)
        try:
            model, self._preprocess = open_clip.create_model_from_pretrained(
                architecture, pretrained=weights, precision=_PRECISIONS[self._dtype], device=device
            )
            self._tokenize = open_clip.get_tokenizer(architecture)
        except (OSError, ValueError, RuntimeError) as error:
            raise RuntimeError(f"{key}: cannot load '{name}': {error}") from error
        self.device = device
        self.model: Any = model.requires_grad_(False).eval()
        self.logit_scale = float(self.model.logit_scale.exp())

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """As ``ClipEncoder``."""
        tokens = self._tokenize(list(texts)).to(self.device)
        return normalize(self.model.encode_text(tokens).float(), dim=-1)

    @torch.inference_mode()
    def encode_images(self, patches: Sequence[Tensor]) -> Tensor:
        """As ``ClipEncoder``."""
        from torchvision.transforms.functional import to_pil_image

        pixels = torch.stack([self._preprocess(to_pil_image(patch.cpu())) for patch in patches])
        pixels = pixels.to(self.device, self._dtype)
        return normalize(self.model.encode_image(pixels).float(), dim=-1)


def load_clip(
    name: str, device: torch.device, key: str, dtype: torch.dtype | None = None
) -> ClipEncoder:
    """The CLIP of a name: ``open_clip:``, ``hf-hub:`` and ``local-dir:`` are open_clip's.

    Raises:
        RuntimeError: if it cannot be loaded.
        ValueError: if the name is incomplete.
    """
    loader = OpenClip if name.startswith(OPEN_CLIP_PREFIXES) else TransformersClip
    return loader(name, device, key, dtype)


class ClipScorer:
    """Scores names for patches, in batches; each name is encoded once.

    Args:
        encoder: the model.
        batch_size: patches that go through it at once; names, which are small, are eight times
            as many.

    Attributes:
        device: where the model runs.
    """

    def __init__(self, encoder: ClipEncoder, batch_size: int) -> None:
        self.device = encoder.device
        self.encoder = encoder
        self._images = Batches(batch_size, "CLIP's image tower")
        texts = Batches(8 * batch_size, "CLIP's text tower")
        self._text_features = TextFeatures(encoder.encode_text, texts)

    def image_features(self, patches: Sequence[Tensor]) -> Tensor:
        """(N, D) features of N (3, h, w) uint8 patches, at least one."""
        encoder = self.encoder
        return torch.stack(
            self._images.run(
                lambda part: list(encoder.encode_images(part).unbind()), patches, self.device
            )
        )

    def text_features(self, names: Sequence[str], templates: Sequence[str] = ("{}",)) -> Tensor:
        """Features of names.

        Args:
            names: M, at least one.
            templates: sentences with a pair of braces for the name; their features are averaged.

        Returns:
            (M, D) of unit length.
        """
        texts = [template.format(name) for name in names for template in templates]
        features = self._text_features(texts).unflatten(0, (len(names), len(templates)))
        return normalize(features.mean(dim=1), dim=-1)

    def logits(self, images: Tensor, texts: Tensor) -> NDArray[np.float32]:
        """(N, M) similarity of (N, D) and (M, D) features times the model's scale.

        A softmax over the texts gives probabilities.
        """
        return (self.encoder.logit_scale * images @ texts.T).cpu().numpy()

    def forget_names(self) -> None:
        """Encode every name anew from here on."""
        self._text_features.clear()


def top_names(names: Sequence[str], logits: NDArray[np.floating], k: int) -> list[str]:
    """At most k names, best first; of equal ones the earlier first.

    Args:
        names: N names.
        logits: (N,) their scores.
        k: how many are kept.
    """
    return [names[i] for i in np.argsort(-logits, kind="stable")[:k]]


def read_vocabulary(entries: Sequence[str]) -> list[str]:
    """Names in their order, each once.

    Args:
        entries: names, or .txt files with a name a line.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if there is no name.
    """
    names: list[str] = []
    for entry in entries:
        if not entry.endswith(".txt"):
            names.append(entry.strip())
            continue
        path = Path(entry)
        if not path.is_file():
            raise FileNotFoundError(f"vocabulary '{entry}' does not exist")
        names += [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    found = [name for name in dict.fromkeys(names) if name]
    if not found:
        raise ValueError("the vocabulary has no name: list names, or a .txt file of them")
    return found
