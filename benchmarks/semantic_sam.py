"""Seconds and memory of Semantic-SAM, part by part, against plain forms in the same run.

    python benchmarks/semantic_sam.py                 # SwinT at 1024x1024, all parts
    python benchmarks/semantic_sam.py --parts backbone decoder --side 640

Weights are random. Each part runs in a process of its own, so that its peak memory is its own. The
references compute the same results in the plain way: deformable attention by ``grid_sample`` of
each level with feed-forwards in one piece; a decoder that projects the image's values anew for
each call; a mapper that decodes and transforms all masks. What has no plain form has no ratio.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from benchmarks import mapper as mapper_benchmark
from benchmarks.measure import markdown, peak_gib, ratio, seconds, spread
from semsam import model_zoo
from semsam.config import get_cfg
from semsam.data.mappers import PromptableMapper
from semsam.inference import AutomaticMaskGenerator
from semsam.layers import blocks, ms_deform_attn
from semsam.modeling.meta_arch.promptable import PromptableSegmentor
from semsam.solver import build_optimizer, clip_gradients
from semsam.structures import Boxes, Instances, Prompts, PromptTargets, masks_to_boxes

HEADER = ("part", "seconds: median (range)", "plain form", "times faster", "peak GiB")


class Benchmark:
    """The parts, each a method that returns rows (name, times, reference times or None)."""

    def __init__(self, side: int, model: str, device: str, repeats: int) -> None:
        torch.manual_seed(0)
        self.side, self.repeats, self.device = side, repeats, device
        self.name = model
        self.rng = np.random.default_rng(0)

    def model(self) -> PromptableSegmentor:
        """The network with random weights."""
        return model_zoo.get(self.name, device=self.device, trained=False)  # type: ignore[return-value]

    def images(self, model: PromptableSegmentor) -> Any:
        """One image of noise, normalised."""
        image = torch.randint(0, 256, (3, self.side, self.side), dtype=torch.uint8)
        return model.preprocess([{"image": image}])

    def time(self, function: Any) -> list[float]:
        """Repeated times without gradients."""
        with torch.no_grad():
            return seconds(function, self.repeats)

    def backbone(self) -> list[tuple]:
        """Image -> maps."""
        model = self.model()
        tensor = self.images(model).tensor
        return [("backbone", self.time(lambda: model.backbone(tensor)), None)]

    def pixel_decoder(self) -> list[tuple]:
        """Maps -> multi-scale and mask features."""
        model = self.model()
        with torch.no_grad():
            maps = model.backbone(self.images(model).tensor)
        decoder = model.pixel_decoder
        assert decoder is not None
        times = self.time(lambda: decoder(maps))
        with (
            mock.patch.object(
                ms_deform_attn, "_weighted_gather", ms_deform_attn._sum_of_grid_samples
            ),
            mock.patch.object(blocks, "ROWS_PER_CHUNK", math.inf),
        ):
            plain = self.time(lambda: decoder(maps))
        return [("pixel decoder", times, plain)]

    def decoder(self) -> list[tuple]:
        """Clicks -> masks at stride 4, and what is prepared once an image."""
        model = self.model()
        with torch.no_grad():
            features = model.encode_image(self.images(model))
        rows: list[tuple] = [
            ("decoder: once an image", self.time(lambda: model.decoder.prepare(features)), None)
        ]
        for number in (1, 64, 200):
            prompts = Prompts.from_points(torch.rand(number, 2) * self.side).to(model.device)
            times = self.time(lambda: model.decode(features, prompts))  # noqa: B023
            plain = self.time(lambda: model.decode(model.decoder.prepare(features), prompts))  # noqa: B023
            rows.append((f"decoder: {number} clicks", times, plain))
        return rows

    def automatic_masks(self) -> list[tuple]:
        """1,024 clicks x 6 masks with every filter on quality off, end to end."""
        generator = AutomaticMaskGenerator(
            self.model(),
            pred_iou_thresh=None,
            stability_score_thresh=None,
            output_mode="coco_rle",
            min_size=self.side,
        )
        image = self.rng.integers(0, 256, (self.side, self.side, 3), dtype=np.uint8)
        return [("automatic masks, no filter", self.time(lambda: generator.generate(image)), None)]

    def training_step(self) -> list[tuple]:
        """Forward, losses, backward, clip, update: one image, 60 clicks."""
        model = self.model().train()
        optimizer = build_optimizer(get_cfg(), model)
        record = self.training_record()

        def step() -> None:
            optimizer.zero_grad()
            torch.stack(list(model([record]).values())).sum().backward()
            clip_gradients(model.parameters(), 0.01)
            optimizer.step()

        return [("training step, 60 clicks", seconds(step, self.repeats), None)]

    def training_record(self) -> dict[str, Any]:
        """100 rectangles of all sizes, and 60 clicks with the masks under them."""
        side, number = self.side, 100
        masks = torch.zeros(number, side, side, dtype=torch.bool)
        for i, size in enumerate(np.geomspace(side / 30, side / 2, number).astype(int)):
            x, y = self.rng.integers(0, side - size, 2)
            masks[i, y : y + size, x : x + size] = True
        boxes = masks_to_boxes(masks)
        seeds = torch.arange(60)
        points = (boxes[seeds, :2] + boxes[seeds, 2:]) / 2
        inside = masks[:, points[:, 1].long(), points[:, 0].long()].T
        levels = torch.full((60, 6), -1)
        for i, row in enumerate(inside):
            found = row.nonzero()[:6, 0]
            levels[i, : len(found)] = found
        return {
            "image": torch.randint(0, 256, (3, side, side), dtype=torch.uint8),
            "prompts": Prompts.from_points(points),
            "instances": Instances((side, side), gt_masks=masks, gt_boxes=Boxes(boxes)),
            "targets": PromptTargets(seeds, levels),
        }

    def mapper(self) -> list[tuple]:
        """2250x1500 JPEG with 100 run-length masks -> 1024x1024 and 60 prompts; one core."""
        torch.set_num_threads(1)
        record = mapper_benchmark.make_record(self.rng)
        mapper = PromptableMapper(get_cfg(), is_train=True)
        times = seconds(lambda: mapper({**record, "rng": self.rng}), self.repeats)
        plain = seconds(lambda: mapper_benchmark.plain_sample(record, self.rng), self.repeats)
        return [("mapper, one core", times, plain)]


PARTS = ("backbone", "pixel_decoder", "decoder", "automatic_masks", "training_step", "mapper")


def main() -> None:
    """Measure the parts and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--model", default="semantic-sam-swin-t", help="name in the model zoo")
    parser.add_argument("--side", type=int, default=1024, help="pixels of the square input")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    if len(args.parts) == 1:
        run_part(args)
        return
    print(
        f"{args.model}, {args.side}x{args.side}, {args.device}, {torch.get_num_threads()} threads,"
    )
    print(f"torch {torch.__version__}, float32\n")
    print(markdown(HEADER, []), flush=True)
    for part in args.parts:
        options = ["--model", args.model, "--side", str(args.side), "--device", args.device]
        command = [sys.executable, __file__, "--parts", part, *options]
        subprocess.run([*command, "--repeats", str(args.repeats)], check=True)


def run_part(args: argparse.Namespace) -> None:
    """Measure one part in this process and print its rows."""
    benchmark = Benchmark(args.side, args.model, args.device, args.repeats)
    for name, times, plain in getattr(benchmark, args.parts[0])():
        against = (spread(plain), ratio(plain, times)) if plain else ("", "")
        row = (name, spread(times), *against, f"{peak_gib():.1f}")
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
