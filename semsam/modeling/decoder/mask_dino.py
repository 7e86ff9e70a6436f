"""The Mask-DINO decoder of Semantic-SAM (section 3.1): a prompt -> K masks, an image -> Q."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from semsam.config import CfgNode, configurable
from semsam.layers.blocks import MLP, inverse_sigmoid
from semsam.layers.position_encoding import box_position_encoding
from semsam.modeling.build import DECODER
from semsam.structures import PromptOutput, Prompts, box_xyxy_to_cxcywh

from .mask_dino_layers import DecoderLayer

#: Rows of ``type_embed``.
BOX, CLICK = 0, 1
#: Tokens of level 1 to 6 (semantic, semantic, instance, part, part, part) in the released models.
_SIX_LEVELS = (3, 2, 0, 4, 1, 5)


def level_order(num_tokens: int) -> tuple[int, ...]:
    """The token of level 1, 2, ... K, from whole to part.

    Six tokens have the order of the released models; any other number keeps its own.
    """
    return _SIX_LEVELS if num_tokens == 6 else tuple(range(num_tokens))


@DECODER.register
class MaskDINODecoder(nn.Module):
    """Each prompt becomes K queries that share an anchor box and differ by a learned token.

    A click is a small box (``Prompts.extents``). The anchor is refined layer by layer, and every
    layer's queries pass through the same mask, score and box heads. The tokens of one prompt see
    each other and the image, never another prompt, so a result does not depend on the batch.

    Without a prompt the image itself is asked: ``answer_image`` gives masks of Q learned queries
    that all see each other, for generic segmentation (Mask DINO, Li et al. 2022).

    Kept because the released weights need it: the norm is applied twice before the heads, and
    clicks use the box's type embedding at inference (``inference_click_type=0``) though training
    uses their own.

    Args:
        num_levels: levels of the pixel decoder.
        mask_dim: channels of the mask features.
        hidden_dim: channels of the queries, and of the pixel decoder's levels.
        num_layers: decoder layers.
        num_heads: attention heads.
        num_points: points a head samples on each level.
        dim_feedforward: hidden channels of the feed-forward.
        num_tokens: K, masks a prompt.
        num_extra_tokens: further tokens a prompt for region heads; they have no mask.
        cross_prompt_attention: at inference all prompts of a call attend to each other, as in the
            original's demo; results then depend on the batch.
        inference_click_type: type embedding of clicks at inference, 0 (box) or 1 (click).
        num_queries: Q, masks of an image that is asked for everything; 0: it cannot be.
    """

    @configurable
    def __init__(
        self,
        *,
        num_levels: int = 4,
        mask_dim: int = 256,
        hidden_dim: int = 256,
        num_layers: int = 9,
        num_heads: int = 8,
        num_points: int = 4,
        dim_feedforward: int = 2048,
        num_tokens: int = 6,
        num_extra_tokens: int = 0,
        cross_prompt_attention: bool = False,
        inference_click_type: int = BOX,
        num_queries: int = 0,
    ) -> None:
        super().__init__()
        if inference_click_type not in (BOX, CLICK):
            raise ValueError(f"inference_click_type is 0 or 1, not {inference_click_type}")
        self.num_tokens = num_tokens
        self.token_dim = hidden_dim
        self.cross_prompt_attention = cross_prompt_attention
        self.inference_click_type = inference_click_type
        self.layers = nn.ModuleList(
            DecoderLayer(hidden_dim, num_levels, num_heads, num_points, dim_feedforward)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(hidden_dim)
        self.anchor_encoder = MLP(2 * hidden_dim, hidden_dim, hidden_dim, 2)
        self.token_embed = nn.Embedding(num_tokens + num_extra_tokens, hidden_dim)
        self.type_embed = nn.Embedding(2, hidden_dim)
        self.prompt_embed = nn.Embedding(1, hidden_dim)
        self.mask_head = MLP(hidden_dim, hidden_dim, mask_dim, 3)
        self.score_head = MLP(hidden_dim, hidden_dim, 1, 3)
        self.box_head = MLP(hidden_dim, hidden_dim, 4, 3)
        for parameter in self.box_head.layers[-1].parameters():
            nn.init.zeros_(parameter)
        self.num_queries = num_queries
        if num_queries:
            self.query_embed = nn.Embedding(num_queries, hidden_dim)
            self.query_anchors = nn.Embedding(num_queries, 4)
            # Boxes of a third of the image, anywhere in it.
            nn.init.uniform_(self.query_anchors.weight[:, :2], -3.0, 3.0)
            nn.init.constant_(self.query_anchors.weight[:, 2:], -0.7)

    @staticmethod
    def num_masks(cfg: CfgNode) -> int:
        """Masks a prompt."""
        return cfg.MODEL.DECODER.NUM_TOKENS

    @classmethod
    def from_config(cls, cfg: CfgNode, num_extra_tokens: int = 0) -> dict[str, Any]:
        """Named arguments from ``MODEL.DECODER`` and ``MODEL.PIXEL_DECODER``.

        Raises:
            ValueError: if the pixel decoder's channels differ from the decoder's.
        """
        node, pixel = cfg.MODEL.DECODER, cfg.MODEL.PIXEL_DECODER
        if node.HIDDEN_DIM != pixel.CONV_DIM:
            raise ValueError(
                f"MODEL.DECODER.HIDDEN_DIM ({node.HIDDEN_DIM}) and MODEL.PIXEL_DECODER.CONV_DIM "
                f"({pixel.CONV_DIM}) must be equal"
            )
        return {
            "num_levels": pixel.NUM_LEVELS,
            "mask_dim": pixel.MASK_DIM,
            "hidden_dim": node.HIDDEN_DIM,
            "num_layers": node.NUM_LAYERS,
            "num_heads": node.NUM_HEADS,
            "num_points": node.NUM_POINTS,
            "dim_feedforward": node.DIM_FEEDFORWARD,
            "num_tokens": node.NUM_TOKENS,
            "num_extra_tokens": num_extra_tokens,
            "cross_prompt_attention": node.CROSS_PROMPT_ATTENTION,
            "inference_click_type": node.INFERENCE_CLICK_TYPE,
            "num_queries": node.NUM_QUERIES,
        }

    def prepare(self, features: dict[str, Any]) -> dict[str, Any]:
        """Add what depends on the image alone: each layer's values, coarsest level first.

        Args:
            features: the pixel decoder's ``multi_scale`` and ``mask_features``.

        Returns:
            ``features`` with ``values`` (one (B, S, M, C / M) a layer) and ``spatial_shapes``.
        """
        levels = features["multi_scale"][::-1]
        with torch.autocast(levels[0].device.type, enabled=False):
            memory = torch.cat([x.float().flatten(2).transpose(1, 2) for x in levels], dim=1)
            values = [layer.cross_attn.project_value(memory) for layer in self.layers]
        shapes = [(x.shape[-2], x.shape[-1]) for x in levels]
        return {**features, "values": values, "spatial_shapes": shapes}

    def forward(
        self, features: dict[str, Any], prompts: Prompts, predict_masks: bool = True
    ) -> PromptOutput:
        """Answer every prompt with K masks.

        Args:
            features: from ``prepare``, with ``padded_size``.
            prompts: one click or one box each.
            predict_masks: False to leave the masks out; see ``PromptOutput.mask_logits``.

        Returns:
            Output of the last layer; while training, ``aux`` holds the earlier layers.

        Raises:
            ValueError: if a prompt has several points, a background point, or nothing.
        """
        anchors, types = self._anchors(prompts, features["padded_size"])
        number = types.shape[1]
        content = self.prompt_embed.weight + self.type_embed(types)
        x = (content[:, :, None] + self.token_embed.weight).flatten(1, 2)
        group = self.token_embed.num_embeddings
        reference = inverse_sigmoid(anchors).sigmoid().repeat_interleave(group, dim=1)
        if self.cross_prompt_attention and not self.training:
            group = max(group * number, 1)
        states, references = self._refine(x, reference, features, group)
        shape = (number, self.token_embed.num_embeddings, self.num_tokens)
        output = self._outputs(states, references, features, prompts.valid, shape, predict_masks)
        return replace(output, levels=level_order(self.num_tokens))

    def answer_image(self, features: dict[str, Any], predict_masks: bool = True) -> PromptOutput:
        """Answer each image, as if it were one prompt, with Q masks of whatever is in it.

        Args:
            features: from ``prepare``, with ``padded_size``.
            predict_masks: False to leave the masks out.

        Returns:
            N is 1 and K is Q; no region head has further tokens. ``aux`` as of ``forward``.

        Raises:
            ValueError: if the decoder has no queries.
        """
        if not self.num_queries:
            raise ValueError(
                "this decoder has no object queries (MODEL.DECODER.NUM_QUERIES is 0), so that it "
                "answers prompts only"
            )
        batch = len(features["values"][0])
        x = self.query_embed.weight.expand(batch, -1, -1)
        reference = self.query_anchors.weight.sigmoid().expand(batch, -1, -1)
        states, references = self._refine(x, reference, features, self.num_queries)
        valid = torch.ones(batch, 1, dtype=torch.bool, device=x.device)
        shape = (1, self.num_queries, self.num_queries)
        return self._outputs(states, references, features, valid, shape, predict_masks)

    def _refine(
        self, x: Tensor, reference: Tensor, features: dict[str, Any], group: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Queries (B, S, C) and anchors (B, S, 4) after each layer, the first anchors included.

        Args:
            x: (B, S, C) queries.
            reference: (B, S, 4) their anchors.
            features: from ``prepare``.
            group: so many consecutive queries see each other.
        """
        states, references = [], []
        with torch.autocast(x.device.type, enabled=False):
            # `refined` keeps the gradient that `reference`, handed to the next layer, has lost.
            refined = reference
            for layer, value in zip(self.layers, features["values"], strict=True):
                position = self.anchor_encoder(
                    box_position_encoding(reference, self.token_dim // 2)
                )
                x = layer(x, position, reference, value, features["spatial_shapes"], group)
                states.append(self.norm(x))
                references.append(refined)
                refined = (self.box_head(x) + inverse_sigmoid(reference)).sigmoid()
                reference = refined.detach()
        return states, references

    def _outputs(
        self,
        states: list[Tensor],
        references: list[Tensor],
        features: dict[str, Any],
        valid: Tensor,
        shape: tuple[int, int, int],
        predict_masks: bool,
    ) -> PromptOutput:
        """The last layer's answer; while training with the earlier layers'.

        Args:
            states: of each layer (B, N * T, C).
            references: of each layer (B, N * T, 4), the anchors that it started from.
            features: from ``prepare``.
            valid: (B, N).
            shape: N, T, and how many of the T are masks.
            predict_masks: False to leave the masks out.
        """
        first = 0 if self.training else len(states) - 1
        outputs = [
            self._heads(state, anchor, features, valid, shape, predict_masks)
            for state, anchor in zip(states[first:], references[first:], strict=True)
        ]
        outputs[-1].aux.extend(outputs[:-1])
        return outputs[-1]

    def _anchors(self, prompts: Prompts, padded_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """(B, N, 4) cx, cy, w, h in [0, 1] of the padded frame, and (B, N) types."""
        clicks = prompts.labels == 1
        asks = clicks.sum(-1) + prompts.has_box
        wrong = (asks != 1) | (prompts.labels == 0).any(-1) | prompts.has_mask | prompts.has_text
        wrong = wrong & prompts.valid
        if bool(wrong.any()):
            image, prompt = wrong.nonzero()[0].tolist()
            raise ValueError(
                f"prompt {prompt} of image {image} must be one foreground click or one box: "
                "the Mask-DINO decoder knows no several points, background points, masks or texts"
            )
        # The only foreground point, wherever it stands among the unused ones.
        point = (prompts.points * clicks[..., None]).sum(-2)
        clicked = torch.cat([point, prompts.extents], dim=-1)
        boxes = torch.where(prompts.has_box[..., None], box_xyxy_to_cxcywh(prompts.boxes), clicked)
        height, width = padded_size
        scale = boxes.new_tensor([width, height, width, height])
        click_type = CLICK if self.training else self.inference_click_type
        return boxes / scale, torch.where(prompts.has_box, BOX, click_type)

    def _heads(
        self,
        state: Tensor,
        anchor: Tensor,
        features: dict[str, Any],
        valid: Tensor,
        shape: tuple[int, int, int],
        predict_masks: bool,
    ) -> PromptOutput:
        *shape_of_tokens, number = shape
        # The second application of the same norm: the released weights were trained with it.
        tokens = self.norm(state).unflatten(1, shape_of_tokens)
        masked = tokens[:, :, :number]
        scores = self.score_head(masked).squeeze(-1)
        mask_logits = scores.new_empty(*scores.shape, 0, 0)
        if predict_masks:
            kernels = self.mask_head(masked)
            mask_logits = torch.einsum("bnkc,bchw->bnkhw", kernels, features["mask_features"])
        anchor = anchor.unflatten(1, shape_of_tokens)[:, :, :number]
        boxes = (self.box_head(masked) + inverse_sigmoid(anchor)).sigmoid()
        return PromptOutput(
            mask_logits=mask_logits,
            scores=scores,
            boxes=boxes,
            tokens=tokens,
            valid=valid,
            padded_size=features["padded_size"],
            context=features,
        )
