import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("skimage")
pytest.importorskip("sklearn")

from semsam.data.datasets.sa1b import Sa1bFolder
from semsam.data.records import decode_annotations

TOOL = Path(__file__).parents[2] / "datasets" / "prepare_samples.py"
COMMAND = (sys.executable, str(TOOL), "--train-scenes=3", "--val-scenes=2", "--photo-crops=1")


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    subprocess.run([*COMMAND, f"--output={folder}"], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize(
    ("name", "number"), [("scenes_train", 3), ("scenes_val", 2), ("photos_train", 12)]
)
def test_the_folders_are_read_as_sa1b(samples, name, number):
    records = Sa1bFolder(samples / name)
    assert len(records) == number
    for record in (records[i] for i in range(number)):
        with Image.open(record["file_name"]) as image:
            masks = decode_annotations(record, image.size[::-1]).masks
        assert masks.areas.tolist() == [a["area"] for a in record["annotations"]]


def test_every_parent_is_in_the_file(samples):
    for file in samples.glob("*/*.json"):
        annotations = json.loads(file.read_text())["annotations"]
        ids = {a["id"] for a in annotations}
        assert {a["parent"] for a in annotations} <= {None, *ids}


def test_held_out_photos_and_parts_are_not_trained_on(samples):
    trained = {f.stem.rpartition("_")[0] for f in (samples / "photos_train").glob("*.jpg")}
    held_out = {f.stem.rpartition("_")[0] for f in (samples / "photos_val").glob("*.jpg")}
    assert held_out == {"coffee", "flower", "astronaut_right", "china_right"}
    assert not trained & held_out
    with (
        Image.open(samples / "photos_train" / "astronaut_0.jpg") as left,
        Image.open(samples / "photos_val" / "astronaut_right_0.jpg") as right,
    ):
        # The astronaut is square, 480 pixels a side.
        assert left.width + right.width == 480


def test_a_folder_that_is_there_is_left_as_it_is(samples):
    marked = samples / "scenes_val" / "scene_00000.json"
    text = marked.read_text()
    marked.write_text("mine")
    subprocess.run([*COMMAND, f"--output={samples}"], check=True, capture_output=True)
    kept = marked.read_text()
    marked.write_text(text)
    assert kept == "mine"
