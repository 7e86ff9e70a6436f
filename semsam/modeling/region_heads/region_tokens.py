"""What a language model is shown of a region: C-dimensional tokens, Q for each of H captions.

Each class tells its Q as ``num_queries``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from semsam.layers.two_way import TwoWayTransformer, prompts_at_once
from semsam.structures import PromptOutput, masks_to_boxes


class MixerTokens(nn.Module):
    """The text feature mixer (SCA, section 3.2): learned queries read the prompt and the image.

    A two-way transformer over [queries, the decoder's tokens of the prompt] and the image as the
    prompt left it.

    Args:
        dim: C, channels of the decoder.
        num_layers: two-way blocks.
        num_heads: attention heads.
        dim_feedforward: hidden channels of a block's MLP.
        num_queries: learned queries a caption.
        num_captions: H, captions a region.
        reads: ``"output"``: tokens and image as the mask decoder leaves them (as released);
            ``"input"``: the prompt's own tokens and the image embedding, beside the mask decoder.
        pooled_size: cells a side of the image under the box that follow the queries; 0 for none (as
            released). A small model then need not learn where a region is before it learns what.
        init_std: standard deviation of the initial weights.
    """

    def __init__(
        self,
        dim: int,
        num_layers: int = 12,
        num_heads: int = 8,
        dim_feedforward: int = 2048,
        num_queries: int = 8,
        num_captions: int = 1,
        reads: str = "output",
        pooled_size: int = 0,
        init_std: float = 0.02,
    ) -> None:
        super().__init__()
        if reads not in ("output", "input"):
            raise ValueError(f"the mixer reads 'output' or 'input', not '{reads}'")
        self.num_captions = num_captions
        self.num_queries = num_queries + pooled_size**2
        self.reads = reads
        self.mixer = TwoWayTransformer(dim, num_layers, num_heads, dim_feedforward)
        self.queries = nn.Embedding(num_captions * num_queries, dim)
        self.pooled = RoiTokens(pooled_size) if pooled_size else None
        init_normal(self, init_std)

    def forward(self, output: PromptOutput) -> Tensor:
        """(R, H, Q, C) of the R valid prompts, images in order."""
        queries = self.queries.weight.expand(int(output.valid.sum()), -1, -1)
        mixed = _mix(self.mixer, output, self.reads, queries)
        mixed = mixed.unflatten(1, (self.num_captions, -1))
        if self.pooled is None:
            return mixed
        pooled = self.pooled(output).expand(-1, self.num_captions, -1, -1)
        return torch.cat([mixed, pooled], dim=2)


class MaskTokens(nn.Module):
    """Direct decoding (SCA, table 4): the queries are the masks' own tokens, one a caption.

    Arguments as for ``MixerTokens``; H is the number of masks of an ambiguous prompt, Q is 1.
    """

    def __init__(
        self,
        dim: int,
        num_layers: int = 12,
        num_heads: int = 8,
        dim_feedforward: int = 2048,
        init_std: float = 0.02,
    ) -> None:
        super().__init__()
        self.num_queries = 1
        self.mixer = TwoWayTransformer(dim, num_layers, num_heads, dim_feedforward)
        init_normal(self, init_std)

    def forward(self, output: PromptOutput) -> Tensor:
        """(R, H, 1, C) of the R valid prompts, images in order."""
        queries = output.tokens[output.valid][:, list(output.level_order)]
        return _mix(self.mixer, output, "output", queries)[:, :, None]


class RoiTokens(nn.Module):
    """The image under the region, pooled to a grid (SCA, table 4): no mixer and no parameters.

    The region is the prompt's box; of a prompt without one, the box around its best mask.

    Args:
        size: cells a side.
    """

    def __init__(self, size: int = 6) -> None:
        super().__init__()
        self.size = size
        self.num_queries = size * size

    def forward(self, output: PromptOutput) -> Tensor:
        """(R, 1, size * size, C) of the R valid prompts, images in order.

        Raises:
            ValueError: if a prompt has no box and masks were not asked for.
        """
        image = output.context["image_embedding"]
        boxes = [b[v].to(image.dtype) for b, v in zip(_boxes(output), output.valid, strict=True)]
        scale = image.shape[-1] / output.padded_size[1]
        cells = roi_align(image, boxes, self.size, spatial_scale=scale, aligned=True)
        return cells.flatten(2).transpose(1, 2)[:, None]


def _boxes(output: PromptOutput) -> Tensor:
    """(B, N, 4) XYXY pixels of the padded frame: of the prompt, else of its best mask."""
    prompts, logits = output.context["prompts"], output.mask_logits
    if bool((prompts.has_box | ~output.valid).all()):
        return prompts.boxes
    if not logits.shape[-1]:
        raise ValueError("features of a region without a box are pooled under its mask: ask for it")
    best = output.best_masks()[..., None, None, None].expand(-1, -1, 1, *logits.shape[3:])
    masks = logits.gather(2, best)[:, :, 0] > 0
    found = masks_to_boxes(masks.flatten(0, 1)).unflatten(0, masks.shape[:2])
    pixels = found * (output.padded_size[1] / logits.shape[-1])
    return torch.where(prompts.has_box[..., None], prompts.boxes, pixels)


def _mix(mixer: TwoWayTransformer, output: PromptOutput, reads: str, queries: Tensor) -> Tensor:
    """The (R, X, C) queries of the R valid prompts, as the mixer leaves them."""
    context = output.context
    of_output = reads == "output"
    tokens = output.tokens if of_output else context["prompt_tokens"]
    used = context["tokens_used" if of_output else "prompt_tokens_used"]
    rows = output.valid.flatten().nonzero()[:, 0]
    tokens, counts = tokens.flatten(0, 1)[rows], used.sum(-1).flatten()[rows]
    mixed = torch.zeros_like(queries)
    places = mixer.project(context["position"])
    # Prompts with as many tokens go together: padding would take part in attention.
    for count in counts.unique().tolist():
        alike = (counts == count).nonzero()[:, 0]
        for part in alike.split(prompts_at_once(alike.device)):
            both = torch.cat([queries[part], tokens[part][:, :count]], dim=1)
            if of_output:
                image = context["prompt_features"].flatten(0, 1)[rows[part]]
            else:
                image = context["image_embedding"][rows[part] // used.shape[1]]
                image = image + context["dense_prompt"]
            result, _ = mixer(both, image, places)
            mixed[part] = result[:, : queries.shape[1]].to(mixed.dtype)
    return mixed


def init_normal(module: nn.Module, std: float) -> None:
    """As SCA starts (``std`` 0.02): weights normal, biases 0; norms keep 1 and 0."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
