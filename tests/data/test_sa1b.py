import base64
import json
import tarfile

import numpy as np
import pytest

from semsam.data import DatasetCatalog
from semsam.data.datasets.sa1b import Sa1bFolder, Sa1bTar, Sa1bTsv
from semsam.data.datasets.tsv import write_tsv
from semsam.data.records import BadRecordError, LazyImage, decode_annotations
from tests.data.sa1b_files import SIZE, nested_masks, write_images


def content(record):
    """The pixels and masks that a record leads to."""
    image = LazyImage(record)
    annotations = decode_annotations(record, image.size)
    return np.asarray(image.decode()), annotations.masks.decode(), annotations.clicks


def assert_same_records(first, second):
    assert [r["image_id"] for r in first] == [r["image_id"] for r in second]
    for one, other in zip(first, second, strict=True):
        for mine, yours in zip(content(one), content(other), strict=True):
            assert np.array_equal(mine, yours)


def test_a_folder_gives_images_masks_and_clicks(tmp_path):
    write_images(tmp_path / "deep", 2)
    records = Sa1bFolder(tmp_path)
    assert [record["image_id"] for record in records] == ["deep/image_0", "deep/image_1"]
    image, masks, clicks = content(records[1])
    assert image.shape == (*SIZE, 3)
    assert abs(image.astype(int) - 10).max() <= 2
    assert np.array_equal(masks, nested_masks())
    assert clicks.tolist() == [[4, 4], [8, 8], [34, 24]]


def test_an_image_without_json_is_named_at_the_start(tmp_path):
    write_images(tmp_path, 2)
    (tmp_path / "image_1.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"image_1\.jpg"):
        Sa1bFolder(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Sa1bFolder(tmp_path / "nowhere")


def pack_tar(path, folder):
    """A tar file of a folder, its members in the order of SA-1B's: none in particular."""
    with tarfile.open(path, "w") as archive:
        archive.add(folder, arcname=".", recursive=False)
        for file in sorted(folder.iterdir(), key=lambda file: (file.suffix, file.name)):
            archive.add(file, arcname=f"./{file.name}")
    return path


def test_tar_files_that_are_not_unpacked_give_what_the_folder_gives(tmp_path):
    (tmp_path / "tars").mkdir()
    path = pack_tar(tmp_path / "tars" / "sa_000000.tar", write_images(tmp_path / "images", 3))
    folder = Sa1bFolder(tmp_path / "images")
    assert_same_records(Sa1bTar(tmp_path / "tars"), folder)
    assert_same_records(DatasetCatalog.get(f"sa1b_tar://{path}"), folder)


def test_a_sample_of_a_tar_file_that_does_not_parse_says_where_it_is(tmp_path):
    folder = write_images(tmp_path / "images", 4)
    (folder / "image_1.json").write_text("{")
    (folder / "image_2.json").unlink()
    (folder / "image_3.jpg").unlink()
    records = Sa1bTar(pack_tar(tmp_path / "s.tar", folder))
    reasons = {"image_1": "JSONDecodeError", "image_2": "'json'", "image_3": "is an image"}
    rows = {records.shards[0].name(row): row for row in range(len(records))}
    assert content(records[rows.pop("image_0")])[1].shape == (3, *SIZE)
    assert rows.keys() == reasons.keys()
    for name, row in rows.items():
        with pytest.raises(BadRecordError, match=rf"s\.tar:{name}: .*{reasons[name]}"):
            records[row]


def row_of(folder, index):
    image = (folder / f"image_{index}.jpg").read_bytes()
    return [b"n", (folder / f"image_{index}.json").read_bytes(), base64.b64encode(image)]


def test_a_row_that_does_not_parse_says_where_it_is(tmp_path):
    name, annotations, image = row_of(write_images(tmp_path / "images", 1), 0)
    rows = [
        [name, annotations, image],
        [name, annotations],
        [name, b"{}", image],
        [name, b'[{"bbox": []}]', image],
        [name, annotations, b"%%%"],
    ]
    write_tsv(tmp_path / "shards" / "s.tsv", rows)
    records = Sa1bTsv(tmp_path / "shards")
    assert content(records[0])[1].shape == (3, *SIZE)
    for bad in range(1, 5):
        with pytest.raises(BadRecordError, match=rf"s\.tsv:{bad}: "):
            records[bad]


def test_label_files_replace_the_annotations(tmp_path):
    write_tsv(tmp_path / "s.tsv", [row_of(write_images(tmp_path / "images", 1), 0)])
    masks = json.loads((tmp_path / "images" / "image_0.json").read_text())["annotations"]
    write_tsv(tmp_path / "label.tsv", [[b"n", json.dumps(masks[:1]).encode()]])
    (tmp_path / "label.tsv").rename(tmp_path / "s.label")
    (tmp_path / "label.lineidx").rename(tmp_path / "s.label.lineidx")
    assert len(Sa1bTsv(tmp_path)[0]["annotations"]) == 1
