"""Captions of patches, by BLIP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from semsam.modeling.patch_reader import PatchReader
from semsam.modeling.pretrained import load_model, load_processor, vision_batch_size
from semsam.utils.batching import Batches


class _Attention(nn.Module):
    """Attention of BLIP's vision tower without the table of weights that transformers writes."""

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.qkv, self.projection = original.qkv, original.projection
        self.num_heads = original.num_heads

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> tuple[Tensor, None]:
        mixed = self.qkv(hidden_states).unflatten(-1, (3, self.num_heads, -1))
        found = scaled_dot_product_attention(*mixed.permute(2, 0, 3, 1, 4))
        return self.projection(found.transpose(1, 2).flatten(2)), None


class BlipCaptioner:
    """Says what patches show, in batches: greedy, and without a prompt.

    Args:
        name: a folder, or a name on the hub.
        device: where it runs.
        key: the configuration key that names it, for messages.
        max_new_tokens: tokens after the one that begins a text, the end included. Transformers 4
            counted the first one too: its 20 are 19 here.
        batch_size: patches that are described at once.
        dtype: of the weights; ``compute_dtype`` if None.

    Raises:
        RuntimeError: if it cannot be loaded.
        ValueError: if its processor does what ``PatchReader`` does not.
    """

    def __init__(
        self,
        name: str,
        device: torch.device,
        key: str = "name",
        max_new_tokens: int = 20,
        batch_size: int = 16,
        dtype: torch.dtype | None = None,
    ) -> None:
        from transformers import BlipForConditionalGeneration, BlipProcessor

        self.model = load_model(BlipForConditionalGeneration, name, key, device, dtype)
        for layer in self.model.vision_model.encoder.layers:
            layer.self_attn = _Attention(layer.self_attn)
        self._processor = load_processor(BlipProcessor, name, key)
        self._reader = PatchReader(self._processor.image_processor)
        self._device = device
        self._max_new_tokens = max_new_tokens
        self._batches = Batches(batch_size, "the captioner")
        self._vision_batch_size = vision_batch_size(batch_size, device)

    def __call__(self, patches: Sequence[Tensor]) -> list[str]:
        """A caption each of N (3, h, w) uint8 patches."""
        ids = self._batches.run(self.generate, patches, self._device)
        return [self._processor.decode(row, skip_special_tokens=True) for row in ids]

    @torch.inference_mode()
    def generate(self, patches: Sequence[Tensor]) -> list[list[int]]:
        """Ids of captions of patches that fit into one batch, padded to the longest."""
        images = torch.cat(
            [
                self._encode(patches[i : i + self._vision_batch_size])
                for i in range(0, len(patches), self._vision_batch_size)
            ]
        )
        config = self.model.config.text_config
        ids = self.model.text_decoder.generate(
            input_ids=torch.full((len(patches), 1), config.bos_token_id, device=self._device),
            encoder_hidden_states=images,
            encoder_attention_mask=torch.ones_like(images[..., 0], dtype=torch.int64),
            eos_token_id=config.sep_token_id,
            pad_token_id=config.pad_token_id,
            max_new_tokens=self._max_new_tokens,
            do_sample=False,
            num_beams=1,
        )
        return ids.tolist()

    def _encode(self, patches: Sequence[Tensor]) -> Tensor:
        pixels = self._reader(patches)
        return self.model.vision_model(pixels.to(self._device, self.model.dtype))[0]
