"""Seconds of the training criteria at the size of SA-1B training, without a network.

    python benchmarks/criterion.py --prompts 60 --instances 100 --side 1024

Seconds are those of the CPU on one thread, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch

from semsam.config import get_cfg
from semsam.modeling.criterion import ManyToManyCriterion, ManyToOneCriterion
from semsam.structures import Boxes, Instances, PromptOutput, PromptTargets, masks_to_boxes


def main() -> None:
    """Print forward and backward seconds of each criterion."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--instances", type=int, default=100)
    parser.add_argument("--side", type=int, default=1024, help="pixels of the square input")
    parser.add_argument("--layers", type=int, default=9)
    args = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(1)
    cfg = get_cfg()
    instances, targets = nested_squares(args.prompts, args.instances, args.side)
    output = random_output(args.prompts, cfg.MODEL.DECODER.NUM_TOKENS, args.layers, args.side)
    pairs = int((targets.levels >= 0).sum())
    print(f"{args.prompts} prompts, {pairs} pairs, {args.layers} layers")
    for criterion in (ManyToManyCriterion(cfg), ManyToOneCriterion(cfg)):
        start = time.process_time()
        total = sum(criterion(output, [instances], [targets]).values())
        middle = time.process_time()
        total.backward()
        end = time.process_time()
        name = type(criterion).__name__
        print(f"{name:20s} forward {middle - start:6.2f} s, backward {end - middle:6.2f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.1f} GiB")


def nested_squares(prompts: int, number: int, side: int) -> tuple[Instances, PromptTargets]:
    """Squares of growing size, and prompts in them with up to six levels each."""
    masks = torch.zeros(number, side, side, dtype=torch.bool)
    for i in range(number):
        length = side // 20 + (side - side // 10) * i // number
        y, x = torch.randint(0, side - length, (2,)).tolist()
        masks[i, y : y + length, x : x + length] = True
    seeds = torch.arange(prompts) % number
    levels = torch.full((prompts, 6), -1)
    for prompt, seed in enumerate(seeds):
        y, x = masks[seed].nonzero()[0]
        containing = masks[:, y, x].nonzero()[:6, 0]
        levels[prompt, : len(containing)] = containing
    instances = Instances((side, side), gt_masks=masks, gt_boxes=Boxes(masks_to_boxes(masks)))
    return instances, PromptTargets(seeds, levels)


def random_output(prompts: int, tokens: int, layers: int, side: int) -> PromptOutput:
    """Random predictions of every layer, as leaves of the graph."""
    outputs = [
        PromptOutput(
            mask_logits=torch.randn(1, prompts, tokens, side // 4, side // 4).requires_grad_(),
            scores=torch.rand(1, prompts, tokens).requires_grad_(),
            boxes=torch.rand(1, prompts, tokens, 4).requires_grad_(),
            tokens=torch.zeros(1, prompts, tokens, 1),
            valid=torch.ones(1, prompts, dtype=torch.bool),
            padded_size=(side, side),
        )
        for _ in range(layers)
    ]
    outputs[-1].aux.extend(outputs[:-1])
    return outputs[-1]


if __name__ == "__main__":
    main()
