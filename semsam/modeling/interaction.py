"""Rounds of prompts in one training step (SAM, appendix A): the user who corrects the model."""

from __future__ import annotations

import torch
from torch import Tensor

from semsam.modeling.criterion.losses import Rand
from semsam.modeling.criterion.pair_losses import shrink_masks
from semsam.structures import Instances, PromptOutput, Prompts, PromptTargets


def clicks_of_rounds(rounds: int, rand: Rand = torch.rand) -> list[bool]:
    """Whether each round after the first brings a click, or the mask alone.

    The last round, and one of the others at random, show only what the model itself can refine.

    Args:
        rounds: of a step, the first included.
        rand: source of uniform draws.
    """
    clicks = [True] * (rounds - 1)
    if rounds > 2:
        clicks[-1] = False
        clicks[int(rand(1).item() * (rounds - 2))] = False
    return clicks


@torch.no_grad()
def correct(
    output: PromptOutput,
    prompts: Prompts,
    instances: list[Instances],
    targets: list[PromptTargets],
    click: bool,
    rand: Rand = torch.rand,
) -> Prompts:
    """The prompts of the next round: what was asked, the best answer, and a click where it errs.

    The best answer is the one with the highest predicted score. A click lies on a cell of its error
    region, drawn uniformly; it is a foreground one where the mask lacks the cell. A prompt that is
    answered without error gets a click inside its mask. Where an image has no masks nobody knows
    what is wrong, and no click is given.

    Args:
        output: of the decoder; masks as they are answered become masks as they are asked.
        prompts: of the round before.
        instances: ``gt_masks`` of each image, if it has any, in the network's input frame.
        targets: ``seeds`` say which mask a prompt asks for.
        click: add the click; the mask alone otherwise.
        rand: source of uniform draws.
    """
    best = output.best_masks()[..., None, None, None]
    size = output.mask_logits.shape[-2:]
    masks = output.mask_logits.gather(2, best.expand(-1, -1, 1, *size))[:, :, 0]
    following = prompts.with_masks(masks.float())
    if not click:
        return following
    predicted, truth = masks > 0, torch.zeros_like(masks, dtype=torch.bool)
    known = torch.tensor([inst.has("gt_masks") for inst in instances], device=masks.device)
    for image, (inst, target) in enumerate(zip(instances, targets, strict=True)):
        wanted = target.seeds.clamp(min=0)
        if len(inst) and inst.has("gt_masks"):
            cells = shrink_masks(inst.gt_masks, output.padded_size, (size[0], size[1]))
            truth[image, : len(wanted)] = cells[wanted]
    wrong = predicted ^ truth
    perfect = ~wrong.flatten(2).any(-1)
    wrong = torch.where(perfect[..., None, None], truth, wrong)
    draws = rand(*wrong.shape, device=wrong.device).masked_fill(~wrong, -1.0)
    cell = draws.flatten(2).argmax(-1)
    labels = truth.flatten(2).gather(2, cell[..., None])[..., 0].long()
    labels = labels.masked_fill(~known[:, None], -1)
    return following.with_clicks(_centres(cell, (size[0], size[1]), output.padded_size), labels)


def _centres(cells: Tensor, size: tuple[int, int], frame_size: tuple[int, int]) -> Tensor:
    """(...,) positions in a flattened (h, w) grid -> (..., 2) x, y of the cells' centres."""
    x = (cells % size[1] + 0.5) * frame_size[1] / size[1]
    y = (cells.div(size[1], rounding_mode="floor") + 0.5) * frame_size[0] / size[0]
    return torch.stack([x, y], dim=-1)
