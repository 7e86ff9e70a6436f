"""SCA's caption head: region tokens, projected, in front of a causal language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semsam.config import CfgNode, configurable
from semsam.modeling.build import REGION_HEAD
from semsam.modeling.text.language_model import IGNORED, CaptionTokenizer, load_language_model
from semsam.structures import Instances, PromptOutput, PromptTargets

from .region_tokens import MaskTokens, MixerTokens, RoiTokens, init_normal

#: What the model is asked for; each has its own learned task tokens.
TASKS = ("recognition", "caption")


@REGION_HEAD.register
class CaptionHead(nn.Module):
    """Says what is in the region of each prompt (Huang et al. 2024, Segment and Caption Anything).

    The language model reads [task tokens, projected region tokens] and goes on in words, its own
    from the first on unless some are given. H captions a region where ``region_tokens`` gives H
    sets of tokens.

    Args:
        region_tokens: ``PromptOutput`` -> (R, H, Q, C) of the R valid prompts; Q is its
            ``num_queries``.
        projection: C -> D, the language model's channels.
        language_model: transformers' causal language model.
        tokenizer: of that model.
        num_task_tokens: learned tokens a task.
        task: one of ``TASKS``, for prompts that name none.
        train_language_model: else it is frozen, and stays in evaluation mode: no dropout.
        label_smoothing: of the cross-entropy.
        num_beams: of the search for a caption; 1 is greedy.
        max_new_tokens: longest caption in tokens, the end included.
        init_std: standard deviation of the initial projection and task tokens.

    Raises:
        ValueError: if the task is unknown, or a caption does not fit into the language model.
    """

    num_tokens = 0
    reads_masks = False

    @configurable
    def __init__(
        self,
        *,
        region_tokens: nn.Module,
        projection: nn.Module,
        language_model: nn.Module,
        tokenizer: CaptionTokenizer,
        num_task_tokens: int = 6,
        task: str = "caption",
        train_language_model: bool = False,
        label_smoothing: float = 0.1,
        num_beams: int = 3,
        max_new_tokens: int = 19,
        init_std: float = 0.02,
    ) -> None:
        super().__init__()
        if task not in TASKS:
            raise ValueError(f"the task is one of {', '.join(TASKS)}, not '{task}'")
        self.region_tokens = region_tokens
        self.projection = projection
        self.language_model = language_model
        self.tokenizer = tokenizer
        self.num_task_tokens = num_task_tokens
        self.task = task
        self.train_language_model = train_language_model
        self.label_smoothing = label_smoothing
        self.num_beams = num_beams
        self.max_new_tokens = max_new_tokens
        shown: Any = num_task_tokens + region_tokens.num_queries
        _check_window(language_model, shown, max_new_tokens)
        width = language_model.get_input_embeddings().embedding_dim
        self.task_tokens = nn.Embedding(len(TASKS) * num_task_tokens, width)
        init_normal(self.task_tokens, init_std)
        init_normal(self.projection, init_std)
        language_model.requires_grad_(train_language_model)

    @classmethod
    def from_config(cls, cfg: CfgNode, token_dim: int) -> dict[str, Any]:
        """Named arguments from ``MODEL.CAPTION``; the mixer's width is the decoder's."""
        node = cfg.MODEL.CAPTION
        name, file = node.LANGUAGE_MODEL, node.GGUF_FILE
        language_model = load_language_model(name, file, node.PRETRAINED)
        words = language_model.get_input_embeddings()
        width, tokenizer = words.embedding_dim, node.TOKENIZER or name
        return {
            "region_tokens": _region_tokens(cfg, token_dim),
            "projection": build_projection(token_dim, width, node.PROJECTION, node.PROJECTION_NORM),
            "language_model": language_model,
            "tokenizer": CaptionTokenizer(tokenizer, node.MAX_LENGTH, file, words.num_embeddings),
            "num_task_tokens": node.NUM_TASK_TOKENS,
            "task": node.TASK,
            "train_language_model": node.TRAIN_LANGUAGE_MODEL,
            "label_smoothing": node.LABEL_SMOOTHING,
            "num_beams": node.NUM_BEAMS,
            "max_new_tokens": node.MAX_LENGTH - 1,
            "init_std": node.INIT_STD,
        }

    def train(self, mode: bool = True) -> CaptionHead:
        """Training mode; a frozen language model stays in evaluation mode."""
        super().train(mode)
        if not self.train_language_model:
            self.language_model.eval()
        return self

    def losses(
        self,
        output: PromptOutput,
        instances: list[Instances],
        targets: list[PromptTargets],
    ) -> dict[str, Tensor]:
        """Cross-entropy of the ground-truth captions, a mean over all their tokens.

        Args:
            output: of the decoder.
            instances: ``gt_captions``, a list of str; optionally ``gt_tasks``, one of ``TASKS``
                each.
            targets: ``seeds`` say which instance a prompt asks for.

        Returns:
            ``loss_caption``; a zero that is connected to the graph where there is no prompt.
        """
        captions, tasks = [], []
        for valid, inst, target in zip(output.valid, instances, targets, strict=True):
            for seed in target.seeds[valid[: len(target.seeds)]].tolist():
                captions.append(inst.gt_captions[seed])
                tasks.append(inst.gt_tasks[seed] if inst.has("gt_tasks") else self.task)
        prefix = self.prefix(self.region_tokens(output), tasks)
        if not captions:
            return {"loss_caption": prefix.sum() * 0}
        ids, mask = (x.to(prefix.device) for x in self.tokenizer.encode(captions))
        heads = len(prefix) // len(captions)
        ids, mask = (x.repeat_interleave(heads, dim=0) for x in (ids, mask))
        logits = self.logits(prefix, ids, mask)
        return {"loss_caption": caption_loss(logits, ids, mask, self.label_smoothing)}

    def inference(self, output: PromptOutput) -> dict[str, Any]:
        """A caption for each prompt.

        Returns:
            ``pred_captions``: B lists of N str, empty for prompts that are not valid.
            ``caption_scores``: (B, N) mean log-probability of the caption's tokens.
        """
        sentences, scores = self.describe(output)
        table = scores.new_zeros(output.valid.shape)
        table[output.valid] = scores
        words = iter(sentences)
        captions = [[next(words) if v else "" for v in row] for row in output.valid.tolist()]
        return {"pred_captions": captions, "caption_scores": table}

    def describe(
        self,
        output: PromptOutput,
        task: str | None = None,
        num_beams: int | None = None,
        text_prefix: str = "",
        masks: Tensor | None = None,
    ) -> tuple[list[str], Tensor]:
        """Captions of the R valid prompts, images in order, generated in one batch.

        Args:
            output: of the decoder.
            task: other than the head's own.
            num_beams: other than the head's own.
            text_prefix: words that every sentence begins with.
            masks: (R,) which mask of a prompt is meant, where each of the levels has a caption of
                its own; the best if None.

        Returns:
            R sentences, and (R,) the mean log-probability of their tokens, the given ones apart.

        Raises:
            ValueError: if the task is unknown, or the given words leave no token for others.
        """
        tokens = self.region_tokens(output)
        regions, heads = tokens.shape[:2]
        prefix = self.prefix(tokens, [task or self.task] * regions)
        given = self.tokenizer.encode_beginning(text_prefix).to(prefix.device)
        given = given.expand(len(prefix), -1)
        words = self.language_model.get_input_embeddings()(given).to(prefix.dtype)
        left = self.max_new_tokens - given.shape[1]
        if left < 1:
            raise ValueError(
                f"the text prefix '{text_prefix}' has {given.shape[1]} tokens, and a caption of "
                f"this model at most {self.max_new_tokens}"
            )
        ids, scores = self.generate(torch.cat([prefix, words], dim=1), num_beams, left)
        ids = torch.cat([given, ids], dim=1)
        own = _own_captions(output, masks) if heads == len(output.level_order) else 0
        chosen = own + heads * torch.arange(regions, device=ids.device)
        return self.tokenizer.decode(ids[chosen]), scores[chosen]

    def prefix(self, tokens: Tensor, tasks: Sequence[str]) -> Tensor:
        """What the language model is shown.

        Args:
            tokens: (R, H, Q, C) from ``region_tokens``.
            tasks: R of ``TASKS``.

        Returns:
            (R * H, task tokens + Q, D), the captions of a region next to each other.

        Raises:
            ValueError: if a task is unknown.
        """
        unknown = sorted(set(tasks) - set(TASKS))
        if unknown:
            raise ValueError(f"tasks are {', '.join(TASKS)}, not {', '.join(unknown)}")
        seen = self.projection(tokens.flatten(0, 1))
        asked = tokens.new_tensor([TASKS.index(t) for t in tasks], dtype=torch.long)
        table = self.task_tokens.weight.unflatten(0, (len(TASKS), self.num_task_tokens))
        return torch.cat([table[asked].repeat_interleave(tokens.shape[1], dim=0), seen], dim=1)

    def logits(self, prefix: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Scores of the next token at the end of the prefix and at each of the L given ids.

        Args:
            prefix: (R, P, D).
            ids: (R, L).
            mask: (R, L) bool, False where ids are padding.

        Returns:
            (R, L + 1, vocabulary) float32.
        """
        words = self.language_model.get_input_embeddings()(ids)
        seen = mask.new_ones(prefix.shape[:2])
        result = self.language_model(
            inputs_embeds=torch.cat([prefix, words.to(prefix.dtype)], dim=1),
            attention_mask=torch.cat([seen, mask], dim=1).long(),
            logits_to_keep=ids.shape[1] + 1,
            use_cache=False,
        )
        return result.logits.float()

    @torch.no_grad()
    def generate(
        self, prefix: Tensor, num_beams: int | None = None, max_new_tokens: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Continue every prefix in words, all of them in one batch with a key-value cache.

        Args:
            prefix: (R, P, D).
            num_beams: other than the head's own.
            max_new_tokens: other than the head's own.

        Returns:
            ids: (R, L) int64, L at most ``max_new_tokens``; padding follows the end token.
            scores: (R,) mean log-probability of a caption's tokens.
        """
        if not len(prefix):
            return prefix.new_zeros(0, 1, dtype=torch.long), prefix.new_zeros(0)
        config = self.language_model.generation_config
        end = self.tokenizer.end if config.eos_token_id is None else config.eos_token_id
        ends = end if isinstance(end, list) else [end]
        beams = self.num_beams if num_beams is None else num_beams
        result = self.language_model.generate(
            inputs_embeds=prefix,
            attention_mask=torch.ones(prefix.shape[:2], dtype=torch.long, device=prefix.device),
            max_new_tokens=self.max_new_tokens if max_new_tokens is None else max_new_tokens,
            num_beams=beams,
            do_sample=False,
            eos_token_id=ends,
            pad_token_id=ends[0] if config.pad_token_id is None else config.pad_token_id,
            return_dict_in_generate=True,
            output_scores=True,
            # Ranks never wait for each other's sentences, also where training shards the weights.
            synced_gpus=False,
        )
        if beams > 1:
            return result.sequences, result.sequences_scores
        steps = self.language_model.compute_transition_scores(
            result.sequences, result.scores, normalize_logits=True
        )
        # The end token counts, the padding behind it does not.
        is_end = torch.isin(result.sequences, result.sequences.new_tensor(ends)).long()
        counted = is_end.cumsum(dim=1) == is_end
        total = steps.masked_fill(~counted, 0).sum(dim=1)
        return result.sequences, total / counted.sum(dim=1)


def _own_captions(output: PromptOutput, masks: Tensor | None) -> Tensor:
    """(R,) index of the level to which the (R,) masks belong; of no level: the best level."""
    levels = list(output.level_order)
    best = output.scores[output.valid][:, levels].argmax(dim=1)
    if masks is None:
        return best
    same = masks[:, None] == masks.new_tensor(levels)
    return torch.where(same.any(dim=1), same.int().argmax(dim=1), best)


def caption_loss(logits: Tensor, ids: Tensor, mask: Tensor, smoothing: float) -> Tensor:
    """Mean cross-entropy of the next token over all tokens that are no padding.

    Args:
        logits: (R, L + 1, V); row i predicts id i, the last row nothing.
        ids: (R, L).
        mask: (R, L) bool.
        smoothing: share of the target that is spread over the vocabulary.
    """
    wanted = ids.masked_fill(~mask, IGNORED)
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1),
        wanted.flatten(),
        ignore_index=IGNORED,
        label_smoothing=smoothing,
    )


def build_projection(dim: int, width: int, kind: str, norm: str) -> nn.Module:
    """From region tokens to the language model.

    Args:
        dim: channels of the tokens.
        width: channels of the language model.
        kind: ``"linear"``, or ``"mlp"`` of three layers.
        norm: ``""``, or ``"pre"`` or ``"post"``: a LayerNorm before or behind each layer.

    Raises:
        ValueError: if kind or norm is unknown.
    """
    if kind not in ("linear", "mlp") or norm not in ("", "pre", "post"):
        raise ValueError(f"projection '{kind}' with norm '{norm}': linear or mlp; '', pre or post")

    def layer(inputs: int) -> nn.Module:
        linear = nn.Linear(inputs, width)
        if not norm:
            return linear
        if norm == "pre":
            return nn.Sequential(nn.LayerNorm(inputs), linear)
        return nn.Sequential(linear, nn.LayerNorm(width))

    if kind == "linear":
        return layer(dim)
    return nn.Sequential(layer(dim), nn.GELU(), layer(width), nn.GELU(), layer(width))


def _check_window(language_model: nn.Module, shown: int, words: int) -> None:
    """Raise ValueError unless so many tokens that are shown and written fit into the positions."""
    config: Any = language_model.config
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and shown + words > positions:
        raise ValueError(
            f"{shown} task and region tokens and a caption of {words} need {shown + words} "
            f"positions, the language model has {positions}: lower MODEL.CAPTION.MAX_LENGTH"
        )


def _region_tokens(cfg: CfgNode, dim: int) -> nn.Module:
    node = cfg.MODEL.CAPTION
    mixer = (dim, node.NUM_LAYERS, cfg.MODEL.DECODER.NUM_HEADS, cfg.MODEL.DECODER.DIM_FEEDFORWARD)
    if node.TOKENS == "mixer":
        shape = (node.NUM_QUERIES, node.NUM_CAPTIONS)
        return MixerTokens(*mixer, *shape, node.MIXER_READS, node.MIXER_POOLED_SIZE, node.INIT_STD)
    if node.TOKENS == "masks":
        return MaskTokens(*mixer, node.INIT_STD)
    if node.TOKENS == "roi":
        return RoiTokens(node.ROI_SIZE)
    raise ValueError(f"MODEL.CAPTION.TOKENS is mixer, masks or roi, not '{node.TOKENS}'")
