import os
import pickle

import pytest

from semsam.config import get_cfg
from semsam.data import DatasetCatalog, MetadataCatalog
from semsam.data.datasets.refcoco import load_refcoco
from semsam.data.mappers import CaptionMapper
from tests.data.region_files import make_ref, write_refcoco


def test_a_region_is_a_ref_with_all_its_sentences(tmp_path):
    refs = [make_ref(3), make_ref(9, ann_id=51, sentences=("dog",)), make_ref(4, "testA")]
    root = write_refcoco(tmp_path / "refcoco", refs)
    (record,) = load_refcoco(root)
    assert record["file_name"] == str(tmp_path / "train2014" / "COCO_5.jpg")
    assert record["image_id"] == 5
    assert record["regions"] == [
        {"region_id": 3, "bbox": [1.5, 2.25, 12.0, 22.25], "phrases": ["man", "left man"]},
        {
            "region_id": 9,
            "bbox": [30.0, 10.0, 50.0, 30.0],
            "phrases": ["dog"],
            "segmentation": [[1]],
        },
    ]
    (record,) = load_refcoco(root, "testA")
    assert [region["region_id"] for region in record["regions"]] == [4]


def test_a_url_may_name_refcoco_plus_whose_folder_ends_in_a_plus(tmp_path):
    root = write_refcoco(tmp_path / "refcoco+", [make_ref(3, "testB")])
    assert len(DatasetCatalog.get(f"refcoco://{root}?split=testB")) == 1


@pytest.mark.parametrize(
    ("name", "folder", "by", "split"),
    [
        ("refcoco+_unc_testB", "refcoco+", "unc", "testB"),
        ("refcocog_umd_test", "refcocog", "umd", "test"),
        ("refcocog_google_val", "refcocog", "google", "val"),
    ],
)
def test_a_ref_is_evaluated_as_one_box_with_all_its_sentences(
    tmp_path, monkeypatch, name, folder, by, split
):
    monkeypatch.setenv("SEMSAM_DATASETS", str(tmp_path))
    write_refcoco(tmp_path / "refer" / folder, [make_ref(3, split), make_ref(4, "train")], by)
    (record,) = DatasetCatalog.get(name)
    mapped = CaptionMapper(get_cfg(), is_train=False)(record)
    assert mapped["region_ids"] == [3]
    assert mapped["references"] == [["man", "left man"]]
    assert mapped["prompts"].has_box.tolist() == [[True]]
    assert MetadataCatalog.get(name).evaluator_type == "CaptionEvaluator"


def test_photos_may_lie_elsewhere(tmp_path):
    root = write_refcoco(tmp_path / "refcocog", [make_ref(3)], by="umd")
    (record,) = load_refcoco(root, by="umd", images="/photos")
    assert record["file_name"] == "/photos/COCO_5.jpg"


def test_missing_splits_are_answered_with_those_there_are(tmp_path):
    root = write_refcoco(tmp_path / "refcocog", [make_ref(3), make_ref(4, "train")], by="umd")
    with pytest.raises(FileNotFoundError, match=r"refs\(unc\)\.p' is missing.*refs\(umd\)\.p"):
        load_refcoco(root)
    with pytest.raises(ValueError, match=r"no split 'testA'; it has: train, val"):
        load_refcoco(root, "testA", by="umd")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_refcoco(tmp_path / "nowhere")


def test_a_ref_to_an_object_that_is_not_listed_is_left_out_and_counted(tmp_path):
    root = write_refcoco(tmp_path / "refcoco", [make_ref(3, ann_id=77), make_ref(4)])
    records = load_refcoco(root)
    assert [region["region_id"] for region in records[0]["regions"]] == [4]
    assert records.num_bad == 1


class Harmful:
    def __reduce__(self):
        return os.mkdir, (os.environ["HARM"],)


def test_a_pickle_that_names_a_function_is_refused_and_the_function_not_called(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("HARM", str(tmp_path / "harm"))
    root = write_refcoco(tmp_path / "refcoco", [make_ref(3)])
    (root / "refs(unc).p").write_bytes(pickle.dumps([make_ref(3), Harmful()]))
    with pytest.raises(ValueError, match=r"refs\(unc\)\.p.*mkdir.*plain values"):
        load_refcoco(root)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    "content", [b"", b"no pickle", pickle.dumps([1, 2]), pickle.dumps({})[:-1]]
)
def test_a_damaged_pickle_is_named(tmp_path, content):
    root = write_refcoco(tmp_path / "refcoco", [make_ref(3)])
    (root / "refs(unc).p").write_bytes(content)
    with pytest.raises(ValueError, match=r"refs\(unc\)\.p"):
        load_refcoco(root)
