"""Train a small Semantic-SAM and a small SCA on this machine, and leave a page about them.

    python tools/make_demo.py

Writes a sample set, packs it into shards, evaluates, trains and evaluates again, trains a second
model to describe regions, tries both on held-out pictures and writes ``output/demo/index.html``.
Each step is a command that a user could type. What is there is not made again, and training goes on
from its last checkpoint: after an interruption run it again; to start over, delete ``output/demo``.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from demo_captions import report_captions
from demo_page import Picture, Report, write_page
from PIL import Image
from pycocotools import mask as coco_mask

from semsam import AutomaticMaskGenerator, RegionCaptioner, SemSamPredictor, model_zoo
from semsam.utils.file_io import write_json
from semsam.utils.visualizer import Visualizer, draw_everything, draw_levels

CONFIG = "configs/demo/semantic_sam_nano.yaml"
CAPTION_CONFIG = "configs/demo/sca_nano.yaml"
OUTPUT = Path("output/demo")
SETS = {"scenes_val": "held-out scenes", "photos_val": "held-out photos"}
#: Processes of one thread each: at this size they do more than one process of many threads.
WORKERS = 2


def main(argv: list[str] | None = None) -> int:
    """Run every step that has not been run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.parse_args(argv)
    samples, shards = OUTPUT / "samples", OUTPUT / "shards"
    train_net = f"tools/train_net.py --config-file {CONFIG} --num-gpus {WORKERS}"
    run("sample set", f"datasets/prepare_samples.py --output {samples}", samples / "photos_train")
    for name in ("scenes_train", "photos_train", *SETS):
        done = shards / name / "shards.json"
        run("shards", f"datasets/prepare_shards.py {samples / name} --output {shards / name}", done)
    before, trained = OUTPUT / "before", OUTPUT / "train"
    command = f"{train_net} --eval-only OUTPUT_DIR={before}"
    run("evaluation before", command, before / "results.json")
    run("training and evaluation", f"{train_net} --resume", trained / "results.json")
    language_model, captions = OUTPUT / "language_model", OUTPUT / "captions"
    scenes = {name: f"sa1b_captions://{shards}/scenes_{name}" for name in ("train", "val")}
    make_words = f"tools/make_language_model.py --dataset {scenes['train']}"
    run("language model", f"{make_words} --output {language_model}", language_model)
    learn_words = f"tools/train_net.py --config-file {CAPTION_CONFIG} --num-gpus {WORKERS}"
    run("captions", f"{learn_words} --resume", captions / "results.json")

    start = time.perf_counter()
    torch.manual_seed(0)
    model = model_zoo.get(str(trained), device="cpu")
    captioner = RegionCaptioner.from_pretrained(str(captions), device="cpu")
    shown = pairs(samples / "scenes_val", 4) + pairs(samples / "photos_val", 4)
    report = Report(
        before=results(before / "results.json"),
        after=results(trained / "results.json"),
        metrics=[json.loads(line) for line in (trained / "metrics.json").open()],
        seconds=read_seconds(),
        clicks=[click(SemSamPredictor(model), *pair) for pair in shown],
        everything=[everything(model, *pair) for pair in shown[:3] + shown[-1:]],
        samples=[
            truth(*pair)
            for pair in pairs(samples / "scenes_train", 6) + pairs(samples / "photos_train", 2)
        ],
        captions=report_captions(
            captioner, generator(model), captions, scenes["train"], scenes["val"]
        ),
        commands=[
            "make demo",
            "",
            *(f"python {c}" for c in list_commands(samples, shards, train_net)),
            f"python {make_words} --output {language_model}",
            f"python {learn_words}",
        ],
    )
    write_page(OUTPUT / "index.html", report)
    print(f"page: {time.perf_counter() - start:.0f} s")
    print(f"\nopen {(OUTPUT / 'index.html').resolve()}")
    return 0


def run(step: str, command: str, product: Path) -> None:
    """Run a Python script of this repository unless its product is there; note how long it took.

    Raises:
        SystemExit: with the script's exit code, if it failed.
    """
    if product.exists():
        print(f"{step}: {product} is there")
        return
    print(f"\n$ python {command}", flush=True)
    start = time.perf_counter()
    # One thread a process: the workers share the processors as they are.
    done = subprocess.run(["env", "OMP_NUM_THREADS=1", sys.executable, *shlex.split(command)])
    if done.returncode:
        raise SystemExit(done.returncode)
    spent = read_seconds()
    spent[step] = spent.get(step, 0.0) + time.perf_counter() - start
    write_json(OUTPUT / "seconds.json", spent)
    print(f"{step}: {time.perf_counter() - start:.0f} s", flush=True)


def read_seconds() -> dict[str, float]:
    """Seconds of each step that ran to its end."""
    file = OUTPUT / "seconds.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def results(file: Path) -> dict[str, Any]:
    """An evaluation's results under the names that the page uses."""
    content = json.loads(file.read_text())
    return {
        words: next(value for name, value in content.items() if name.endswith(f"/{folder}"))
        for folder, words in SETS.items()
    }


Pair = tuple[np.ndarray, dict[str, Any]]


def pairs(folder: Path, number: int) -> list[Pair]:
    """The first images of a folder, and what their json files say."""
    images = sorted(folder.glob("*.jpg"))[:number]
    return [
        (np.array(Image.open(i)), json.loads(i.with_suffix(".json").read_text())) for i in images
    ]


def click(predictor: SemSamPredictor, image: np.ndarray, content: dict[str, Any]) -> Picture:
    """Click on the most deeply nested mask, the largest where several are as deep."""
    by_id = {a["id"]: a for a in content["annotations"]}

    def chain(annotation: dict[str, Any]) -> list[dict[str, Any]]:
        parent = annotation["parent"]
        return [annotation] if parent is None else [annotation, *chain(by_id[parent])]

    levels = max((chain(a) for a in by_id.values()), key=lambda c: (len(c), c[0]["area"]))
    point = levels[0]["point_coords"]
    predictor.set_image(image)
    masks, scores, _ = predictor.predict(point_coords=point)
    found = [
        f"{a.get('name', 'region')} {max(iou(m, decode(a)) for m in masks):.2f}" for a in levels
    ]
    # A model trained from nothing orders its masks in its own way: show them from whole to part.
    order = np.argsort(-masks.sum(axis=(1, 2)), kind="stable")
    masks, captions = masks[order], [f"IoU {scores[k]:.2f}?" for k in order]
    row = draw_levels(image, masks, captions, points=point, panel_height=190)
    return Picture(
        row, f"True masks under the click, and IoU of the best answer: {' < '.join(found)}"
    )


def generator(model: torch.nn.Module) -> AutomaticMaskGenerator:
    """Finds masks without a prompt, with thresholds for a model that learned for minutes."""
    return AutomaticMaskGenerator(
        model, points_per_side=16, pred_iou_thresh=0.6, stability_score_thresh=0.7
    )


def everything(model: torch.nn.Module, image: np.ndarray, content: dict[str, Any]) -> Picture:
    """Segment without a prompt."""
    records = generator(model).generate(image)
    masks = [r["segmentation"] for r in records]
    picture = draw_everything(image, np.array(masks).reshape(-1, *image.shape[:2]), 1.5)
    return Picture(picture, f"{len(records)} masks; {len(content['annotations'])} true ones")


def truth(image: np.ndarray, content: dict[str, Any]) -> Picture:
    """A training picture with its masks."""
    masks = np.array([decode(a) for a in content["annotations"]])
    caption = content["image"].get("caption", "a photo, cut into nested regions")
    return Picture(Visualizer(image, 1.5).draw_masks(masks, alpha=0.3).image, caption)


def decode(annotation: dict[str, Any]) -> np.ndarray:
    """(H, W) bool."""
    return coco_mask.decode(annotation["segmentation"]).astype(bool)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks, not both empty."""
    return float((a & b).sum() / (a | b).sum())


def list_commands(samples: Path, shards: Path, train_net: str) -> Sequence[str]:
    """The steps as a user types them."""
    return [
        f"datasets/prepare_samples.py --output {samples}",
        f"datasets/prepare_shards.py {samples}/scenes_train --output {shards}/scenes_train",
        train_net,
        f"{train_net} --eval-only MODEL.WEIGHTS={OUTPUT}/train/model_final.pth",
    ]


if __name__ == "__main__":
    sys.exit(main())
