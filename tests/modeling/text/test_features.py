import torch

from semsam.modeling.text.features import TextFeatures
from semsam.utils.batching import Batches


def counted(calls):
    """Features that tell the name's length."""

    def encode(names):
        calls.append(list(names))
        return torch.tensor([[float(len(name))] for name in names])

    return encode


def test_features_stand_in_the_order_of_the_names():
    features = TextFeatures(counted([]), Batches(2))
    assert features(["ccc", "a", "bb", "a"])[:, 0].tolist() == [3, 1, 2, 1]


def test_a_known_name_is_not_encoded_again():
    calls = []
    features = TextFeatures(counted(calls), Batches(8))
    features(["a", "bb"])
    features(["bb", "ccc", "a"])
    assert calls == [["a", "bb"], ["ccc"]]


def test_a_forgotten_name_is_encoded_again():
    calls = []
    features = TextFeatures(counted(calls), Batches(8))
    features(["a", "bb"])
    features.clear()
    features(["bb"])
    assert calls == [["a", "bb"], ["bb"]]
