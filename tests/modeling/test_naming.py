import pytest
import torch
from torch.nn import functional as F

from semsam.modeling import build_model
from semsam.modeling.naming import Naming
from semsam.modeling.text.classifier import Classifier
from semsam.structures import ImageList
from tests.tiny import Largest, perturb, tiny_cfg, training_record

NAMES = ("cat", "dog", "sky")


def write_vocabulary(path, names=NAMES, channels=16, encoder="letters"):
    torch.manual_seed(len(names))
    weights = F.normalize(torch.randn(len(names), 1, channels), dim=-1)
    Classifier(tuple(names), weights, encoder).save(path)
    return str(path)


def named_cfg(tmp_path, **decoder):
    cfg = tiny_cfg(NUM_QUERIES=7, **decoder)
    cfg.MODEL.REGION_HEADS.NAMES = ["TextClassHead"]
    node = cfg.MODEL.TEXT_CLASS
    node.EMBED_DIM, node.NUM_LAYERS = 16, 1
    node.SEMANTIC_TOKENS = node.HYPERNETWORKS = node.PREDICT_COSINE = False
    cfg.MODEL.NAMING.VOCABULARIES = [
        f"pets:{write_vocabulary(tmp_path / 'pets.safetensors')}",
        f"more:{write_vocabulary(tmp_path / 'more.safetensors', ('bus', 'car'))}",
    ]
    return cfg


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    return perturb(build_model(named_cfg(tmp_path)))


def named_record(seed=0, vocabulary="pets"):
    record = training_record(192, 192, seed=seed)
    number = len(record["instances"])
    record["instances"].gt_classes = torch.arange(number) % 2
    return {**record, "vocabulary": vocabulary}


def test_prompts_and_images_learn_names_where_they_are_known(model):
    model.train()
    named, unnamed = named_record(), training_record(192, 192, seed=1)
    losses = model([named, unnamed])
    assert {"loss_mask_bce", "loss_contrastive", "loss_contrastive_0"} <= set(losses)
    assert {"loss_mask_bce_image", "loss_class_image", "loss_class_image_0"} <= set(losses)
    sum(losses.values()).backward()
    for name in ("naming.no_object", "decoder.query_embed.weight"):
        assert model.get_parameter(name).grad.any(), name
    assert model.region_heads.TextClassHead.logit_scale.grad != 0
    without = model([unnamed, unnamed])
    names = [name for name in without if "contrastive" in name or "image" in name]
    assert set(without) == set(losses)
    assert all(without[name].item() == 0 for name in names)


def test_a_few_steps_teach_the_classes_of_an_image(tmp_path):
    torch.manual_seed(0)
    model = build_model(named_cfg(tmp_path)).train()
    record = named_record()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = None
    for _ in range(40):
        losses = model([record])
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        first = first or {name: loss.item() for name, loss in losses.items()}
    assert losses["loss_contrastive"].item() < 0.7 * first["loss_contrastive"]
    assert losses["loss_class_image"].item() < 0.5 * first["loss_class_image"]


@torch.no_grad()
def test_an_image_without_prompts_is_segmented_by_the_names_of_its_vocabulary(model):
    model.eval()
    record = {"image": named_record()["image"], "height": 96, "width": 100}
    first, second = model(
        [
            {**record, "vocabulary": "pets", "is_thing": [True, True, False]},
            {**record, "vocabulary": "more"},
        ]
    )
    assert first["sem_seg"].shape == second["sem_seg"].shape == (96, 100)
    assert first["sem_seg"].max() <= 2
    assert second["sem_seg"].max() <= 1
    instances = first["instances"]
    assert instances.pred_masks.shape == (len(instances), 96, 100)
    assert set(instances.pred_classes.tolist()) <= {0, 1}
    assert instances.pred_boxes.shape == (len(instances), 4)
    ids, segments = first["panoptic_seg"]
    assert ids.shape == (96, 100)
    assert set(ids.unique().tolist()) - {0} == {segment["id"] for segment in segments}


def parts_cfg(tmp_path, names):
    cfg = named_cfg(tmp_path)
    cfg.MODEL.TEXT_CLASS.PARTS = True
    file = write_vocabulary(tmp_path / "parts.safetensors", names)
    cfg.MODEL.NAMING.VOCABULARIES = [*cfg.MODEL.NAMING.VOCABULARIES, f"parts:{file}"]
    return cfg


def test_names_of_parts_are_learned_in_their_own_space(tmp_path):
    torch.manual_seed(0)
    model = build_model(parts_cfg(tmp_path, ("bus:wheel", "bus:door"))).train()
    losses = model([named_record(vocabulary="parts")])
    assert losses["loss_contrastive"].item() == 0
    assert losses["loss_contrastive_part"].item() > 0
    # What else is in the image is not annotated: it is not asked for everything.
    assert losses["loss_class_image"].item() == 0
    losses["loss_contrastive_part"].backward()
    projections = model.region_heads.TextClassHead.projections
    assert projections.part.weight.grad.any()
    assert projections.whole.weight.grad is None or not projections.whole.weight.grad.any()


def test_wholes_and_parts_of_one_vocabulary_go_to_two_spaces(tmp_path):
    model = build_model(parts_cfg(tmp_path, ("bus", "bus:wheel")))
    instances = named_record()["instances"]
    model.naming.name(instances, {"vocabulary": "parts"})
    vectors = model.naming.vectors_parts
    assert instances.gt_classes.tolist() == [0, 1, 0]
    zero = torch.zeros(16)
    for place, (whole, part) in enumerate([(vectors[0], zero), (zero, vectors[1])]):
        torch.testing.assert_close(instances.gt_text_embeddings[place], whole)
        torch.testing.assert_close(instances.gt_part_embeddings[place], part)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"is_thing": [True] * 3}, "2 names, 1 of parts, the data set of 'a.jpg' 3 classes"),
        ({"is_part": [True, True]}, "2 classes, 2 of parts: tools/build_classifier.py takes"),
    ],
)
def test_a_vocabulary_has_to_fit_its_data_set(tmp_path, classes, message):
    model = build_model(parts_cfg(tmp_path, ("bus", "bus:wheel")))
    record = {"vocabulary": "parts", "file_name": "a.jpg", **classes}
    with pytest.raises(ValueError, match=message):
        model.naming.name(named_record()["instances"], record)


@torch.no_grad()
def test_probabilities_are_a_softmax_over_names_and_nothing(model):
    model.eval()
    images = model.preprocess([named_record()])
    assert isinstance(images, ImageList)
    output = model.answer_image(model.encode_image(images))
    logits = model.naming.logits(output, 0, "pets")
    assert logits.shape == (1, 7, 4)
    embedding = output.text.embeddings[0, 0, 2]
    cosine = embedding @ F.normalize(model.naming.no_object, dim=0)
    torch.testing.assert_close(logits[0, 2, 3], cosine * output.text.logit_scale)


def test_an_image_without_prompts_and_vocabulary_is_an_error_that_names_it(model):
    record = {"image": named_record()["image"], "file_name": "a.jpg"}
    with pytest.raises(ValueError, match=r"record 0 \(a\.jpg\) .*vocabulary=.*of pets, more"):
        model.eval()([record])


def test_a_vocabulary_that_is_not_there_is_named(model):
    with pytest.raises(ValueError, match=r"no vocabulary 'birds'.*there are: pets, more"):
        model.train()([named_record(vocabulary="birds")])


def test_what_naming_builds_on_is_asked_for(tmp_path):
    cfg = named_cfg(tmp_path)
    cfg.MODEL.REGION_HEADS.NAMES = []
    with pytest.raises(ValueError, match="add TextClassHead"):
        build_model(cfg)
    cfg = named_cfg(tmp_path)
    cfg.MODEL.CRITERION.NAME = "ManyToOneCriterion"
    with pytest.raises(ValueError, match="as ManyToManyCriterion does"):
        build_model(cfg)
    cfg = named_cfg(tmp_path)
    cfg.MODEL.TEXT_CLASS.PREDICT_COSINE = True
    with pytest.raises(ValueError, match=r"PREDICT_COSINE of MODEL\.TEXT_CLASS to False"):
        build_model(cfg)
    cfg = parts_cfg(tmp_path, ("bus", "bus:wheel"))
    cfg.MODEL.TEXT_CLASS.PARTS = False
    with pytest.raises(
        ValueError, match=r"parts\.safetensors': it has names of parts \('bus:wheel'\)"
    ):
        build_model(cfg)
    cfg = named_cfg(tmp_path)
    cfg.MODEL.NAMING.VOCABULARIES = ["pets.safetensors"]
    with pytest.raises(ValueError, match="NAME:FILE"):
        build_model(cfg)
    cfg = named_cfg(tmp_path)
    other = write_vocabulary(tmp_path / "other.safetensors", channels=8)
    cfg.MODEL.NAMING.VOCABULARIES = [*cfg.MODEL.NAMING.VOCABULARIES, f"other:{other}"]
    with pytest.raises(ValueError, match=r"other\.safetensors': .* 8 channels, .*EMBED_DIM is 16"):
        build_model(cfg)


def test_a_vocabulary_of_another_text_encoder_is_an_error_that_names_both(tmp_path):
    cfg = named_cfg(tmp_path)
    cfg.MODEL.TEXT.MODEL = "openai/clip"
    with pytest.raises(ValueError, match=r"pets\.safetensors': .*'letters'.* 'openai/clip'"):
        build_model(cfg)
    cfg.MODEL.TEXT.MODEL = ""
    other = write_vocabulary(tmp_path / "other.safetensors", encoder="runes")
    cfg.MODEL.NAMING.VOCABULARIES = [*cfg.MODEL.NAMING.VOCABULARIES, f"other:{other}"]
    with pytest.raises(ValueError, match=r"'pets' .*'letters', 'other' with 'runes'"):
        build_model(cfg)


def test_vocabularies_that_do_not_fit_each_other_are_refused(tmp_path):
    def classifier(channels):
        return Classifier(("dog",), torch.ones(1, 1, channels), "letters")

    with pytest.raises(ValueError, match=r"several sizes: \[8, 16\]"):
        Naming({"one": classifier(8), "two": classifier(16)})
    cfg = named_cfg(tmp_path)
    cfg.MODEL.NAMING.VOCABULARIES = [cfg.MODEL.NAMING.VOCABULARIES[0]] * 2
    with pytest.raises(ValueError, match="'pets' twice"):
        build_model(cfg)


def test_data_with_other_classes_than_their_vocabulary_are_refused(model):
    record = named_record(vocabulary="more")
    record["instances"].gt_classes[0] = 2
    with pytest.raises(ValueError, match="a class 2, their vocabulary 'more' has 2 names: 0 to 1"):
        model.train()([record])
    image = {"image": record["image"], "vocabulary": "pets", "is_thing": [True, False]}
    with pytest.raises(ValueError, match=r"2 classes, the vocabulary .* has 3"):
        model.eval()([image])


def test_a_vocabulary_of_twenty_thousand_classes_trains_and_segments(tmp_path):
    names = [str(number) for number in range(20_000)]
    cfg = named_cfg(tmp_path)
    path = write_vocabulary(tmp_path / "many.safetensors", names)
    cfg.MODEL.NAMING.VOCABULARIES = [f"many:{path}"]
    torch.manual_seed(0)
    model = perturb(build_model(cfg))
    record = named_record(vocabulary="many")
    record["instances"].gt_classes[0] = 19_999
    losses = model.train()([record])
    assert losses["loss_class_image"] > 0
    assert losses["loss_contrastive"] > 0
    image = {"image": record["image"], "height": 40, "width": 50, "vocabulary": "many"}
    # Scores of each class at each pixel would be 40 million numbers.
    with torch.no_grad(), Largest() as largest:
        (found,) = model.eval()([image])
    assert largest.numel <= 2**24
    assert found["sem_seg"].shape == (40, 50)
    assert found["sem_seg"].max() > 1000
    assert len(found["instances"]) > 0
