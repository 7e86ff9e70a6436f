"""What it takes to train Semantic-SAM on all of SA-1B, from counted products and stated rates.

    python benchmarks/scale.py --gpu-tflops 100 --images-per-core 20

Products of one image are counted on this machine; rates of machines that are not at hand are
options, whose defaults docs/scale.md explains.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import markdown
from semsam.config import load_cfg
from semsam.modeling import build_model
from semsam.structures import Prompts

CONFIGS = Path(__file__).resolve().parents[1] / "configs/semantic_sam"
#: SA-1B's photos (Kirillov et al. 2023, section 5).
IMAGES = 11.2e6
#: A backward pass has two products for each of the forward pass.
PASSES = 3


def count_tflop(name: str, clicks: int) -> tuple[float, float]:
    """TFLOP of a forward pass of one 1024x1024 image, and millions of parameters."""
    cfg = load_cfg(CONFIGS / f"{name}.yaml", ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg).eval()
    image = {"image": torch.zeros(3, 1024, 1024, dtype=torch.uint8)}
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        features = model.encode_image(model.preprocess([image]))
        model.decode(features, Prompts.from_points(torch.rand(clicks, 2) * 1000))
    parameters = sum(p.numel() for p in model.parameters())
    return counter.get_total_flops() / 1e12, parameters / 1e6


def main() -> None:
    """Count and print a table a model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--configs", nargs="+", default=["semantic_sam_swin_t_sa1b", "semantic_sam_swin_l_sa1b"])
    add("--clicks", type=int, default=60)
    add("--gpu-tflops", type=float, default=100, help="that a GPU reaches in training")
    add("--images-per-core", type=float, default=20, help="samples a second of one CPU core")
    add("--row-mb", type=float, default=1.3, help="of a row of a shard")
    add("--link-gb", type=float, default=25, help="GB/s between a GPU and other machines")
    add("--batch", type=int, default=2, help="images of a GPU in a step")
    args = parser.parse_args()
    for name in args.configs:
        tflop, parameters = count_tflop(name, args.clicks)
        seconds = PASSES * tflop / args.gpu_tflops
        # Each GPU sends and receives its gradients about once: float32.
        exchange = 2 * parameters * 4e6 / (args.link_gb * 1e9)
        rows = []
        for gpus in (8, 64, 512):
            # Exchange overlaps with the backward pass, two thirds of a step.
            shared = 0.0 if gpus == 8 else max(0.0, exchange - args.batch * seconds * 2 / 3)
            step = args.batch * seconds + shared
            rate = gpus * args.batch / step
            rows.append(
                (
                    str(gpus),
                    f"{rate:,.0f}",
                    f"{IMAGES / rate / 3600:.1f}",
                    f"{rate * args.row_mb / 1e3:.1f}",
                    f"{rate / gpus / args.images_per_core:.1f}",
                    f"{shared / step:.0%}",
                )
            )
        print(
            f"{name}: {parameters:.0f} M parameters, {PASSES * tflop:.2f} TFLOP an image, "
            f"{seconds * 1e3:.0f} ms at {args.gpu_tflops:g} TFLOP/s; gradients of a step "
            f"{parameters * 4e-3:.2f} GB, exchanged in {exchange * 1e3:.0f} ms\n"
        )
        header = ("GPUs", "images/s", "hours an epoch", "read GB/s", "cores a GPU", "waiting")
        print(markdown(header, rows) + "\n")


if __name__ == "__main__":
    main()
