import logging
import multiprocessing
import os
import signal
import time
from base64 import b64encode
from itertools import islice

import pytest
import torch

from semsam.config import get_cfg
from semsam.data import DatasetCatalog, MetadataCatalog, build_test_loader, build_train_loader
from semsam.data.datasets.sa1b import Sa1bFolder
from semsam.data.datasets.tsv import write_tsv
from tests.data.sa1b_files import write_images


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "images", 10)


def make_cfg(folder, workers=0):
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = (f"sa1b_folder://{folder}",)
    cfg.DATALOADER.NUM_WORKERS = workers
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.INPUT.IMAGE_SIZE = 32
    cfg.INPUT.NUM_PROMPTS = 5
    return cfg


def samples(cfg, number, start_sample=0):
    """What tells samples apart: the image and its prompts."""
    batches = islice(build_train_loader(cfg, start_sample), number)
    return [(r["image_id"], r["prompts"].points) for batch in batches for r in batch]


def assert_equal(first, second):
    assert [name for name, _ in first] == [name for name, _ in second]
    for (_, one), (_, other) in zip(first, second, strict=True):
        assert torch.equal(one, other)


def test_samples_depend_on_seed_and_position_alone(images):
    cfg = make_cfg(images)
    expected = samples(cfg, 8)
    assert_equal(samples(make_cfg(images, workers=2), 8), expected)
    assert_equal(samples(cfg, 5, start_sample=6), expected[6:])
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.GRAD_ACCUMULATION = 4, 4
    assert_equal(samples(cfg, 16), expected)
    cfg.SEED = 7
    assert [name for name, _ in samples(cfg, 16)] != [name for name, _ in expected]


@pytest.mark.parametrize("shares", [(), (2,)])
def test_samples_stay_when_a_worker_is_killed(images, caplog, shares):
    cfg = make_cfg(images, workers=2)
    cfg.DATASETS.TRAIN_SHARES = shares
    expected = samples(cfg, 8)
    got = []
    for batch in islice(build_train_loader(cfg), 8):
        got += [(record["image_id"], record["prompts"].points) for record in batch]
        if len(got) == 6:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    assert_equal(got, expected)
    assert "loading goes on at batch" in caplog.text


class HangingOnce:
    """Records of a folder; the process that reads one of them first does not come back."""

    def __init__(self, folder):
        self.records = Sa1bFolder(folder)
        self.mark = folder / "hung"

    def __len__(self):
        return len(self.records)

    def __getitem__(self, item):
        if item == 3 and not self.mark.exists():
            self.mark.touch()
            time.sleep(1000)
        return self.records[item]


def test_samples_stay_when_a_worker_hangs(images, caplog):
    DatasetCatalog.register("hanging", lambda: HangingOnce(images))
    MetadataCatalog.get("hanging").set(mapper="PromptableMapper")
    expected = samples(make_cfg(images), 6)
    cfg = make_cfg(images, workers=1)
    cfg.DATASETS.TRAIN = ("hanging",)
    cfg.DATALOADER.TIMEOUT = 1
    assert_equal(samples(cfg, 6), expected)
    assert "no batch came within 1 s" in caplog.text
    DatasetCatalog.remove("hanging")
    MetadataCatalog.remove("hanging")


def test_an_evaluation_misses_no_row_when_a_worker_is_killed(images):
    ids = []
    for batch in build_test_loader(make_cfg(images, workers=1), f"sa1b_folder://{images}"):
        ids += [record["image_id"] for record in batch]
        if len(ids) == 3:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    assert ids == [f"image_{index}" for index in range(10)]


def test_iterating_does_not_move_the_global_generator(images):
    before = torch.get_rng_state()
    samples(make_cfg(images), 2)
    list(build_test_loader(make_cfg(images), f"sa1b_folder://{images}"))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_row_is_logged_and_replaced_and_the_others_stay(images, caplog, workers):
    expected = samples(make_cfg(images), 10)
    (images / "image_3.jpg").write_bytes(b"damaged")
    got = samples(make_cfg(images, workers), 10)
    for one, other in zip(got, expected, strict=True):
        if other[0] == "image_3":
            assert one[0] != "image_3"
        else:
            assert_equal([one], [other])
    if not workers:
        assert "image_3.jpg" in caplog.text
        assert "row skipped (1 of" in caplog.text


def test_a_bad_row_is_replaced_by_one_of_its_own_dataset(images, tmp_path):
    few = write_images(tmp_path / "few", 2)
    (few / "image_0.jpg").write_bytes(b"damaged")
    cfg = make_cfg(images)
    cfg.DATASETS.TRAIN = (f"sa1b_folder://{images}", f"sa1b_folder://{few}")
    cfg.DATASETS.TRAIN_SHARES = (1, 1)
    cfg.DATALOADER.MAX_BAD_FRACTION = 1.0
    files = [r["file_name"] for batch in islice(build_train_loader(cfg), 6) for r in batch]
    assert sum(str(few) in file for file in files) == 6


@pytest.mark.parametrize("fraction", [0.0, 0.05, 1.0])
def test_too_many_bad_rows_stop_training(images, fraction):
    for image in images.glob("*.jpg"):
        image.write_bytes(b"damaged")
    cfg = make_cfg(images)
    cfg.DATALOADER.MAX_BAD_FRACTION = fraction
    with pytest.raises(RuntimeError, match=r"rows read were unusable.*MAX_BAD_FRACTION"):
        samples(cfg, 1)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_is_lost_in_the_midst_stops_training_and_is_named(images, tmp_path, workers):
    for shard in range(2):
        pairs = sorted(images.glob("*.jpg"))[5 * shard : 5 * shard + 5]
        rows = [
            (p.stem.encode(), p.with_suffix(".json").read_bytes(), b64encode(p.read_bytes()))
            for p in pairs
        ]
        write_tsv(tmp_path / "shards" / f"{shard}.tsv", rows)
    cfg = make_cfg(images, workers)
    cfg.DATASETS.TRAIN = (f"sa1b_tsv://{tmp_path / 'shards'}",)
    batches = iter(build_train_loader(cfg))
    next(batches)
    (tmp_path / "shards" / "1.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"the shard '.*1\.tsv' was there .*--resume"):
        list(islice(batches, 10))


def test_a_folder_of_images_that_is_lost_in_the_midst_stops_training(images):
    cfg = make_cfg(images)
    cfg.DATALOADER.MAX_BAD_FRACTION = 0.9
    batches = iter(build_train_loader(cfg))
    for _ in range(60):
        next(batches)
    images.rename(images.parent / "elsewhere")
    with pytest.raises(RuntimeError, match=r"unusable.*image_\d.*100 came one after the other"):
        next(batches)


def test_evaluation_leaves_bad_rows_out_and_counts_them(images, caplog):
    (images / "image_3.json").write_text("{}")
    loader = build_test_loader(make_cfg(images), f"sa1b_folder://{images}")
    with caplog.at_level(logging.WARNING):
        ids = [record["image_id"] for batch in loader for record in batch]
    assert ids == [f"image_{index}" for index in range(10) if index != 3]
    assert len(loader) == 10
    assert loader.num_bad == 1
    assert "image_3" in caplog.text
    assert "1 of 10 rows left out" in caplog.text


def test_several_datasets_are_one_stream(images, tmp_path):
    more = write_images(tmp_path / "more", 3, suffix=".png")
    cfg = make_cfg(images)
    cfg.DATASETS.TRAIN = (f"sa1b_folder://{images}", f"sa1b_folder://{more}")
    cfg.SOLVER.IMS_PER_BATCH = 13
    (batch,) = islice(build_train_loader(cfg), 1)
    assert (
        sorted(record["file_name"].rsplit(".")[-1] for record in batch)
        == ["jpg"] * 10 + ["png"] * 3
    )


def test_what_cannot_be_loaded_is_refused_with_the_cure(images):
    cfg = make_cfg(images)
    cfg.SOLVER.GRAD_ACCUMULATION = 3
    with pytest.raises(ValueError, match="multiple of 3"):
        build_train_loader(cfg)
    cfg.DATASETS.TRAIN = ()
    with pytest.raises(ValueError, match=r"DATASETS\.TRAIN is empty"):
        build_train_loader(cfg)
    DatasetCatalog.register("bare_data", list)
    with pytest.raises(ValueError, match=r"no mapper.*PromptableMapper"):
        build_test_loader(cfg, "bare_data")
    DatasetCatalog.remove("bare_data")
    MetadataCatalog.remove("bare_data")


@pytest.mark.parametrize(
    ("key", "value"),
    [("MIN_SCALE", 0.5), ("MAX_SCALE", 1.1), ("FLIP_PROB", 0.5), ("COLOR_JITTER", 0.2)],
)
def test_images_that_vary_from_epoch_to_epoch_are_refused_with_an_embedding_cache(
    images, tmp_path, key, value
):
    cfg = make_cfg(images)
    cfg.MODEL.EMBEDDING_CACHE = str(tmp_path / "cache")
    cfg.INPUT.MIN_SCALE = cfg.INPUT.MAX_SCALE = 1.0
    cfg.INPUT.FLIP_PROB = 0.0
    build_train_loader(cfg)
    cfg.INPUT[key] = value
    with pytest.raises(
        ValueError, match=rf"EMBEDDING_CACHE needs.*FLIP_PROB.*COLOR_JITTER to 0\.0.*{value}"
    ):
        build_train_loader(cfg)


def test_a_crop_of_an_enlarged_image_is_refused_with_an_embedding_cache(images, tmp_path):
    cfg = make_cfg(images)
    cfg.MODEL.EMBEDDING_CACHE = str(tmp_path / "cache")
    cfg.INPUT.MIN_SCALE = cfg.INPUT.MAX_SCALE = 2.0
    cfg.INPUT.FLIP_PROB = 0.0
    with pytest.raises(ValueError, match=r"they are 2\.0, 2\.0, 0\.0 and 0\.0"):
        build_train_loader(cfg)
