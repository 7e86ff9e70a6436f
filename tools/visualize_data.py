"""Draw what the model will see: mapped images, masks or captions, prompts, and their answers.

python tools/visualize_data.py --config-file configs/FILE.yaml --output DIR [--number N] [--test]
    [KEY VALUE ...]

For each sample, ``NAME.png`` shows all masks and prompts, ``NAME_levels.png`` the prompt with most
answers and these, smallest first. Where objects have boxes alone, ``NAME.png`` shows them and the
prompts; where regions have captions, the boxes, each with its caption.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from PIL import Image

from semsam.config import load_cfg
from semsam.data import build_test_loader, build_train_loader
from semsam.utils.visualizer import Visualizer, draw_levels


def draw_record(record: dict[str, Any], output: Path, name: str) -> None:
    """Write the pictures of one mapped record."""
    image = record["image"].permute(1, 2, 0).numpy()
    captions = captions_of(record)
    if captions is not None:
        picture = Visualizer(image).draw_boxes(record["prompts"].boxes[0].numpy(), labels=captions)
        Image.fromarray(picture.image).save(output / f"{name}.png")
        return
    instances, prompts = record["instances"], record["prompts"]
    if not instances.has("gt_masks"):
        picture = Visualizer(image).draw_boxes(instances.gt_boxes.tensor.numpy())
        picture.draw_boxes(prompts.boxes[0].numpy())
        Image.fromarray(picture.image).save(output / f"{name}.png")
        return
    masks = instances.gt_masks.numpy()
    levels = record["targets"].levels
    clicks = prompts.points[0, ~prompts.has_box[0], 0].numpy()
    picture = Visualizer(image).draw_masks(masks)
    picture.draw_boxes(prompts.boxes[0, prompts.has_box[0]].numpy()).draw_points(clicks)
    Image.fromarray(picture.image).save(output / f"{name}.png")

    prompt = int((levels >= 0).sum(dim=1).argmax())
    answers = levels[prompt][levels[prompt] >= 0].tolist()
    answers.sort(key=lambda index: masks[index].sum())
    shown = (
        {"box": prompts.boxes[0, prompt].numpy()}
        if prompts.has_box[0, prompt]
        else {"points": prompts.points[0, prompt].numpy()}
    )
    areas = [f"{masks[index].mean():.1%} of the image" for index in answers]
    row = draw_levels(image, masks[answers], areas, **shown)
    Image.fromarray(row).save(output / f"{name}_levels.png")


def captions_of(record: dict[str, Any]) -> list[str] | None:
    """A text a prompt; None where the record has masks instead."""
    if "references" in record:
        return [phrases[0] for phrases in record["references"]]
    instances = record["instances"]
    return instances.gt_captions if instances.has("gt_captions") else None


def records(loaders: Iterable[Iterable[list[dict[str, Any]]]]) -> Iterator[dict[str, Any]]:
    """All records of all batches."""
    return chain.from_iterable(chain.from_iterable(loaders))


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--output", required=True, type=Path, help="folder for the pictures")
    parser.add_argument("--number", type=int, default=8, help="of samples")
    parser.add_argument("--test", action="store_true", help="DATASETS.TEST instead of TRAIN")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides")
    args = parser.parse_intermixed_args()
    cfg = load_cfg(args.config_file, args.opts)
    if args.test and not cfg.DATASETS.TEST:
        parser.error("DATASETS.TEST is empty; name a dataset")
    loaders = (
        (build_test_loader(cfg, name) for name in cfg.DATASETS.TEST)
        if args.test
        else [build_train_loader(cfg)]
    )
    args.output.mkdir(parents=True, exist_ok=True)
    for number, record in enumerate(islice(records(loaders), args.number)):
        draw_record(record, args.output, f"{number:03d}")
    print(f"pictures are in {args.output}")


if __name__ == "__main__":
    main()
