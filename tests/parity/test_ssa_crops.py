"""Patches around masks, and what models read of them, against Semantic-Segment-Anything."""

import functools
import json

import numpy as np
import pytest
import torch
from PIL import Image

from semsam.annotation.crops import cut, image_tensor, patch_boxes
from semsam.modeling.patch_reader import PatchReader

from .golden import GOLDEN

SSA = GOLDEN / "ssa"
#: Scales of each box, in the order in which the fixture counts them.
SCALES_A_BOX = 4


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not (SSA / name).exists(), reason=f"no {name} in {SSA}")


@functools.cache
def crops() -> dict:
    path = SSA / "crops.json"
    return json.loads(path.read_text()) if path.is_file() else {"cases": []}


@functools.cache
def patches() -> dict[str, torch.Tensor]:
    """Key -> (3, h, w) patch, channels in the original's order (BGR)."""
    image = Image.open(SSA / "engine/data" / crops()["image"]).convert("RGB")
    tensor = image_tensor(np.asarray(image)[..., ::-1], torch.device("cpu"))
    found = {}
    for i, case in enumerate(crops()["cases"]):
        box = patch_boxes([case["bbox_xywh"]], tensor.shape[1:], case["scale"])
        found[f"{i // SCALES_A_BOX}_{case['scale']}"] = cut(tensor, box)[0]
    return found


@needs("crops.json")
@pytest.mark.parametrize(
    "case", [pytest.param(c, id=f"ssa/crops/{i}") for i, c in enumerate(crops()["cases"])]
)
def test_the_box_of_a_patch_is_the_original_s(case):
    size = crops()["H"], crops()["W"]
    ((x1, y1, x2, y2),) = patch_boxes([case["bbox_xywh"]], size, case["scale"]).tolist()
    assert [x1, y1, x2, y2] == case["crop_xyxy_inclusive"]
    assert [y2 - y1 + 1, x2 - x1 + 1, 3] == case["shape"]


@needs("crops_patches.npz")
@pytest.mark.parametrize("what", [pytest.param(0, id="ssa/crops/patches")])
def test_patches_have_the_original_s_pixels(what):
    with np.load(SSA / "crops_patches.npz") as stored:
        for key in stored:
            assert np.array_equal(patches()[key].permute(1, 2, 0).numpy(), stored[key]), key


@needs("preproc_patches.npz")
@pytest.mark.parametrize(
    "model", [pytest.param(m, id=f"ssa/preproc/{m}") for m in ("clip", "blip")]
)
def test_models_read_of_patches_what_they_read_in_the_original(model):
    from transformers import AutoProcessor

    with np.load(SSA / "preproc_patches.npz") as stored:
        keys = [key for key in stored if key.startswith(f"{model}_")]
        processor = AutoProcessor.from_pretrained(SSA / "engine/models_base" / model)
        given = [patches()[key.removeprefix(f"{model}_")] for key in keys]
        found = PatchReader(processor.image_processor)(given)
        for key, values in zip(keys, found, strict=True):
            torch.testing.assert_close(values[None], torch.from_numpy(stored[key]))
