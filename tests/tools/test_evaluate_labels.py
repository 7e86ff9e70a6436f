"""``tools/evaluate_labels.py``: a segmenter, and the same after masks have voted."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

from semsam.data import DatasetCatalog
from semsam.data.label_maps import label_map
from semsam.data.semantic_mask import encode_semantic_mask
from semsam.inference.amg_utils import encode_mask

ROOT = Path(__file__).parents[2]


@pytest.fixture
def camvid(tmp_path):
    """Two frames, each with masks; results that are the truth, with class 0 for what is none."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        labels = rng.integers(0, 12, (6, 8), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        photo = np.stack([labels * 20] * 3, axis=2)
        for folder, pixels in (("test", photo), ("testannot", labels)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / f"{name}.png")
        masks = [{"segmentation": encode_mask(labels == number, "coco_rle")} for number in (1, 2)]
        (tmp_path / "test" / f"{name}.json").write_text(json.dumps({"annotations": masks}))
        truth = {"semantic_mask": encode_semantic_mask(labels % 11)}
        (tmp_path / "results").mkdir(exist_ok=True)
        (tmp_path / "results" / f"{name}_semantic.json").write_text(json.dumps(truth))
    return tmp_path


def write_segmenter(folder, names):
    config = SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        id2label=names,
    )
    SegformerForSemanticSegmentation(config).save_pretrained(folder)
    SegformerImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location(
        "evaluate_labels", ROOT / "tools/evaluate_labels.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def evaluate(tool, root, *options):
    (root / "closed.yaml").write_text(
        "MODEL: {DEVICE: cpu}\n"
        "ANNOTATION:\n"
        "  LABELERS: [ClosedSetLabeler]\n"
        f"  CLOSED_SET: {{SEGMENTERS: ['{root / 'segmenter'}'], LABEL_MAPS: ['']}}\n"
    )
    files = ["--config-file", root / "closed.yaml", "--output", root / "numbers.json"]
    command = [*files, "--dataset", f"camvid://{root}?split=test", *options]
    tool.main(tool.parse_args([str(word) for word in command]))
    return json.loads((root / "numbers.json").read_text())


def test_one_command_annotates_and_evaluates_both(tool, camvid):
    write_segmenter(camvid / "segmenter", label_map("camvid"))
    numbers = evaluate(tool, camvid, "--results", camvid / "ssa")
    assert list(numbers) == ["segmenter", "SSA"]
    assert 0 <= numbers["segmenter"]["mIoU"] < 100
    written = camvid / "ssa" / "a_semantic.json"
    assert len(json.loads(written.read_text())["annotations"]) == 2
    before = written.stat().st_mtime_ns
    assert evaluate(tool, camvid, "--results", camvid / "ssa") == numbers
    assert written.stat().st_mtime_ns == before


def test_without_results_the_segmenter_is_evaluated_alone(tool, camvid):
    write_segmenter(camvid / "segmenter", label_map("camvid"))
    assert list(evaluate(tool, camvid)) == ["segmenter"]


def test_results_alone_need_no_model(tool, camvid):
    numbers = evaluate(tool, camvid, "--results", camvid / "results", "--results-only")
    assert list(numbers) == ["SSA"]
    assert numbers["SSA"]["aAcc"] == numbers["SSA"]["boundary mIoU"] == 100


def test_photos_that_are_not_called_by_their_ids_have_no_folder(tool, tmp_path):
    name = "photos_called_otherwise"
    records = [{"file_name": str(tmp_path / "a.png"), "image_id": 7}]
    DatasetCatalog.register(name, lambda: records)
    with pytest.raises(ValueError, match=r"a\.png' is not called by its image_id '7'"):
        tool.photo_folder(name)
    records[:] = [{"file_name": f"/{part}/a.png", "image_id": "a"} for part in ("x", "y")]
    with pytest.raises(ValueError, match="lie in 2 folders"):
        tool.photo_folder(name)
    DatasetCatalog.remove(name)


def test_a_missing_result_is_an_error_that_names_its_file(tool, camvid):
    (camvid / "results" / "b_semantic.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"b_semantic\.json"):
        evaluate(tool, camvid, "--results", camvid / "results", "--results-only")


def test_a_segmenter_of_other_classes_is_an_error(tool, camvid):
    write_segmenter(camvid / "segmenter", {0: "cat", 1: "dog"})
    with pytest.raises(ValueError, match=r"the segmenter has 2 classes, 'camvid://.*' has 11"):
        evaluate(tool, camvid)


def test_results_only_of_no_results_is_a_wrong_command(tool, camvid):
    with pytest.raises(SystemExit):
        evaluate(tool, camvid, "--results-only")
