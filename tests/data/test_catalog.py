from pathlib import Path

import pytest

from semsam.data import DatasetCatalog, MetadataCatalog
from tests.data.sa1b_files import write_images


@pytest.fixture
def toy():
    DatasetCatalog.register("toy_data", lambda: [{"image_id": 1}])
    yield "toy_data"
    DatasetCatalog.remove("toy_data")
    MetadataCatalog.remove("toy_data")


def test_a_registered_dataset_is_read_when_asked_for(toy):
    assert DatasetCatalog.get(toy) == [{"image_id": 1}]
    assert toy in DatasetCatalog
    with pytest.raises(ValueError, match="already registered"):
        DatasetCatalog.register(toy, list)


def test_an_unknown_name_is_answered_with_the_nearest(toy):
    with pytest.raises(ValueError, match=r"did you mean 'toy_data'.*coco_2017_val.*sa1b_tsv://"):
        DatasetCatalog.get("toy_dat")
    with pytest.raises(ValueError, match="did you mean 'sa1b_tsv'"):
        DatasetCatalog.get("sa1b_tvs:///data")


def test_metadata_is_set_and_kept(toy):
    MetadataCatalog.get(toy).set(mapper="PromptableMapper")
    assert MetadataCatalog.get(toy).mapper == "PromptableMapper"
    assert MetadataCatalog.get(toy).get("evaluator_type") is None


def test_a_folder_is_a_dataset_by_its_type(tmp_path):
    write_images(tmp_path, 2)
    name = f"sa1b_folder://{tmp_path}"
    assert len(DatasetCatalog.get(name)) == 2
    assert MetadataCatalog.get(name).mapper == "PromptableMapper"
    with pytest.raises(ValueError, match="no option 'splt'"):
        DatasetCatalog.get(f"coco_panoptic://{tmp_path}?splt=val2017")


def test_known_datasets_lie_under_the_datasets_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMSAM_DATASETS", str(tmp_path))
    write_images(tmp_path / "sa1b" / "val", 3)
    assert len(DatasetCatalog.get("sa1b_folder_val")) == 3
    with pytest.raises(FileNotFoundError, match=str(Path("coco", "annotations"))):
        DatasetCatalog.get("coco_2017_val_panoptic_interactive")


@pytest.mark.parametrize("name", DatasetCatalog.list())
def test_each_known_dataset_that_is_not_there_is_a_missing_file(name, tmp_path, monkeypatch):
    monkeypatch.setenv("SEMSAM_DATASETS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        DatasetCatalog.get(name)
