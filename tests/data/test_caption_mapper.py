import io

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from semsam.config import get_cfg
from semsam.data import DATASET_MAPPER, build_test_loader, build_train_loader
from semsam.data.mappers import CaptionMapper
from semsam.data.records import BadRecordError
from semsam.structures import Instances
from tests.data.region_files import SIZE, vg_region, write_visual_genome

HEIGHT, WIDTH = SIZE
CORNERS = [[0, 0, 20, 16], [40, 0, 60, 16], [0, 24, 20, 40], [40, 24, 60, 40]]


def region(number, bbox, *phrases):
    return {"region_id": number, "bbox": list(bbox), "phrases": list(phrases or ["thing"])}


def make_record(regions=None, seed=1, **more):
    """A photo whose left half is black and whose right half is white."""
    pixels = np.zeros((*SIZE, 3), dtype=np.uint8)
    pixels[:, WIDTH // 2 :] = 255
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "png")
    if regions is None:
        regions = [region(n, box, f"{'abcd'[n]}-thing") for n, box in enumerate(CORNERS)]
    return {
        "file_name": "halves",
        "image_id": 5,
        "image_bytes": encoded.getvalue(),
        "height": HEIGHT,
        "width": WIDTH,
        "regions": regions,
        "rng": np.random.default_rng(seed),
        **more,
    }


def make_mapper(is_train=True, criterion="", **values):
    cfg = get_cfg()
    cfg.MODEL.CRITERION.NAME = criterion
    cfg.INPUT.IMAGE_SIZE = 60
    cfg.INPUT.MIN_SCALE = cfg.INPUT.MAX_SCALE = 1.0
    cfg.INPUT.FLIP_PROB = 0.0
    cfg.INPUT.MIN_SIZE_TEST = 80
    for key, value in values.items():
        cfg.INPUT[key] = value
    return CaptionMapper(cfg, is_train)


def boxes_by_caption(mapped):
    instances = mapped["instances"]
    boxes = instances.gt_boxes.tensor.tolist()
    return dict(zip(instances.gt_captions, boxes, strict=True))


def test_the_mapper_is_registered():
    assert DATASET_MAPPER.get("CaptionMapper") is CaptionMapper


def test_training_gives_a_padded_square_with_a_box_prompt_a_region():
    mapped = make_mapper()(make_record())
    assert mapped["image"].shape == (3, 60, 60)
    assert mapped["image"].dtype == torch.uint8
    assert mapped["image"][:, 50, 30].tolist() == [124, 116, 104]
    assert isinstance(mapped["instances"], Instances)
    boxes = mapped["instances"].gt_boxes.tensor
    assert torch.equal(mapped["prompts"].boxes[0], boxes)
    assert mapped["prompts"].has_box.all()
    assert mapped["targets"].seeds.tolist() == [0, 1, 2, 3]
    assert mapped["targets"].levels.tolist() == [[0], [1], [2], [3]]
    assert boxes_by_caption(mapped) == {f"{'abcd'[n]}-thing": box for n, box in enumerate(CORNERS)}
    assert (mapped["height"], mapped["width"], mapped["image_id"]) == (60, 60, 5)


def test_boxes_keep_their_fractions():
    (box,) = boxes_by_caption(
        make_mapper(IMAGE_SIZE=90)(make_record([region(1, [1.25, 2.5, 10.75, 20.1])]))
    ).values()
    assert box == pytest.approx([1.875, 3.75, 16.125, 30.15], abs=1e-4)


def test_at_most_so_many_regions_are_chosen_at_random():
    regions = [region(n, [n, 0, n + 5, 5], f"thing {n}") for n in range(30)]
    chosen = [
        make_mapper(NUM_PROMPTS=4)(make_record(regions, seed))["instances"].gt_captions
        for seed in range(20)
    ]
    assert all(len(set(captions)) == 4 for captions in chosen)
    assert len({caption for captions in chosen for caption in captions}) > 20


def test_sixteen_regions_are_the_default_of_the_class():
    mapper = make_mapper()
    fresh = CaptionMapper(is_train=True, jitter=mapper.jitter, resize=mapper.resize)
    assert fresh.num_prompts == 16
    with pytest.raises(ValueError, match="NUM_PROMPTS is at least 1"):
        make_mapper(NUM_PROMPTS=0)


def test_each_phrase_of_a_region_is_chosen_at_times():
    regions = [region(1, CORNERS[0], "a cat", "an animal", "a pet")]
    captions = {
        make_mapper()(make_record(regions, seed))["instances"].gt_captions[0] for seed in range(30)
    }
    assert captions == {"a cat", "an animal", "a pet"}


def test_regions_outside_the_crop_are_dropped_before_the_choice():
    mapper = make_mapper(MIN_SCALE=2.0, MAX_SCALE=2.0, NUM_PROMPTS=1)
    for seed in range(20):
        (box,) = boxes_by_caption(mapper(make_record(seed=seed))).values()
        assert box[2] - box[0] > 1e-5
        assert box[3] - box[1] > 1e-5
        assert min(box) >= 0
        assert max(box) <= 60


def test_a_crop_without_a_region_is_drawn_again():
    mapper = make_mapper(MIN_SCALE=2.0, MAX_SCALE=2.0)
    lonely = [region(1, CORNERS[0])]
    for seed in range(20):
        mapped = mapper(make_record(lonely, seed))
        assert len(mapped["instances"]) == 1


def test_a_region_no_crop_holds_makes_a_bad_record():
    mapper = make_mapper(MIN_SCALE=2.0, MAX_SCALE=2.0)
    # Both ends of the diagonal are reached by next to no crop.
    with pytest.raises(BadRecordError, match="halves: 10 crops left no region"):
        mapper(make_record([region(1, [59.999, 0, 60, 0.001])]))


def test_a_mirrored_image_has_mirrored_boxes_and_words():
    regions = [region(1, CORNERS[0], "the left one"), region(2, CORNERS[3], "a dog")]
    mapped = make_mapper(FLIP_PROB=1.0)(make_record(regions))
    assert mapped["image"][:, 10, 5].tolist() == [255, 255, 255]
    assert boxes_by_caption(mapped) == {"the right one": [40, 0, 60, 16], "a dog": [0, 24, 20, 40]}


def test_an_image_is_not_mirrored_when_one_chosen_caption_forbids_it():
    regions = [region(1, CORNERS[0], "the left one"), region(2, CORNERS[3], "a sign that says no")]
    mapped = make_mapper(FLIP_PROB=1.0)(make_record(regions))
    assert mapped["image"][:, 10, 5].tolist() == [0, 0, 0]
    assert boxes_by_caption(mapped) == {
        "the left one": CORNERS[0],
        "a sign that says no": CORNERS[3],
    }


def test_equal_generators_give_equal_samples():
    mapper = make_mapper(MIN_SCALE=0.5, MAX_SCALE=2.0, FLIP_PROB=0.5)
    first, second, other = (mapper(make_record(seed=seed)) for seed in (3, 3, 4))
    assert torch.equal(first["image"], second["image"])
    assert boxes_by_caption(first) == boxes_by_caption(second)
    assert not torch.equal(first["image"], other["image"])


def test_evaluation_keeps_every_region_in_order_with_all_its_phrases():
    regions = [region(n, box, "one", "two") for n, box in enumerate(CORNERS)]
    mapped = make_mapper(is_train=False, NUM_PROMPTS=1)(make_record(regions))
    assert mapped["image"].shape == (3, 80, 120)
    assert mapped["region_ids"] == [0, 1, 2, 3]
    assert mapped["references"] == [["one", "two"]] * 4
    assert mapped["predict_masks"] is False
    assert mapped["prompts"].boxes[0].tolist() == [[2 * x for x in box] for box in CORNERS]
    assert (mapped["height"], mapped["width"]) == SIZE
    assert (mapped["file_name"], mapped["image_id"]) == ("halves", 5)


def test_a_limit_on_the_longest_side_alone_resizes_as_sam_does():
    mapped = make_mapper(is_train=False, MIN_SIZE_TEST=90, MAX_SIZE_TEST=90)(make_record())
    assert mapped["image"].shape == (3, 60, 90)


def test_a_box_beyond_the_photo_is_cut_at_its_edge():
    mapped = make_mapper(is_train=False)(make_record([region(1, [-5, -5, 70, 20])]))
    assert mapped["prompts"].boxes[0].tolist() == [[0, 0, 120, 40]]


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (make_record([]), "no usable region"),
        (make_record([region(7, [0, 0, 0, 5])]), "region 7.*no area"),
        (make_record([region(7, [0, 0, float("inf"), 5])]), "region 7.*finite"),
        (make_record([region(7, [0, 0, 5])]), "region 7.*finite"),
        (make_record([{"region_id": 7, "bbox": [0, 0, 5, 5]}]), "phrases"),
        (make_record([region(7, [0, 0, 5, 5], "")]), "region 7.*phrases"),
        (make_record(height=41), r"the image is \(40, 60\).*\(41, 60\)"),
        (make_record(image_bytes=b"text"), "halves"),
    ],
    ids=["none", "flat", "infinite", "short", "no-phrases", "empty", "size", "no-image"],
)
def test_what_cannot_be_used_is_a_bad_record(is_train, record, reason):
    with pytest.raises(BadRecordError, match=f"halves.*{reason}" if reason != "halves" else reason):
        make_mapper(is_train)(record)


def test_loaders_read_a_dataset_of_regions_through_the_mapper(tmp_path):
    regions = {1: [vg_region(10, "the left wall")], 2: [vg_region(20)], 3: [vg_region(30)]}
    root = write_visual_genome(tmp_path, regions)
    cfg = get_cfg()
    cfg.MODEL.CRITERION.NAME = ""
    cfg.INPUT.IMAGE_SIZE, cfg.DATALOADER.NUM_WORKERS, cfg.SOLVER.IMS_PER_BATCH = 64, 0, 2
    cfg.DATASETS.TRAIN = (f"visual_genome://{root}?split=train",)
    batch = next(iter(build_train_loader(cfg)))
    assert [len(sample["instances"].gt_captions) for sample in batch] == [1, 1]
    loader = build_test_loader(cfg, f"visual_genome://{root}?split=test")
    assert [sample["region_ids"] for (sample,) in loader] == [[20], [30]]


def halves_of_boxes(number):
    """The left half of a region's box: as a run-length code, and as a polygon."""
    x0, y0, x1, y1 = CORNERS[number]
    middle = (x0 + x1) // 2
    mask = np.zeros(SIZE, dtype=np.uint8, order="F")
    mask[y0:y1, x0:middle] = 1
    polygon = [[x0, y0, middle, y0, middle, y1, x0, y1]]
    return mask, [coco_mask.encode(mask), polygon][number % 2]


def test_masks_are_given_with_their_captions_where_a_criterion_learns_from_them():
    regions = [
        {**region(n, box, f"{'abcd'[n]}-thing"), "segmentation": halves_of_boxes(n)[1]}
        for n, box in enumerate(CORNERS)
    ]
    mapper = make_mapper(criterion="ManyToOneCriterion", NUM_PROMPTS=3, IMAGE_SIZE=WIDTH)
    instances = mapper(make_record(regions))["instances"]
    assert len(instances.gt_captions) == 3
    for caption, mask in zip(instances.gt_captions, instances.gt_masks, strict=True):
        expected, _ = halves_of_boxes("abcd".index(caption[0]))
        assert np.array_equal(mask.numpy()[:HEIGHT], expected)
        assert not mask[HEIGHT:].any()
    assert not make_mapper()(make_record(regions))["instances"].has("gt_masks")


def test_a_region_without_a_mask_is_named_where_masks_are_learned():
    mapper = make_mapper(criterion="ManyToOneCriterion")
    with pytest.raises(BadRecordError, match=r"halves.*region 0 has no 'segmentation'.*CRITERION"):
        mapper(make_record())


def with_embeddings(*names, **more):
    """A record of named boxes whose vectors tell which box they are of."""
    regions = [region(n, CORNERS[n], name) for n, name in enumerate(names)]
    vectors = np.eye(len(names), 6, dtype=np.float32)
    return make_record(regions, text_embeddings=vectors, encoder="clip", **more)


def test_boxes_that_a_detector_found_get_noise_as_prompts():
    given = {"PROMPT_NOISE": 0.2}
    mapped = make_mapper(criterion="OpenVocabularyCriterion", **given)(with_embeddings("a", "b"))
    true, asked = mapped["instances"].gt_boxes.tensor, mapped["prompts"].boxes[0]
    sides = (true[:, 2:] - true[:, :2]).repeat(1, 2)
    moved = (asked - true).abs() / sides
    assert (moved > 0).all()
    assert (moved <= 0.2 + 1e-5).all()
    assert mapped["text_encoder"] == "clip"


def test_names_with_embeddings_are_learned_without_masks():
    mapper = make_mapper(criterion="OpenVocabularyCriterion")
    for seed in range(4):
        mapped = mapper(with_embeddings("dog", "tree", "cat", "sky", seed=seed))
        instances = mapped["instances"]
        assert not instances.has("gt_masks")
        numbers = [["dog", "tree", "cat", "sky"].index(name) for name in instances.gt_captions]
        assert torch.equal(instances.gt_text_embeddings, torch.eye(4, 6)[numbers])
        assert not mapped["prompts"].has_text.any()


def test_some_boxes_are_asked_for_by_name_too():
    mapper = make_mapper(criterion="OpenVocabularyCriterion", TEXT_PROMPT_RATIO=0.5)
    asked = []
    for seed in range(20):
        mapped = mapper(with_embeddings("dog", "tree", "cat", "sky", seed=seed))
        prompts = mapped["prompts"]
        assert torch.equal(prompts.texts[0], mapped["instances"].gt_text_embeddings)
        asked += prompts.has_text[0].tolist()
    assert 0.3 < np.mean(asked) < 0.7
    with pytest.raises(ValueError, match="TEXT_PROMPT_RATIO is 0 to 1"):
        make_mapper(TEXT_PROMPT_RATIO=2.0)


def test_a_name_that_a_mirror_would_change_forbids_it_where_its_embedding_is_fixed():
    mapper = make_mapper(criterion="OpenVocabularyCriterion", FLIP_PROB=1.0)
    turned = mapper(with_embeddings("left hand"))["instances"]
    assert turned.gt_captions == ["left hand"]
    assert turned.gt_boxes.tensor[0, 0] == 0
    mirrored = mapper(with_embeddings("hand"))["instances"]
    assert mirrored.gt_boxes.tensor[0, 0] > 0
