import math
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from semsam.modeling import build_model
from semsam.modeling.region_heads.text_class import TextClassHead
from semsam.modeling.text.classifier import Classifier
from semsam.solver import build_optimizer
from semsam.structures import Prompts
from tests.annotation.models import write_clip
from tests.tiny import perturb, tiny_cfg, tiny_ovsam_cfg, training_record

PLAIN = {
    "NUM_LAYERS": 1,
    "SEMANTIC_TOKENS": False,
    "HYPERNETWORKS": False,
    "PREDICT_COSINE": False,
}


def mask_dino_cfg(**text_class):
    cfg = tiny_cfg()
    cfg.MODEL.REGION_HEADS.NAMES = ["TextClassHead"]
    cfg.MODEL.TEXT_CLASS.EMBED_DIM = 12
    for key, value in {**PLAIN, **text_class}.items():
        cfg.MODEL.TEXT_CLASS[key] = value
    return cfg


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return perturb(build_model(tiny_ovsam_cfg())).eval()


@torch.no_grad()
def answer(model):
    record = training_record(48, 64)
    features = model.encode_image(model.preprocess([record]))
    return model.decode(features, record["prompts"])


def test_every_mask_lies_on_the_sphere_of_the_text_space(model):
    text = answer(model).text
    assert text.embeddings.shape == (1, 2, 4, 12)
    torch.testing.assert_close(text.embeddings.norm(dim=-1), torch.ones(1, 2, 4))
    assert text.cosines.shape == (1, 2, 4)
    assert text.parts is None
    assert text.logit_scale.item() == pytest.approx(math.exp(model_scale(model)))


def model_scale(model):
    return model.region_heads["TextClassHead"].logit_scale.item()


@torch.no_grad()
def test_predictions_have_the_embeddings_of_their_masks_from_level_one_on(model):
    record = training_record(48, 64)
    text = answer(model).text
    instances = model([record])[0]["instances"]
    torch.testing.assert_close(instances.text_embeddings, text.embeddings[0, :, 1:])
    torch.testing.assert_close(instances.cosine_scores, text.cosines[0, :, 1:])


@pytest.mark.parametrize("parts", [False, True])
@torch.no_grad()
def test_semantic_sam_s_decoder_is_read_without_tokens_of_its_own(parts):
    torch.manual_seed(0)
    model = perturb(build_model(mask_dino_cfg(PARTS=parts))).eval()
    assert model.decoder.token_embed.num_embeddings == 6
    record = training_record()
    features = model.encode_image(model.preprocess([record]))
    output = model.decode(features, record["prompts"])
    head = model.region_heads["TextClassHead"]
    expected = output.tokens[:, :, :6] @ head.projections["whole"].weight.T
    expected = torch.nn.functional.normalize(expected, dim=-1)
    torch.testing.assert_close(output.text.embeddings, expected)
    assert (output.text.parts is not None) == parts
    if parts:
        assert (output.text.parts - output.text.embeddings).abs().max() > 0.1


def test_every_layer_of_a_decoder_that_learns_has_embeddings():
    model = build_model(mask_dino_cfg()).train()
    record = training_record()
    output = model.decode(model.encode_image(model.preprocess([record])), record["prompts"])
    assert [layer.text.embeddings.shape for layer in output.aux] == [(1, 2, 6, 12)]


def test_heads_with_tokens_of_their_own_do_not_share_them():
    cfg = mask_dino_cfg(PREDICT_COSINE=True, SEMANTIC_TOKENS=True)
    model = build_model(cfg)
    assert model.decoder.token_embed.num_embeddings == 6 + 7
    head = model.region_heads["TextClassHead"]
    assert (head.cosine_token, head.first_name_token) == (6, 7)


def test_masks_that_are_selected_keep_their_embeddings(model):
    output = answer(model)
    chosen = output.select_masks([3, 0])
    assert torch.equal(chosen.text.embeddings, output.text.embeddings[:, :, [3, 0]])
    assert torch.equal(chosen.text.cosines, output.text.cosines[:, :, [3, 0]])


def test_a_vocabulary_is_scored_by_cosine_times_scale(model):
    head = model.region_heads["TextClassHead"]
    embeddings = answer(model).text.embeddings
    weights = torch.nn.functional.normalize(torch.randn(5, 3, 12), dim=-1)
    classifier = Classifier(tuple("abcde"), weights, "any")
    scores = head.score(embeddings, classifier)
    expected = (embeddings @ weights.flatten(0, 1).T).unflatten(-1, (5, 3)).amax(-1)
    torch.testing.assert_close(scores, expected * math.exp(model_scale(model)))


def test_a_vocabulary_of_another_text_encoder_is_an_error_that_names_both(model):
    cfg = tiny_ovsam_cfg()
    cfg.MODEL.TEXT.MODEL = "open_clip:ViT-L-14:datacomp"
    head = TextClassHead(cfg, token_dim=32)
    classifier = Classifier(("dog",), torch.ones(1, 1, 12), "openai/clip@0123")
    with pytest.raises(ValueError, match=r"openai/clip@0123.*open_clip:ViT-L-14:datacomp"):
        head.score(torch.ones(1, 12), classifier)


def test_names_are_not_encoded_by_an_encoder_that_never_learned(tmp_path):
    cfg = tiny_ovsam_cfg()
    cfg.MODEL.TEXT.NAME, cfg.MODEL.TEXT.MODEL = "LanguageEncoder", write_clip(tmp_path / "clip")
    cfg.MODEL.TEXT.WIDTH, cfg.MODEL.TEXT.NUM_LAYERS, cfg.MODEL.TEXT.DIM_PROJ = 16, 1, 12
    head = TextClassHead(cfg, token_dim=32)
    with pytest.raises(ValueError, match=r"LanguageEncoder .* has random weights until it learns"):
        head.encode_classes(["dog"])


@pytest.mark.parametrize("learns", [True, False])
def test_the_scale_learns_unless_it_is_fixed_whatever_a_checkpoint_holds(learns):
    cfg = tiny_ovsam_cfg(LOGIT_SCALE=1.0, LEARN_LOGIT_SCALE=learns)
    head = TextClassHead(cfg, token_dim=32)
    assert head.logit_scale.requires_grad == learns
    head.load_state_dict({**head.state_dict(), "logit_scale": torch.tensor(2.0)})
    assert head.scale().item() == pytest.approx(math.exp(2.0 if learns else 1.0))


def test_the_scale_does_not_grow_without_bound():
    head = TextClassHead(tiny_ovsam_cfg(LOGIT_SCALE=9.0), token_dim=32)
    assert head.scale().item() == pytest.approx(100)


def test_a_training_step_reaches_embeddings_tokens_scale_and_text_prompts():
    torch.manual_seed(0)
    model = build_model(tiny_ovsam_cfg()).train()
    records = [training_record(48, 64), training_record(48, 64, seed=1)]
    for record in records:
        record["instances"].gt_text_embeddings = torch.randn(3, 12)
        record["prompts"] = record["prompts"].with_texts(torch.randn(2, 12))
    losses = model(records)
    assert set(losses) == {
        "loss_mask_focal",
        "loss_mask_dice",
        "loss_iou",
        "loss_contrastive",
        "loss_cosine",
    }
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if name.startswith(("region_heads", "decoder.extra_tokens", "decoder.text_encoder")):
            # The masks of an ambiguous prompt do not compete for one that is not.
            unasked = any(f"hypernetworks.{k}." in name for k in (1, 2, 3))
            assert parameter.grad is not None
            assert bool(parameter.grad.any()) != unasked, name


def test_corrective_rounds_pass_over_images_without_masks():
    cfg = tiny_ovsam_cfg()
    cfg.MODEL.PROMPT_ROUNDS = 3
    torch.manual_seed(0)
    model = build_model(cfg).train()
    masked, named = training_record(48, 64), training_record(48, 64, seed=1)
    named["instances"].remove("gt_masks")
    named["instances"].gt_text_embeddings = torch.randn(3, 12)
    named["prompts"] = Prompts.from_boxes([[3.0, 4.0, 20.0, 30.0]])
    named["targets"] = replace(named["targets"], seeds=named["targets"].seeds[:1])
    losses = model([masked, named])
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())
    assert losses["loss_cosine"] > 0


def test_semantic_sam_learns_the_names_of_matched_masks_in_every_layer():
    torch.manual_seed(0)
    model = build_model(mask_dino_cfg(PARTS=True)).train()
    named, nameless = training_record(), training_record(seed=1)
    instances = named["instances"]
    instances.gt_text_embeddings = torch.randn(3, 12)
    instances.gt_part_embeddings = torch.randn(3, 12) * torch.tensor([[0.0], [1.0], [1.0]])
    losses = model([named, nameless])
    names = {f"loss_contrastive{kind}{layer}" for kind in ("", "_part") for layer in ("", "_0")}
    assert names <= set(losses)
    sum(losses[name] for name in names).backward()
    head = model.region_heads["TextClassHead"]
    assert all(bool(projection.weight.grad.any()) for projection in head.projections.values())
    assert head.logit_scale.grad != 0


def _steps_of_rank(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.manual_seed(0)
    cfg = tiny_ovsam_cfg()
    cfg.MODEL.FREEZE = ["backbone", "decoder.prompt_encoder"]
    model = build_model(cfg).train()
    parallel = DistributedDataParallel(model, find_unused_parameters=True)
    optimizer = build_optimizer(cfg, model)
    torch.manual_seed(rank)
    for step in range(2):
        record = training_record(48, 64, seed=rank)
        if (rank + step) % 2:
            record["instances"].remove("gt_masks")
            record["instances"].gt_text_embeddings = torch.randn(3, 12)
        sum(parallel([record]).values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.save(model.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_ranks_that_know_masks_and_ranks_that_know_names_step_together(tmp_path):
    mp.start_processes(_steps_of_rank, args=(str(tmp_path),), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert all(torch.equal(value, second[key]) for key, value in first.items())
