import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer

from semsam.config import get_cfg
from semsam.modeling.build import build_text_encoder
from semsam.modeling.text.classifier import build_classifier
from semsam.modeling.text.sentence_encoder import SentenceEncoder

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "red"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentences")
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(
        vocab_size=len(WORDS), intermediate_size=16, max_position_embeddings=12, **size
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)}).save_pretrained(folder)
    return str(folder)


def test_a_sentence_is_the_mean_of_its_tokens_whatever_it_is_read_with(folder):
    encoder = SentenceEncoder(folder)
    together = encoder(["a cat", "a red dog " * 20, "dog"])
    assert together.shape == (3, encoder.dim) == (3, 16)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(encoder(["a cat"])[0], together[0])
    tokens = BertTokenizer.from_pretrained(folder)(["a cat"], return_tensors="pt")
    with torch.no_grad():
        hidden = BertModel.from_pretrained(folder).eval()(**tokens).last_hidden_state
    expected = torch.nn.functional.normalize(hidden.mean(dim=1), dim=-1)
    torch.testing.assert_close(together[:1], expected)


def test_the_configuration_names_it_and_classifiers_know_whose_they_are(folder):
    cfg = get_cfg()
    cfg.MODEL.DEVICE, cfg.MODEL.TEXT.NAME = "cpu", "SentenceEncoder"
    cfg.MODEL.TEXT.MODEL = folder
    encoder = build_text_encoder(cfg)
    assert build_classifier(["cat", "dog"], encoder).encoder == encoder.name
    assert encoder.name == SentenceEncoder(folder).name
    cfg.MODEL.TEXT.MODEL = ""
    with pytest.raises(ValueError, match=r"MODEL\.TEXT\.MODEL is empty"):
        build_text_encoder(cfg)


def test_a_missing_model_is_named_with_its_key():
    with pytest.raises(RuntimeError, match=r"encoder: cannot load '\./nowhere'"):
        SentenceEncoder("./nowhere", key="encoder")
