"""SAM against facebookresearch/segment-anything: embedding, predictor, automatic masks."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from semsam.checkpoint import load_weights
from semsam.config import get_cfg
from semsam.inference import AutomaticMaskGenerator, SemSamPredictor
from semsam.modeling import build_model

from .golden import GOLDEN

SAM = "sam"
#: Of mask logits, relative to the largest: in these random weights the norm before the masks
#: divides by nearly nothing, and one thread or two, or float64, already move them by 1e-4 of it.
MASK_TOLERANCE = 3e-4


class SamFixture:
    """A folder with segment-anything's weights, answers and records."""

    def __init__(self, folder):
        self.folder = folder
        self.meta = json.loads((folder / "records.json").read_text())
        self.answers = np.load(folder / "predictor.npz")
        self.image = np.array(Image.open(folder / "image.png").convert("RGB"))

    def model(self):
        model = build_model(sam_cfg(self.meta["config"]))
        load_weights(model, self.folder / "sam.safetensors")
        return model.eval()


def sam_cfg(original):
    """Translate segment-anything's constructor arguments into our configuration."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = original["pixel_mean"], original["pixel_std"]
    cfg.MODEL.BACKBONE.NAME = "SamViT"
    cfg.MODEL.PIXEL_DECODER.NAME = cfg.MODEL.CRITERION.NAME = ""
    cfg.MODEL.DECODER.NAME = "SamDecoder"
    sam = {
        "IMAGE_SIZE": "image_size",
        "PATCH_SIZE": "patch",
        "EMBED_DIM": "embed_dim",
        "DEPTH": "depth",
        "NUM_HEADS": "heads",
        "WINDOW_SIZE": "window_size",
        "GLOBAL_ATTN_INDEXES": "global_attn_indexes",
        "MASK_IN_CHANNELS": "mask_in_chans",
        "IOU_HEAD_DIM": "iou_hidden",
    }
    for ours, theirs in sam.items():
        cfg.MODEL.SAM[ours] = original[theirs]
    decoder = {
        "HIDDEN_DIM": "prompt_dim",
        "NUM_LAYERS": "decoder_depth",
        "DIM_FEEDFORWARD": "decoder_mlp",
        "NUM_HEADS": "decoder_heads",
        "NUM_TOKENS": "num_multimask_outputs",
    }
    for ours, theirs in decoder.items():
        cfg.MODEL.DECODER[ours] = original[theirs]
    photo = cfg.INPUT.PHOTO
    photo.MIN_SIZE = photo.MAX_SIZE = original["image_size"]
    photo.INTERPOLATION = "bilinear"
    return cfg


def folders():
    """The folder itself, or the folders in it."""
    return sorted(path.parent for path in (GOLDEN / SAM).rglob("records.json"))


def cases(*what):
    if not folders():
        skip = pytest.mark.skip(reason=f"no fixture in {GOLDEN / SAM}")
        return [pytest.param(None, w, marks=skip, id=f"{SAM}/none/{w}") for w in what]
    return [
        pytest.param(SamFixture(f), w, id=f"{SAM}/{f.name}/{w}") for f in folders() for w in what
    ]


@pytest.fixture
def predictor(fixture):
    predictor = SemSamPredictor(fixture.model())
    predictor.set_image(fixture.image)
    return predictor


@pytest.mark.parametrize(("fixture", "what"), cases("embedding"))
def test_image_embedding_equals_the_original(predictor, fixture, what):
    ours = predictor._features["image_embedding"].numpy()
    np.testing.assert_allclose(ours, fixture.answers["image_embedding"], atol=1e-4)


@pytest.mark.parametrize(("fixture", "what"), cases("clicks"))
def test_clicks_are_answered_as_by_the_original(predictor, fixture, what):
    points = fixture.answers["points"]
    for i, point in enumerate(points):
        masks, scores, low_res = predictor.predict(point_coords=[point], point_labels=[1])
        np.testing.assert_allclose(scores, fixture.answers[f"pt{i}_iou"], atol=1e-4)
        expected = fixture.answers[f"pt{i}_low"]
        np.testing.assert_allclose(low_res, expected, atol=MASK_TOLERANCE * np.abs(expected).max())
        # Recorded in half precision.
        expected = fixture.answers[f"pt{i}_masks"].astype(np.float32)
        logits = predictor.predict(point_coords=[point], return_logits=True)[0]
        np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-2)
        clear = np.abs(expected) > 1e-2
        assert np.array_equal(masks[clear], expected[clear] > 0)


@pytest.mark.parametrize(("fixture", "what"), cases("records"))
def test_everything_in_an_image_equals_the_original(fixture, what):
    for run in fixture.meta["runs"]:
        params = dict(run["params"])
        # A threshold of zero or less switches the filter off there.
        for name in ("pred_iou_thresh", "stability_score_thresh"):
            if params[name] <= 0:
                params[name] = None
        params.setdefault("min_mask_region_area", 0)
        generator = AutomaticMaskGenerator(fixture.model(), **params)
        records = generator.generate(fixture.image)
        assert len(records) == len(run["records"])
        for ours, theirs in zip(records, run["records"], strict=True):
            assert_same_record(ours, theirs)


def assert_same_record(ours, theirs):
    assert ours["predicted_iou"] == pytest.approx(theirs["predicted_iou"], rel=1e-4, abs=1e-4)
    assert ours["point_coords"] == pytest.approx(np.array(theirs["point_coords"]))
    assert ours["crop_box"] == theirs["crop_box"]
    first, second = decode(ours["segmentation"]), decode(theirs["segmentation"])
    assert (first != second).sum() <= 2
    assert abs(ours["area"] - theirs["area"]) <= 2
    if np.array_equal(first, second):
        assert ours["bbox"] == theirs["bbox"]
    assert ours["stability_score"] == pytest.approx(
        theirs["stability_score"], abs=1e-2, nan_ok=True
    )


def decode(segmentation):
    if isinstance(segmentation["counts"], list):
        segmentation = coco_mask.frPyObjects(segmentation, *segmentation["size"])
    return coco_mask.decode(segmentation).astype(bool)
