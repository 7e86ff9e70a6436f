import pytest
import torch

from semsam.inference import AutomaticMaskGenerator, SemSamPredictor
from semsam.modeling import build_model
from semsam.structures import Prompts
from tests.tiny import perturb, tiny_ovsam_cfg, tiny_sam_cfg, training_record


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return perturb(build_model(tiny_sam_cfg())).eval()


@pytest.fixture(scope="module")
def features(model):
    image = torch.randint(0, 256, (3, 48, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model.encode_image(model.preprocess([{"image": image.to(torch.uint8)}]))


CLICK = Prompts.from_points([[10.0, 12.0]])
CLICKS = Prompts.from_points([[[10.0, 12.0], [40.0, 30.0], [50.0, 8.0]]], [[1, 0, 1]])
BOX = Prompts.from_boxes([[4.0, 6.0, 40.0, 30.0]])
BOX_AND_CLICK = CLICK.with_boxes([[4.0, 6.0, 40.0, 30.0]])
MASK_AND_CLICK = CLICK.with_masks(torch.randn(1, 1, 32, 32))


@torch.no_grad()
def test_prompts_of_every_kind_have_together_the_answers_of_each_alone(model, features):
    kinds = [CLICK, CLICKS, BOX, BOX_AND_CLICK, MASK_AND_CLICK]
    together = model.decode(features, Prompts.cat(kinds))
    for i, prompt in enumerate(kinds):
        alone = model.decode(features, prompt)
        torch.testing.assert_close(together.mask_logits[:, i], alone.mask_logits[:, 0])
        torch.testing.assert_close(together.scores[:, i], alone.scores[:, 0])
        count = alone.tokens.shape[2]
        assert together.context["tokens_used"][0, i].sum() == count
        torch.testing.assert_close(together.tokens[:, i, :count], alone.tokens[:, 0])


@torch.no_grad()
def test_what_a_prompt_holds_changes_its_answer(model, features):
    answers = [
        model.decode(features, p).mask_logits
        for p in (CLICK, CLICKS, BOX, BOX_AND_CLICK, MASK_AND_CLICK)
    ]
    for i, first in enumerate(answers):
        assert all((first - second).abs().max() > 1e-4 for second in answers[i + 1 :])


@torch.no_grad()
def test_an_image_without_prompts_is_answered_with_nothing(model, features):
    output = model.decode(features, Prompts.from_points(torch.zeros(0, 2)))
    assert output.mask_logits.shape == (1, 0, 4, 32, 32)
    assert output.scores.shape == (1, 0, 4)


def test_a_prompt_that_holds_nothing_is_named(model, features):
    nothing = Prompts.from_points([[1.0, 1.0]], [[-1]])
    with pytest.raises(ValueError, match="prompt 1 of image 0 has neither"):
        model.decode(features, Prompts.cat([CLICK, nothing]))


def test_one_mask_is_the_first_and_three_are_the_others(model):
    predictor = SemSamPredictor(model)
    photo = torch.randint(0, 256, (48, 80, 3)).to(torch.uint8).numpy()
    predictor.set_image(photo)
    height, width = predictor.input_size
    prompt = Prompts.from_points([[20 * width / 80, 16 * height / 48]])
    scores = predictor.decode(prompt).scores[0, 0]
    _, three, _ = predictor.predict(point_coords=[20, 16])
    masks, one, _ = predictor.predict(point_coords=[20, 16], multimask_output=False)
    torch.testing.assert_close(torch.from_numpy(three), scores[1:])
    torch.testing.assert_close(torch.from_numpy(one), scores[:1])
    assert masks.shape == (1, 48, 80)


def test_automatic_masks_have_three_levels(model):
    generator = AutomaticMaskGenerator(
        model, points_per_side=3, pred_iou_thresh=None, stability_score_thresh=None
    )
    records = generator.generate(torch.randint(0, 256, (48, 80, 3)).to(torch.uint8).numpy())
    assert {record["level"] for record in records} <= {1, 2, 3}
    assert records


def test_training_gives_finite_losses_and_a_gradient_to_the_image_encoder():
    torch.manual_seed(0)
    model = build_model(tiny_sam_cfg()).train()
    losses = model([training_record(48, 64), training_record(64, 64, seed=1)])
    assert set(losses) == {"loss_mask_bce", "loss_mask_dice", "loss_iou"}
    sum(losses.values()).backward()
    gradient = model.backbone.net.patch_embed.projection.weight.grad
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0


def test_an_image_larger_than_the_encoder_takes_is_refused(model):
    with pytest.raises(ValueError, match="larger than 64"):
        model.preprocess([{"image": torch.zeros(3, 48, 80, dtype=torch.uint8)}])


def test_a_mask_of_an_earlier_answer_can_be_asked_again(model):
    predictor = SemSamPredictor(model)
    predictor.set_image(torch.randint(0, 256, (48, 80, 3)).to(torch.uint8).numpy())
    _, first, low_res = predictor.predict(point_coords=[20, 16])
    _, second, _ = predictor.predict(point_coords=[20, 16], mask_input=low_res[0])
    assert abs(first - second).max() > 1e-5


def test_an_untrained_model_encodes_near_places_alike_and_far_ones_differently():
    torch.manual_seed(0)
    decoder = build_model(tiny_sam_cfg()).decoder
    places = torch.tensor([[0.5, 0.5], [0.51, 0.5], [0.9, 0.5]])
    codes = torch.nn.functional.normalize(decoder.prompt_encoder.shared_embedding(places), dim=1)
    assert codes[0] @ codes[1] > 0.9
    assert codes[0] @ codes[2] < 0.5


@torch.no_grad()
def test_a_text_changes_what_a_place_means_and_is_answered_without_one():
    torch.manual_seed(0)
    model = perturb(build_model(tiny_ovsam_cfg())).eval()
    features = model.encode_image(model.preprocess([{"image": torch.zeros(3, 64, 64).byte()}]))
    dog, cat = torch.randn(2, 1, 12)
    kinds = [
        CLICK,
        CLICK.with_texts(dog),
        CLICK.with_texts(cat),
        BOX,
        BOX.with_texts(dog),
        Prompts.from_texts(dog),
        Prompts.from_texts(cat),
    ]
    together = model.decode(features, Prompts.cat(kinds))
    for i, prompt in enumerate(kinds):
        alone = model.decode(features, prompt).mask_logits[:, 0]
        torch.testing.assert_close(together.mask_logits[:, i], alone)
        assert all((together.mask_logits[:, j] - alone).abs().max() > 1e-4 for j in range(i))
    # A name alone may mean many things, one with a place means one.
    assert together.answering[0, :, 0].tolist() == [False, True, True, True, True, False, False]


def test_a_text_is_refused_by_a_decoder_that_cannot_read_it(model, features):
    with pytest.raises(ValueError, match=r"no encoder of texts.*TEXT_PROMPTS"):
        model.decode(features, CLICK.with_texts(torch.ones(1, 12)))
    reader = build_model(tiny_ovsam_cfg())
    with pytest.raises(ValueError, match=r"5 channels, this decoder reads 12"):
        reader.decode(features, CLICK.with_texts(torch.ones(1, 5)))
