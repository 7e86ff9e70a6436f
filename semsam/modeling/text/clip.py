"""CLIP of transformers or open_clip: both towers, or the one that reads text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize

from semsam.config import CfgNode, configurable

from ..build import TEXT_ENCODER, resolve_device
from ..patch_reader import PatchReader
from ..pretrained import compute_dtype, load_model, load_processor
from .encoder import encoder_name, model_label
from .features import tokenize

#: Names of models that open_clip loads; the last is followed by ARCHITECTURE:WEIGHTS.
OPEN_CLIP_PREFIXES = ("hf-hub:", "local-dir:", "open_clip:")
#: open_clip's names of types; norms stay in float32 there.
_PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


class ClipEncoder(Protocol):
    """The two towers of a CLIP model.

    Attributes:
        device: where it runs.
        dim: D, channels of the features.
        logit_scale: factor on the product of features.
    """

    device: torch.device
    dim: int
    logit_scale: float

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """(N, D) features of unit length; what is beyond the model's limit is not read."""

    def encode_images(self, patches: Sequence[Tensor]) -> Tensor:
        """(N, D) features of unit length of (3, h, w) uint8 patches."""

    def drop_image_tower(self) -> None:
        """Free its memory; ``encode_images`` fails from here on."""

    def text_weights(self) -> Mapping[str, Tensor]:
        """The parameters that ``encode_text`` uses, by name."""


class TransformersClip:
    """CLIP of transformers.

    Args:
        name: a folder, or a name on the hub.
        device: where it runs.
        key: the configuration key that names it, for messages.
        dtype: of the weights; ``compute_dtype`` if None.

    Raises:
        RuntimeError: if it cannot be loaded.
        ValueError: if its processor does what ``PatchReader`` does not.
    """

    def __init__(
        self, name: str, device: torch.device, key: str, dtype: torch.dtype | None = None
    ) -> None:
        from transformers import CLIPModel, CLIPProcessor

        self.device = device
        self.model = load_model(CLIPModel, name, key, device, dtype)
        processor = load_processor(CLIPProcessor, name, key)
        self._tokenizer = processor.tokenizer
        self._reader = PatchReader(processor.image_processor)
        self._limit = self.model.config.text_config.max_position_embeddings
        self.dim = self.model.config.projection_dim
        self.logit_scale = float(self.model.logit_scale.exp())

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """As ``ClipEncoder``."""
        tokens = tokenize(self._tokenizer, texts, self._limit)
        output = self.model.get_text_features(**tokens.to(self.device))
        return normalize(output.pooler_output.float(), dim=-1)

    @torch.inference_mode()
    def encode_images(self, patches: Sequence[Tensor]) -> Tensor:
        """As ``ClipEncoder``."""
        pixels = self._reader(patches)
        output = self.model.get_image_features(pixels.to(self.device, self.model.dtype))
        return normalize(output.pooler_output.float(), dim=-1)

    def drop_image_tower(self) -> None:
        """As ``ClipEncoder``."""
        self.model.vision_model = self.model.visual_projection = None

    def text_weights(self) -> Mapping[str, Tensor]:
        """As ``ClipEncoder``."""
        return {k: v for k, v in self.model.named_parameters() if k.startswith("text_")}


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
        self.dim = self.encode_text([""]).shape[1]

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

    def drop_image_tower(self) -> None:
        """As ``ClipEncoder``."""
        self.model.visual = None

    def text_weights(self) -> Mapping[str, Tensor]:
        """As ``ClipEncoder``."""
        return {k: v for k, v in self.model.named_parameters() if not k.startswith("visual.")}


def load_clip(
    name: str, device: torch.device, key: str, dtype: torch.dtype | None = None
) -> ClipEncoder:
    """The CLIP of a name: ``open_clip:``, ``hf-hub:`` and ``local-dir:`` are open_clip's.

    Raises:
        RuntimeError: if it cannot be loaded.
        ValueError: if the name is incomplete, or as ``TransformersClip`` says.
    """
    loader = OpenClip if name.startswith(OPEN_CLIP_PREFIXES) else TransformersClip
    return loader(name, device, key, dtype)


@TEXT_ENCODER.register
class ClipTextEncoder:
    """CLIP's text tower, frozen.

    Args:
        model: a folder or a name on the hub, of transformers; or of open_clip as
            :func:`load_clip` takes it.
        device: where it runs: float16 on a GPU, float32 on a CPU.
        key: the configuration key that names it, for messages.

    Attributes:
        dim: D, channels of the features.
        name: label and digest of the weights; see ``TextEncoder``.
        device: where it runs.

    Raises:
        RuntimeError: if it cannot be loaded.
        ValueError: if no model is named, or the name is incomplete.
    """

    @configurable
    def __init__(self, model: str, device: torch.device | str = "cpu", key: str = "model") -> None:
        if not model:
            raise ValueError(f"{key} is empty: name a CLIP model")
        self.device = torch.device(device)
        self._clip = load_clip(model, self.device, key)
        self._clip.drop_image_tower()
        self.dim = self._clip.dim
        self.name = encoder_name(model_label(model), self._clip.text_weights())

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """``MODEL.TEXT.MODEL`` on ``MODEL.DEVICE``."""
        device = resolve_device(cfg.MODEL.DEVICE)
        return {"model": cfg.MODEL.TEXT.MODEL, "device": device, "key": "MODEL.TEXT.MODEL"}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(N, D) float32 features of unit length of N texts, at least one."""
        return self._clip.encode_text(texts)
