"""Semantic-SAM's text encoder, which learned with the model there.

Semantic-SAM (Li et al., 2023) has it from X-Decoder (Zou et al., 2023); neither was released with
weights that know names. No model of this package trains it: Naming learns from frozen encoders.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from semsam.config import CfgNode, configurable

from ..build import TEXT_ENCODER
from ..pretrained import load_processor
from .classifier import unit
from .encoder import encoder_name
from .features import tokenize


class _QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * (1.702 * x).sigmoid()


class _Block(nn.Module):
    """Attention and MLP, each after a norm and added to its input."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=1e-12)
        self.attn = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width, eps=1e-12)
        layers = {
            "c_fc": nn.Linear(width, 4 * width),
            "gelu": _QuickGELU(),
            "c_proj": nn.Linear(4 * width, width),
        }
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor, causal: Tensor | None, padding: Tensor | None) -> Tensor:
        y = self.ln_1(x)
        y, _ = self.attn(y, y, y, attn_mask=causal, key_padding_mask=padding, need_weights=False)
        x = x + y
        return x + self.mlp(self.ln_2(x))


class TextTransformer(nn.Module):
    """Token ids -> hidden states; CLIP's transformer, with the original's parameter names.

    Args:
        vocab_size: tokens that are known.
        context_length: longest text in tokens.
        width: channels.
        num_layers: blocks.
        num_heads: of each block.
        causal: tokens see those before them alone; else all but the padding.
    """

    def __init__(
        self,
        vocab_size: int,
        context_length: int,
        width: int,
        num_layers: int,
        num_heads: int,
        causal: bool = True,
    ) -> None:
        super().__init__()
        self.causal = causal
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(context_length, width))
        self.resblocks = nn.ModuleList(_Block(width, num_heads) for _ in range(num_layers))
        self.ln_final = nn.LayerNorm(width, eps=1e-12)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.02)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Hidden states.

        Args:
            ids: (N, L) int64, L at most the context length.
            mask: (N, L), zero where ids are padding.

        Returns:
            (N, L, width); what stands at padding means nothing.
        """
        length = ids.shape[1]
        x = self.token_embedding(ids) + self.positional_embedding[:length]
        later = padding = None
        if self.causal:
            later = torch.ones(length, length, dtype=torch.bool, device=ids.device).triu(1)
        else:
            padding = mask == 0
        for block in self.resblocks:
            x = block(x, later, padding)
        return self.ln_final(x)


@TEXT_ENCODER.register
class LanguageEncoder(nn.Module):
    """A transformer over CLIP's tokens whose last token is projected into the shared space.

    Args:
        tokenizer: CLIP's, of transformers.
        context_length: longest text in tokens, begin and end included; the rest is cut off.
        width: channels of the transformer.
        num_layers: its blocks.
        num_heads: heads of a block.
        dim_proj: D, channels of the shared space.
        causal: as for ``TextTransformer``.

    Attributes:
        dim: D.
        logit_scale: logarithm of the factor on similarities; learned.

    """

    @configurable
    def __init__(
        self,
        tokenizer: Any,
        context_length: int = 18,
        width: int = 512,
        num_layers: int = 12,
        num_heads: int = 8,
        dim_proj: int = 512,
        causal: bool = True,
    ) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._context_length = context_length
        self.dim = dim_proj
        self.lang_encoder = TextTransformer(
            len(tokenizer), context_length, width, num_layers, num_heads, causal
        )
        self.lang_proj = nn.Parameter(torch.empty(width, dim_proj))
        self.logit_scale = nn.Parameter(torch.ones([]))
        nn.init.trunc_normal_(self.lang_proj, std=0.02)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Named arguments from ``MODEL.TEXT``.

        Raises:
            ValueError: if no tokenizer is named.
            RuntimeError: if it cannot be loaded.
        """
        from transformers import CLIPTokenizer

        node, key = cfg.MODEL.TEXT, "MODEL.TEXT.MODEL"
        if not node.MODEL:
            raise ValueError(f"{key} is empty: name the tokenizer of LanguageEncoder")
        return {
            "tokenizer": load_processor(CLIPTokenizer, node.MODEL, key),
            "context_length": node.CONTEXT_LENGTH,
            "width": node.WIDTH,
            "num_layers": node.NUM_LAYERS,
            "num_heads": node.NUM_HEADS,
            "dim_proj": node.DIM_PROJ,
            "causal": node.CAUSAL,
        }

    @property
    def name(self) -> str:
        """See ``TextEncoder``; another one after every step of training."""
        return encoder_name(type(self).__name__, self.state_dict())

    def forward(self, texts: Sequence[str]) -> Tensor:
        """(N, D) float32 features of unit length of N texts, at least one."""
        tokens = tokenize(self._tokenizer, texts, self._context_length)
        tokens = tokens.to(self.lang_proj.device)
        return unit(self.project(tokens["input_ids"], tokens["attention_mask"]))

    def project(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Features that are not yet of unit length.

        Args:
            ids: (N, L) int64; the end token has the highest id of all.
            mask: (N, L), zero where ids are padding.

        Returns:
            (N, D).
        """
        hidden = self.lang_encoder(ids, mask)
        # The padding may be the end token again; the first one ends the text.
        end = ids.argmax(dim=1)
        return hidden[torch.arange(len(ids), device=ids.device), end] @ self.lang_proj
