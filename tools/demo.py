"""Masks of photos, as pictures and json.

    python tools/demo.py photo.jpg --output out --point 320 240
    python tools/demo.py photos/ 'more/*.png' --output out --everything --levels 1 3
    python tools/demo.py photo.jpg --output out --config-file run/config.yaml --weights run/best.pth
    python tools/demo.py photo.jpg --output out --model sca-vit-h-gpt2-large-vg --caption
    python tools/demo.py photo.jpg --output out --model run --classes "dog, wheel, sky"
    python tools/demo.py photo.jpg --output out --model run --segment --classes coco_panoptic

Each ``--point`` and each ``--box`` is a prompt of its own, in pixels of the photo, and gives a row
of masks from whole to part. With neither, nor ``--everything``, the middle of the photo is clicked.
``--caption`` says what is there; ``--text-prefix "a photo of"`` begins every sentence.
``--classes`` names masks: a list with commas, a .txt or .json file of names, what
tools/build_classifier.py wrote, or a vocabulary of the model (MODEL.NAMING). ``--segment`` gives
each pixel of the photo to a segment of one of these classes; those of ``--things`` (all without it)
are told apart.
``NAME.json`` holds the masks of ``NAME.jpg`` as COCO run lengths.
"""

from __future__ import annotations

import argparse
import glob
import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from tqdm import tqdm

from semsam import AutomaticMaskGenerator, RegionCaptioner, SemSamPredictor, model_zoo
from semsam.data.records import LazyImage
from semsam.data.vocabulary import read_names
from semsam.inference.amg_utils import encode_mask, mask_box
from semsam.inference.class_names import Classes, ClassNames
from semsam.utils.file_io import write_json
from semsam.utils.logger import setup_logger
from semsam.utils.visualizer import draw_everything, draw_levels

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
#: Longer side of the picture of all masks, in pixels.
PICTURE_SIDE = 1600
#: Masks in it that carry their caption.
MOST_LABELS = 20

logger = logging.getLogger("semsam.demo")


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="files, folders, globs")
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument("--point", nargs=2, type=float, action="append", default=[], metavar="XY")
    parser.add_argument("--box", nargs=4, type=float, action="append", default=[], metavar="XYXY")
    parser.add_argument("--everything", action="store_true", help="masks of a grid of clicks")
    parser.add_argument("--caption", action="store_true", help="say what each region shows (SCA)")
    parser.add_argument("--task", choices=("caption", "recognition"), help="of --caption")
    parser.add_argument("--text-prefix", default="", help="words that each caption begins with")
    parser.add_argument("--classes", help="names among which masks are named (TextClassHead)")
    parser.add_argument("--segment", action="store_true", help="panoptic segments, by --classes")
    parser.add_argument("--things", help="the countable ones of --classes, for --segment")
    parser.add_argument("--levels", type=int, nargs="+", help="from 1 (whole) to 6 (part)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", default="semantic-sam-swin-t", help="zoo name, or a run's folder")
    which.add_argument("--config-file", help="a yaml file instead; give --weights too")
    parser.add_argument("--weights", help="file or url instead of the model's own")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of products"
    )
    parser.add_argument("--min-size", type=int, help="shorter side of the input")
    parser.add_argument("--points-per-side", type=int, default=32, help="for --everything")
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE", help="config changes")
    args = parser.parse_args(arguments)
    if (args.task or args.text_prefix) and not args.caption:
        parser.error("--task and --text-prefix go with --caption")
    if args.classes is not None and args.caption:
        parser.error("--classes names masks and --caption describes them: give one of the two")
    if args.segment and args.classes is None:
        parser.error("--segment needs --classes")
    if args.things is not None and not args.segment:
        parser.error("--things goes with --segment")
    return args


def main(args: argparse.Namespace) -> int:
    """Annotate every image; 1 if one of them could not be."""
    setup_logger()
    paths = list_images(args.images)
    if not paths:
        logger.error(
            "no image in %s (known suffixes: %s)", args.images, ", ".join(sorted(SUFFIXES))
        )
        return 1
    model: Any = model_zoo.get(
        args.config_file or args.model, args.device, weights=args.weights, overrides=args.opts
    )
    dtype = getattr(torch, args.dtype)
    predictor = SemSamPredictor(model, min_size=args.min_size, dtype=dtype)
    settings = {
        "points_per_side": args.points_per_side,
        "output_mode": "coco_rle",
        "levels": args.levels,
    }
    if args.caption:
        captioner = RegionCaptioner(model, dtype=dtype)
        asked = {"task": args.task, "text_prefix": args.text_prefix}
        generate = partial(captioner.caption_everything, **asked, **settings)
        answer = partial(caption_prompt, captioner, asked)
    else:
        classes = things = None
        try:
            if args.classes is not None:
                classes = predictor.class_names(read_classes(args.classes, model))
            if args.things is not None:
                things = read_list(args.things)
        except (FileNotFoundError, ValueError) as error:
            logger.error("--classes: %s", error)
            return 1
        generate = AutomaticMaskGenerator(predictor, classes=classes, **settings).generate
        answer = partial(answer_prompt, predictor, args.levels, classes)
    names = output_names(paths)
    failed = []
    for path, name in tqdm(list(zip(paths, names, strict=True)), unit="image", disable=None):
        try:
            image = np.array(LazyImage({"file_name": str(path)}).decode())
            result: dict[str, Any] = {"file_name": str(path), "size": list(image.shape[:2])}
            if args.point or args.box or not (args.everything or args.segment):
                result["prompts"] = answer_prompts(answer, image, args, Path(args.output, name))
            if args.everything:
                result["everything"] = generate(image)
                picture = picture_of_everything(image, result["everything"])
                save(picture, Path(args.output, f"{name}_everything.png"))
            if args.segment:
                result["segments"] = segment(predictor, classes, things, image)
                picture = picture_of_everything(image, result["segments"])
                save(picture, Path(args.output, f"{name}_segments.png"))
        except ValueError as error:
            # An unreadable file, or a prompt outside this one: the others can still be done.
            logger.error("skipped %s: %s", path, error)
            failed.append(path)
            continue
        write_json(Path(args.output, f"{name}.json"), result)
    logger.info("%d of %d images written to %s", len(paths) - len(failed), len(paths), args.output)
    return int(bool(failed))


def answer_prompts(
    answer: Callable[..., tuple[np.ndarray, dict[str, Any]]],
    image: np.ndarray,
    args: argparse.Namespace,
    stem: Path,
) -> list[dict[str, Any]]:
    """Write a picture a prompt, and return what the json holds about each."""
    height, width = image.shape[:2]
    prompts: list[dict[str, list[float]]] = [{"point": point} for point in args.point]
    prompts += [{"box": box} for box in args.box]
    if not prompts:
        prompts = [{"point": [width / 2, height / 2]}]
    answers = []
    for index, prompt in enumerate(prompts):
        row, found = answer(image, first=index == 0, **prompt)
        save(row, stem.with_name(f"{stem.name}_prompt{index}.png"))
        answers.append({**prompt, **found})
    return answers


def answer_prompt(
    predictor: SemSamPredictor,
    wanted: list[int] | None,
    classes: ClassNames | None,
    image: np.ndarray,
    first: bool,
    point: list[float] | None = None,
    box: list[float] | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """A row of masks by level, and what they are; the first prompt of an image encodes it."""
    if first:
        predictor.set_image(image)
    masks, scores, _, *named = predictor.predict(point_coords=point, box=box, classes=classes)
    levels = wanted or range(1, len(masks) + 1)
    if not all(1 <= level <= len(masks) for level in levels):
        raise ValueError(f"levels are 1 to {len(masks)} for this model, got {wanted}")
    chosen = [level - 1 for level in levels]
    captions = [f"level {i + 1} · IoU {scores[i]:.2f}" for i in chosen]
    found = [describe(masks[i], scores[i], i + 1) for i in chosen]
    for names in named:
        for index, i in enumerate(chosen):
            captions[index] += f" · {names[i].name} {names[i].score:.2f}"
            found[index] |= {"class_name": names[i].name, "class_score": names[i].score}
    row = draw_levels(image, masks[chosen], captions, None if point is None else [point], box)
    return row, {"masks": found}


def caption_prompt(
    captioner: RegionCaptioner,
    asked: dict[str, Any],
    image: np.ndarray,
    first: bool,
    point: list[float] | None = None,
    box: list[float] | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """The mask of a region with its sentence, and what they are."""
    if first:
        captioner.set_image(image)
    points, boxes = (None if x is None else [x] for x in (point, box))
    found = captioner.caption(point_coords=points, boxes=boxes, **asked)
    masks = found.pred_masks.cpu().numpy()
    row = draw_levels(image, masks, found.pred_captions, points, box)
    return row, {
        "caption": found.pred_captions[0],
        "caption_score": found.caption_scores[0].item(),
        "masks": [describe(masks[0], found.scores[0].item(), 1)],
    }


def segment(
    predictor: SemSamPredictor,
    classes: ClassNames,
    things: list[str] | None,
    image: np.ndarray,
) -> list[dict[str, Any]]:
    """The panoptic segments of a photo, with the keys of the automatic masks that apply."""
    predictor.set_image(image)
    found = predictor.segment(classes, things)
    ids, segments = found["panoptic_seg"]
    ids = ids.cpu().numpy()
    return [
        {
            "class_name": found["names"][entry["category_id"]],
            "class_score": entry["score"],
            "isthing": entry["isthing"],
            **outline(ids == entry["id"]),
        }
        for entry in segments
    ]


def describe(mask: np.ndarray, score: float, level: int) -> dict[str, Any]:
    """One mask of a prompt, with the keys of the automatic masks that apply."""
    return {"level": level, "predicted_iou": float(score), **outline(mask)}


def outline(mask: np.ndarray) -> dict[str, Any]:
    """Where a mask lies."""
    x0, y0, x1, y1 = mask_box(mask)
    return {
        "area": int(mask.sum()),
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "segmentation": encode_mask(mask, "coco_rle"),
    }


def picture_of_everything(image: np.ndarray, records: list[dict[str, Any]]) -> np.ndarray:
    """All masks on the photo, at a size that screens show."""
    height, width = image.shape[:2]
    scale = PICTURE_SIDE / max(height, width)
    # Sentences on small masks would hide each other.
    large = sorted((r["area"] for r in records), reverse=True)[:MOST_LABELS]
    labels = [
        r.get("class_name") or (r.get("caption", "") if r["area"] >= large[-1] else "")
        for r in records
    ]
    if scale > 1:
        whole = [coco_mask.decode(r["segmentation"]).astype(bool) for r in records]
        masks = np.reshape(whole, (-1, height, width))
        return draw_everything(image, masks, min(scale, 3.0), labels)
    # Shrink mask by mask: all masks of a large photo at once do not fit into memory.
    size = (round(width * scale), round(height * scale))
    small = [
        cv2.resize(coco_mask.decode(r["segmentation"]) * 255, size, interpolation=cv2.INTER_AREA)
        for r in records
    ]
    photo = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return draw_everything(photo, np.reshape(small, (-1, *photo.shape[:2])) > 127, labels=labels)


def read_classes(given: str, model: Any) -> Classes:
    """Names, the path of a classifier, or a vocabulary of the model."""
    if given.endswith(".safetensors"):
        return Path(given)
    naming = getattr(model, "naming", None)
    return given if naming is not None and given in naming.names else read_list(given)


def read_list(given: str) -> list[str]:
    """Names between commas, or of a .txt or .json file."""
    if given.endswith((".txt", ".json")):
        return read_names(given)
    return [name.strip() for name in given.split(",") if name.strip()]


def list_images(arguments: list[str]) -> list[Path]:
    """Files as they are named, the images of folders, and what globs match; sorted, each once."""
    paths: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            paths += sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
        elif path.exists() or not glob.has_magic(argument):
            paths.append(path)
        else:
            paths += sorted(Path(p) for p in glob.glob(argument, recursive=True))
    return list(dict.fromkeys(paths))


def output_names(paths: list[Path]) -> list[str]:
    """Stems; a number tells apart images of different folders that share one."""
    names: list[str] = []
    for path in paths:
        name, number = path.stem, 2
        while name in names:
            name, number = f"{path.stem}-{number}", number + 1
        names.append(name)
    return names


def save(picture: np.ndarray, path: Path) -> None:
    """Write a picture; its folder is made if absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


if __name__ == "__main__":
    sys.exit(main(parse_args()))
