from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from semsam.config import load_cfg
from semsam.data import DatasetCatalog, MetadataCatalog
from semsam.modeling import build_model
from semsam.modeling.text.classifier import Classifier

FOLDER = Path(__file__).parents[2] / "configs" / "semantic_sam"
every_configuration = pytest.mark.parametrize(
    "path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem
)


def with_vocabularies(cfg, folder):
    """The configuration with tiny files for its vocabularies."""
    cfg.defrost()
    files = []
    for entry in cfg.MODEL.NAMING.VOCABULARIES:
        name = entry.split(":")[0]
        names = ("dog", "dog:head") if cfg.MODEL.TEXT_CLASS.PARTS else ("dog", "sky")
        weights = F.normalize(torch.ones(2, 1, cfg.MODEL.TEXT_CLASS.EMBED_DIM), dim=-1)
        Classifier(names, weights, cfg.MODEL.TEXT.MODEL or "any").save(folder / name)
        files.append(f"{name}:{folder / name}")
    cfg.MODEL.NAMING.VOCABULARIES = files
    return cfg


@every_configuration
def test_it_builds(path, tmp_path):
    # On this device weights have a shape alone.
    cfg = with_vocabularies(load_cfg(path, ["MODEL.DEVICE=meta"]), tmp_path)
    with torch.device("meta"):
        model = build_model(cfg)
    assert (model.naming is not None) == bool(cfg.MODEL.NAMING.VOCABULARIES)
    assert model.decoder.num_queries == cfg.MODEL.DECODER.NUM_QUERIES


@every_configuration
def test_its_data_sets_are_known_and_their_names_have_vocabularies(path):
    cfg = load_cfg(path)
    shares = cfg.DATASETS.TRAIN_SHARES
    assert not shares or len(shares) == len(cfg.DATASETS.TRAIN)
    given = {entry.split(":")[0] for entry in cfg.MODEL.NAMING.VOCABULARIES}
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        assert name in DatasetCatalog or "://" in name
        if given and "://" not in name:
            vocabulary = MetadataCatalog.get(name).get("vocabulary")
            assert vocabulary is None or vocabulary in given, name
