import pytest
import torch

from semsam.modeling import build_model
from semsam.modeling.build import resolve_device
from semsam.structures import ImageList, Prompts
from tests.tiny import perturb, tiny_cfg, training_record


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return perturb(build_model(tiny_cfg())).eval()


def records(*sizes):
    return [training_record(h, w, seed=i) for i, (h, w) in enumerate(sizes)]


def assert_same(ours, theirs):
    # Products of other sizes are summed in another order.
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def decode(model, record, prompts):
    features = model.encode_image(model.preprocess([record]))
    return model.decode(features, prompts)


@torch.no_grad()
def test_predictions_have_the_frame_that_the_record_asks_for(model):
    record = records((64, 96))[0]
    record.update(height=100, width=150)
    (prediction,) = model([record])
    instances = prediction["instances"]
    assert instances.image_size == (100, 150)
    assert instances.pred_masks.shape == (2, 6, 100, 150)
    assert instances.pred_masks.dtype == torch.bool
    assert instances.scores.shape == (2, 6)
    assert instances.pred_boxes.shape == (2, 6, 4)
    assert instances.mask_logits.shape == (2, 6, 16, 24)


@torch.no_grad()
def test_a_batch_of_equal_sizes_gives_what_single_images_give(model):
    # Large enough that GroupNorm has more than a few cells to normalise over.
    batch = records((192, 192), (192, 192))
    together = model(batch)
    for record, prediction in zip(batch, together, strict=True):
        alone = model([record])[0]["instances"]
        assert_same(prediction["instances"].mask_logits, alone.mask_logits)
        assert_same(prediction["instances"].scores, alone.scores)


@torch.no_grad()
def test_images_of_different_sizes_and_numbers_of_prompts_share_a_batch(model):
    batch = records((64, 96), (96, 64))
    batch[1]["prompts"] = Prompts.from_boxes(torch.tensor([[3.0, 4.0, 50.0, 60.0]]))
    first, second = model(batch)
    assert first["instances"].pred_masks.shape == (2, 6, 64, 96)
    assert second["instances"].pred_masks.shape == (1, 6, 96, 64)


@torch.no_grad()
def test_a_prompt_alone_gives_what_it_gives_among_others(model):
    record = records((64, 96))[0]
    points = torch.tensor([[10.0, 20.0], [50.0, 30.0], [90.0, 60.0]])
    box = Prompts.from_boxes(torch.tensor([[5.0, 6.0, 40.0, 50.0]]))
    among = decode(model, record, Prompts.cat([Prompts.from_points(points), box]))
    for i in range(3):
        alone = decode(model, record, Prompts.from_points(points[i : i + 1]))
        assert_same(alone.mask_logits[:, 0], among.mask_logits[:, i])
    assert_same(decode(model, record, box).scores[:, 0], among.scores[:, 3])


@torch.no_grad()
def test_prompts_that_see_each_other_change_each_other():
    torch.manual_seed(0)
    model = perturb(build_model(tiny_cfg(CROSS_PROMPT_ATTENTION=True))).eval()
    record = records((64, 96))[0]
    points = torch.tensor([[10.0, 20.0], [50.0, 30.0]])
    alone = decode(model, record, Prompts.from_points(points[:1]))
    among = decode(model, record, Prompts.from_points(points))
    assert not torch.allclose(alone.scores[:, 0], among.scores[:, 0])


@torch.no_grad()
def test_an_image_without_prompts_gives_no_masks(model):
    record = records((64, 96))[0]
    record["prompts"] = Prompts.from_points(torch.zeros(0, 2))
    (prediction,) = model([record])
    assert len(prediction["instances"]) == 0
    assert prediction["instances"].pred_masks.shape == (0, 6, 64, 96)


@torch.no_grad()
@pytest.mark.parametrize("number", [1, 3, 8])
def test_any_number_of_tokens_gives_as_many_masks(number):
    model = build_model(tiny_cfg(NUM_TOKENS=number)).eval()
    (prediction,) = model(records((96, 64)))
    assert prediction["instances"].scores.shape == (2, number)


def test_training_gives_finite_losses_and_reaches_every_parameter():
    torch.manual_seed(0)
    cfg = tiny_cfg()
    cfg.MODEL.CRITERION.NUM_POINTS = 512
    model = perturb(build_model(cfg)).train()
    losses = model(records((64, 96), (96, 64)))
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    unreached = [n for n, p in model.named_parameters() if p.grad is None]
    assert unreached == []


def test_a_record_without_prompts_is_rejected_by_name(model):
    record = records((96, 64))[0]
    del record["prompts"]
    record["file_name"] = "cat.jpg"
    with pytest.raises(ValueError, match=r"record 0 \(cat.jpg\) has no prompts"):
        model([record])


@pytest.mark.parametrize(
    "prompts",
    [
        Prompts.from_points(torch.zeros(1, 2, 2)),
        Prompts.from_points(torch.zeros(1, 2), labels=torch.zeros(1)),
    ],
)
def test_prompts_that_the_decoder_cannot_read_are_rejected(model, prompts):
    record = records((96, 64))[0]
    record["prompts"] = prompts
    with pytest.raises(ValueError, match="one foreground click or one box"):
        model([record])


def test_a_model_without_criterion_cannot_train():
    cfg = tiny_cfg()
    cfg.MODEL.CRITERION.NAME = ""
    with pytest.raises(RuntimeError, match="no criterion"):
        build_model(cfg).train()(records((96, 64)))


def test_decoder_and_pixel_decoder_must_agree_on_channels():
    with pytest.raises(ValueError, match="must be equal"):
        build_model(tiny_cfg(HIDDEN_DIM=64))


def test_a_gpu_that_is_not_there_is_an_error():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match="torch sees no GPU"):
        resolve_device("cuda")


def test_padding_is_the_mean_colour(model):
    images = model.preprocess(records((64, 96), (96, 64)))
    assert isinstance(images, ImageList)
    assert images.tensor.shape == (2, 3, 96, 96)
    assert not images.tensor[0, :, 64:].any()
