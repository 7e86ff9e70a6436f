"""Seconds of SCA's parts on one photo: image encoder, decoder and mixer, generation, end to end.

    python benchmarks/sca.py [--regions 16 64] [--dtype bfloat16] [--device cpu]

SAM ViT-B at 1024 pixels, a mixer of 12 layers and a GPT-2 of its smallest released size, all with
random weights; captions are as long as they may be. The reference computes the same region by
region in the same run. End to end is a folder of photos through ``RegionCaptioner``: resized,
encoded, described, a mask of the photo's size for each region.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import markdown, peak_gib, ratio, seconds, spread
from tokenizers import Tokenizer, models
from transformers import GPT2Config, PreTrainedTokenizerFast

from semsam import RegionCaptioner
from semsam.config import load_cfg
from semsam.modeling import build_model
from semsam.structures import PromptOutput, Prompts

CONFIG = Path(__file__).parents[1] / "configs/Base-SCA.yaml"
END = 50256


def build(device: str) -> Any:
    """The model, in evaluation mode."""
    words = Tokenizer(models.WordLevel({f"w{n}": n for n in range(END + 1)}, unk_token=f"w{END}"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token=f"w{END}")
    with tempfile.TemporaryDirectory() as folder:
        GPT2Config(bos_token_id=END, eos_token_id=END).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        overrides = ["MODEL.CAPTION.LANGUAGE_MODEL", folder, "MODEL.CAPTION.PRETRAINED", "False"]
        torch.manual_seed(0)
        model: Any = build_model(load_cfg(CONFIG, [*overrides, "MODEL.DEVICE", device])).eval()
        # It is read when it is first used.
        model.region_heads["CaptionHead"].tokenizer.decode(torch.zeros(1, 1, dtype=torch.long))
    return model


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--regions", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--photos", type=int, default=2, help="of the folder")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    model = build(args.device)
    captioner = RegionCaptioner(model, dtype=getattr(torch, args.dtype))
    head = captioner.head
    photo = np.random.default_rng(0).integers(0, 256, (768, 1024, 3)).astype(np.uint8)
    corners = torch.rand(max(args.regions), 2, 2) * torch.tensor([1023.0, 767.0])
    boxes = torch.cat([corners.amin(1), corners.amax(1) + 1], dim=1)
    rows: list[list[str]] = []

    def add(part: str, regions: int, function: Any, one_by_one: Any = None) -> None:
        times = seconds(function, args.repeats)
        rate = f"{regions / statistics.median(times):.1f}" if regions else ""
        cells = [part, spread(times), rate, "", "", f"{peak_gib():.1f}"]
        if one_by_one is not None:
            reference = seconds(one_by_one, 1)
            cells[3:5] = spread(reference), ratio(reference, times)
        rows.append(cells)
        print(" | ".join(cells), flush=True)

    def mix(features: dict[str, Any], asked: Prompts) -> torch.Tensor:
        output: PromptOutput = model.decode(features, asked)
        tokens = head.region_tokens(output)
        return head.prefix(tokens, ["caption"] * len(tokens))

    def caption_folder(number: int, beams: int) -> None:
        for _ in range(args.photos):
            captioner.set_image(photo)
            captioner.caption(boxes=boxes[:number], num_beams=beams)

    with captioner.predictor.inference():
        images = model.preprocess([{"image": torch.from_numpy(photo).permute(2, 0, 1)}])
        add("image encoder", 0, lambda: model.encode_image(images))
        features = model.encode_image(images)
        for number in args.regions:
            prompts = Prompts.from_boxes(boxes[:number]).to(model.device)
            single = [prompts.select(slice(i, i + 1)) for i in range(number)]
            add(
                f"{number} regions: decoder and mixer",
                number,
                lambda: mix(features, prompts),  # noqa: B023
                lambda: [mix(features, one) for one in single],  # noqa: B023
            )
            prefix = mix(features, prompts)
            for beams in (1, 3):
                add(
                    f"{number} regions: generation, {beams} beams",
                    number,
                    lambda: head.generate(prefix, beams),  # noqa: B023
                    lambda: [head.generate(p[None], beams) for p in prefix],  # noqa: B023
                )
    for number in args.regions:
        for beams in (1, 3):
            add(
                f"{number} regions on each of {args.photos} photos, {beams} beams",
                number * args.photos,
                lambda: caption_folder(number, beams),  # noqa: B023
            )
    setting = f"{args.device}, {args.dtype}, {torch.get_num_threads()} threads"
    print(f"\ntorch {torch.__version__}, {setting}\n")
    header = ["part", "seconds: median (range)", "regions/s", "one by one", "faster", "peak GiB"]
    print(markdown(header, rows))


if __name__ == "__main__":
    main()
