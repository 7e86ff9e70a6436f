"""SAM's training objective with K masks a prompt: only the best mask learns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semsam.config import CfgNode, configurable
from semsam.modeling.build import CRITERION
from semsam.structures import Instances, PromptOutput, PromptTargets

from .losses import Rand
from .matcher import Pairs
from .pair_losses import Counts, PairLosses, mean_over_ranks, named_layers, select_pairs


@CRITERION.register
class ManyToOneCriterion(nn.Module):
    """Compare a prompt's K masks with the one mask it was drawn from, and supervise the nearest.

    The nearest mask has the least sum of (unweighted) cross-entropy and dice loss; each decoder
    layer chooses its own. Where a decoder keeps some masks for prompts of another kind
    (``PromptOutput.answering``), those do not compete.

    Args:
        losses: what a pair costs.
    """

    @configurable
    def __init__(self, losses: PairLosses) -> None:
        super().__init__()
        self.losses = losses

    @classmethod
    def from_config(cls, cfg: CfgNode, rand: Rand = torch.rand) -> dict:
        """Every setting is one of ``PairLosses``; ``rand`` is the source of uniform draws."""
        return {"losses": PairLosses(cfg, rand=rand)}

    def forward(
        self,
        output: PromptOutput,
        instances: list[Instances],
        targets: list[PromptTargets],
    ) -> dict[str, Tensor]:
        """Weighted losses of a batch.

        Args:
            output: predictions of B images, earlier layers in ``aux``.
            instances: ``gt_masks`` and ``gt_boxes`` of each image, in the network's input frame.
            targets: of each image's prompts; ``levels`` are not used.

        Returns:
            Scalars: the last layer's under their plain names, those of ``aux[i]`` with ``_i``.
            Images without instances and prompts that are not valid add nothing.

        Raises:
            ValueError: if an image's objects have no masks.
        """
        if any(len(inst) and not inst.has("gt_masks") for inst in instances):
            raise ValueError(
                "ManyToOneCriterion compares masks, and objects of the batch have boxes alone; "
                "ManyToManyCriterion learns from both"
            )
        candidates = _all_masks(output, targets)
        prompts = sum(map(len, candidates)) // output.num_masks
        number = mean_over_ranks(prompts, output.scores.device)
        losses: dict[str, Tensor] = {}
        for suffix, layer in named_layers(output):
            points = self.losses.draw_points(layer, candidates)
            pairs, points = self._nearest(layer, instances, candidates, points)
            terms = self.losses(layer, instances, pairs, points, Counts(number, number))
            losses.update({name + suffix: loss for name, loss in terms.items()})
        return losses

    @torch.no_grad()
    def _nearest(
        self,
        output: PromptOutput,
        instances: list[Instances],
        candidates: list[Pairs],
        points: Tensor,
    ) -> tuple[list[Pairs], Tensor]:
        """Keep the nearest of each prompt's K candidates, and its (P, 2) points."""
        tokens = output.num_masks
        logits = select_pairs(output.mask_logits, candidates)
        terms = self.losses.mask_terms(logits, instances, candidates, points, output.padded_size)
        distance = sum(terms).view(-1, tokens)
        if output.answering is not None:
            competing = select_pairs(output.answering, candidates).view(-1, tokens)
            distance = distance.masked_fill(~competing, float("inf"))
        best = distance.argmin(dim=1)
        rows = torch.arange(len(best), device=best.device) * tokens + best
        sizes = [len(p) // tokens for p in candidates]
        pairs = [
            Pairs(p.prompts[::tokens], chosen, p.targets[::tokens])
            for p, chosen in zip(candidates, best.split(sizes), strict=True)
        ]
        return pairs, points[rows]


def _all_masks(output: PromptOutput, targets: list[PromptTargets]) -> list[Pairs]:
    """Every mask of every valid prompt, paired with the mask that the prompt was drawn from."""
    tokens = torch.arange(output.num_masks, device=output.scores.device)
    candidates = []
    for valid, target in zip(output.valid, targets, strict=True):
        usable = valid[: len(target.seeds)] & (target.seeds >= 0)
        prompts = usable.nonzero()[:, 0]
        candidates.append(
            Pairs(
                prompts.repeat_interleave(len(tokens)),
                tokens.repeat(len(prompts)),
                target.seeds[prompts].repeat_interleave(len(tokens)),
            )
        )
    return candidates
