"""Semantic-SAM's training objective: one click, several granularities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from semsam.config import CfgNode, configurable
from semsam.modeling.build import CRITERION
from semsam.structures import Instances, PromptOutput, PromptTargets

from .losses import Rand
from .matcher import LevelMatcher, Pairs
from .pair_losses import PairLosses, count_pairs, named_layers, with_masks


@CRITERION.register
class ManyToManyCriterion(nn.Module):
    """Match a prompt's K masks to all ground-truth masks under its click, then supervise the pairs.

    The last layer's predictions are matched once and every layer is supervised with that
    assignment (Semantic-SAM, section 3.3). Masks without a partner get no loss. An image may know
    masks or boxes alone, and names or none; each trains what it knows.

    Args:
        matcher: how pairs are found.
        losses: what a pair costs.
    """

    @configurable
    def __init__(self, matcher: LevelMatcher, losses: PairLosses) -> None:
        super().__init__()
        self.matcher = matcher
        self.losses = losses

    @classmethod
    def from_config(cls, cfg: CfgNode, rand: Rand = torch.rand) -> dict:
        """Build both parts; ``rand`` is the source of uniform draws."""
        return {"matcher": LevelMatcher(cfg), "losses": PairLosses(cfg, rand=rand)}

    def forward(
        self,
        output: PromptOutput,
        instances: list[Instances],
        targets: list[PromptTargets],
    ) -> dict[str, Tensor]:
        """Weighted losses of a batch.

        Args:
            output: predictions of B images, earlier layers in ``aux``.
            instances: ``gt_boxes`` and, where they are known, ``gt_masks`` of each image, in the
                network's input frame.
            targets: of each image's prompts.

        Returns:
            Scalars: the last layer's under their plain names, those of ``aux[i]`` with ``_i``.
            Images without instances and prompts that are not valid add nothing.
        """
        return self.supervise(output, instances, self.match(output, instances, targets))

    def supervise(
        self, output: PromptOutput, instances: list[Instances], pairs: list[Pairs]
    ) -> dict[str, Tensor]:
        """Weighted losses of pairs that were matched, as ``forward`` names them."""
        counts = count_pairs(instances, pairs, output.scores.device)
        shapes = with_masks(instances, pairs)
        losses: dict[str, Tensor] = {}
        for suffix, layer in named_layers(output):
            points = self.losses.draw_points(layer, shapes)
            terms = self.losses(layer, instances, pairs, points, counts)
            losses.update({name + suffix: loss for name, loss in terms.items()})
        return losses

    def match(
        self,
        output: PromptOutput,
        instances: list[Instances],
        targets: list[PromptTargets],
        more: Sequence[Tensor] | None = None,
    ) -> list[Pairs]:
        """The pairs of each image, matched at uniform points that an image's prompts share.

        Args:
            output: as for ``forward``.
            instances: as for ``forward``.
            targets: as for ``forward``.
            more: for each image (n, K, L) that is added to the cost of its n prompts.
        """
        pairs = []
        for image, (inst, target) in enumerate(zip(instances, targets, strict=True)):
            points = self.losses.rand(1, self.losses.num_points, 2, device=output.scores.device)
            cost = None if more is None else more[image]
            pairs.append(self.matcher(output, inst, target, points[0], image, cost))
        return pairs
