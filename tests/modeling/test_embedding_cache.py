from itertools import islice

import pytest
import torch

from semsam.data import build_train_loader
from semsam.modeling import build_model
from semsam.modeling.embedding_cache import EmbeddingCache
from tests.data.region_files import vg_region, write_visual_genome
from tests.tiny import (
    perturb,
    tiny_caption_cfg,
    tiny_cfg,
    tiny_sam_cfg,
    training_record,
    write_language_model,
)

FIRST, SECOND, THIRD = (training_record(h, 64, seed=h) for h in (48, 64, 56))


def frozen_sam_cfg(folder=""):
    cfg = tiny_sam_cfg()
    cfg.MODEL.FREEZE = ["backbone"]
    cfg.MODEL.EMBEDDING_CACHE = str(folder)
    return cfg


def neck_cfg(folder=""):
    """A backbone with levels, a neck, and SAM's decoder."""
    cfg = tiny_cfg(NAME="SamDecoder", NUM_TOKENS=3)
    cfg.MODEL.SAM.IMAGE_SIZE, cfg.MODEL.SAM.PATCH_SIZE = 64, 8
    cfg.MODEL.PIXEL_DECODER.NAME, cfg.MODEL.CRITERION.NAME = "FpnNeck", "ManyToOneCriterion"
    cfg.MODEL.FREEZE = ["backbone", "pixel_decoder"]
    cfg.MODEL.EMBEDDING_CACHE = str(folder)
    return cfg


def build(cfg):
    torch.manual_seed(0)
    return perturb(build_model(cfg)).train()


def losses(model, *records):
    torch.manual_seed(1)  # of the points at which masks are compared
    return model(list(records))


def encoded(model):
    """A list that grows by the number of images with each run of the encoder."""
    sizes = []
    model.backbone.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    return sizes


def test_an_image_is_encoded_once_whatever_else_is_in_its_batch(tmp_path):
    model = build(frozen_sam_cfg(tmp_path))
    sizes = encoded(model)
    before = losses(model, FIRST, SECOND)
    losses(model, THIRD, SECOND)
    assert sizes == [2, 1]
    after = losses(model, FIRST, SECOND)
    assert sizes == [2, 1]
    assert after == before
    assert len(list(tmp_path.glob("*/??/*.safetensors"))) == 3


def test_the_second_epoch_of_captions_does_not_run_the_encoder(tmp_path):
    regions = {i: [vg_region(2 * i), vg_region(2 * i + 1, x=9)] for i in (1, 2, 3)}
    photos = write_visual_genome(tmp_path / "photos", regions)
    cfg = tiny_caption_cfg(write_language_model(tmp_path / "words"))
    cfg.MODEL.FREEZE = ["backbone", "decoder"]
    cfg.MODEL.EMBEDDING_CACHE = str(tmp_path / "cache")
    cfg.INPUT.IMAGE_SIZE, cfg.INPUT.NUM_PROMPTS = 64, 1
    cfg.INPUT.MIN_SCALE = cfg.INPUT.MAX_SCALE = 1.0
    cfg.INPUT.FLIP_PROB = 0.0
    cfg.DATASETS.TRAIN = (f"visual_genome://{photos}?split=test",)
    cfg.DATALOADER.NUM_WORKERS, cfg.SOLVER.IMS_PER_BATCH = 0, 1
    model = build(cfg)
    sizes = encoded(model)
    for batch in islice(build_train_loader(cfg), 8):
        model(batch)["loss_caption"].backward()
    assert sizes == [1, 1]


@pytest.mark.parametrize("make_cfg", [frozen_sam_cfg, neck_cfg])
def test_losses_differ_by_the_rounding_to_float16_alone(tmp_path, make_cfg):
    cached, plain = build(make_cfg(tmp_path)), build(make_cfg())
    records = [training_record(64, 64, seed=i) for i in range(2)]
    exact = losses(plain, *records)
    for _ in range(2):
        torch.testing.assert_close(losses(cached, *records), exact, rtol=5e-3, atol=5e-3)
    assert losses(cached, *records) != exact


def test_an_image_in_another_padded_frame_is_another_one(tmp_path):
    cache, frames = EmbeddingCache(tmp_path, {}), []

    def encode(batch):
        frames.append(batch.shape[-1])
        return {"map": torch.full((1, 1), float(batch.shape[-1]))}

    for side in (64, 96, 64, 96):
        found = cache.encode([FIRST["image"]], torch.zeros(1, 3, 64, side), encode)
        assert found["map"].item() == side
    assert frames == [64, 96]


def test_a_later_run_and_evaluation_find_what_training_left(tmp_path):
    losses(build(frozen_sam_cfg(tmp_path)), FIRST)
    later = build(frozen_sam_cfg(tmp_path))
    sizes = encoded(later)
    losses(later, FIRST)
    with torch.no_grad():
        later.eval()([FIRST])
    assert sizes == []


def test_other_weights_or_settings_of_the_encoder_find_nothing(tmp_path):
    model = build(frozen_sam_cfg(tmp_path))
    sizes = encoded(model)
    losses(model, FIRST)
    model.load_state_dict(perturb(build_model(tiny_sam_cfg()), seed=1).state_dict())
    losses(model, FIRST)
    model.backbone.load_state_dict(build(tiny_sam_cfg()).backbone.state_dict())
    losses(model, FIRST)
    assert sizes == [1, 1]  # the first weights are known
    for change in (
        ("MODEL.SAM.NUM_HEADS", 1),
        ("MODEL.SAM.WINDOW_SIZE", 4),
        ("MODEL.PIXEL_MEAN", [0.0, 0.0, 0.0]),
    ):
        cfg = frozen_sam_cfg(tmp_path)
        cfg.merge_from_list([str(x) for x in change])
        other = build(cfg)
        sizes = encoded(other)
        losses(other, FIRST)
        assert sizes == [1], change


def test_what_learns_besides_the_encoder_does_not_matter(tmp_path):
    model = build(frozen_sam_cfg(tmp_path))
    losses(model, FIRST)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter += 1
    model.load_state_dict(model.state_dict())
    sizes = encoded(model)
    losses(model, FIRST)
    assert sizes == []


@pytest.mark.parametrize("damage", [lambda x: x[:100], lambda x: b"", lambda x: b"\xff" * 99])
def test_a_damaged_file_is_named_and_replaced(tmp_path, caplog, damage):
    model = build(frozen_sam_cfg(tmp_path))
    before = losses(model, FIRST)
    (path,) = tmp_path.glob("*/??/*.safetensors")
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    sizes = encoded(model)
    assert losses(model, FIRST) == before
    assert sizes == [1]
    assert f"{path} is damaged" in caplog.text
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("make_cfg", "freeze", "learning"),
    [
        (frozen_sam_cfg, [], "add backbone to MODEL.FREEZE"),
        (frozen_sam_cfg, ["backbone.net.patch_embed"], "add backbone to"),
        (neck_cfg, ["backbone"], "add pixel_decoder to"),
    ],
)
def test_an_encoder_that_learns_is_refused(tmp_path, make_cfg, freeze, learning):
    cfg = make_cfg(tmp_path)
    cfg.MODEL.FREEZE = freeze
    with pytest.raises(ValueError, match=rf"EMBEDDING_CACHE needs.*{learning}"):
        build_model(cfg)


def test_an_encoder_that_gives_lists_of_maps_is_refused(tmp_path):
    cfg = tiny_cfg()
    cfg.MODEL.FREEZE = ["backbone", "pixel_decoder"]
    cfg.MODEL.EMBEDDING_CACHE = str(tmp_path)
    with pytest.raises(ValueError, match=r"EMBEDDING_CACHE.*'multi_scale' is a list"):
        losses(build(cfg), training_record(96, 96))


def through(cache, values, dtype=torch.float32):
    """What the cache makes of a batch of one image whose map is given."""
    made = torch.tensor(values, dtype=dtype)
    return cache.encode([FIRST["image"]], torch.zeros(1, 3, 64, 64), lambda _: {"map": made[None]})


def test_values_beyond_float16_are_kept(tmp_path):
    cache = EmbeddingCache(tmp_path, {})
    values = [1e6, -1 / 3]
    for _ in range(2):
        assert through(cache, values)["map"].tolist() == torch.tensor([values]).tolist()


def test_maps_of_half_precision_are_kept_exactly_and_apart(tmp_path):
    cache = EmbeddingCache(tmp_path, {})
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(2):
            found = through(cache, [1e30], torch.bfloat16)["map"]
            assert found.dtype == torch.float32
            assert found.item() == torch.tensor(1e30).bfloat16().item()
    assert through(cache, [2.0])["map"].item() == 2


@pytest.mark.parametrize("make_cfg", [frozen_sam_cfg, neck_cfg])
def test_training_keeps_no_activation_of_a_frozen_encoder(make_cfg):
    def kept(cfg):
        model = build(cfg)
        images = model.preprocess([FIRST])
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda x: x):
            embedding = model.encode_image(images)["image_embedding"]
        return len(saved), embedding.grad_fn is not None

    frozen = make_cfg()
    # It reads positions before any prompt is there.
    frozen.MODEL.FREEZE = [*frozen.MODEL.FREEZE, "decoder"]
    assert kept(frozen) == (0, False)
    learning = make_cfg()
    learning.MODEL.FREEZE = []
    number, learns = kept(learning)
    assert number > 0
    assert learns
