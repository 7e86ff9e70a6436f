import base64
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semsam.data import DatasetCatalog, MetadataCatalog
from semsam.data.datasets.shard_list import read_manifest
from semsam.data.datasets.shards import pack_datasets
from semsam.data.datasets.tsv import TsvFile, write_tsv
from tests.data.region_files import vg_region, write_visual_genome
from tests.data.sa1b_files import nested_masks, write_images
from tests.data.test_sa1b import assert_same_records, pack_tar
from tests.data.test_shards import parts

ROOT = Path(__file__).parents[2]
#: A module, so that what a worker is asked to call is found there.
MAIN = runpy.run_path(str(ROOT / "tools" / "data.py"))["main"]


def run(*arguments):
    """The exit code of the tool."""
    return MAIN([str(argument) for argument in arguments])


@pytest.fixture
def shards(tmp_path):
    """Three shards of five images, as a folder."""
    source = write_images(tmp_path / "images", 5)
    pack_datasets([f"sa1b_folder://{source}"], tmp_path / "shards", 2)
    return tmp_path / "shards"


def change(path, old, new):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


def test_whole_shards_have_no_fault(tmp_path, shards, capsys):
    pack_datasets([f"shards://{shards}"], tmp_path / "tars", 2, form="webdataset")
    sources = (shards, tmp_path / "tars", tmp_path / "images", shards / "shard-00001.tsv")
    assert run("verify", *sources, f"shards://{shards}", "--workers", 2) == 0
    output = capsys.readouterr()
    assert output.out == ""
    assert "22 rows, 0 faults" in output.err


def test_each_fault_is_a_line_with_its_place_and_the_rest_is_checked(tmp_path, shards, capsys):
    name, text, image = TsvFile(shards / "shard-00000.tsv")[0]
    content = json.loads(text)
    mask = content["annotations"][0]["segmentation"]

    def with_mask(**values):
        changed = {**content, "annotations": [{"segmentation": {**mask, **values}}]}
        return json.dumps(changed).encode()

    photo = base64.b64decode(image)
    rows = [
        [name, text, image],
        [b"b", with_mask(counts=mask["counts"][:-1]), image],
        [b"c", with_mask(size=[60, 40]), image],
        [b"d", text, base64.b64encode(photo[:-30])],
        [b"e", text, b"%%%"],
        [b"f", b"{", image],
        [b"g", text],
        [name, text, image],
        [b"\xff", text, image],
        [b"i", json.dumps({**content, "height": 41}).encode(), image],
    ]
    write_tsv(tmp_path / "bad" / "s.tsv", rows)
    assert run("verify", tmp_path / "bad", "--workers", 1) == 1
    lines = capsys.readouterr().out.splitlines()
    expected = {
        1: "run-length text is damaged",
        2: "mask 0 is [60, 40], the image [40, 60]",
        3: "truncated",
        4: "Only base64 data",
        5: "JSONDecodeError",
        6: "not enough values",
        8: "UnicodeDecodeError",
        9: "the record says (41, 60), the image is (40, 60)",
        7: f"has the name of {tmp_path / 'bad' / 's.tsv'}:0",
    }
    assert len(lines) == len(expected)
    for (row, reason), line in zip(expected.items(), lines, strict=True):
        place, _, said = line.partition(": ")
        assert place == f"{tmp_path / 'bad' / 's.tsv'}:{row}"
        assert reason in said


def faults(shards, capsys):
    assert run("verify", shards, "--workers", 2) == 1
    return sorted(line.replace(f"{shards}/", "") for line in capsys.readouterr().out.splitlines())


def test_a_file_that_was_cut_or_changed_differs_from_the_list(shards, capsys):
    path = shards / "shard-00000.tsv"
    path.write_bytes(path.read_bytes()[:-9])
    change(shards / "shard-00002.tsv", b'"image_id"', b'"Image_id"')
    lines = faults(shards, capsys)
    assert [line.split(": ")[:2] for line in lines] == [
        ["shard-00000.tsv", "bytes"],
        ["shard-00000.tsv", "checksum"],
        ["shard-00000.tsv:1", "OSError"],
        ["shard-00002.tsv", "checksum"],
    ]


def test_indices_that_do_not_fit_are_named_with_their_first_row(shards, capsys):
    (shards / "shard-00000.lineidx").write_text("0\n7\n")
    (shards / "shard-00001.lineidx").write_text("0\n")
    (shards / "shard-00002.lineidx").unlink()
    lines = faults(shards, capsys)
    assert len(lines) == 3
    assert lines[0].startswith("shard-00000.lineidx:1: the row begins at byte ")
    assert lines[0].endswith(", not 7")
    assert lines[1] == "shard-00001.lineidx: the index has 1 rows, the file 2"
    assert "No such file" in lines[2]


def test_missing_and_unlisted_shards_and_a_run_that_was_stopped_are_named(shards, capsys):
    (shards / "shard-00000.tsv").unlink()
    (shards / "shard-00001.tsv").rename(shards / "other.tsv")
    (shards / "shard-00001.lineidx").rename(shards / "other.lineidx")
    assert faults(shards, capsys) == [
        "shard-00000.tsv: the file is missing",
        "shard-00001.tsv: the file is missing",
        "shards.json: 'other.tsv' is not listed",
    ]
    (shards / "shards.json").rename(shards / "progress.json")
    assert faults(shards, capsys)[0].startswith("progress.json: the folder is packed in part")
    (shards / "shards.json").write_text("{")
    assert any("is no list of shards" in line for line in faults(shards, capsys))


def test_faults_of_tar_shards_and_of_datasets_that_are_no_shards(tmp_path, capsys):
    images = write_images(tmp_path / "images", 3)
    (images / "image_1.json").write_text("{")
    tars = tmp_path / "tars"
    tars.mkdir()
    pack_tar(tars / "a.tar", images)
    whole = (tars / "a.tar").read_bytes()
    (tars / "b.tar").write_bytes(whole[:3000])
    assert run("verify", tars) == 1
    lines = sorted(capsys.readouterr().out.splitlines())
    assert len(lines) == 2
    assert f"{tars}/a.tar:1: " in lines[0]
    assert "JSONDecodeError" in lines[0]
    assert "was cut" in lines[1]
    assert run("verify", f"sa1b_folder://{images}") == 1
    assert f"sa1b_folder://{images}:1: " in capsys.readouterr().out
    for source in ("nothing", tmp_path / "nowhere.tsv"):
        with pytest.raises(SystemExit):
            run("verify", source)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit):
        run("verify", tmp_path / "empty")


def test_stats_count_masks_levels_and_areas(shards, tmp_path, capsys):
    picture = tmp_path / "pictures" / "stats.png"
    assert run("stats", shards, "--picture", picture, "--workers", 2) == 0
    lines = capsys.readouterr().out.splitlines()
    table = dict(line.split("  ", 1) for line in lines[: lines.index("")])
    table = {name: value.strip() for name, value in table.items()}
    assert table["images"] == "5"
    assert table["masks"] == table["regions"] == "15"
    assert table["masks an image"] == "3.00"
    # Of the whole, its part and the other object: a click on the part is in two.
    assert table["masks that contain a click"] == "1.33"
    assert table["small, medium, large"] == "15 0 0"
    nested = lines.index("larger masks in which a mask lies")
    assert [line.split()[1] for line in lines[nested + 1 : nested + 3]] == ["66.7%", "33.3%"]
    with Image.open(picture) as image:
        assert min(image.size) > 300


def test_stats_count_words_and_rows_that_cannot_be_used(tmp_path, capsys):
    regions = {2: [vg_region(1, "A red car"), vg_region(2, "the car")], 3: [vg_region(3, "sky")]}
    root = write_visual_genome(tmp_path, regions)
    (root / "VG_100K" / "3.jpg").write_bytes(b"no image")
    assert run("stats", f"visual_genome://{root}?split=test", "--workers", 1) == 0
    lines = capsys.readouterr().out.splitlines()
    table = {line[:26].strip(): line[26:].strip() for line in lines[: lines.index("")]}
    assert (table["captions"], table["words"], table["different words"]) == ("2", "5", "4")
    assert (table["words a caption"], table["rows that cannot be used"]) == ("2.50", "1")
    assert table["masks an image"] == "0.00"


def test_head_shows_rows_without_their_images_and_draws_them(tmp_path, shards, capsys):
    assert run("head", shards, "--number", 2, "--output", tmp_path / "pictures") == 0
    decoder = json.JSONDecoder()
    text = capsys.readouterr().out
    first, end = decoder.raw_decode(text)
    assert first["image_id"] == "image_0"
    assert "image_bytes" not in first
    assert decoder.raw_decode(text[end:].lstrip())[0]["image_id"] == "image_1"
    drawn = np.asarray(Image.open(tmp_path / "pictures" / "001.png"))
    inside = nested_masks()[2]
    assert np.ptp(drawn[inside].mean(axis=0)) > 20
    assert np.ptp(drawn[0, -1].astype(int)) == 0
    root = write_visual_genome(tmp_path / "vg", {2: [vg_region(1, "a car")]})
    name = f"visual_genome://{root}?split=test"
    assert run("head", name, "--output", tmp_path / "regions") == 0
    assert (tmp_path / "regions" / "000.png").is_file()


def test_output_that_nobody_reads_to_its_end_is_no_error(shards):
    tool = [sys.executable, str(ROOT / "tools" / "data.py"), "head", str(shards), "--number", "5"]
    run = subprocess.Popen(tool, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    run.stdout.close()
    assert run.stderr.read() == b""
    assert run.wait() == 1


def test_merged_shards_are_one_dataset_whose_files_are_links(tmp_path, shards, capsys):
    other = write_images(tmp_path / "more" / "others", 2).parent
    pack_datasets([f"sa1b_folder://{other}"], tmp_path / "b", 1)
    assert run("merge", shards, tmp_path / "b", "--output", tmp_path / "all", "--name", "m") == 0
    assert "7 rows in 5 shards" in capsys.readouterr().out
    merged = read_manifest(tmp_path / "all")
    assert [shard.name for shard in merged.shards] == [f"m-{n:05d}.tsv" for n in range(5)]
    assert merged.metadata == read_manifest(shards).metadata
    records = DatasetCatalog.get(f"shards://{tmp_path / 'all'}")
    first, second = (DatasetCatalog.get(f"shards://{f}") for f in (shards, tmp_path / "b"))
    everything = [records[number] for number in range(7)]
    assert_same_records(everything, [*first, *second])
    assert os.path.samefile(tmp_path / "all" / "m-00004.tsv", tmp_path / "b" / "shard-00001.tsv")
    assert run("verify", tmp_path / "all") == 0
    with pytest.raises(SystemExit):
        run("merge", shards, "--output", tmp_path / "all")
    assert "exists" in capsys.readouterr().err


def test_split_shards_have_each_row_once_in_proportion(tmp_path, shards, capsys):
    outputs = [tmp_path / "train", tmp_path / "val"]
    assert run("split", shards, "--output", *outputs, "--shares", 2, 1) == 0
    ids = [[r["image_id"] for r in DatasetCatalog.get(f"shards://{folder}")] for folder in outputs]
    assert ids == [["image_0", "image_1", "image_4"], ["image_2", "image_3"]]
    assert run("verify", *outputs) == 0
    assert run("merge", *outputs, "--output", tmp_path / "again") == 0
    capsys.readouterr()
    for arguments, reason in (
        (["--output", *(tmp_path / str(n) for n in range(4))], "3 shards cannot be dealt out to 4"),
        (["--output", tmp_path / "x", "--shares", 0], "a number above 0"),
        (["--output", tmp_path / "x", tmp_path / "train"], "exists"),
    ):
        with pytest.raises(SystemExit):
            run("split", shards, *arguments)
        assert reason in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_the_truth_of_objects_is_cut_and_joined_with_their_shards(tmp_path):
    pack_datasets([parts(tmp_path)], tmp_path / "shards", 1)
    outputs = [tmp_path / "a", tmp_path / "b"]
    assert run("split", tmp_path / "shards", "--output", *outputs) == 0
    for number, folder in enumerate(outputs, start=1):
        metadata = MetadataCatalog.get(f"shards://{folder}")
        truth = json.loads(Path(metadata.json_file).read_text())
        assert Path(metadata.json_file).parent == folder
        assert [image["id"] for image in truth["images"]] == [number]
        assert {row["image_id"] for row in truth["annotations"]} == {number}
    assert run("merge", *outputs, "--output", tmp_path / "all") == 0
    merged = MetadataCatalog.get(f"shards://{tmp_path / 'all'}")
    truth = json.loads(Path(merged.json_file).read_text())
    whole = json.loads((tmp_path / "objects.json").read_text())
    assert truth == whole


def test_shards_of_others_without_a_list_get_one(tmp_path, shards):
    (shards / "shards.json").unlink()
    pack_datasets([f"sa1b_folder://{tmp_path / 'images'}"], tmp_path / "ours", 2)
    assert run("merge", shards, tmp_path / "ours", "--output", tmp_path / "both") == 0
    assert run("merge", shards, "--output", tmp_path / "all") == 0
    assert MetadataCatalog.get(f"shards://{tmp_path / 'all'}").mapper == "PromptableMapper"
    assert run("verify", tmp_path / "all") == 0
