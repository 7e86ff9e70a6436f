import pytest
import torch

from semsam.modeling import build_model
from semsam.modeling.interaction import clicks_of_rounds, correct
from semsam.structures import Instances, PromptOutput, Prompts, PromptTargets
from tests.tiny import tiny_sam_cfg, training_record


def answer(logits, scores, answering=None):
    return PromptOutput(
        mask_logits=logits[None],
        scores=torch.tensor(scores)[None],
        boxes=None,
        tokens=torch.zeros(1, *logits.shape[:2], 1),
        valid=torch.ones(1, len(logits), dtype=torch.bool),
        padded_size=(16, 16),
        answering=answering,
    )


def truth(*windows):
    masks = torch.zeros(len(windows), 16, 16, dtype=torch.bool)
    for mask, window in zip(masks, windows, strict=True):
        mask[window] = True
    return [Instances((16, 16), gt_masks=masks)]


LEFT = (slice(None), slice(0, 8))
WHOLE = (slice(None), slice(None))
ONE = [PromptTargets(torch.tensor([0]), torch.tensor([[0]]))]
CLICK = Prompts.from_points([[3.0, 3.0]])


def halves():
    """Two masks of 8 x 8 cells: the whole, and nothing."""
    return torch.stack([torch.ones(8, 8), -torch.ones(8, 8)])[None]


@pytest.mark.parametrize(
    ("scores", "wanted", "label", "columns"),
    [
        # The whole is answered and the left half is wanted: background on the right.
        ([[0.9, 0.1]], LEFT, 0, (8, 16)),
        # Nothing is answered: foreground on the left.
        ([[0.1, 0.9]], LEFT, 1, (0, 8)),
        # The answer is right: a click inside it all the same.
        ([[0.9, 0.1]], WHOLE, 1, (0, 16)),
    ],
)
def test_a_click_lies_where_the_best_mask_is_wrong(scores, wanted, label, columns):
    for seed in range(5):
        torch.manual_seed(seed)
        output = answer(halves(), scores)
        following = correct(output, CLICK, truth(wanted), ONE, click=True)
        assert following.labels[0, 0].tolist() == [1, label]
        x, y = following.points[0, 0, 1].tolist()
        assert columns[0] < x < columns[1]
        assert 0 < y < 16


def test_the_best_mask_among_those_that_answer_is_asked_again():
    answering = torch.tensor([[[False, True]]])
    output = answer(halves(), [[0.9, 0.1]], answering)
    following = correct(output, CLICK, truth(WHOLE), ONE, click=False)
    assert following.has_mask.all()
    assert (following.masks == -1).all()
    assert following.points.shape == CLICK.points.shape


def test_eleven_rounds_have_eight_clicks_and_end_without():
    for seed in range(20):
        torch.manual_seed(seed)
        clicks = clicks_of_rounds(11)
        assert len(clicks) == 10
        assert sum(clicks) == 8
        assert not clicks[-1]
    assert clicks_of_rounds(1) == []


def test_rounds_are_trained_together_and_change_the_loss():
    cfg = tiny_sam_cfg()
    losses = []
    for rounds in (1, 4):
        cfg.MODEL.PROMPT_ROUNDS = rounds
        torch.manual_seed(0)
        model = build_model(cfg).train()
        result = model([training_record(48, 64), training_record(64, 64, seed=1)])
        sum(result.values()).backward()
        losses.append({k: v.item() for k, v in result.items()})
        # The encoder of mask prompts learns only where masks are asked again.
        gradient = model.decoder.prompt_encoder.mask_embed.conv1.weight.grad
        assert (gradient is not None and bool(gradient.any())) == (rounds > 1)
    assert losses[0].keys() == losses[1].keys()
    assert losses[0] != losses[1]


def test_prompts_with_and_without_a_mask_are_answered_together_in_mixed_precision():
    torch.manual_seed(0)
    model = build_model(tiny_sam_cfg()).eval()
    image = torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8)
    prompts = Prompts.from_points(torch.tensor([[10.0, 10.0], [30.0, 30.0]]))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features = model.encode_image(model.preprocess([{"image": image}]))
        logits = model.decode(features, prompts).mask_logits[:, :, 0].float()
        corrected = prompts.with_masks(logits)
        corrected.has_mask[0, 0] = False
        output = model.decode(features, corrected)
        alone = model.decode(features, prompts)
    assert output.mask_logits.isfinite().all()
    torch.testing.assert_close(output.scores[0, 0], alone.scores[0, 0], check_dtype=False)


def test_an_image_without_masks_gets_no_click():
    output = answer(halves(), [[0.9, 0.1]])
    following = correct(output, CLICK, [Instances((16, 16))], ONE, click=True)
    assert following.labels[0, 0].tolist() == [1, -1]
