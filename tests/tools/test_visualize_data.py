import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.data.joint_files import write_objects365
from tests.data.region_files import vg_region, write_visual_genome
from tests.data.sa1b_files import write_images

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("split", ["TRAIN", "TEST"])
def test_samples_and_the_answers_to_a_prompt_are_drawn(tmp_path, split):
    images = write_images(tmp_path / "images", 3)
    command = [
        *(sys.executable, ROOT / "tools/visualize_data.py"),
        *("--config-file", ROOT / "configs/Base-SemanticSAM.yaml"),
        *("--output", tmp_path / "pictures", "--number", "2"),
        *(["--test"] if split == "TEST" else []),
        *("DATALOADER.NUM_WORKERS=0", "INPUT.IMAGE_SIZE=64", "INPUT.MIN_SIZE_TEST=80"),
        f"DATASETS.{split}=('sa1b_folder://{images}',)",
    ]
    subprocess.run(command, check=True, cwd=ROOT)
    sizes = {p.name: Image.open(p).size for p in (tmp_path / "pictures").iterdir()}
    assert set(sizes) == {"000.png", "000_levels.png", "001.png", "001_levels.png"}
    assert sizes["000.png"] == ((64, 64) if split == "TRAIN" else (120, 80))
    # Some prompt lies in two masks, one inside the other: with the image, a row of three.
    width, height = sizes["000_levels.png"]
    assert width > 2.5 * height


@pytest.mark.parametrize("split", ["TRAIN", "TEST"])
def test_regions_are_drawn_with_their_captions(tmp_path, split):
    regions = {2: [vg_region(20, "a wall")], 3: [vg_region(30, "a door")]}
    root = write_visual_genome(tmp_path / "vg", regions)
    command = [
        *(sys.executable, ROOT / "tools/visualize_data.py"),
        *("--config-file", ROOT / "configs/Base-SCA.yaml"),
        *("--output", tmp_path / "pictures", "--number", "1"),
        *(["--test"] if split == "TEST" else []),
        *("DATALOADER.NUM_WORKERS=0", "INPUT.IMAGE_SIZE=256", "INPUT.MIN_SIZE_TEST=80"),
        f"DATASETS.{split}=('visual_genome://{root}?split=test',)",
    ]
    subprocess.run(command, check=True, cwd=ROOT)
    (picture,) = (tmp_path / "pictures").iterdir()
    assert Image.open(picture).size == ((256, 256) if split == "TRAIN" else (120, 80))


def test_objects_without_masks_are_drawn_by_their_boxes(tmp_path):
    write_objects365(tmp_path / "o365")
    command = [
        *(sys.executable, ROOT / "tools/visualize_data.py"),
        *("--config-file", ROOT / "configs/Base-SemanticSAM.yaml"),
        *("--output", tmp_path / "pictures", "--number", "1"),
        *("DATALOADER.NUM_WORKERS=0", "INPUT.IMAGE_SIZE=128"),
        f"DATASETS.TRAIN=('objects365_boxes://{tmp_path}/o365?split=train',)",
    ]
    subprocess.run(command, check=True, cwd=ROOT)
    (picture,) = (tmp_path / "pictures").iterdir()
    assert Image.open(picture).size == (128, 128)
