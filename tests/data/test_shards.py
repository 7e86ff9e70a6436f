import json
import os
import pickle
import runpy
import uuid
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import semsam.data.mappers  # noqa: F401  (fills the registry)
from semsam.config import get_cfg
from semsam.data import DatasetCatalog, MetadataCatalog
from semsam.data.build import DATASET_MAPPER, build_test_loader, build_train_loader
from semsam.data.datasets.rows import describe_record, record_row
from semsam.data.datasets.sa1b import Sa1bFolder, Sa1bTsv
from semsam.data.datasets.sem_seg import load_camvid
from semsam.data.datasets.shard_list import list_shards, read_manifest
from semsam.data.datasets.shards import ShardRecords, pack_datasets
from semsam.data.datasets.text_regions import TextRegionsTsv, text_region_row
from semsam.data.datasets.tsv import TsvFile, write_tsv
from semsam.data.datasets.visual_genome import load_visual_genome
from semsam.data.records import BadRecordError, decode_labels
from semsam.evaluation import build_evaluator
from semsam.structures import Instances
from semsam.utils.storage import as_path
from tests.data.joint_files import (
    write_ade20k,
    write_objects365,
    write_paco,
    write_partimagenet,
    write_pascal_part,
)
from tests.data.region_files import (
    make_object,
    make_ref,
    vg_region,
    write_coco_json,
    write_json,
    write_photo,
    write_refcoco,
    write_visual_genome,
)
from tests.data.sa1b_files import SIZE, write_images
from tests.data.test_sa1b import assert_same_records, pack_tar
from tests.data.text_region_files import jpg, make_result

PREPARE = Path(__file__).parents[2] / "datasets" / "prepare_shards.py"
DATA = Path(os.environ.get("SEMSAM_DATA", "../shared/data"))
COCO = DATA / "coco"
REGIONS = {2: [vg_region(20, 'tab\t, "quotes" and é'), vg_region(21)], 3: [vg_region(30)]}


def prepare(*arguments):
    """Run the script; returns its exit code."""
    return runpy.run_path(str(PREPARE))["main"]([str(argument) for argument in arguments])


def sa1b(folder):
    return f"sa1b_folder://{write_images(folder / 'images', 5)}"


def visual_genome(folder):
    return f"visual_genome://{write_visual_genome(folder / 'vg', REGIONS)}?split=test"


def refcoco(folder):
    root = write_refcoco(folder / "refcoco", [make_ref(1), make_ref(2, ann_id=51)])
    content = json.loads((root / "instances.json").read_text())
    content["annotations"][1]["segmentation"] = [[30, 10, 50, 10, 50, 30.5]]
    write_json(root / "instances.json", content)
    return f"refcoco://{root}?split=val"


def parts(folder):
    write_photo(folder / "a.png")
    write_photo(folder / "b.png", 1)
    square = [[1, 2, 11, 2, 11, 22.5, 1, 22.5]]
    crowd = {"size": [40, 60], "counts": [60, 40, 2300]}
    objects = [
        make_object(1, segmentation=square),
        make_object(2, category_id=7, segmentation=crowd, iscrowd=1),
        make_object(3, image_id=2, category_id=7, segmentation=[[0, 0, 9, 0, 9, 9]]),
    ]
    write_coco_json(folder / "objects.json", ["a.png", "b.png"], objects)
    return f"coco_json://{folder / 'objects.json'}"


def coco(scheme):
    def name(folder):
        if not (COCO / "annotations").is_dir():
            pytest.skip(f"no COCO in {COCO}; set SEMSAM_DATA")
        return f"{scheme}://{COCO}?split=val2017"

    return name


def joint(scheme, write):
    def name(folder):
        write(folder / scheme)
        return f"{scheme}://{folder / scheme}?split=train"

    return name


def ade20k(folder):
    labels = np.arange(40 * 60, dtype=np.uint8).reshape(SIZE) % 7
    write_photo(folder / "images" / "validation" / "a.jpg")
    (folder / "annotations" / "validation").mkdir(parents=True)
    Image.fromarray(labels).save(folder / "annotations" / "validation" / "a.png")
    return f"ade20k://{folder}?split=validation"


SOURCES = {
    "sa1b": sa1b,
    "visual genome": visual_genome,
    "refcoco": refcoco,
    "objects": parts,
    "ade20k labels": ade20k,
    "ade20k panoptic": joint("ade20k_panoptic", write_ade20k),
    "paco": joint("paco", lambda folder: write_paco(folder, folder.parent / "coco")),
    "pascal part": joint("pascal_part", write_pascal_part),
    "partimagenet": joint("partimagenet", write_partimagenet),
    "objects365": joint("objects365", write_objects365),
    "objects365 boxes": joint("objects365_boxes", write_objects365),
    "coco panoptic": coco("coco_panoptic_seg"),
    "coco interactive": coco("coco_panoptic"),
    "coco instances": coco("coco_instances"),
    "coco captions": coco("coco_captions"),
    "coco classes": coco("coco_classes"),
}


def assert_equal(one, other):
    assert type(one) is type(other)
    if isinstance(one, Instances):
        assert one.image_size == other.image_size
        one, other = one.get_fields(), other.get_fields()
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif hasattr(one, "__dict__"):
        assert_equal(vars(one), vars(other))
    else:
        assert one == other


def some(records, number=6):
    return [records[i] for i in range(min(len(records), number))]


@pytest.mark.parametrize("form", ["tsv", "webdataset"])
@pytest.mark.parametrize("source", SOURCES)
def test_shards_give_the_same_samples_as_their_source(tmp_path, source, form):
    name = SOURCES[source](tmp_path)
    output = tmp_path / "shards"
    assert prepare(name, "--output", output, "--rows-per-shard", 30, "--format", form) == 0
    packed = f"shards://{output}"
    known, expected = MetadataCatalog.get(packed), MetadataCatalog.get(name)
    for key, value in expected.as_dict().items():
        if key not in ("json_file", "panoptic_json"):
            found = known.get(key)
            assert (tuple(found) if isinstance(value, tuple) else found) == value
    cfg = get_cfg()
    cfg.INPUT.IMAGE_SIZE = 96
    cfg.INPUT.MIN_SIZE_TEST = cfg.INPUT.MAX_SIZE_TEST = 96
    cfg.MODEL.CRITERION.NAME = ""
    records, originals = DatasetCatalog.get(packed), DatasetCatalog.get(name)
    assert len(records) == len(originals)
    for train in (True, False):
        mapper = DATASET_MAPPER.get(known.mapper)(cfg, train)
        for one, other in zip(some(records), some(originals), strict=True):
            rngs = [{"rng": np.random.default_rng(7)} if train else {} for _ in range(2)]
            mine, theirs = mapper({**one, **rngs[0]}), mapper({**other, **rngs[1]})
            for key in ("file_name", "segments_info", "pan_seg_file_name", "annotations"):
                mine.pop(key, None), theirs.pop(key, None)
            assert_equal(mine, theirs)


def test_a_label_map_comes_back_pixel_by_pixel(tmp_path):
    if not (DATA / "camvid").is_dir():
        pytest.skip(f"no CamVid in {DATA}; set SEMSAM_DATA")
    source = some(load_camvid(DATA / "camvid", "test"), 3)
    write_tsv(tmp_path / "s.tsv", [record_row(record) for record in source])
    for one, other in zip(ShardRecords(tmp_path), source, strict=True):
        assert np.array_equal(decode_labels(one), decode_labels(other))
        assert one["image_id"] == other["image_id"]


def test_panoptic_quality_and_ap_of_the_truth_are_the_same_from_shards(tmp_path):
    name = coco("coco_panoptic_seg")(tmp_path)
    prepare(name, "--output", tmp_path, "--rows-per-shard", 40)
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path / "results")
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.INPUT.MIN_SIZE_TEST = cfg.INPUT.MAX_SIZE_TEST = 32
    truth = {record["image_id"]: record for record in DatasetCatalog.get(name)}
    results = []
    for dataset in (name, f"shards://{tmp_path}"):
        evaluator = build_evaluator(cfg, dataset)
        evaluator.reset()
        for inputs in islice(build_test_loader(cfg, dataset), 20):
            evaluator.process(inputs, [perfect(truth[inputs[0]["image_id"]])])
        results.append(evaluator.evaluate())
    assert results[0] == results[1]
    assert results[0]["panoptic_seg"]["PQ"] == 100
    assert results[0]["segm"]["AP"] > 0
    assert results[0]["sem_seg"]["mIoU"] == 100


def perfect(record):
    from semsam.data.records import decode_annotations, decode_segments

    segments = decode_segments(record)
    objects = decode_annotations(record, segments.shape)
    things = objects.classes < 80
    return {
        "panoptic_seg": (
            np.where(np.isin(segments, crowds(record)), 0, segments),
            [s for s in record["segments_info"] if not s["iscrowd"]],
        ),
        "sem_seg": decode_labels(record) % 255,
        "instances": Instances(
            segments.shape,
            pred_masks=torch.from_numpy(objects.masks.decode()[things]),
            pred_classes=torch.from_numpy(objects.classes[things]),
            scores=torch.ones(int(things.sum())),
        ),
    }


def crowds(record):
    return [segment["id"] for segment in record["segments_info"] if segment["iscrowd"]]


def test_shards_alone_are_trained_on(tmp_path):
    prepare(sa1b(tmp_path), "--output", tmp_path / "shards", "--rows-per-shard", 2)
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = (f"shards://{tmp_path / 'shards'}",)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.INPUT.IMAGE_SIZE = 64
    batch = next(iter(build_train_loader(cfg)))
    assert [record["image"].shape for record in batch] == [(3, 64, 64)] * 2


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_packed_sa1b_is_read_as_the_shards_of_others_too(tmp_path, capsys, form):
    source = write_images(tmp_path / "images", 5)
    if form == "tar":
        source = pack_tar(tmp_path / "images.tar", source)
    assert prepare(source, "--output", tmp_path / "shards", "--rows-per-shard", 2) == 0
    assert "5 images in 3 shards" in capsys.readouterr().out
    records = Sa1bTsv(tmp_path / "shards")
    assert [len(shard) for shard in records.shards] == [2, 2, 1]
    assert_same_records(records, Sa1bFolder(tmp_path / "images"))
    name, text, _ = records.shards[0][0]
    assert name == b"image_0"
    assert json.loads(text)["annotations"] == records[0]["annotations"]


def test_what_is_left_out_is_named_and_the_rest_packed(tmp_path, capsys):
    write_images(tmp_path / "images", 5)
    (tmp_path / "images" / "image_1.json").write_text("{")
    (tmp_path / "images" / "image_2.jpg").write_bytes(b"no image")
    whole = (tmp_path / "images" / "image_3.jpg").read_bytes()
    (tmp_path / "images" / "image_3.jpg").write_bytes(whole[:-40])
    smaller = (tmp_path / "images" / "image_4.json").read_text().replace("[40, 60]", "[40, 50]")
    (tmp_path / "images" / "image_4.json").write_text(smaller)
    assert prepare(tmp_path / "images", "--output", tmp_path / "shards", "--workers", 2) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 4
    for number, line in enumerate(errors, start=1):
        assert line.startswith("left out: ")
        assert f"image_{number}." in line
    assert len(read_manifest(tmp_path / "shards").left_out) == 4
    assert [record["image_id"] for record in Sa1bTsv(tmp_path / "shards")] == ["image_0"]


def test_an_unknown_dataset_or_a_packed_folder_ends_with_a_message(tmp_path, capsys):
    with pytest.raises(SystemExit):
        prepare("visual_genom:///x", "--output", tmp_path / "shards")
    assert "did you mean 'visual_genome'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        prepare("nowhere", "--output", tmp_path / "shards")
    assert "no dataset 'nowhere'" in capsys.readouterr().err
    dataset = visual_genome(tmp_path)
    prepare(dataset, "--output", tmp_path / "shards")
    with pytest.raises(SystemExit):
        prepare(dataset, "--output", tmp_path / "shards")
    assert "the folder is packed" in capsys.readouterr().err


def test_several_sources_of_one_kind_are_one_dataset(tmp_path, capsys):
    names = [parts(tmp_path / "one"), parts(tmp_path / "two")]
    path = tmp_path / "two" / "objects.json"
    moved = json.loads(path.read_text())
    for image in moved["images"]:
        image["id"] += 10
    for row in moved["annotations"]:
        row["image_id"] += 10
    write_json(path, moved)
    assert prepare(*names, "--output", tmp_path / "shards", "--rows-per-shard", 3) == 0
    packed = f"shards://{tmp_path / 'shards'}"
    assert [record["image_id"] for record in DatasetCatalog.get(packed)] == [1, 2, 11, 12]
    truth = json.loads(Path(MetadataCatalog.get(packed).json_file).read_text())
    assert [image["id"] for image in truth["images"]] == [1, 2, 11, 12]
    assert [row["id"] for row in truth["annotations"]] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(SystemExit):
        prepare(names[0], names[0], "--output", tmp_path / "twice")
    assert "image 1 is in" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        prepare(names[0], sa1b(tmp_path), "--output", tmp_path / "both")
    assert "are not of one kind" in capsys.readouterr().err


def test_metadata_that_json_cannot_hold_are_refused_before_anything_is_packed(tmp_path):
    name = sa1b(tmp_path)
    MetadataCatalog.get(name).set(palette={1, 2})
    with pytest.raises(ValueError, match="cannot stand in json"):
        pack_datasets([name], tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


def test_a_row_that_does_not_parse_says_where_it_is(tmp_path):
    rows = [[b"1", b'{"image_id": 1}', b""], [b"2", b"{", b""], [b"3", b'[{"bbox": 1}]', b""]]
    write_tsv(tmp_path / "s.tsv", rows)
    for row, reason in enumerate(["regions", "JSONDecodeError", "'segmentation'"]):
        with pytest.raises(BadRecordError, match=rf"s\.tsv:{row}: .*{reason}"):
            ShardRecords(tmp_path)[row]


def test_a_record_whose_photo_has_another_size_is_no_row(tmp_path):
    record = load_visual_genome(write_visual_genome(tmp_path, REGIONS))[0]
    with pytest.raises(BadRecordError, match=r"2\.jpg.*\(40, 60\)"):
        record_row({**record, "width": 61})


def test_a_record_with_embeddings_is_not_packed_without_them(tmp_path):
    write_tsv(tmp_path / "s.tsv", [text_region_row("a", jpg(), make_result())])
    with pytest.raises(ValueError, match="rows hold no embeddings"):
        describe_record(TextRegionsTsv(tmp_path)[0])


@pytest.mark.parametrize("kind", [ShardRecords, Sa1bTsv])
def test_shards_can_be_sent_to_a_worker_that_is_not_forked(tmp_path, kind):
    column = b'{"image_id": 1, "height": 2, "width": 2, "annotations": []}'
    write_tsv(tmp_path / "s.tsv", [[b"1", column, b""]])
    records = kind(tmp_path)
    assert pickle.loads(pickle.dumps(records))[0] == records[0]


def test_what_sa1b_says_of_a_photo_stays_in_its_json(tmp_path):
    folder = write_images(tmp_path / "images", 1)
    content = json.loads((folder / "image_0.json").read_text())
    content["image"] = {"image_id": 7, "width": 60, "height": 40, "file_name": "image_0.jpg"}
    write_json(folder / "image_0.json", content)
    prepare(folder, "--output", tmp_path / "shards")
    prepare(tmp_path / "shards", "--output", tmp_path / "again")
    for name in ("shards", "again"):
        text = TsvFile(tmp_path / name / "shard-00000.tsv")[0][1]
        assert json.loads(text)["image"] == content["image"]
    first, second = (tmp_path / name / "shard-00000.tsv" for name in ("shards", "again"))
    assert first.read_bytes() == second.read_bytes()


def test_shards_behind_a_url_have_their_metadata_and_records(tmp_path):
    pytest.importorskip("upath")
    prepare(parts(tmp_path), "--output", tmp_path / "shards", "--rows-per-shard", 1)
    folder = as_path(f"memory://{uuid.uuid4().hex}")
    folder.mkdir(parents=True)
    for path in (tmp_path / "shards").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    remote, local = f"shards://{folder}", f"shards://{tmp_path / 'shards'}"
    assert MetadataCatalog.get(remote).thing_classes == ["cat", "sofa"]
    for one, other in zip(DatasetCatalog.get(remote), DatasetCatalog.get(local), strict=True):
        assert {**one, "file_name": ""} == {**other, "file_name": ""}


def test_the_size_of_images_and_shards_is_as_asked(tmp_path):
    prepare(sa1b(tmp_path), "--output", tmp_path / "shards", "--rows-per-shard", 2, "--name", "a")
    assert [path.name for path in list_shards(tmp_path / "shards")] == [
        f"a-{number:05d}.tsv" for number in range(3)
    ]
    record = DatasetCatalog.get(f"shards://{tmp_path / 'shards'}")[0]
    assert (record["height"], record["width"]) == SIZE
