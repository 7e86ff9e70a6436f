import json
from functools import partial

import pytest

from semsam.annotation.engine import AnnotationEngine
from semsam.annotation.mask_sources import Sa1bMasks
from semsam.annotation.ray_data import _worker_resources, annotate_on_ray

from .colour_labeler import ColourLabeler
from .photos import write_photos

ray = pytest.importorskip("ray")


def make_engine(images):
    return AnnotationEngine(Sa1bMasks(images), [ColourLabeler()], device="cpu")


@pytest.fixture(scope="module")
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_two_workers_go_on_where_one_stopped_and_leave_what_one_leaves(cluster, tmp_path):
    images = write_photos(tmp_path / "images", 40)
    (images / "photo_3.json").write_text("{")
    expected = make_engine(images).run(tmp_path / "alone")
    out = tmp_path / "out"
    make_engine(images).run(out)
    # As if the run had been stopped: half of the journal and some results are missing.
    journal = out / "journal.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:10]))
    (out / "photo_39_semantic.json").unlink()
    (out / "photo_20_semantic.json").write_text("{")
    assert annotate_on_ray(partial(make_engine, images), out, 2, device="cpu") == expected
    assert content(out) == content(tmp_path / "alone")
    assert json.loads((out / "failures.jsonl").read_text())["name"] == "photo_3"


@pytest.mark.slow
def test_an_engine_that_cannot_be_made_is_the_error_itself(cluster, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        annotate_on_ray(partial(make_engine, tmp_path / "nowhere"), tmp_path / "out", 2)


def test_gpus_are_taken_where_there_are_any_and_their_lack_is_told():
    cluster = {"CPU": 16.0, "GPU": 4.0}
    assert _worker_resources(cluster, 4, "auto") == {"num_gpus": 1, "num_cpus": 1}
    assert _worker_resources(cluster, 4, "cpu") == {"num_cpus": 4}
    assert _worker_resources({"CPU": 2.0}, 4, "auto") == {"num_cpus": 1}
    with pytest.raises(ValueError, match="5 workers need as many GPUs, the cluster has 4"):
        _worker_resources(cluster, 5, "cuda")
