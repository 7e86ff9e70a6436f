#!/usr/bin/env python3
"""Write a small data set in SA-1B's layout, with nothing to download: drawn scenes and photos.

    python datasets/prepare_samples.py --output output/demo/samples

makes four folders: ``scenes_train``, ``scenes_val``, ``photos_train`` and ``photos_val``. Scenes
are drawn (``semsam.data.datasets.scenes``) and have names, attributes and captions; the photos
inside scikit-image and scikit-learn are cut into nested masks (``semsam.data.datasets.hierarchy``).
Whole photos, and the right-hand part of others, are held out. A folder that is there is left as it
is.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from semsam.data.datasets.hierarchy import segment_hierarchy
from semsam.data.datasets.sa1b_writer import make_annotation, write_pair
from semsam.data.datasets.scenes import draw_scene
from semsam.utils.workers import default_num_workers, map_in_processes

#: Photos that no training image shows any part of.
HELD_OUT_PHOTOS = ("coffee", "flower")
#: Photos whose right-hand part, from this share of the width on, is held out.
HELD_OUT_PARTS = {"astronaut": 0.6, "china": 0.6}
TRAINING_PHOTOS = ("camera", "chelsea", "coins", "rocket")
#: Smaller masks, as a share of the image, are left out: at 128 pixels they are 22 across, and five
#: of the decoder's cells.
MIN_AREA = 0.03
#: A small model has minutes to learn: a few large objects, and none that needs a fine eye.
KINDS = ("boat", "cat", "fish", "house", "mug", "snowman", "tree")
#: Of a group's equal members a click means one: the hardest of all questions, so ask it seldom.
GROUP_SHARE = 0.1
#: Height and width of a scene, in pixels.
SCENE_SIDE = 224
#: Longest side of a photo, in pixels.
PHOTO_SIDE = 480

Image = NDArray[np.uint8]


def write_scene(seed: int, folder: Path, number: int) -> None:
    """Draw scene ``number`` of a series and write it."""
    rng = np.random.default_rng((seed, number))
    scene = draw_scene(rng, SCENE_SIDE, SCENE_SIDE, MIN_AREA, 2, KINDS, GROUP_SHARE)
    annotations = [
        make_annotation(
            index,
            region.mask,
            name=region.name,
            kind=region.kind,
            attributes=list(region.attributes),
            caption=region.caption,
            parent=region.parent,
        )
        for index, region in enumerate(scene.regions)
    ]
    write_pair(folder, f"scene_{number:05d}", scene.image, annotations, caption=scene.caption)


def write_photo(crops: int, folder: Path, photo: tuple[str, Image]) -> None:
    """Segment a photo; write it, and crops of it with the masks as the crop shows them."""
    name, image = photo
    nested = segment_hierarchy(image)
    rng = np.random.default_rng(len(image))
    height, width = image.shape[:2]
    windows = [(0, 0, height, width)]
    for _ in range(crops):
        h, w = (int(side * rng.uniform(0.5, 0.85)) for side in (height, width))
        windows.append((int(rng.integers(height - h)), int(rng.integers(width - w)), h, w))
    for index, (y, x, h, w) in enumerate(windows):
        masks = nested.masks[:, y : y + h, x : x + w]
        kept = [i for i, mask in enumerate(masks) if mask.sum() >= MIN_AREA * mask.size]
        annotations = [
            make_annotation(
                i, masks[i], parent=nested.parents[i] if nested.parents[i] in kept else None
            )
            for i in kept
        ]
        write_pair(folder, f"{name}_{index}", image[y : y + h, x : x + w], annotations)


def read_photo(name: str) -> Image:
    """A photo from the packages, at most ``PHOTO_SIDE`` pixels long: (H, W, 3) uint8 RGB."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    image = (
        load_sample_image(f"{name}.jpg") if name in ("china", "flower") else getattr(data, name)()
    )
    if image.ndim == 2:
        image = np.stack([image] * 3, axis=2)
    scale = PHOTO_SIDE / max(image.shape[:2])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA)


def training_photos() -> Iterator[tuple[str, Image]]:
    """Names and photos to train on."""
    for name in TRAINING_PHOTOS:
        yield name, read_photo(name)
    for name, share in HELD_OUT_PARTS.items():
        image = read_photo(name)
        yield name, image[:, : int(share * image.shape[1])]


def held_out_photos() -> Iterator[tuple[str, Image]]:
    """Names and photos of which no pixel is trained on."""
    for name in HELD_OUT_PHOTOS:
        yield name, read_photo(name)
    for name, share in HELD_OUT_PARTS.items():
        image = read_photo(name)
        yield f"{name}_right", image[:, int(share * image.shape[1]) :]


def run_alone(write: Callable, folder: Path, item: Any) -> None:
    """Write an item with one thread: there are as many processes as processors."""
    cv2.setNumThreads(1)
    write(folder, item)


def write_folder(folder: Path, write: Callable, items: Sequence) -> None:
    """Fill a folder with all processors; it appears when it is whole."""
    if folder.is_dir():
        print(f"{folder} is there")
        return
    unfinished = folder.with_name(f".{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    work = partial(run_alone, write, unfinished)
    done = map_in_processes(work, items, default_num_workers(), "spawn")
    for _ in tqdm(done, folder.name, len(items), disable=None):
        pass
    unfinished.rename(folder)
    print(f"{folder}: {sum(1 for _ in folder.glob('*.jpg'))} images")


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write the folders."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", required=True, type=Path, help="folder of the four folders")
    parser.add_argument("--train-scenes", type=int, default=1600)
    parser.add_argument("--val-scenes", type=int, default=60)
    parser.add_argument("--photo-crops", type=int, default=8, help="crops of each training photo")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if min(args.train_scenes, args.val_scenes) < 1 or args.photo_crops < 0:
        parser.error("at least one scene each, and no negative number of crops")
    # The two series share a seed, and no number.
    draw = partial(write_scene, args.seed)
    last = args.val_scenes + args.train_scenes
    write_folder(args.output / "scenes_val", draw, range(args.val_scenes))
    write_folder(args.output / "scenes_train", draw, range(args.val_scenes, last))
    write_folder(args.output / "photos_val", partial(write_photo, 0), list(held_out_photos()))
    crop = partial(write_photo, args.photo_crops)
    write_folder(args.output / "photos_train", crop, list(training_photos()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
