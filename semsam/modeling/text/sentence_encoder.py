"""Sentence encoders: text models whose tokens' mean is a sentence's vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from semsam.config import CfgNode, configurable

from ..build import TEXT_ENCODER, resolve_device
from ..pretrained import load_model, load_processor
from .encoder import encoder_name, model_label
from .features import tokenize


@TEXT_ENCODER.register
class SentenceEncoder:
    """A text model of transformers, frozen, by the mean over its tokens.

    Reimers and Gurevych, "Sentence-BERT", 2019. Its space has never seen an image: a model that is
    trained on it names what its names say, without CLIP's knowledge of how things look.

    Args:
        model: a folder or a name on the hub.
        device: where it runs, in float32.
        key: the configuration key that names it, for messages.

    Attributes:
        dim: D, channels of the vectors.
        name: label and digest of the weights; see ``TextEncoder``.

    Raises:
        RuntimeError: if it cannot be loaded.
        ValueError: if no model is named.
    """

    @configurable
    def __init__(self, model: str, device: torch.device | str = "cpu", key: str = "model") -> None:
        from transformers import AutoModel, AutoTokenizer

        if not model:
            raise ValueError(f"{key} is empty: name a sentence encoder")
        self._device = torch.device(device)
        self._model = load_model(AutoModel, model, key, self._device, torch.float32)
        self._tokenizer = load_processor(AutoTokenizer, model, key)
        self._limit = self._model.config.max_position_embeddings
        self.dim: int = self._model.config.hidden_size
        self.name = encoder_name(model_label(model), dict(self._model.named_parameters()))

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """``MODEL.TEXT.MODEL`` on ``MODEL.DEVICE``."""
        device = resolve_device(cfg.MODEL.DEVICE)
        return {"model": cfg.MODEL.TEXT.MODEL, "device": device, "key": "MODEL.TEXT.MODEL"}

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(N, D) float32 vectors of unit length of N texts, at least one."""
        tokens = tokenize(self._tokenizer, texts, self._limit).to(self._device)
        hidden = self._model(**tokens).last_hidden_state
        counts = tokens["attention_mask"][..., None].to(hidden)
        return normalize((hidden * counts).sum(1) / counts.sum(1), dim=-1)
