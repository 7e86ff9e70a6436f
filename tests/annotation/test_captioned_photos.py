import json
import os
from pathlib import Path

import pytest

from semsam.annotation.captioned_photos import CaptionedPhotos
from semsam.data.records import BadRecordError

from .photos import row_of, write_photos, write_tsv

COCO = Path(os.environ.get("SEMSAM_DATA", "../shared/data")) / "coco"


@pytest.fixture
def images(tmp_path):
    return write_photos(tmp_path / "images", 3)


@pytest.fixture
def coco_json(tmp_path):
    """Captions of two of the photos, the second's in two lines."""
    captions = [(1, " a dog\non a street "), (1, ""), (1, "a man"), (2, "a car")]
    path = tmp_path / "captions.json"
    path.write_text(
        json.dumps(
            {
                "images": [{"id": i, "file_name": f"photo_{i}.jpg"} for i in (1, 2, 7)],
                "annotations": [{"image_id": i, "caption": text} for i, text in captions],
            }
        )
    )
    return path


def captions_of(source):
    return {item.name: source.load(item).fields["captions"] for item in source.items()}


def test_captions_come_from_a_coco_json(images, coco_json):
    source = CaptionedPhotos(images, coco_json)
    assert captions_of(source) == {
        "photo_0": [],
        "photo_1": ["a dog on a street", "a man"],
        "photo_2": ["a car"],
    }
    assert source.load(source.items()[1]).annotations == []
    # A changed json is changed input.
    assert source.items()[0].file_sizes()[1] == coco_json.stat().st_size
    first = CaptionedPhotos(images, coco_json, max_captions=1)
    assert captions_of(first)["photo_1"] == ["a dog on a street"]


def test_captions_come_from_texts_beside_the_photos(images):
    (images / "photo_1.txt").write_text("a dog\n\n  a tree in a garden \n")
    (images / "photo_2.txt").write_text("")
    source = CaptionedPhotos(images)
    assert captions_of(source) == {
        "photo_0": [],
        "photo_1": ["a dog", "a tree in a garden"],
        "photo_2": [],
    }
    # A changed text is changed input.
    sizes = [item.file_sizes() for item in source.items()]
    assert [len(size) for size in sizes] == [1, 2, 2]
    assert sizes[1][1] == 29


def test_captions_come_from_rows_of_shards(images, tmp_path):
    rows = [row_of(images, f"photo_{number}") for number in range(3)]
    rows[0][1] = b'{"captions": ["a dog", "a cat"]}'
    rows[1][1] = b'{"caption": "a tree", "annotations": []}'
    rows[2][1] = b""
    write_tsv(tmp_path / "shards" / "s.tsv", rows)
    assert captions_of(CaptionedPhotos(tmp_path / "shards")) == {
        "photo_0": ["a dog", "a cat"],
        "photo_1": ["a tree"],
        "photo_2": [],
    }


def test_a_text_that_is_none_fails_for_its_photo_alone(images):
    (images / "photo_1.txt").write_bytes(b"\xff\xfe\x00")
    source = CaptionedPhotos(images)
    with pytest.raises(BadRecordError, match=r"photo_1\.txt: UnicodeDecodeError"):
        source.load(source.items()[1])
    assert source.load(source.items()[0]).fields == {"captions": []}


def test_a_row_whose_captions_are_no_texts_is_bad(images, tmp_path):
    row = row_of(images, "photo_0")
    row[1] = b'{"captions": [3]}'
    write_tsv(tmp_path / "shards" / "s.tsv", [row])
    source = CaptionedPhotos(tmp_path / "shards")
    with pytest.raises(BadRecordError, match=r"s\.tsv:0: TypeError: a caption is text, not 3"):
        source.load(source.items()[0])


def test_a_json_that_does_not_belong_to_the_photos_is_refused(images, tmp_path, coco_json):
    content = json.loads(coco_json.read_text())
    for number, image in enumerate(content["images"]):
        image["file_name"] = f"other_{number}.jpg"
    coco_json.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"no caption of any photo, such as 'photo_0'.* 'other_0'"):
        CaptionedPhotos(images, coco_json).items()
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        CaptionedPhotos(images, tmp_path / "none.json")
    with pytest.raises(ValueError, match="max_captions is 0 or more"):
        CaptionedPhotos(images, max_captions=-1)


DAMAGES = {
    "{": "captions.json' is not json",
    "[]": "captions.json' has no 'images', 'annotations'",
    '{"images": []}': "captions.json' has no 'annotations'",
    '{"images": [{"id": 1}], "annotations": []}': "image 0: KeyError: 'file_name'",
    '{"images": [], "annotations": [{"image_id": 4}]}': "annotation 0: .*image 4 is not listed",
    '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1}]}': (
        "annotation 0: KeyError: 'caption'"
    ),
}


@pytest.mark.parametrize(("text", "reason"), DAMAGES.items(), ids=DAMAGES.values())
def test_a_damaged_json_of_captions_is_refused_with_what_is_wrong(images, tmp_path, text, reason):
    (tmp_path / "captions.json").write_text(text)
    with pytest.raises(ValueError, match=reason):
        CaptionedPhotos(images, tmp_path / "captions.json")


def test_photos_of_which_none_has_a_caption_are_refused(images, coco_json):
    with pytest.raises(ValueError, match=r"such as 'photo_0\.txt'.*DATA_ENGINE\.CAPTIONS"):
        CaptionedPhotos(images).items()
    content = json.loads(coco_json.read_text())
    for annotation in content["annotations"]:
        annotation["caption"] = " \n"
    coco_json.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"no caption of any photo, such as 'photo_0'$"):
        CaptionedPhotos(images, coco_json).items()


ODD_NAMES = ["a\"b'c", "🐶", "日本 語", "sub dir/x#?&<b>", "100%.v2.final"]


def test_names_and_captions_may_have_any_characters(tmp_path):
    images = tmp_path / "images"
    for name in ODD_NAMES:
        photo = write_photos(tmp_path / "one", 1) / "photo_0.png"
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        photo.rename(images / f"{name}.png")
        (images / f"{name}.txt").write_text(f'ein Straßen-/Café "{name}" 犬', encoding="utf-8")
    found = captions_of(CaptionedPhotos(images))
    assert found == {name: [f'ein Straßen-/Café "{name}" 犬'] for name in ODD_NAMES}


@pytest.mark.skipif(not COCO.is_dir(), reason=f"no COCO in {COCO}; see SEMSAM_DATA")
def test_every_photo_of_coco_has_its_five_captions():
    source = CaptionedPhotos(COCO / "val2017", COCO / "annotations/captions_val2017.json")
    counts = [len(source.read(item).fields["captions"]) for item in source.items()[:10]]
    assert all(5 <= count <= 7 for count in counts)
