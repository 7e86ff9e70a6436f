"""Which of a few names a mask shows, by CLIPSeg."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from semsam.modeling.pretrained import load_model, load_processor, vision_batch_size
from semsam.modeling.text.features import TextFeatures, tokenize
from semsam.utils.batching import Batches

#: Height and width that a patch is stretched to.
INPUT_SIZE = 512


class ClipSegDecider:
    """Lets names compete for the pixels of a patch, and counts them inside the mask.

    A patch goes through the vision tower once for all its names, and no further than the last layer
    that the decoder reads.

    Args:
        name: a folder, or a name on the hub.
        device: where it runs.
        key: the configuration key that names it, for messages.
        batch_size: patches at once.
        dtype: of the weights; ``compute_dtype`` if None.

    Raises:
        RuntimeError: if it cannot be loaded.
    """

    def __init__(
        self,
        name: str,
        device: torch.device,
        key: str = "name",
        batch_size: int = 8,
        dtype: torch.dtype | None = None,
    ) -> None:
        from transformers import CLIPSegForImageSegmentation, CLIPSegProcessor

        self.model = load_model(CLIPSegForImageSegmentation, name, key, device, dtype)
        processor = load_processor(CLIPSegProcessor, name, key)
        self._device = device
        self._tokenizer = processor.tokenizer
        images = processor.image_processor
        # Of a pixel in 0..255: rescaled, then normalised.
        self._mean, self._std = (
            torch.tensor(values, device=device).view(3, 1, 1) / images.rescale_factor
            for values in (images.image_mean, images.image_std)
        )
        self._batches = Batches(vision_batch_size(batch_size, device), "CLIPSeg")
        texts = Batches(8 * batch_size, "CLIPSeg's text tower")
        self._text_features = TextFeatures(self._encode_text, texts)

    def __call__(
        self,
        patches: Sequence[Tensor],
        names: Sequence[Sequence[str]],
        mask: Callable[[int], NDArray[np.bool_]],
    ) -> list[int | None]:
        """The name that wins most pixels of each mask.

        Args:
            patches: N of (3, h, w) uint8.
            names: for each patch one or more.
            mask: index of a patch -> its (h, w) mask; asked for once.

        Returns:
            N indices into the patch's names, the first of those that win equally many pixels; None
            where the mask has no pixel in the patch.
        """

        def decide(part: Sequence[int]) -> list[int | None]:
            logits = self.logits([patches[i] for i in part], [names[i] for i in part])
            return [_winner(each, mask(i)) for i, each in zip(part, logits, strict=True)]

        return self._batches.run(decide, range(len(patches)), self._device)

    @torch.inference_mode()
    def logits(self, patches: Sequence[Tensor], names: Sequence[Sequence[str]]) -> Iterator[Tensor]:
        """(k, h, w) float32 of each (3, h, w) patch that fit into one batch, k its names' number.

        They are brought to the patch's size as they are asked for: of a large photo they are large.
        """
        text = self._text_features([name for row in names for name in row])
        maps = self._decode(self._encode_images(patches), text, [len(row) for row in names])
        for patch, each in zip(patches, maps, strict=True):
            yield interpolate(each[None].float(), patch.shape[1:], mode="bilinear")[0]

    def forget_names(self) -> None:
        """Encode every name anew from here on."""
        self._text_features.clear()

    def _encode_text(self, names: Sequence[str]) -> Tensor:
        limit = self.model.config.text_config.max_position_embeddings
        tokens = tokenize(self._tokenizer, names, limit)
        with torch.inference_mode():
            return self.model.clip.get_text_features(**tokens.to(self._device)).pooler_output

    def _encode_images(self, patches: Sequence[Tensor]) -> list[Tensor]:
        """(N, tokens, C) activations, one a layer of the decoder."""
        size = (INPUT_SIZE, INPUT_SIZE)
        pixels = torch.cat(
            [
                interpolate((patch[None] - self._mean) / self._std, size, mode="bilinear")
                for patch in patches
            ]
        )
        vision = self.model.clip.vision_model
        wanted = list(self.model.extract_layers)
        found = {}
        hidden = vision.pre_layrnorm(vision.embeddings(pixels.to(self.model.dtype)))
        for i, layer in enumerate(vision.encoder.layers[: max(wanted) + 1]):
            hidden = found[i] = layer(hidden, attention_mask=None)
        return [found[i] for i in wanted]

    def _decode(
        self, activations: Sequence[Tensor], text: Tensor, counts: Sequence[int]
    ) -> list[Tensor]:
        """(k, INPUT_SIZE, INPUT_SIZE) of each patch; the text's rows are those of all its names."""
        rows = torch.repeat_interleave(torch.tensor(counts)).to(self._device)
        # As many at once as there are patches, whatever the number of names.
        parts = [
            self.model.decoder([a[part] for a in activations], text_part).logits
            for part, text_part in zip(
                rows.split(len(counts)), text.split(len(counts)), strict=True
            )
        ]
        return list(torch.cat(parts).split(list(counts)))


def _winner(logits: Tensor, mask: NDArray[np.bool_]) -> int | None:
    inside = logits.flatten(1)[:, torch.from_numpy(mask.ravel()).to(logits.device)]
    if not inside.shape[1]:
        return None
    counts = torch.bincount(inside.argmax(0), minlength=len(logits)).tolist()
    return counts.index(max(counts))
