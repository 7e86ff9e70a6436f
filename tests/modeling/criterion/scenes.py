"""Small images with nested masks, prompts on them, and outputs that answer well or at random."""

import torch
from torch.nn import functional as F

from semsam.structures import (
    Boxes,
    Instances,
    PromptOutput,
    PromptTargets,
    box_xyxy_to_cxcywh,
    masks_to_boxes,
)

FRAME = (32, 32)
K = 4


def nested_scene(size=FRAME):
    """Three nested squares and one apart; two clicks, one in all three, one in the lone square."""
    height, width = size
    masks = torch.zeros(4, height, width, dtype=torch.bool)
    for i, (low, high) in enumerate([(0, 16), (4, 16), (8, 12)]):
        masks[i, low:high, low:high] = True
    masks[3, 18:24, 4:20] = True
    instances = Instances(size, gt_masks=masks, gt_boxes=Boxes(masks_to_boxes(masks)))
    levels = torch.tensor([[2, 0, 1], [3, -1, -1]])
    return instances, PromptTargets(seeds=torch.tensor([1, 3]), levels=levels)


def empty_scene(size=FRAME):
    masks = torch.zeros(0, *size, dtype=torch.bool)
    instances = Instances(size, gt_masks=masks, gt_boxes=Boxes(torch.zeros(0, 4)))
    targets = PromptTargets(torch.zeros(0, dtype=torch.long), torch.zeros(0, 3, dtype=torch.long))
    return instances, targets


def random_output(images=1, prompts=2, layers=2, masks=K, frame=FRAME, seed=0):
    """Leaves that take gradients; the last layer holds the others in ``aux``."""
    draw = torch.Generator().manual_seed(seed)

    def leaf(*shape):
        return torch.randn(*shape, generator=draw).requires_grad_()

    outputs = [
        PromptOutput(
            mask_logits=leaf(images, prompts, masks, frame[0] // 4, frame[1] // 4),
            scores=leaf(images, prompts, masks),
            boxes=leaf(images, prompts, masks, 4).sigmoid(),
            tokens=torch.zeros(images, prompts, masks, 1),
            valid=torch.ones(images, prompts, dtype=torch.bool),
            padded_size=frame,
        )
        for _ in range(layers)
    ]
    outputs[-1].aux.extend(outputs[:-1])
    return outputs[-1]


def perfect_output(instances, answers, frame=FRAME):
    """Full-resolution logits that draw instance ``answers[n][k]`` as mask k of prompt n."""
    answers = torch.tensor(answers)
    height, width = instances.image_size
    masks = F.pad(instances.gt_masks, (0, frame[1] - width, 0, frame[0] - height))
    scale = torch.tensor([frame[1], frame[0]] * 2)
    boxes = box_xyxy_to_cxcywh(instances.gt_boxes.tensor / scale)
    return PromptOutput(
        mask_logits=40.0 * (2 * masks[answers][None].float() - 1),
        scores=torch.ones(1, *answers.shape),
        boxes=boxes[answers][None],
        tokens=torch.zeros(1, *answers.shape, 1),
        valid=torch.ones(1, len(answers), dtype=torch.bool),
        padded_size=frame,
    )


def same_points_for_every_row(*shape, device=None):
    """Uniform draws that do not depend on how many rows are drawn at once."""
    draw = torch.Generator().manual_seed(shape[1])
    return torch.rand(shape[1:], generator=draw).expand(shape)


def pixel_centres(*shape, device=None):
    """Uniform draws of the centres of the frame's pixels: masks are sampled without blur there."""
    side = FRAME[0]
    return (torch.rand(shape).mul(side).floor() + 0.5) / side
