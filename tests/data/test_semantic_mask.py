import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from semsam.data.semantic_mask import (
    decode_semantic_mask,
    encode_semantic_mask,
    read_semantic_mask,
)


def test_codes_are_those_of_pycocotools_for_each_class():
    labels = np.random.default_rng(0).integers(0, 4, (7, 5)).astype(np.uint8) * 3
    codes = encode_semantic_mask(labels)
    assert list(codes) == ["0", "3", "6", "9"]
    for key, code in codes.items():
        expected = coco_mask.encode(np.asfortranarray(labels == int(key), dtype=np.uint8))
        assert code == {"size": [7, 5], "counts": expected["counts"].decode()}


@pytest.mark.parametrize("labels", [[[255]], [[0, 0], [0, 0]], [[1, 2], [2, 1]]])
def test_a_map_survives_the_way_to_json_and_back(labels):
    codes = json.loads(json.dumps(encode_semantic_mask(np.array(labels, dtype=np.uint8))))
    assert decode_semantic_mask(codes).tolist() == labels


def test_a_later_class_lies_over_an_earlier_one_and_what_has_none_is_class_0():
    def code(mask):
        return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))

    codes = {"5": code([[1, 1, 0]]), "3": code([[0, 1, 0]])}
    assert decode_semantic_mask(codes).tolist() == [[5, 3, 0]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "Expecting value"),
        ("{}", "has no 'semantic_mask'"),
        ('{"semantic_mask": {}}', "no class has a mask"),
        ('{"semantic_mask": {"sky": {"size": [1, 1], "counts": "01"}}}', "sky"),
        ('{"semantic_mask": {"1": {"size": [2, 2], "counts": "01"}}}', "do not fill"),
    ],
)
def test_a_file_without_a_label_map_is_an_error_that_names_it(tmp_path, content, message):
    path = tmp_path / "a_semantic.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"a_semantic\.json.*{message}"):
        read_semantic_mask(path)
