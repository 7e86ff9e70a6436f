import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from semsam.data import DatasetCatalog, MetadataCatalog
from semsam.data.datasets.tar import write_tar
from semsam.data.datasets.text_regions import TextRegionsTsv, text_region_row
from semsam.data.datasets.text_regions_tar import TextRegionsTar, text_region_sample
from semsam.data.datasets.tsv import write_tsv
from semsam.data.records import BadRecordError, LazyImage, decode_regions
from tests.data.text_region_files import jpg, make_result


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def original(number=0, **changes):
    """A sample as open-vocabulary SAM's were: no encoder, one caption, boxes in 1/1024."""
    vectors = np.random.default_rng(number).normal(size=(3, 8)).astype(np.float32)
    content = {
        "boxes": [[64.0, 128, 512, 1024], [0, 0, 1024, 1024], [256, 256, 260.5, 300]],
        "phrases": ["dog", "street", "wheel"],
        "logits": [0.25, 0.5, 0.4],
        "original_width": 640,
        "original_height": 480,
    }
    sample = {
        "jpg": jpg(64, 48),
        "txt": b"a dog on a street\n",
        "clip_emb_phrases.npy": npy(vectors),
        "clip_caption.npy": npy(vectors[0]),
        "masks.npy": b"not read",
    }
    for key, value in changes.items():
        (sample if "." in key or key in ("jpg", "txt") else content)[key] = value
    return {"json": json.dumps(content).encode(), **sample}, vectors


def test_both_forms_of_shards_give_the_same_records(tmp_path):
    rng = np.random.default_rng(0)
    rows, samples = [], []
    for number in range(20):
        result = make_result()
        width, height = rng.integers(40, 700, size=2).tolist()
        for annotation in result["annotations"]:
            box = rng.uniform(0, 40, size=2).tolist() + rng.uniform(0.3, 300, size=2).tolist()
            annotation["bbox"] = [round(value, 2) for value in box]
        if number % 2:
            result["captions"] = result["captions"][:1]
        photo = (f'a/"{number}".é\N{DOG FACE}', jpg(width, height, turned=bool(number % 3)), result)
        rows.append(text_region_row(*photo))
        samples.append(text_region_sample(*photo))
    write_tsv(tmp_path / "s.tsv", rows)
    write_tar(tmp_path / "s.tar", samples)
    tsv, tar = TextRegionsTsv(tmp_path), TextRegionsTar(tmp_path)
    assert len(tsv) == len(tar) == 20
    for one, other in zip(tsv, tar, strict=True):
        assert one.keys() == other.keys()
        for key in one.keys() - {"file_name"}:
            if isinstance(one[key], np.ndarray):
                assert one[key].dtype == other[key].dtype
                np.testing.assert_array_equal(one[key], other[key])
            else:
                assert one[key] == other[key]


def test_a_written_sample_says_where_its_boxes_come_from(tmp_path):
    result = make_result()
    result["candidates"][0]["sources"] = [{"caption": 0, "template": 2}]
    write_tar(tmp_path / "s.tar", [text_region_sample("a/b", jpg(), result)])
    with tarfile.open(tmp_path / "s.tar") as archive:
        read = {m.name.split(".", 1)[1]: archive.extractfile(m).read() for m in archive}
    assert read["jpg"] == jpg()
    assert read["txt"].decode().split("\n") == result["captions"]
    content = json.loads(read["json"])
    for key in ("captions", "candidates", "generated_by"):
        assert content[key] == result[key]
    assert content["encoder"] == "clip"
    assert content["regions"][1] == {"region_id": 1, "candidate": 1}
    assert (content["phrases"], content["logits"]) == (["dog", "tree", "dog"], [0.5] * 3)
    np.testing.assert_allclose(content["boxes"][0], [40, 64, 200, 976 / 3])
    assert np.load(io.BytesIO(read["clip_emb_phrases.npy"])).shape == (3, 8)
    assert np.load(io.BytesIO(read["clip_caption.npy"])).shape == (2, 8)


def test_the_originals_shards_are_read_unchanged(tmp_path):
    first, vectors = original()
    second, _ = original(1)
    del second["clip_caption.npy"]
    second["text_features.npy"] = second.pop("clip_emb_phrases.npy")
    second["json"] = second["json"].replace(b'"boxes"', b'"bboxes"')
    write_tar(tmp_path / "00000.tar", [first, second])
    name = f"text_regions_tar://{tmp_path}?encoder=open_clip:ViT-L-14:datacomp_xl_s13b_b90k"
    assert MetadataCatalog.get(name).mapper == "CaptionMapper"
    record, other = DatasetCatalog.get(name)
    assert record["image_id"] == "00000-000000"
    assert record["encoder"] == "open_clip:ViT-L-14:datacomp_xl_s13b_b90k"
    assert record["captions"] == ["a dog on a street"]
    regions = decode_regions(record, LazyImage(record).size)
    np.testing.assert_allclose(regions.boxes[0], [4, 6, 32, 48])
    np.testing.assert_allclose(regions.boxes[1], [0, 0, 64, 48])
    assert regions.phrases == [["dog"], ["street"], ["wheel"]]
    assert [region["score"] for region in record["regions"]] == [0.25, 0.5, 0.4]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(record["text_embeddings"], vectors / lengths, rtol=1e-6)
    np.testing.assert_allclose(record["caption_embeddings"], vectors[:1] / lengths[0], rtol=1e-6)
    assert "caption_embeddings" not in other
    assert len(other["regions"]) == 3


def test_boxes_of_the_original_that_name_nothing_or_have_no_area_are_left_out(tmp_path):
    boxes = [
        [0, 0, 100, 100],
        [5, 5, 5, 90],
        [float("nan"), 0, 9, 9],
        [2000, 0, 2100, 9],
        [0, 0, 9, 9],
    ]
    vectors = np.eye(8, dtype=np.float32)[:5]
    sample, _ = original(
        boxes=boxes,
        phrases=["dog", "cat", "cow", "pig", " "],
        logits=[0.5] * 5,
        **{"clip_emb_phrases.npy": npy(vectors)},
    )
    nothing, _ = original(
        boxes=[], phrases=[], logits=[], **{"clip_emb_phrases.npy": npy(vectors[:0])}
    )
    write_tar(tmp_path / "s.tar", [sample, nothing])
    record, empty = TextRegionsTar(tmp_path, "clip")
    assert [region["phrases"] for region in record["regions"]] == [["dog"]]
    np.testing.assert_array_equal(record["text_embeddings"], vectors[:1])
    with pytest.raises(BadRecordError, match="no usable region"):
        decode_regions(empty, LazyImage(empty).size)


def test_the_text_encoder_is_stated_by_the_shard_or_by_whoever_reads_it(tmp_path):
    write_tar(tmp_path / "theirs" / "s.tar", [original()[0]])
    with pytest.raises(ValueError, match=r"do not state which text encoder.*\?encoder=NAME"):
        TextRegionsTar(tmp_path / "theirs")
    write_tar(tmp_path / "ours" / "s.tar", [text_region_sample("p", jpg(), make_result())])
    assert TextRegionsTar(tmp_path / "ours")[0]["encoder"] == "clip"
    assert TextRegionsTar(tmp_path / "ours", "clip")[0]["encoder"] == "clip"
    with pytest.raises(BadRecordError, match="are of 'clip', not of 'other'"):
        TextRegionsTar(tmp_path / "ours", "other")[0]


DAMAGES = {
    "jpg": (b"no image", "image"),
    "phrases": (["dog"], "3 boxes, 3 regions, 1 phrases, 3 logits"),
    "boxes": ([[1, 2, 3]] * 3, "ValueError"),
    "clip_emb_phrases.npy": (npy(np.ones((2, 8))), "2 embeddings for 3 boxes"),
    "clip_caption.npy": (npy(np.ones((2, 8))), "2 embeddings for 1 captions"),
}
VECTORS = {
    "empty": (b"", "empty"),
    "cut": (npy(np.ones((3, 8)))[:150], "ValueError"),
    "no npy": (b"hello", "ValueError"),
    "objects": (npy(np.array([{}], dtype=object)), "allow_pickle"),
    "numbers": (npy(np.ones((3, 8), dtype=int)), "no .* array of int64"),
    "zero": (npy(np.zeros((3, 8))), "zero or not finite"),
}


@pytest.mark.parametrize("key", DAMAGES)
def test_a_damaged_sample_is_a_bad_row_and_named(tmp_path, key):
    value, reason = DAMAGES[key]
    write_tar(tmp_path / "s.tar", [original()[0], original(**{key: value})[0]])
    records = TextRegionsTar(tmp_path, "clip")
    assert len(records[0]["regions"]) == 3
    with pytest.raises(BadRecordError, match=rf"s\.tar:s-000001: .*{reason}"):
        records[1]


@pytest.mark.parametrize(("content", "reason"), VECTORS.values(), ids=VECTORS)
def test_embeddings_that_are_none_are_a_bad_row(tmp_path, content, reason):
    write_tar(tmp_path / "s.tar", [original(**{"clip_emb_phrases.npy": content})[0]])
    with pytest.raises(BadRecordError, match=rf"s\.tar:s-000000: .*{reason}"):
        TextRegionsTar(tmp_path, "clip")[0]


def test_a_sample_without_json_is_a_bad_row(tmp_path):
    sample, _ = original()
    del sample["json"]
    write_tar(tmp_path / "s.tar", [sample])
    with pytest.raises(BadRecordError, match="KeyError: 'json'"):
        TextRegionsTar(tmp_path)[0]


def test_an_image_keeps_its_format_and_one_that_readers_lack_is_no_sample():
    def photo(name):
        file = io.BytesIO()
        Image.new("RGB", (64, 48)).save(file, name)
        return file.getvalue()

    sample = text_region_sample("p", photo("PNG"), make_result())
    assert sample["png"] == photo("PNG")
    with pytest.raises(BadRecordError, match=r"p: .*no images of the format ppm"):
        text_region_sample("p", photo("PPM"), make_result())
