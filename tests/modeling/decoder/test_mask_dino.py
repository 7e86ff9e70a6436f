import pytest
import torch

from semsam.modeling import build_model
from semsam.structures import PromptTargets
from tests.tiny import perturb, tiny_cfg, training_record

SIZE = (192, 192)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return perturb(build_model(tiny_cfg(NUM_QUERIES=7)))


def encode(model, *records):
    return model.encode_image(model.preprocess(list(records)))


@torch.no_grad()
def test_an_image_is_answered_as_one_prompt_of_all_its_queries(model):
    model.eval()
    records = [training_record(*SIZE, seed=i) for i in range(2)]
    together = model.decoder.answer_image(encode(model, *records))
    assert together.mask_logits.shape == (2, 1, 7, 48, 48)
    assert together.scores.shape == (2, 1, 7)
    assert together.boxes.shape == (2, 1, 7, 4)
    assert together.level_order == tuple(range(7))
    assert together.aux == []
    for index, record in enumerate(records):
        alone = model.decoder.answer_image(encode(model, record))
        torch.testing.assert_close(
            together.mask_logits[index], alone.mask_logits[0], rtol=1e-4, atol=1e-4
        )
    without = model.decoder.answer_image(encode(model, records[0]), predict_masks=False)
    assert without.mask_logits.shape == (1, 1, 7, 0, 0)


@torch.no_grad()
def test_prompts_are_answered_as_without_queries(model):
    model.eval()
    torch.manual_seed(0)
    plain = build_model(tiny_cfg()).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    record = training_record(64, 96)
    ours, theirs = (m([record])[0]["instances"].mask_logits for m in (model, plain))
    torch.testing.assert_close(ours, theirs)


def test_every_query_can_be_matched_to_what_is_in_the_image(model):
    model.train()
    record = training_record(*SIZE)
    output = model.decoder.answer_image(encode(model, record))
    number = len(record["instances"])
    targets = PromptTargets(torch.zeros(1, dtype=torch.long), torch.arange(number)[None])
    (pairs,) = model.criterion.match(output, [record["instances"]], [targets])
    assert sorted(pairs.targets.tolist()) == list(range(number))
    assert len(set(pairs.masks.tolist())) == number
    # A cost of another kind can turn the match over.
    more = torch.zeros(1, 7, number)
    more[0, pairs.masks] = 1e6
    (others,) = model.criterion.match(output, [record["instances"]], [targets], [more])
    assert not set(others.masks.tolist()) & set(pairs.masks.tolist())
    losses = model.criterion.supervise(output, [record["instances"]], [pairs])
    assert len(output.aux) == len(model.decoder.layers) - 1
    sum(losses.values()).backward()
    assert model.decoder.query_embed.weight.grad.any()
    assert model.decoder.query_anchors.weight.grad.any()


def test_a_decoder_without_queries_says_so():
    model = build_model(tiny_cfg()).eval()
    with pytest.raises(ValueError, match="NUM_QUERIES is 0"):
        model.decoder.answer_image(encode(model, training_record(64, 96)))
