"""Each mask in the space of a text encoder, where any list of names is a classifier."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semsam.config import CfgNode, configurable
from semsam.layers.blocks import MLP
from semsam.modeling.build import (
    DECODER,
    REGION_HEAD,
    build_text_encoder,
    first_token_of_head,
)
from semsam.modeling.text.classifier import (
    Classifier,
    build_classifier,
    check_encoder,
    class_scores,
)
from semsam.modeling.text.encoder import TextEncoder, is_same_encoder, model_label
from semsam.structures import Instances, PromptOutput, PromptTargets, TextPrediction

#: Largest logarithm of the scale, as CLIP was trained: a cosine counts a hundred times at most.
MAX_LOGIT_SCALE = math.log(100)


@REGION_HEAD.register
class TextClassHead(nn.Module):
    """Gives each mask a unit vector to be compared with those of names (open-vocabulary SAM).

    It reads tokens of its own, one a mask, or the masks' tokens where it has none (Mask-DINO).
    The criterion trains it, by ``gt_text_embeddings`` of the instances: what a mask is called and
    which mask learns belong together.

    Args:
        token_dim: C, channels of the decoder's tokens.
        num_masks: K, masks a prompt.
        first_token: where its own tokens begin among a prompt's: the one of the cosines if it has
            one, then those of the names.
        embed_dim: D, channels of the text encoder.
        num_layers: from a token to the text space; 1 is a linear map without bias.
        parts: predict in the space of the names of parts, too, by a map of its own.
        semantic_tokens: it has a token of its own for each mask's name.
        hypernetworks: a network for the token of each mask in front of the maps.
        predict_cosine: it has a token that predicts how well each embedding fits.
        logit_scale: logarithm of the scale of cosines, at the start of training.
        learn_logit_scale: else the scale stays what it is here, whatever a checkpoint holds.
        text_encoder: label of the text encoder that the embeddings are trained for; "" for any.
        make_encoder: loads that encoder, when names are to be encoded.
    """

    reads_masks = False

    @configurable
    def __init__(
        self,
        *,
        token_dim: int,
        num_masks: int,
        first_token: int,
        embed_dim: int = 768,
        num_layers: int = 3,
        parts: bool = False,
        semantic_tokens: bool = True,
        hypernetworks: bool = True,
        predict_cosine: bool = True,
        logit_scale: float = math.log(1 / 0.07),
        learn_logit_scale: bool = True,
        text_encoder: str = "",
        make_encoder: Callable[[], TextEncoder] | None = None,
    ) -> None:
        super().__init__()
        self.num_masks = num_masks
        self.embed_dim = embed_dim
        self.text_encoder = text_encoder
        # Once, and no part of the model: it is large and does not learn.
        self._encoder = None if make_encoder is None else cache(make_encoder)
        self.cosine_token = first_token
        # The masks' own tokens are a prompt's first.
        self.first_name_token = first_token + predict_cosine if semantic_tokens else 0
        self.hypernetworks = None
        if hypernetworks:
            self.hypernetworks = nn.ModuleList(
                MLP(token_dim, token_dim, token_dim, 3) for _ in range(num_masks)
            )
        self.projections = nn.ModuleDict(
            {
                name: nn.Linear(token_dim, embed_dim, bias=False)
                if num_layers == 1
                else MLP(token_dim, token_dim, embed_dim, num_layers)
                for name in (("whole", "part") if parts else ("whole",))
            }
        )
        self.cosine_head = MLP(token_dim, token_dim, num_masks, 3) if predict_cosine else None
        self.fixed_logit_scale = None if learn_logit_scale else logit_scale
        self.logit_scale = nn.Parameter(torch.tensor(logit_scale), requires_grad=learn_logit_scale)

    @staticmethod
    def num_tokens(cfg: CfgNode) -> int:
        """Tokens of its own: one for the cosines, and one for each mask's name."""
        node = cfg.MODEL.TEXT_CLASS
        names = _num_masks(cfg) if node.SEMANTIC_TOKENS else 0
        return int(node.PREDICT_COSINE) + names

    @classmethod
    def from_config(cls, cfg: CfgNode, token_dim: int) -> dict[str, Any]:
        """Named arguments from ``MODEL.TEXT_CLASS`` and the decoder.

        Raises:
            ValueError: if it has tokens of its own, but the decoder's queries have none.
        """
        node, encoder = cfg.MODEL.TEXT_CLASS, cfg.MODEL.TEXT.MODEL
        own = node.SEMANTIC_TOKENS or node.HYPERNETWORKS or node.PREDICT_COSINE
        if cfg.MODEL.DECODER.NUM_QUERIES and own:
            raise ValueError(
                "the queries of MODEL.DECODER.NUM_QUERIES have no tokens for region heads: set "
                "SEMANTIC_TOKENS, HYPERNETWORKS and PREDICT_COSINE of MODEL.TEXT_CLASS to False"
            )
        return {
            "token_dim": token_dim,
            "num_masks": _num_masks(cfg),
            "first_token": _num_masks(cfg) + first_token_of_head(cfg, cls.__name__),
            "embed_dim": node.EMBED_DIM,
            "num_layers": node.NUM_LAYERS,
            "parts": node.PARTS,
            "semantic_tokens": node.SEMANTIC_TOKENS,
            "hypernetworks": node.HYPERNETWORKS,
            "predict_cosine": node.PREDICT_COSINE,
            "logit_scale": node.LOGIT_SCALE,
            "learn_logit_scale": node.LEARN_LOGIT_SCALE,
            "text_encoder": model_label(encoder) if encoder else "",
            "make_encoder": partial(build_text_encoder, cfg) if encoder else None,
        }

    def complete(self, output: PromptOutput) -> PromptOutput:
        """The answer, and that of every earlier layer, with ``text``.

        Args:
            output: of the decoder; K masks.
        """
        projected = {name: self.project(output, name) for name in self.projections}
        units = {name: F.normalize(x.float(), dim=-1) for name, x in projected.items()}
        cosines = None
        if self.cosine_head is not None:
            cosines = self.cosine_head(output.tokens[:, :, self.cosine_token])
        text = TextPrediction(units["whole"], units.get("part"), cosines, self.scale())
        return replace(output, text=text, aux=[self.complete(layer) for layer in output.aux])

    def project(self, output: PromptOutput, name: str = "whole") -> Tensor:
        """(B, N, K, D) embeddings of any length, for ``"whole"`` names or ``"part"`` names."""
        first = self.first_name_token
        # An image that is asked for everything has more masks than a prompt.
        number = self.num_masks if first or self.hypernetworks is not None else output.num_masks
        tokens = output.tokens[:, :, first : first + number]
        if self.hypernetworks is not None:
            tokens = torch.stack(
                [network(tokens[:, :, k]) for k, network in enumerate(self.hypernetworks)], dim=2
            )
        return self.projections[name](tokens)

    def scale(self) -> Tensor:
        """Scalar: a cosine times it is a logit."""
        if self.fixed_logit_scale is not None:
            return self.logit_scale.new_tensor(self.fixed_logit_scale).exp()
        return self.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()

    def check_encoder(self, name: str, file_name: str) -> None:
        """Find fault with the vectors of a training photo's names.

        Args:
            name: ``TextEncoder.name`` of the encoder that made them.
            file_name: of the photo, for the message.

        Raises:
            ValueError: if the head learns the space of another one; names both.
        """
        if self.text_encoder and not is_same_encoder(name, self.text_encoder):
            raise ValueError(
                f"'{file_name}': its names were encoded by '{name}', the model learns the space of "
                f"'{self.text_encoder}' (MODEL.TEXT.MODEL)"
            )

    def encode_classes(
        self, names: Sequence[str], templates: Sequence[str] = ("a photo of a {}.",)
    ) -> Classifier:
        """A vocabulary in the space of the model's text encoder, which is loaded for it once.

        Raises:
            ValueError: if the model's configuration names no text encoder, or one that has to
                learn first, or the names are none, empty or not all different.
            RuntimeError: if the encoder cannot be loaded.
        """
        if self._encoder is None:
            raise ValueError(
                "the model's configuration names no text encoder (MODEL.TEXT.MODEL) that could "
                "encode classes: give a classifier of tools/build_classifier.py"
            )
        encoder = self._encoder()
        if isinstance(encoder, nn.Module) and any(p.requires_grad for p in encoder.parameters()):
            raise ValueError(
                f"{type(encoder).__name__} (MODEL.TEXT.NAME) has random weights until it learns, "
                "and no model here trains it: name ClipTextEncoder or SentenceEncoder"
            )
        return build_classifier(names, encoder, templates)

    def check_classifier(self, classifier: Classifier) -> None:
        """Find fault with a vocabulary for the model.

        Raises:
            ValueError: if it was built with another text encoder, or has other channels than the
                embeddings; names both.
        """
        if self.text_encoder:
            check_encoder(classifier, self.text_encoder)
        if classifier.weights.shape[2] != self.embed_dim:
            raise ValueError(
                f"the classifier of '{classifier.encoder}' has {classifier.weights.shape[2]} "
                f"channels, the model's embeddings {self.embed_dim} (MODEL.TEXT_CLASS.EMBED_DIM)"
            )

    def score(self, embeddings: Tensor, classifier: Classifier, reduction: str = "max") -> Tensor:
        """Logits of a vocabulary.

        Args:
            embeddings: (..., D) unit-norm, of ``complete``.
            classifier: C names; its weights are best on the embeddings' device.
            reduction: what is taken of a name's sentences, ``"max"`` or ``"mean"``.

        Returns:
            (..., C) float32.

        Raises:
            ValueError: as ``check_classifier``.
        """
        self.check_classifier(classifier)
        return class_scores(embeddings, classifier, self.scale().detach(), reduction)

    def losses(
        self,
        output: PromptOutput,
        instances: list[Instances],
        targets: list[PromptTargets],
    ) -> dict[str, Tensor]:
        """None: the criterion has them."""
        return {}

    def inference(self, output: PromptOutput) -> dict[str, Any]:
        """Where each mask lies in the text space, masks from level 1 on.

        Returns:
            ``text_embeddings`` (B, N, K, D), and where it predicts them ``part_embeddings`` of the
            same shape and ``cosine_scores`` (B, N, K).
        """
        assert output.text is not None, "complete() comes first"
        text = output.text.select_masks(list(output.level_order))
        fields = {
            "text_embeddings": text.embeddings,
            "part_embeddings": text.parts,
            "cosine_scores": text.cosines,
        }
        return {name: values for name, values in fields.items() if values is not None}


def _num_masks(cfg: CfgNode) -> int:
    """K, masks a prompt, before the decoder is built."""
    return DECODER.get(cfg.MODEL.DECODER.NAME).num_masks(cfg)
