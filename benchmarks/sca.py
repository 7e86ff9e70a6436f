"""Seconds of SCA's parts on one photo: image encoder, decoder and mixer, generation, end to end.

    python benchmarks/sca.py [--regions 16 64] [--device cpu]

SAM ViT-B at 1024 pixels, a mixer of 12 layers and a GPT-2 of its smallest released size, all with
random weights; captions are as long as they may be. The reference computes the same region by
region in the same run.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from measure import markdown, peak_gib, ratio, seconds, spread
from transformers import GPT2Config

from semsam.config import load_cfg
from semsam.modeling import build_model
from semsam.structures import PromptOutput, Prompts

CONFIG = Path(__file__).parents[1] / "configs/Base-SCA.yaml"


def build(device: str) -> Any:
    """The model, in evaluation mode."""
    with tempfile.TemporaryDirectory() as folder:
        GPT2Config(bos_token_id=50256, eos_token_id=50256).save_pretrained(folder)
        overrides = ["MODEL.CAPTION.LANGUAGE_MODEL", folder, "MODEL.CAPTION.PRETRAINED", "False"]
        torch.manual_seed(0)
        return build_model(load_cfg(CONFIG, [*overrides, "MODEL.DEVICE", device])).eval()


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--regions", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    model = build(args.device)
    head = model.region_heads["CaptionHead"]
    image = torch.randint(0, 256, (3, 768, 1024), dtype=torch.uint8)
    corners = torch.rand(max(args.regions), 2, 2) * torch.tensor([1024.0, 768.0])
    boxes = torch.cat([corners.amin(1), corners.amax(1) + 1], dim=1)
    rows = []

    def add(part: str, function: Any, one_by_one: Any = None) -> None:
        times = seconds(function, args.repeats)
        cells = [part, spread(times), "", "", f"{peak_gib():.1f}"]
        if one_by_one is not None:
            reference = seconds(one_by_one, 1)
            cells[2:4] = spread(reference), ratio(reference, times)
        rows.append(cells)
        print(" | ".join(cells), flush=True)

    with torch.inference_mode():
        images = model.preprocess([{"image": image}])
        add("image encoder", lambda: model.encode_image(images))
        features = model.encode_image(images)
        for number in args.regions:
            prompts = Prompts.from_boxes(boxes[:number]).to(model.device)
            single = [prompts.select(slice(i, i + 1)) for i in range(number)]

            def mix(asked: Prompts) -> torch.Tensor:
                output: PromptOutput = model.decode(features, asked)
                tokens = head.region_tokens(output)
                return head.prefix(tokens, ["caption"] * len(tokens))

            add(
                f"{number} regions: decoder and mixer",
                lambda: mix(prompts),  # noqa: B023
                lambda: [mix(one) for one in single],  # noqa: B023
            )
            prefix = mix(prompts)
            for beams in (1, 3):
                add(
                    f"{number} regions: generation, {beams} beams",
                    lambda: head.generate(prefix, beams),  # noqa: B023
                    lambda: [head.generate(p[None], beams) for p in prefix],  # noqa: B023
                )
    print(f"\ntorch {torch.__version__}, {args.device}, {torch.get_num_threads()} threads\n")
    header = ["part", "seconds: median (range)", "one by one", "times faster", "peak GiB"]
    print(markdown(header, rows))


if __name__ == "__main__":
    main()
