"""Naming masks: all masks of a photo in batches against the same models called mask by mask.

    python benchmarks/ssa.py --masks 8 32 128

Models have the sizes of CLIP ViT-B/32, CLIPSeg ViT-B/16, BLIP base and SegFormer B0 (twice), with
random weights; every caption is 20 tokens long. Mask by mask is what Semantic-Segment-Anything
does, on ``--loop-masks`` of the masks.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from measure import markdown, peak_gib
from PIL import Image
from pycocotools import mask as coco_mask
from torch.nn.functional import interpolate

from semsam.annotation.closed_set import read_masks
from semsam.annotation.crops import LARGE, SMALL, cut, image_tensor, photo_boxes
from semsam.annotation.open_set import OpenSetLabeler
from semsam.annotation.records import MaskedPhoto
from semsam.config import get_cfg
from semsam.modeling.pretrained import load_model, load_processor

_TEXT = """a an the of on in with and at by man woman dog cat bird horse car bus train boat street
road house roof wall window door table chair bed lamp clock book cup plate bowl tree grass flower
sky cloud sea sand snow red green blue white black small large old young wooden metal sitting
standing running holding wearing"""
WORDS = _TEXT.split()
STAGES = {
    "_classify": "segmenters and votes",
    "_describe": "captions and phrases",
    "_propose": "CLIP",
    "_decide": "CLIPSeg",
}


def main() -> None:
    """Print one row a number of masks, and one for mask by mask."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--masks", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--loop-masks", type=int, default=8, help="masks that go one by one")
    parser.add_argument("--batch-size", type=int, default=0, help="as OPEN_SET.BATCH_SIZE")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="", help="as ANNOTATION.DTYPE; of the batches only")
    parser.add_argument("--image", help="photo of at least 64 pixels; noise of 640 x 427 if absent")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        cfg = write_models(Path(folder))
        cfg.MODEL.DEVICE = args.device
        cfg.ANNOTATION.OPEN_SET.BATCH_SIZE = args.batch_size
        cfg.ANNOTATION.DTYPE = args.dtype
        labeler = OpenSetLabeler(cfg)
        one_by_one = MaskByMask(cfg, labeler)
    seconds: dict[str, float] = defaultdict(float)
    for method, stage in STAGES.items():
        setattr(labeler, method, timed(getattr(labeler, method), stage, seconds))
    image = read_image(args.image)
    labeler.label([masked_photo(image, 2)])

    rows = []
    for number in sorted(args.masks):
        seconds.clear()
        photo = masked_photo(image, number)
        start = time.perf_counter()
        labeler.label([photo])
        rows.append(row(f"{number} in batches", seconds, time.perf_counter() - start, number))
    seconds.clear()
    photo = masked_photo(image, args.loop_masks)
    start = time.perf_counter()
    one_by_one(photo, seconds)
    total = time.perf_counter() - start
    rows.append(row(f"{args.loop_masks} one by one", seconds, total, args.loop_masks))
    header = ["masks", *STAGES.values(), "all", "a mask, without segmenters", "peak so far"]
    print(markdown(header, rows))
    device = torch.cuda.get_device_name() if args.device != "cpu" else "CPU"
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}")


def row(name: str, seconds: dict[str, float], total: float, number: int) -> list[str]:
    """A row of the table."""
    stages = [f"{seconds[stage]:.2f} s" for stage in STAGES.values()]
    a_mask = (total - seconds[STAGES["_classify"]]) / number
    return [name, *stages, f"{total:.2f} s", f"{a_mask:.3f} s", f"{peak_gib():.1f} GiB"]


def timed(function: Callable, name: str, seconds: dict[str, float]) -> Callable:
    """The same function, adding its wall time to ``seconds[name]``."""

    def call(*args: Any) -> Any:
        start = time.perf_counter()
        result = function(*args)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds[name] += time.perf_counter() - start
        return result

    return call


class MaskByMask:
    """The models called as Semantic-Segment-Anything calls them, each with one mask at a time."""

    def __init__(self, cfg: Any, labeler: OpenSetLabeler) -> None:
        node, self.device = cfg.ANNOTATION.OPEN_SET, labeler.scorer.device
        self.labeler = labeler
        blip, clip, clipseg = node.CAPTIONER, node.CLIP, node.CLIPSEG
        self.blip = load_model(hf.BlipForConditionalGeneration, blip, "", self.device)
        self.clip = load_model(hf.CLIPModel, clip, "", self.device)
        self.clipseg = load_model(hf.CLIPSegForImageSegmentation, clipseg, "", self.device)
        self.blip_processor = load_processor(hf.BlipProcessor, blip, "")
        self.clip_processor = load_processor(hf.CLIPProcessor, clip, "")
        self.clipseg_processor = load_processor(hf.CLIPSegProcessor, clipseg, "")
        self.clipseg_processor.image_processor.do_resize = False

    @torch.inference_mode()
    def __call__(self, photo: MaskedPhoto, seconds: dict[str, float]) -> list[str]:
        """Names of a photo's masks."""
        segmenters = self.labeler.segmenters
        classify, describe, propose, decide = (
            timed(function, stage, seconds)
            for function, stage in zip(
                (self._classes, self._phrases, self._proposals, self._name),
                STAGES.values(),
                strict=True,
            )
        )
        segment = timed(
            lambda: [s.segment([photo.image])[0] for s in segmenters], STAGES["_classify"], seconds
        )
        maps = segment()
        image = image_tensor(photo.image, self.device)
        small = cut(image, photo_boxes(photo, SMALL))
        boxes = photo_boxes(photo, LARGE)
        large = cut(image, boxes)
        names = []
        for i in range(len(photo.annotations)):
            mask = photo.mask(i)
            candidates = list(dict.fromkeys([*classify(maps, mask), *describe(large[i])]))
            proposals = propose(small[i], candidates)
            names.append(decide(large[i], proposals, cut(mask, boxes[i : i + 1])[0]))
        return names

    def _classes(self, maps: list[np.ndarray], mask: np.ndarray) -> list[str]:
        pairs = zip(self.labeler.segmenters, maps, strict=True)
        return [s.labels[int(np.bincount(class_map[mask]).argmax())] for s, class_map in pairs]

    def _phrases(self, patch: torch.Tensor) -> list[str]:
        inputs = self._inputs(self.blip_processor, self.blip, images=patch)
        ids = self.blip.generate(**inputs, max_new_tokens=20, do_sample=False)
        caption = self.blip_processor.decode(ids[0], skip_special_tokens=True)
        return self.labeler.noun_phrases([caption])[0]

    def _proposals(self, patch: torch.Tensor, names: list[str]) -> list[str]:
        inputs = self._inputs(self.clip_processor, self.clip, images=patch, text=names)
        best = self.clip(**inputs).logits_per_image.softmax(1).topk(min(3, len(names)))
        return [names[i] for i in best.indices[0].tolist()]

    def _name(self, patch: torch.Tensor, names: list[str], mask: np.ndarray) -> str:
        images = [patch] * len(names)
        inputs = self._inputs(self.clipseg_processor, self.clipseg, images=images, text=names)
        pixels = interpolate(inputs.pop("pixel_values"), (512, 512), mode="bilinear")
        logits = self.clipseg(**inputs, pixel_values=pixels).logits.view(1, len(names), 512, 512)
        best = interpolate(logits, patch.shape[1:], mode="bilinear")[0].argmax(0).cpu().numpy()
        return names[int(np.bincount(best[mask]).argmax())]

    def _inputs(self, processor: Any, model: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        if "text" in kwargs:
            kwargs["padding"] = True
        inputs = processor(**kwargs, input_data_format="channels_first", return_tensors="pt")
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        return dict(inputs.to(self.device))


def masked_photo(image: np.ndarray, number: int) -> MaskedPhoto:
    """Ellipses of all sizes, the same ones first whatever their number."""
    rng = np.random.default_rng(0)
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width]
    annotations = []
    for _ in range(number):
        centre = rng.uniform(0.1, 0.9, 2) * (width, height)
        axes = np.exp(rng.uniform(np.log(0.02), np.log(0.3), 2)) * (width, height)
        mask = ((x - centre[0]) / axes[0]) ** 2 + ((y - centre[1]) / axes[1]) ** 2 <= 1
        code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        left, top, box_width, box_height = coco_mask.toBbox(code).tolist()
        box = [left, top, box_width - 1, box_height - 1]
        annotations.append({"segmentation": code, "bbox": box})
    photo = MaskedPhoto("photo", image, annotations)
    assert read_masks(photo).areas.all()
    return photo


def read_image(path: str | None) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    if path is not None:
        return np.asarray(Image.open(path).convert("RGB"))
    coarse = np.random.default_rng(0).integers(0, 256, (10, 16, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((640, 427), Image.Resampling.BICUBIC))


def write_models(folder: Path) -> Any:
    """Random models of the released sizes in folders, and the configuration that names them."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    base = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    clip = hf.CLIPConfig(text_config=ids, vision_config={**base, "num_hidden_layers": 12})
    hf.CLIPModel(clip).save_pretrained(folder / "clip")
    hf.CLIPProcessor(hf.CLIPImageProcessor(), tokenizer).save_pretrained(folder / "clip")
    clipseg = hf.CLIPSegConfig(
        text_config=ids,
        vision_config={**base, "image_size": 352, "patch_size": 16},
        use_complex_transposed_convolution=True,
    )
    hf.CLIPSegForImageSegmentation(clipseg).save_pretrained(folder / "clipseg")
    hf.CLIPSegProcessor(hf.ViTImageProcessor(), tokenizer).save_pretrained(folder / "clipseg")
    write_blip(folder / "blip")
    names = {i: f"{WORDS[10 + i % 30]} {i}" for i in range(150)}
    hf.SegformerForSemanticSegmentation(hf.SegformerConfig(id2label=names)).save_pretrained(
        folder / "segmenter"
    )
    hf.SegformerImageProcessor().save_pretrained(folder / "segmenter")
    cfg = get_cfg()
    node = cfg.ANNOTATION.OPEN_SET
    node.SEGMENTERS, node.LABEL_MAPS = [str(folder / "segmenter")] * 2, ["", ""]
    node.CAPTIONER, node.CLIP = str(folder / "blip"), str(folder / "clip")
    node.CLIPSEG = str(folder / "clipseg")
    return cfg


def write_blip(folder: Path) -> None:
    """BLIP base whose captions have no end and words of the list only."""
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    vocabulary = {token: i for i, token in enumerate([*marks, *WORDS])}
    text = {"bos_token_id": 5, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
    config = hf.BlipConfig(
        text_config={**text, "num_attention_heads": 12, "encoder_hidden_size": 768},
        vision_config={"image_size": 384},
    )
    model = hf.BlipForConditionalGeneration(config)
    bias = model.text_decoder.get_output_embeddings().bias
    with torch.no_grad():
        bias[: len(marks)] = bias[len(vocabulary) :] = -1e4
    model.save_pretrained(folder)
    processor = hf.BlipImageProcessor(size={"height": 384, "width": 384})
    hf.BlipProcessor(processor, hf.BertTokenizer(vocab=vocabulary)).save_pretrained(folder)


def clip_tokenizer() -> hf.CLIPTokenizer:
    """About a token a word, as CLIP's own."""
    units = {
        f"{mark}{end}": None
        for mark in "abcdefghijklmnopqrstuvwxyz0123456789"
        for end in ("", "</w>")
    }
    merges = []
    for word in WORDS:
        left, *rest = [*word[:-1], f"{word[-1]}</w>"]
        for right in rest:
            if left + right not in units:
                units[left + right] = None
                merges.append((left, right))
            left += right
    vocabulary = {unit: i for i, unit in enumerate([*units, "<|startoftext|>", "<|endoftext|>"])}
    return hf.CLIPTokenizer(vocab=vocabulary, merges=merges)


if __name__ == "__main__":
    main()
