import pytest
from transformers import SegformerConfig

from semsam.annotation.label_maps import model_label_map


def test_a_model_s_own_names_count_where_no_table_is_named():
    config = SegformerConfig(id2label={0: "road", 1: "sky "})
    assert model_label_map(config, "small") == {0: "road", 1: "sky"}


def test_a_table_replaces_the_model_s_names():
    config = SegformerConfig(num_labels=19)
    assert model_label_map(config, "small", "cityscapes")[10] == "sky"


def test_a_model_without_names_asks_for_a_table():
    with pytest.raises(ValueError, match="'small' does not say what its 19 classes are called"):
        model_label_map(SegformerConfig(num_labels=19), "small")


def test_a_table_of_other_ids_than_the_model_s_is_an_error():
    with pytest.raises(ValueError, match="'small' has 19 classes, the label map 'ade20k' 150"):
        model_label_map(SegformerConfig(num_labels=19), "small", "ade20k")
