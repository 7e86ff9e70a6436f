"""``tools/annotate.py``: killed, resumed, shared among ranks, and on one photo."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from semsam.data.datasets.text_regions import TextRegionsTsv
from semsam.data.datasets.text_regions_tar import TextRegionsTar

from ..annotation.detector_models import write_language_model, write_owl
from ..annotation.models import write_blip, write_clip, write_clipseg
from ..annotation.photos import write_photos
from ..annotation.sam_models import write_sam
from ..annotation.segmenter_models import write_oneformer, write_segformer

ROOT = Path(__file__).parents[2]
COCO_ROOT = Path(os.environ.get("SEMSAM_DATA", "../shared/data")) / "coco"


@pytest.fixture
def command(tmp_path):
    """The command line of the tool on a folder, with a labeller of the tests."""
    config = {
        "IMPORTS": [str(ROOT / "tests/annotation/colour_labeler.py")],
        "MODEL": {"DEVICE": "cpu"},
        "ANNOTATION": {"LABELERS": ["SlowColourLabeler"], "IMAGES_PER_BATCH": 2},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))

    def make(images, output, *options):
        tool = [sys.executable, ROOT / "tools/annotate.py", "--config-file", path]
        return [*map(str, [*tool, images, tmp_path / output, *options])]

    return make


def run(command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def kill_when(command, output, number, delay):
    """SIGKILL the tool ``delay`` seconds after it has left ``number`` results."""
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and len(list(output.glob("*_semantic.json"))) < number:
        time.sleep(0.01)
    time.sleep(delay)
    assert process.poll() is None, "it was done before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def check_kill_and_resume(command, images, tmp_path, *options):
    done = run(command(images, "unbroken", *options))
    assert done.returncode == 0, done.stderr
    killed = tmp_path / "killed"
    results = len(list((tmp_path / "unbroken").glob("*_semantic.json")))
    draw = random.Random()
    for number in (results // 4, 3 * results // 4):
        kill_when(command(images, "killed", *options), killed, number, draw.uniform(0, 0.3))
        left = list(killed.glob("*_semantic.json"))
        assert number <= len(left) < results
        # What was written is whole.
        assert all(json.loads(path.read_text())["annotations"] for path in left)
    done = run(command(images, "killed", *options))
    assert done.returncode == 0, done.stderr
    assert content(killed) == content(tmp_path / "unbroken")


@pytest.mark.slow
def test_a_run_that_was_killed_twice_and_resumed_leaves_what_an_unbroken_one_leaves(
    command, tmp_path
):
    images = write_photos(tmp_path / "images", 24)
    (images / "photo_7.png").write_bytes(b"damaged")
    (images / "photo_11.json").write_text("{")
    check_kill_and_resume(command, images, tmp_path, "--save-img")


@pytest.mark.slow
@pytest.mark.skipif(not COCO_ROOT.is_dir(), reason=f"no COCO in {COCO_ROOT}; see SEMSAM_DATA")
def test_fifty_photos_of_coco_that_tiny_models_mask_and_name_survive_kills_too(command, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted((COCO_ROOT / "val2017").glob("*.jpg"))[:50]:
        (images / path.name).symlink_to(path.resolve())
    options = {
        "LABELERS": ["OpenSetLabeler", "ClosedSetLabeler"],
        "MASKS.NAME": "TransformersMasks",
        "MASKS.MODEL": write_sam(tmp_path / "sam"),
        "MASKS.POINTS_PER_SIDE": 2,
        "MASKS.PRED_IOU_THRESH": -9.0,
        "MASKS.STABILITY_SCORE_THRESH": -1.0,
        "OPEN_SET.SEGMENTERS": [write_oneformer(tmp_path / "oneformer")],
        "OPEN_SET.LABEL_MAPS": [""],
        "OPEN_SET.CAPTIONER": write_blip(tmp_path / "blip"),
        "OPEN_SET.CLIP": write_clip(tmp_path / "clip"),
        "OPEN_SET.CLIPSEG": write_clipseg(tmp_path / "clipseg"),
        "CLOSED_SET.SEGMENTERS": [write_segformer(tmp_path / "segformer")],
        "CLOSED_SET.LABEL_MAPS": [""],
    }
    settings = [f"ANNOTATION.{key}={value}" for key, value in options.items()]
    check_kill_and_resume(command, images, tmp_path, *settings)


@pytest.mark.slow
@pytest.mark.skipif(not COCO_ROOT.is_dir(), reason=f"no COCO in {COCO_ROOT}; see SEMSAM_DATA")
def test_the_data_engine_on_captions_of_coco_survives_kills_and_becomes_shards(command, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted((COCO_ROOT / "val2017").glob("*.jpg"))[:24]:
        (images / path.name).symlink_to(path.resolve())
    node = "DATA_ENGINE"
    options = {
        "LABELERS": ["TextEmbeddingLabeler"],
        "MASKS.NAME": "DetectedObjects",
        f"{node}.CAPTIONS": COCO_ROOT.resolve() / "annotations/captions_val2017.json",
        f"{node}.MAX_CAPTIONS": 2,
        f"{node}.LANGUAGE_MODEL": write_language_model(tmp_path / "language_model"),
        f"{node}.TEMPLATES": ["Caption: {} Objects:", "a photo of {}"],
        f"{node}.DETECTOR": write_owl(tmp_path / "owl"),
        f"{node}.THRESHOLD": 0.0,
        "TEXT_EMBEDDING.MODEL": write_clip(tmp_path / "clip"),
    }
    settings = [f"ANNOTATION.{key}={value}" for key, value in options.items()]
    check_kill_and_resume(command, images, tmp_path, *settings)
    pack = [sys.executable, ROOT / "datasets/prepare_text_regions.py", tmp_path / "killed", images]
    done = run([*map(str, pack), "--output", str(tmp_path / "shards"), "--rows-per-shard", "5"])
    assert done.returncode == 0, done.stderr
    records = TextRegionsTsv(tmp_path / "shards")
    assert len(records) == 24
    assert all(len(record["captions"]) == 2 for record in map(records.__getitem__, range(24)))
    done = run([*map(str, pack), "--output", str(tmp_path / "tars"), "--format", "webdataset"])
    assert done.returncode == 0, done.stderr
    assert len(TextRegionsTar(tmp_path / "tars")) == 24
    sheet = [sys.executable, ROOT / "tools/review.py", "sheet", tmp_path / "killed", images]
    done = run([*map(str, sheet), str(tmp_path / "sheet.html"), "--photos", "3"])
    assert done.returncode == 0, done.stderr
    assert "48 captions gave" in (tmp_path / "sheet.html").read_text()


@pytest.mark.slow
def test_two_ranks_leave_what_one_leaves(command, tmp_path):
    images = write_photos(tmp_path / "images", 7)
    (images / "photo_3.json").write_text("{")
    for output, ranks in (("one", "1"), ("two", "2")):
        done = run(command(images, output, "--num-gpus", ranks))
        assert done.returncode == 0, done.stderr
    assert content(tmp_path / "two") == content(tmp_path / "one")
    assert len(list((tmp_path / "two").glob("*_semantic.json"))) == 6


@pytest.mark.slow
def test_ray_leaves_what_one_process_leaves_also_as_parquet(command, tmp_path):
    pytest.importorskip("ray")
    images = write_photos(tmp_path / "images", 7)
    for output, options in (("alone", ()), ("ray", ("--ray",))):
        done = run(command(images, output, "--format", "parquet", *options))
        assert done.returncode == 0, done.stderr
    assert content(tmp_path / "ray") == content(tmp_path / "alone")
    assert (tmp_path / "ray" / "results-00000.parquet").is_file()


def test_one_photo_is_as_easy_as_a_folder(command, tmp_path):
    images = write_photos(tmp_path / "images", 2)
    done = run(command(images / "photo_1.png", "out", "ANNOTATION.LABELERS=['ColourLabeler']"))
    assert done.returncode == 0, done.stderr
    assert "images/s" in done.stderr or "image/s" in done.stderr
    assert set(content(tmp_path / "out")) == {
        "photo_1_semantic.json",
        "journal.jsonl",
        "manifest.json",
    }


def test_a_dry_run_tells_what_would_be_done_and_does_nothing(command, tmp_path):
    images = write_photos(tmp_path / "images", 3)
    sam = write_sam(tmp_path / "sam")
    done = run(command(images, "out", "--dry-run"))
    assert "photos: 3" in done.stdout
    assert "masks: 6 (Sa1bMasks)" in done.stdout
    assert "SlowColourLabeler: no model" in done.stdout
    masks = ["ANNOTATION.MASKS.NAME", "TransformersMasks", "ANNOTATION.MASKS.MODEL", sam]
    done = run(command(images, "out", "--dry-run", *masks))
    assert "model: SamModel" in done.stdout
    assert "MiB" in done.stdout
    assert not (tmp_path / "out").exists()


def test_other_settings_are_refused(command, tmp_path):
    images = write_photos(tmp_path / "images", 2)
    assert run(command(images, "out")).returncode == 0
    other = "ANNOTATION.LABELERS=['ColourLabeler']"
    done = run(command(images, "out", other))
    assert done.returncode != 0
    assert 'settings.LABELERS was ["SlowColourLabeler"], is ["ColourLabeler"]' in done.stderr
