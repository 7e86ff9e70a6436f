"""Captions of patches, by BLIP."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .batching import Batches
from .crops import pixel_values
from .pretrained import load_model, load_processor


class BlipCaptioner:
    """Says what patches show, in batches: greedy, and without a prompt.

    Args:
        name: a folder, or a name on the hub.
        device: where it runs.
        key: the configuration key that names it, for messages.
        max_new_tokens: tokens after the one that begins a text, the end included. Transformers 4
            counted the first one too: its 20 are 19 here.
        batch_size: patches at once.

    Raises:
        RuntimeError: if it cannot be loaded.
    """

    def __init__(
        self,
        name: str,
        device: torch.device,
        key: str = "name",
        max_new_tokens: int = 20,
        batch_size: int = 16,
    ) -> None:
        from transformers import BlipForConditionalGeneration, BlipProcessor

        self._model = load_model(BlipForConditionalGeneration, name, key, device)
        self._processor = load_processor(BlipProcessor, name, key)
        self._device = device
        self._max_new_tokens = max_new_tokens
        self._batches = Batches(batch_size, "the captioner")

    def __call__(self, patches: Sequence[Tensor]) -> list[str]:
        """A caption each of N (3, h, w) uint8 patches."""
        ids = self._batches.run(self.generate, patches, self._device)
        return [self._processor.decode(row, skip_special_tokens=True) for row in ids]

    @torch.inference_mode()
    def generate(self, patches: Sequence[Tensor]) -> list[list[int]]:
        """Ids of captions of patches that fit into one batch, padded to the longest."""
        pixels = pixel_values(self._processor.image_processor, patches)
        ids = self._model.generate(
            pixels.to(self._device, self._model.dtype),
            max_new_tokens=self._max_new_tokens,
            do_sample=False,
            num_beams=1,
        )
        return ids.tolist()
