import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from semsam.annotation.engine import AnnotationEngine, build_engine
from semsam.annotation.manifest import describe_models, find_models
from semsam.annotation.mask_models import GeneratedMasks
from semsam.annotation.mask_sources import Sa1bMasks
from semsam.annotation.plan import describe_plan
from semsam.annotation.records import Labels
from semsam.config import get_cfg
from semsam.data.records import BadRecordError
from semsam.inference import AutomaticMaskGenerator
from semsam.modeling import build_model

from ..tiny import perturb, tiny_sam_cfg
from .colour_labeler import ColourLabeler
from .photos import COLOURS, write_photo, write_photos


@pytest.fixture
def images(tmp_path):
    return write_photos(tmp_path / "images", 6)


def make_engine(images, *labelers, **settings):
    return AnnotationEngine(
        Sa1bMasks(images), labelers or [ColourLabeler()], device="cpu", **settings
    )


def results(folder):
    return {p.name: json.loads(p.read_text()) for p in sorted(folder.glob("*_semantic.json"))}


def failures(folder):
    lines = (folder / "failures.jsonl").read_text().splitlines()
    return {line["name"]: line for line in map(json.loads, lines)}


class SizeLabeler:
    """Tells the area of masks, with a field that ColourLabeler has and one that it has not."""

    def label(self, photos):
        return [
            Labels(
                [
                    {"class_name": "small", "pixels": int(photo.mask(i).sum())}
                    for i in range(len(photo.annotations))
                ],
                {"image": "a photo field", "num_masks": len(photo.annotations)},
            )
            for photo in photos
        ]


class PickyLabeler(ColourLabeler):
    """Fails whenever it is shown one of these photos."""

    def __init__(self, *refused, error="shapes differ"):
        super().__init__()
        self.refused, self.error = refused, error

    def label(self, photos):
        given = super().label(photos)
        if any(photo.name in self.refused for photo in photos):
            raise RuntimeError(self.error)
        return given


def test_a_photo_gets_its_labels_and_keeps_every_field(images):
    engine = make_engine(images)
    photo = engine.masks.load(engine.masks.items()[2])
    result = engine.annotate(photo)
    before = json.loads((images / "photo_2.json").read_text())
    assert result["image"] == before["image"]
    for got, was in zip(result["annotations"], before["annotations"], strict=True):
        assert list(got) == [*was, "class_name", "class_proposals"]
        assert {key: got[key] for key in was} == was
    assert result["annotations"][2]["class_name"] == "red"
    assert COLOURS[(2 + 2) % 4] == (220, 40, 40)


def test_fields_that_two_labellers_or_the_photo_have_are_told_apart(images):
    engine = make_engine(images, ColourLabeler(), SizeLabeler())
    result = engine.annotate(engine.masks.load(engine.masks.items()[0]))
    region = result["annotations"][0]
    assert (region["class_name"], region["SizeLabeler.class_name"]) == ("red", "small")
    assert region["pixels"] == 280
    assert result["image"] == {"image_id": 0, "file_name": "photo_0.png"}
    assert (result["SizeLabeler.image"], result["num_masks"]) == ("a photo field", 1)


def test_a_run_leaves_a_result_of_every_photo(images, tmp_path):
    labeler = ColourLabeler()
    summary = make_engine(images, labeler).run(tmp_path / "out")
    assert list(results(tmp_path / "out")) == [f"photo_{i}_semantic.json" for i in range(6)]
    assert (summary.photos, summary.finished, summary.masks, summary.labelled) == (6, 6, 13, 13)
    assert labeler.batches == [[f"photo_{i}" for i in range(4)], ["photo_4", "photo_5"]]
    assert not (tmp_path / "out" / "failures.jsonl").exists()


def test_a_second_run_does_nothing_and_says_the_same(images, tmp_path):
    first = make_engine(images).run(tmp_path / "out")
    labeler = ColourLabeler()
    assert make_engine(images, labeler).run(tmp_path / "out") == first
    assert labeler.batches == []


def test_a_lost_result_is_made_again_in_the_company_that_it_had(images, tmp_path):
    make_engine(images).run(tmp_path / "out")
    before = (tmp_path / "out" / "photo_1_semantic.json").read_bytes()
    (tmp_path / "out" / "photo_1_semantic.json").write_text("{")
    others = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("photo_[02]*")}
    labeler = ColourLabeler()
    make_engine(images, labeler).run(tmp_path / "out")
    assert (tmp_path / "out" / "photo_1_semantic.json").read_bytes() == before
    assert labeler.batches == [[f"photo_{i}" for i in range(4)]]
    assert {p: p.stat().st_mtime_ns for p in others} == others


def damage(images):
    (images / "photo_1.png").write_bytes(b"no image")
    (images / "photo_2.json").write_text('{"annotations": [{"bbox"')
    path = images / "photo_4.json"
    path.write_text(path.read_text().replace('"size": [48, 64]', '"size": [64, 48]'))
    (images / "photo_5.png").unlink()


def test_bad_input_is_noted_and_the_run_goes_on(images, tmp_path):
    damage(images)
    summary = make_engine(images).run(tmp_path / "out")
    assert list(results(tmp_path / "out")) == ["photo_0_semantic.json", "photo_3_semantic.json"]
    noted = failures(tmp_path / "out")
    assert (summary.finished, summary.failed) == (2, 4)
    assert {line["stage"] for line in noted.values()} == {"read"}
    assert "cannot identify image" in noted["photo_1"]["reason"]
    assert "photo_2.json: JSONDecodeError" in noted["photo_2"]["reason"]
    assert "mask 0 is [64, 48]" in noted["photo_4"]["reason"]
    assert "no image of this name" in noted["photo_5"]["reason"]


def test_a_photo_that_was_repaired_is_done_by_the_next_run(images, tmp_path):
    whole = {name: (images / name).read_bytes() for name in ("photo_1.png", "photo_2.json")}
    damage(images)
    make_engine(images).run(tmp_path / "out")
    for name, content in whole.items():
        (images / name).write_bytes(content)
    make_engine(images).run(tmp_path / "out")
    assert set(failures(tmp_path / "out")) == {"photo_4", "photo_5"}
    assert len(results(tmp_path / "out")) == 4


def test_one_photo_on_which_a_labeller_fails_does_not_take_others_with_it(images, tmp_path, caplog):
    picky = PickyLabeler("photo_1")
    with caplog.at_level(logging.WARNING, "semsam"):
        summary = make_engine(images, picky, SizeLabeler()).run(tmp_path / "out")
    assert picky.batches[:2] == [[f"photo_{i}" for i in range(4)], ["photo_0"]]
    assert (summary.finished, summary.failed) == (5, 1)
    expected = {"stage": "PickyLabeler", "reason": "RuntimeError: shapes differ"}
    assert expected.items() <= failures(tmp_path / "out")["photo_1"].items()
    assert "photo_1_semantic.json" not in results(tmp_path / "out")
    assert "Traceback" in caplog.text


def test_a_batch_for_which_memory_is_short_goes_photo_by_photo(images, tmp_path):
    class Hungry(ColourLabeler):
        def label(self, photos):
            given = super().label(photos)
            if len(photos) > 1:
                torch.empty(2**50, dtype=torch.uint8)
            return given

    assert make_engine(images, Hungry()).run(tmp_path / "out").finished == 6


def test_a_gpu_that_cannot_go_on_ends_the_run(images, tmp_path):
    error = "CUDA error: an illegal memory access was encountered"
    with pytest.raises(RuntimeError, match="start again to resume"):
        make_engine(images, PickyLabeler("photo_1", error=error)).run(tmp_path / "out")


def test_annotating_one_photo_says_who_failed(images):
    engine = make_engine(images, PickyLabeler("photo_0"))
    with pytest.raises(BadRecordError, match="photo_0: PickyLabeler: RuntimeError: shapes"):
        engine.annotate(engine.masks.load(engine.masks.items()[0]))


def test_a_labeller_that_forgets_a_mask_is_found_out(images, tmp_path):
    class Forgetful(ColourLabeler):
        def label(self, photos):
            return [Labels(labels.regions[:1]) for labels in super().label(photos)]

    make_engine(images, Forgetful()).run(tmp_path / "out")
    assert "labels of 1 masks for the 2" in failures(tmp_path / "out")["photo_1"]["reason"]


def test_a_photo_without_masks_gets_what_is_said_of_the_photo(images, tmp_path):
    write_photo(images, "photo_2", number=0, seed=2)
    make_engine(images, ColourLabeler(), SizeLabeler()).run(tmp_path / "out")
    result = results(tmp_path / "out")["photo_2_semantic.json"]
    assert (result["annotations"], result["num_masks"]) == ([], 0)


class SilentLabeler(ColourLabeler):
    def name(self, photo, index):
        return {"class_name": None, "class_proposals": []}


def test_a_run_in_which_nothing_was_labelled_is_an_error_with_the_reason(images, tmp_path):
    with pytest.raises(RuntimeError, match="nothing to say of any of the 13 masks"):
        make_engine(images, SilentLabeler()).run(tmp_path / "silent")
    refused = [f"photo_{i}" for i in range(6)]
    with pytest.raises(RuntimeError, match="6 of 6 photos failed, 6 of them with 'PickyLabeler"):
        make_engine(images, PickyLabeler(*refused)).run(tmp_path / "failed")
    (tmp_path / "bare").mkdir()
    for name in ("a", "b"):
        write_photo(tmp_path / "bare", name, number=0)
    with pytest.raises(RuntimeError, match="none of the 2 photos has a mask"):
        make_engine(tmp_path / "bare").run(tmp_path / "empty")


def test_pictures_are_left_where_they_are_wanted(images, tmp_path):
    out = tmp_path / "out"
    make_engine(images).run(out)
    assert not list(out.glob("*.png"))
    make_engine(images).run(out, save_img=True)
    with Image.open(out / "photo_3_semantic.png") as picture:
        assert np.array(picture).shape == (96, 128, 3)
    assert len(list(out.glob("*_semantic.png"))) == 6


def test_results_may_lie_among_the_photos(images):
    make_engine(images).run(images, save_img=True)
    labeler = ColourLabeler()
    assert make_engine(images, labeler).run(images).photos == 6
    assert labeler.batches == []


def test_a_result_that_cannot_be_written_ends_the_run(images, tmp_path):
    (tmp_path / "out" / "photo_1_semantic.json").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        make_engine(images).run(tmp_path / "out")


def test_other_weights_in_the_same_folder_are_refused(images, tmp_path):
    class ModelLabeler(ColourLabeler):
        def __init__(self, weight):
            super().__init__()
            self.model = torch.nn.Linear(2, 2)
            torch.nn.init.constant_(self.model.weight, weight)

    make_engine(images, ModelLabeler(0.5)).run(tmp_path / "out")
    with pytest.raises(ValueError, match=r"labelers\.ModelLabeler\.model\.sha256 was"):
        make_engine(images, ModelLabeler(0.25)).run(tmp_path / "out")
    make_engine(images, ModelLabeler(0.25)).run(tmp_path / "out", resume=False)


def test_models_are_found_in_what_a_labeller_holds():
    class Holder:
        def __init__(self):
            self.parts = {"clip": torch.nn.Sequential(torch.nn.Linear(1, 1)), "names": ["a"]}
            self.inner = [Inner(self)]
            self.piece = self.parts["clip"][0]

    class Inner:
        def __init__(self, owner):
            self.owner, self.model = owner, torch.nn.Linear(2, 2)

    holder = Holder()
    assert list(find_models(holder)) == ["parts.clip", "inner.0.model"]
    described = describe_models(holder)["inner.0.model"]
    assert (described["class"], described["dtype"]) == ("Linear", ["float32"])
    assert described["parameters"] == 6


@pytest.mark.parametrize("number", [0, 2])
def test_no_labeller_or_two_of_a_kind_are_rejected(images, number):
    with pytest.raises(ValueError, match="each of its own class"):
        AnnotationEngine(Sa1bMasks(images), [ColourLabeler() for _ in range(number)])


def test_masks_of_a_random_sam_are_labelled_end_to_end(images, tmp_path):
    torch.manual_seed(0)
    sam = perturb(build_model(tiny_sam_cfg())).eval()
    generator = AutomaticMaskGenerator(
        sam,
        points_per_side=3,
        pred_iou_thresh=-100.0,
        stability_score_thresh=0.0,
        output_mode="coco_rle",
    )
    engine = AnnotationEngine(GeneratedMasks(images, generator), [ColourLabeler()], device="cpu")
    summary = engine.run(tmp_path / "out")
    assert summary.finished == 6
    # A random model finds masks without pixels too.
    assert 0 < summary.labelled <= summary.masks
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert list(manifest["masks"]["models"]) == ["generator.predictor.model"]
    plan = describe_plan(engine)
    assert "photos: 6" in plan
    assert "PromptableSegmentor" in plan


class PickyMasks(Sa1bMasks):
    """Finds masks of several photos at once, and none of a group with one that it refuses."""

    def __init__(self, images, refused):
        super().__init__(images)
        self.refused, self.groups = refused, []

    def find_masks(self, photos):
        self.groups.append([photo.name for photo in photos])
        if self.refused in self.groups[-1]:
            raise RuntimeError("no masks of this one")
        return list(photos)


def test_masks_are_found_in_groups_and_one_by_one_where_that_fails(images, tmp_path):
    (images / "photo_4.png").write_bytes(b"no image")
    source = PickyMasks(images, "photo_1")
    AnnotationEngine(source, [ColourLabeler()], 3, device="cpu").run(tmp_path / "out")
    names = [f"photo_{i}" for i in range(6)]
    assert source.groups == [names[:3], *([name] for name in names[:3]), ["photo_3", "photo_5"]]
    assert list(results(tmp_path / "out")) == [f"photo_{i}_semantic.json" for i in (0, 2, 3, 5)]
    noted = failures(tmp_path / "out")
    assert noted["photo_1"]["reason"] == "RuntimeError: no masks of this one"
    assert {name: line["stage"] for name, line in noted.items()} == {
        "photo_1": "masks",
        "photo_4": "read",
    }


def test_the_engine_is_built_from_the_configuration(images):
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.ANNOTATION.LABELERS = ["ColourLabeler"]
    cfg.ANNOTATION.IMAGES_PER_BATCH = 2
    engine = build_engine(cfg, images)
    assert list(engine.labelers) == ["ColourLabeler"]
    assert engine.images_per_batch == 2
    assert "IMAGES_PER_BATCH" not in engine.settings
    assert engine.settings["MASKS"]["NAME"] == "Sa1bMasks"
    cfg.ANNOTATION.LABELERS = []
    with pytest.raises(ValueError, match=r"ANNOTATION\.LABELERS names no labeller"):
        build_engine(cfg, images)
