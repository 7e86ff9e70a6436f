"""SAM's prompt encoder and two-way mask decoder (Kirillov et al. 2023, appendix A)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from semsam.config import CfgNode, configurable
from semsam.layers.blocks import MLP
from semsam.layers.two_way import TwoWayTransformer, prompts_at_once
from semsam.modeling.build import DECODER
from semsam.structures import PromptOutput, Prompts


@DECODER.register
class SamDecoder(nn.Module):
    """Each prompt is a set of tokens that exchange with the image: points, corners, output tokens.

    Of a prompt's K + 1 masks the first answers a prompt that is not ambiguous (``single``) and the
    others one that is (``levels``). Prompts of different kinds (a click, a box, three clicks) have
    different numbers of tokens; those of one kind are decoded together, so that a result does not
    depend on what else is asked. Key names are transformers', and so are the modules but for the
    two-way transformer.

    Args:
        image_size: side of the padded input, in pixels.
        patch_size: stride of the image embedding.
        hidden_dim: channels of tokens and image embedding.
        num_layers: two-way attention blocks.
        num_heads: attention heads.
        dim_feedforward: hidden channels of a block's MLP.
        num_tokens: K, masks of an ambiguous prompt.
        iou_head_dim: hidden channels of the score head.
        iou_head_depth: layers of the score head.
        mask_in_channels: channels in the encoder of mask prompts.
        layer_norm_eps: of the two-way blocks. segment-anything has 1e-5; transformers, and so the
            models that were trained with it (SCA), 1e-6.
        num_extra_tokens: further tokens a prompt for region heads; they have no mask.
        text_dim: channels of texts as prompts; 0 if it knows none. A text becomes one token more.
    """

    #: Only prompts are answered.
    num_queries = 0

    @configurable
    def __init__(
        self,
        *,
        image_size: int = 1024,
        patch_size: int = 16,
        hidden_dim: int = 256,
        num_layers: int = 2,
        num_heads: int = 8,
        dim_feedforward: int = 2048,
        num_tokens: int = 3,
        iou_head_dim: int = 256,
        iou_head_depth: int = 3,
        mask_in_channels: int = 16,
        layer_norm_eps: float = 1e-5,
        num_extra_tokens: int = 0,
        text_dim: int = 0,
    ) -> None:
        from transformers.models.sam.configuration_sam import (
            SamConfig,
            SamMaskDecoderConfig,
            SamPromptEncoderConfig,
            SamVisionConfig,
        )
        from transformers.models.sam.modeling_sam import SamMaskDecoder, SamPromptEncoder

        super().__init__()
        self.token_dim = hidden_dim
        self.num_tokens = num_tokens
        self.prompt_encoder = SamPromptEncoder(
            SamConfig(
                vision_config=SamVisionConfig(
                    hidden_size=2 * hidden_dim, num_pos_feats=hidden_dim // 2
                ),
                prompt_encoder_config=SamPromptEncoderConfig(
                    hidden_size=hidden_dim,
                    image_size=image_size,
                    patch_size=patch_size,
                    mask_input_channels=mask_in_channels,
                ),
            )
        )
        # Random frequencies are drawn once and never trained. transformers draws them hundreds of
        # times higher than segment-anything does, and places near each other would share nothing.
        frequencies = self.prompt_encoder.shared_embedding.positional_embedding
        nn.init.normal_(frequencies.requires_grad_(False))
        self.mask_decoder = SamMaskDecoder(
            SamMaskDecoderConfig(
                hidden_size=hidden_dim,
                num_hidden_layers=0,
                num_attention_heads=num_heads,
                num_multimask_outputs=num_tokens,
                iou_head_depth=iou_head_depth,
                iou_head_hidden_dim=iou_head_dim,
            )
        )
        transformer = TwoWayTransformer(
            hidden_dim, num_layers, num_heads, dim_feedforward, layer_norm_eps
        )
        self.mask_decoder.add_module("transformer", transformer)
        self.extra_tokens = nn.Embedding(num_extra_tokens, hidden_dim) if num_extra_tokens else None
        self.text_dim = text_dim
        self.text_encoder = MLP(text_dim, hidden_dim, hidden_dim, 3) if text_dim else None

    @staticmethod
    def num_masks(cfg: CfgNode) -> int:
        """Masks a prompt: those of an ambiguous one, and one more."""
        return cfg.MODEL.DECODER.NUM_TOKENS + 1

    @classmethod
    def from_config(cls, cfg: CfgNode, num_extra_tokens: int = 0) -> dict[str, Any]:
        """Named arguments from ``MODEL.DECODER``, ``MODEL.SAM`` and ``MODEL.TEXT_CLASS``."""
        node, sam, text = cfg.MODEL.DECODER, cfg.MODEL.SAM, cfg.MODEL.TEXT_CLASS
        return {
            "image_size": sam.IMAGE_SIZE,
            "patch_size": sam.PATCH_SIZE,
            "hidden_dim": node.HIDDEN_DIM,
            "num_layers": node.NUM_LAYERS,
            "num_heads": node.NUM_HEADS,
            "dim_feedforward": node.DIM_FEEDFORWARD,
            "num_tokens": node.NUM_TOKENS,
            "iou_head_dim": sam.IOU_HEAD_DIM,
            "iou_head_depth": sam.IOU_HEAD_DEPTH,
            "mask_in_channels": sam.MASK_IN_CHANNELS,
            "layer_norm_eps": sam.LAYER_NORM_EPS,
            "num_extra_tokens": num_extra_tokens,
            "text_dim": text.EMBED_DIM if text.TEXT_PROMPTS else 0,
        }

    def prepare(self, features: dict[str, Any]) -> dict[str, Any]:
        """Add what depends on the image alone.

        Args:
            features: ``image_embedding`` (B, C, h, w).

        Returns:
            ``features`` with ``position``, the (1, C, h, w) encoding of its cells, and ``places``,
            what it is to each block of the decoder.
        """
        image = features["image_embedding"]
        embed = self.prompt_encoder.shared_embedding
        frame_height, frame_width = self.prompt_encoder.image_embedding_size
        y = (torch.arange(image.shape[-2], device=image.device) + 0.5) / frame_height
        x = (torch.arange(image.shape[-1], device=image.device) + 0.5) / frame_width
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        position = embed(grid).permute(2, 0, 1)[None]
        places = self.mask_decoder.transformer.project(position)
        return {**features, "position": position, "places": places}

    def forward(
        self, features: dict[str, Any], prompts: Prompts, predict_masks: bool = True
    ) -> PromptOutput:
        """Answer every prompt with K + 1 masks.

        Args:
            features: from ``prepare``: ``image_embedding`` (B, C, h, w), ``position``, ``places``,
                ``padded_size``.
            prompts: any number of foreground and background points, a box, a text, a mask, or all
                of them; not a mask alone.
            predict_masks: False to leave the masks out; see ``PromptOutput.mask_logits``.

        Returns:
            ``tokens``: the masks' K + 1, the extra ones, the score's, and the prompt's own.
            ``context``: the features, ``prompts``; ``prompt_tokens`` (B, N, S, C), each prompt as
            it enters; ``prompt_features`` (B, N, C, h, w), the image as it leaves it;
            ``dense_prompt`` (C, 1, 1), what is added to the image for it where it has no mask;
            ``tokens_used`` and ``prompt_tokens_used`` (B, N, ...), which tokens are no padding.

        Raises:
            ValueError: if a prompt holds nothing, or a text that the decoder cannot read.
        """
        batch, number = prompts.valid.shape
        counts = (prompts.labels >= 0).sum(-1)
        self._check_texts(prompts)
        empty = prompts.valid & (counts == 0) & ~prompts.has_box & ~prompts.has_text
        if bool(empty.any()):
            image, prompt = empty.nonzero()[0].tolist()
            raise ValueError(
                f"prompt {prompt} of image {image} has neither a point nor a box nor a text"
            )
        kinds = 8 * counts + 4 * prompts.has_text + 2 * prompts.has_box + prompts.has_mask
        kinds = kinds.masked_fill(~prompts.valid, -1).flatten()
        rows = [(kinds == kind).nonzero()[:, 0] for kind in kinds.unique().tolist() if kind >= 0]
        step = prompts_at_once(kinds.device)
        rows = [part for row in rows for part in row.split(step)]
        parts = [self._answer(features, prompts, row, predict_masks) for row in rows]
        if not parts:
            rows, parts = [kinds.new_zeros(0)], [self._no_answer(features, predict_masks)]
        answer = _Answer(
            *(_scatter(part, rows, (batch, number)) for part in zip(*parts, strict=True))
        )
        one_hint = (counts + prompts.has_text.long()) == 1
        several = one_hint & ~prompts.has_box & ~prompts.has_mask
        answering = several[..., None].expand(-1, -1, self.num_tokens + 1).clone()
        answering[..., 0] = ~several
        return PromptOutput(
            mask_logits=answer.masks,
            scores=answer.scores,
            boxes=None,
            tokens=answer.tokens,
            valid=prompts.valid,
            padded_size=features["padded_size"],
            levels=tuple(range(1, self.num_tokens + 1)),
            single=0,
            answering=answering,
            context={
                **features,
                "prompts": prompts,
                "tokens_used": answer.tokens_used,
                "prompt_tokens": answer.prompt_tokens,
                "prompt_tokens_used": answer.prompt_tokens_used,
                "prompt_features": answer.prompt_features,
                "dense_prompt": self.prompt_encoder.no_mask_embed.weight[0, :, None, None],
            },
        )

    def _check_texts(self, prompts: Prompts) -> None:
        """Raise ValueError if a prompt has a text that the decoder cannot read."""
        if not bool((prompts.has_text & prompts.valid).any()):
            return
        if not self.text_dim:
            raise ValueError(
                "a prompt has a text, and this decoder has no encoder of texts: train a model with "
                "MODEL.TEXT_CLASS.TEXT_PROMPTS True, or leave texts out"
            )
        if prompts.texts.shape[-1] != self.text_dim:
            raise ValueError(
                f"texts of prompts have {prompts.texts.shape[-1]} channels, this decoder reads "
                f"{self.text_dim}: they come from another text encoder than the model's"
            )

    def _answer(
        self, features: dict[str, Any], prompts: Prompts, rows: Tensor, predict_masks: bool
    ) -> _Answer:
        """Decode prompts of one kind, given by their position among all B x N."""
        sparse, dense = self._embed(prompts, rows)
        decoder, number = self.mask_decoder, len(rows)
        own = [decoder.mask_tokens.weight, decoder.iou_token.weight]
        if self.extra_tokens is not None:
            own.insert(1, self.extra_tokens.weight)
        outputs = torch.cat(own)
        tokens = torch.cat([outputs.expand(number, -1, -1), sparse.to(outputs.dtype)], dim=1)
        images = rows // max(prompts.num_prompts, 1)
        image = features["image_embedding"][images] + dense
        tokens, image = decoder.transformer(tokens, image, features["places"])
        masks, scores = self._heads(tokens, tokens[:, len(outputs) - 1], image, predict_masks)
        return _Answer(masks, scores, tokens, _all(tokens), sparse, _all(sparse), image)

    def _no_answer(self, features: dict[str, Any], predict_masks: bool) -> _Answer:
        """The answer to no prompt at all; transformers' attention cannot be asked for it."""
        image = features["image_embedding"][:0]
        sparse = image.new_zeros(0, 0, self.token_dim)
        tokens = image.new_zeros(0, self.num_tokens + 2, self.token_dim)
        masks, scores = self._heads(tokens, tokens[:, 0], image, predict_masks)
        return _Answer(masks, scores, tokens, _all(tokens), sparse, _all(sparse), image)

    def _embed(self, prompts: Prompts, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (G, S, C) of prompts of one kind, and what is added to the image, (G, C, h, w)."""
        labels = prompts.labels.flatten(0, 1)[rows]
        # Unused points may stand anywhere; those in use come first, in their order.
        order = (labels < 0).sort(dim=1, stable=True).indices
        order = order[:, : int((labels[:1] >= 0).sum())]
        points = prompts.points.flatten(0, 1)[rows].gather(1, order[..., None].expand(-1, -1, 2))
        boxes = prompts.boxes.flatten(0, 1)[rows]
        with_box = bool(prompts.has_box.flatten()[rows[:1]].any())
        with_mask = bool(prompts.has_mask.flatten()[rows[:1]].any())
        sparse, dense = self.prompt_encoder(
            input_points=points[None] if order.shape[1] else None,
            input_labels=labels.gather(1, order)[None],
            input_boxes=boxes[None] if with_box else None,
            input_masks=prompts.masks.flatten(0, 1)[rows][:, None] if with_mask else None,
        )
        parts = [points.new_zeros(len(rows), 0, self.token_dim) if sparse is None else sparse[0]]
        if self.text_encoder is not None and bool(prompts.has_text.flatten()[rows[:1]].any()):
            token = self.text_encoder(prompts.texts.flatten(0, 1)[rows])[:, None]
            parts.append(token.to(parts[0].dtype))
        return torch.cat(parts, dim=1), dense

    def _heads(
        self, tokens: Tensor, score_token: Tensor, image: Tensor, predict_masks: bool
    ) -> tuple[Tensor, Tensor]:
        """(G, T, C) tokens, (G, C) token, (G, C, h, w) image -> masks and scores of each token."""
        decoder = self.mask_decoder
        scores = decoder.iou_prediction_head(score_token)
        if not predict_masks:
            return scores.new_empty(*scores.shape, 0, 0), scores
        image = decoder.activation(decoder.upscale_layer_norm(decoder.upscale_conv1(image)))
        image = decoder.activation(decoder.upscale_conv2(image))
        kernels = torch.stack(
            [mlp(tokens[:, i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], dim=1
        )
        return torch.einsum("gkc,gchw->gkhw", kernels, image), scores


class _Answer(NamedTuple):
    """What is decoded from G prompts of one kind."""

    masks: Tensor
    scores: Tensor
    tokens: Tensor
    tokens_used: Tensor
    prompt_tokens: Tensor
    prompt_tokens_used: Tensor
    prompt_features: Tensor


def _all(tokens: Tensor) -> Tensor:
    """(G, T) True for (G, T, C) tokens."""
    return torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)


def _scatter(parts: Sequence[Tensor], rows: list[Tensor], shape: tuple[int, int]) -> Tensor:
    """Put the (G, ...) parts into one (B, N, ...), zeros where nothing goes; T may differ."""
    total = shape[0] * shape[1]
    if len(parts) == 1 and len(rows[0]) == total:
        return parts[0].unflatten(0, shape)
    tail = [max(sizes) for sizes in zip(*(p.shape[1:] for p in parts), strict=True)]
    # Under autocast kinds differ: what a mask adds to the image is in half precision.
    dtype = functools.reduce(torch.promote_types, (part.dtype for part in parts))
    whole = parts[0].new_zeros(total, *tail, dtype=dtype)
    for part, row in zip(parts, rows, strict=True):
        place: Any = (row, *(slice(size) for size in part.shape[1:]))
        whole[place] = part.to(dtype)
    return whole.unflatten(0, shape)
