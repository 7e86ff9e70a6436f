import json

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from semsam.config import get_cfg
from semsam.data import MetadataCatalog
from semsam.evaluation import DatasetEvaluators, build_evaluator, inference_on_dataset
from semsam.evaluation.caption import KEYS, CaptionEvaluator, format_line
from semsam.evaluation.caption_metrics import CaptionScorer
from semsam.evaluation.prediction_file import PredictionFile
from semsam.structures import Instances
from tests.evaluation.java import needs_java, require
from tests.evaluation.tiny_spacy import save_pipeline

#: Of each image, its regions' captions; "dog", "cat" and "lawn" are nouns.
IMAGES = {
    1: {"file_name": "1.jpg", "region_ids": [10, 11], "references": [["dog"], ["cat", "lawn"]]},
    2: {"file_name": "2.jpg", "region_ids": [10], "references": [["dog"]]},
}
RECORDS = [{"image_id": image_id, **image} for image_id, image in IMAGES.items()]
SAID = {1: ["dog", "cat"], 2: ["cat"]}
#: 1, 1/2 and 0 of the nouns.
RESULTS = {"captions": {"Noun": pytest.approx(50), "regions": 3}}


class Captioner:
    """Says the captions of SAID, and remembers for which images it was asked."""

    def __init__(self, fails_at=None):
        self.asked = []
        self.fails_at = fails_at

    def __call__(self, inputs):
        for record in inputs:
            if record["image_id"] == self.fails_at:
                raise KeyboardInterrupt
            self.asked.append(record["image_id"])
        return [outputs(SAID[record["image_id"]]) for record in inputs]


def outputs(captions):
    scores = torch.arange(3.0).repeat(len(captions), 1)
    return {"instances": Instances((8, 8), pred_captions=captions, scores=scores)}


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    require("spacy")
    return CaptionScorer(["Noun"], spacy_model=save_pipeline(tmp_path_factory.mktemp("spacy")))


def evaluator_of(scorer, folder, resume=False, name="vg"):
    return CaptionEvaluator(scorer=scorer, dataset_name=name, output_dir=folder, resume=resume)


def evaluate(scorer, folder, model=None, **options):
    batches = [[record] for record in RECORDS]
    return inference_on_dataset(
        model or Captioner(), batches, evaluator_of(scorer, folder, **options)
    )


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_metrics_are_percentages_over_all_regions(scorer, tmp_path):
    assert evaluate(scorer, tmp_path) == RESULTS


def test_every_prediction_is_a_line_as_soon_as_it_is_made(scorer, tmp_path):
    evaluator = evaluator_of(scorer, tmp_path / "new", name="coco:///data")
    evaluator.reset()
    evaluator.process(RECORDS[:1], [outputs(["dog", "café"])])
    first, second = rows_of(tmp_path / "new" / "predictions-coco_data.jsonl")
    assert first == {
        "image_id": 1,
        "region_id": 10,
        "references": ["dog"],
        "candidate": "dog",
        "scores": [0, 1, 2],
    }
    assert (second["region_id"], second["candidate"]) == (11, "café")


def test_an_interrupted_evaluation_resumes_without_asking_the_model_again(scorer, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        evaluate(scorer, tmp_path, Captioner(fails_at=2))
    path = tmp_path / "predictions-vg.jsonl"
    with open(path, "a") as file:
        file.write('{"image_id": 2, "region_id": 10, "ref')
    model = Captioner()
    assert evaluate(scorer, tmp_path, model, resume=True) == RESULTS
    assert model.asked == [2]
    assert [(row["image_id"], row["region_id"]) for row in rows_of(path)] == [
        (1, 10),
        (1, 11),
        (2, 10),
    ]


def test_an_image_with_a_missing_region_is_asked_again_and_keeps_what_it_has(scorer, tmp_path):
    evaluate(scorer, tmp_path)
    path = tmp_path / "predictions-vg.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0].replace('"candidate": "dog"', '"candidate": "lawn"') + lines[2])
    model = Captioner()
    results = evaluate(scorer, tmp_path, model, resume=True)
    assert model.asked == [1]
    assert results["captions"]["Noun"] == pytest.approx(100 * (0 + 1 / 2 + 0) / 3)
    assert len(rows_of(path)) == 3


def test_an_image_is_asked_for_when_another_evaluator_needs_it(scorer, tmp_path):
    evaluate(scorer, tmp_path)
    both = DatasetEvaluators(
        [
            evaluator_of(scorer, tmp_path, resume=True),
            evaluator_of(scorer, tmp_path / "other"),
        ]
    )
    both.reset()
    assert both.pending(RECORDS) == RECORDS


def test_a_new_evaluation_deletes_the_files_of_its_dataset_only(scorer, tmp_path):
    stale = [tmp_path / f"predictions-vg{rank}.jsonl" for rank in ("", "-rank0", "-rank1")]
    kept = [tmp_path / f"predictions-{name}.jsonl" for name in ("vg-test", "vg2", "coco-rank0")]
    for path in (*stale, *kept):
        path.write_text("old\n")
    evaluator_of(scorer, tmp_path).reset()
    assert not any(path.exists() for path in stale)
    assert all(path.exists() for path in kept)


def test_predictions_are_kept_until_an_evaluation_starts(scorer, tmp_path):
    evaluate(scorer, tmp_path)
    evaluator_of(scorer, tmp_path)
    assert len(rows_of(tmp_path / "predictions-vg.jsonl")) == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"image_id": 1, "regi', r"predictions-vg.jsonl, line 2: .*; remove the line"),
        ('{"image_id": 1, "region_id": 2}', r"line 2: it lacks \['references', 'candidate'\]"),
        ("[]", r"line 2: it lacks \['image_id'"),
    ],
)
def test_a_broken_line_is_an_error_with_file_and_line(scorer, tmp_path, line, message):
    evaluate(scorer, tmp_path)
    path = tmp_path / "predictions-vg.jsonl"
    first, _, last = path.read_text().splitlines()
    path.write_text(f"{first}\n{line}\n{last}\n")
    with pytest.raises(ValueError, match=message):
        evaluator_of(scorer, tmp_path, resume=True).reset()


def test_an_image_that_is_seen_twice_counts_once(scorer, tmp_path):
    evaluator = evaluator_of(scorer, tmp_path)
    evaluator.reset()
    for _ in range(2):
        evaluator.process(RECORDS, Captioner()(RECORDS))
    assert evaluator.evaluate() == RESULTS
    assert len(rows_of(tmp_path / "predictions-vg.jsonl")) == 3


@pytest.mark.parametrize(
    ("change", "captions", "message"),
    [
        ({}, ["dog"], "'1.jpg': 1 captions, 2 region_ids and references of 2 regions"),
        ({"references": [["dog"]]}, ["dog", "cat"], "'1.jpg': 2 captions, .* references of 1"),
        ({"references": [["dog"], []]}, ["dog", "cat"], "'1.jpg': region 11 has no reference"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_by_file(scorer, tmp_path, change, captions, message):
    evaluator = evaluator_of(scorer, tmp_path)
    evaluator.reset()
    with pytest.raises(ValueError, match=message):
        evaluator.process([RECORDS[0] | change], [outputs(captions)])


def test_an_evaluation_of_nothing_is_an_error(scorer, tmp_path):
    evaluator = evaluator_of(scorer, tmp_path)
    evaluator.reset()
    with pytest.raises(RuntimeError, match="nothing was evaluated"):
        evaluator.evaluate()


def _on_two_ranks(rank, scorer, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    evaluator = evaluator_of(scorer, folder)
    evaluator.reset()
    # Both ranks see the second image, as a sampler that pads makes them.
    share = RECORDS if rank == 0 else RECORDS[1:]
    evaluator.process(share, Captioner()(share))
    (folder / f"{rank}.json").write_text(json.dumps(evaluator.evaluate()))
    dist.destroy_process_group()


def test_ranks_agree_and_one_process_resumes_what_two_have_written(scorer, tmp_path):
    mp.start_processes(_on_two_ranks, args=(scorer, tmp_path), nprocs=2, start_method="fork")
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second == RESULTS
    assert [len(rows_of(tmp_path / f"predictions-vg-rank{r}.jsonl")) for r in range(2)] == [3, 1]
    model = Captioner()
    assert evaluate(scorer, tmp_path, model, resume=True) == RESULTS
    assert model.asked == []


def test_refcoco_and_refcoco_plus_have_files_of_their_own(tmp_path):
    names = (f"refcoco:///data/{name}?split=testA" for name in ("refcoco", "refcoco+"))
    assert len({PredictionFile(tmp_path, name, KEYS).path for name in names}) == 2


def test_half_a_line_of_another_rank_is_left_out(tmp_path):
    row = dict.fromkeys(KEYS, 1)
    (tmp_path / "predictions-vg-rank1.jsonl").write_text(json.dumps(row) + '\n{"image')
    assert list(PredictionFile(tmp_path, "predictions-vg", KEYS).read()) == [row]


def test_table_has_the_papers_order_and_says_why_a_column_is_missing():
    assert format_line({"Noun": 41.53, "CIDEr-D": 148.8}, {"SPICE": "no jars"}).splitlines() == [
        "| CIDEr-D | SPICE | Noun |",
        "| ------- | ----- | ---- |",
        "|   148.8 |     - | 41.5 |",
        "SPICE: no jars",
    ]


def test_a_dataset_names_the_evaluator_and_the_configuration_its_columns(tmp_path):
    require("spacy")
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.TEST.CAPTION.METRICS = ["Noun", "Noun (F)"]
    cfg.TEST.CAPTION.SPACY_MODEL = save_pipeline(tmp_path / "spacy")
    MetadataCatalog.get("regions").set(evaluator_type="CaptionEvaluator")
    try:
        evaluator = build_evaluator(cfg, "regions")
    finally:
        MetadataCatalog.remove("regions")
    results = inference_on_dataset(Captioner(), [RECORDS], evaluator)
    assert list(results["captions"]) == ["Noun", "Noun (F)", "regions"]
    assert (tmp_path / "predictions-regions.jsonl").exists()


@needs_java
def test_any_sentence_of_a_referred_object_may_be_met(tmp_path):
    record = {
        "file_name": "1.jpg",
        "image_id": 1,
        "region_ids": [7],
        "references": [["man on the left", "the tall man", "guy in red"]],
    }
    evaluator = evaluator_of(CaptionScorer(["METEOR", "CIDEr-D"]), tmp_path)
    evaluator.reset()
    evaluator.process([record], [outputs(["The tall man."])])
    results = evaluator.evaluate()["captions"]
    assert list(results) == ["CIDEr-D", "METEOR", "regions"]
    assert results["METEOR"] == pytest.approx(100)
