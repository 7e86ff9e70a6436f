"""Models that two ranks share (FSDP), against copies on each (DDP)."""

import json
import shutil

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from torch.testing import assert_close

from semsam import model_zoo
from semsam.checkpoint import load_weights
from semsam.checkpoint.checkpointer import Checkpointer
from semsam.checkpoint.frozen import FrozenParts
from semsam.config import load_cfg
from semsam.engine import DefaultTrainer, SimpleTrainer, default_setup, gathered, parallelize
from semsam.engine.parallel import find_blocks
from semsam.modeling import build_model
from semsam.solver import build_optimizer
from semsam.structures import PromptTargets
from semsam.utils import comm
from tests.tiny import (
    perturb,
    tiny_caption_cfg,
    tiny_cfg,
    tiny_ovsam_cfg,
    tiny_sam_cfg,
    training_record,
    write_language_model,
)
from tests.tools.tiny_run import lines, write_config, write_images


def on_two_ranks(function, folder, *args):
    """Call ``function(*args)`` in two processes of a group."""
    store = folder / f"store_{function.__name__}"
    store.unlink(missing_ok=True)
    mp.start_processes(
        _on_rank, args=(f"file://{store}", function, args), nprocs=2, start_method="fork"
    )


def _on_rank(rank, store, function, args):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    function(*args)
    dist.destroy_process_group()


def run(config, *overrides, resume=False):
    """A training run in this process, or as one of its ranks."""
    cfg = load_cfg(config, list(overrides))
    default_setup(cfg)
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


def run_both(config, folder):
    run(config, f"OUTPUT_DIR={folder / 'ddp'}")
    fsdp = ("SOLVER.PARALLEL=fsdp", "MODEL.ACTIVATION_CHECKPOINTING=True")
    trainer = run(config, *fsdp, f"OUTPUT_DIR={folder / 'fsdp'}")
    assert len(find_blocks(trainer.model)) == 2
    assert isinstance(trainer.model, FSDPModule)
    assert isinstance(next(iter(trainer.model.parameters())), DTensor)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Four steps of two passes with averaged weights, and evaluations of five images."""
    folder = tmp_path_factory.mktemp("tiny")
    write_images(folder / "images")
    path = write_config(folder / "tiny.yaml", folder / "images", folder / "output")
    overrides = {"SOLVER.MAX_ITER": 4, "SOLVER.LOG_PERIOD": 1, "SOLVER.CHECKPOINT_PERIOD": 2}
    overrides |= {"SOLVER.IMS_PER_BATCH": 4, "SOLVER.GRAD_ACCUMULATION": 2, "TEST.EVAL_PERIOD": 2}
    overrides |= {"SOLVER.EMA.ENABLED": True, "SOLVER.EMA.DECAY": 0.5}
    overrides |= {"MODEL.SWIN.DEPTHS": [1, 1, 2, 1]}
    cfg = load_cfg(path, [f"{key}={value}" for key, value in overrides.items()])
    path.write_text(cfg.dump())
    return path


@pytest.fixture(scope="module")
def runs(config):
    """Folder of a run of each kind, ``ddp`` and ``fsdp``."""
    on_two_ranks(run_both, config.parent, config, config.parent)
    return config.parent


def test_ranks_that_share_a_model_get_the_losses_and_results_of_copies(runs):
    copies, shared = lines(runs / "ddp"), lines(runs / "fsdp")
    assert len(shared) == 5
    for expected, line in zip(copies, shared, strict=True):
        assert line == pytest.approx(expected, rel=1e-3)


def test_a_run_that_shared_its_model_leaves_files_like_any_other(runs):
    for name in ("model_final.pth", "model_ema.pth"):
        expected = torch.load(runs / "ddp" / name, weights_only=True)["model"]
        found = torch.load(runs / "fsdp" / name, weights_only=True)["model"]
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-2, atol=1e-3)
    model = model_zoo.get(str(runs / "fsdp"))
    assert not any(isinstance(p, DTensor) for p in model.parameters())
    assert json.loads((runs / "fsdp" / "results.json").read_text())


def copy_of_run(run, folder, newest):
    """A run that was killed when ``newest`` was its last checkpoint."""
    shutil.copytree(run, folder)
    shutil.rmtree(folder / "model_final")
    (folder / "model_final.pth").unlink()
    (folder / "last_checkpoint").write_text(newest)
    return folder


def go_on(config, folder):
    fsdp = ("SOLVER.PARALLEL=fsdp", "MODEL.ACTIVATION_CHECKPOINTING=True")
    run(config, *fsdp, f"OUTPUT_DIR={folder}", resume=True)


def test_a_resumed_run_has_the_losses_of_an_unbroken_one(config, runs, tmp_path):
    broken = copy_of_run(runs / "fsdp", tmp_path / "broken", "model_0000001")
    on_two_ranks(go_on, tmp_path, config, broken)
    assert lines(broken) == lines(runs / "fsdp")
    for name in ("model_final.pth", "model_ema.pth"):
        models = [torch.load(f / name, weights_only=True)["model"] for f in (broken, runs / "fsdp")]
        assert all(torch.equal(value, models[1][key]) for key, value in models[0].items())


def load(config, folder, kind="fsdp"):
    """A trainer that goes on from the newest checkpoint of a folder."""
    overrides = [f"SOLVER.PARALLEL={kind}", f"OUTPUT_DIR={folder}"]
    trainer = DefaultTrainer(load_cfg(config, overrides))
    trainer.resume_or_load(resume=True)
    return trainer


def save_again(config, folder, target):
    """What a checkpoint holds, written once more by these ranks."""
    trainer = load(config, folder)
    checkpointer = trainer.checkpointer
    checkpointer.save_dir = target
    with checkpointer:
        checkpointer.save("model_0000001", iteration=trainer.start_iter - 1)


def test_any_number_of_ranks_goes_on_from_a_checkpoint(config, runs, tmp_path):
    two = copy_of_run(runs / "fsdp", tmp_path / "two", "model_0000001")
    save_again(config, two, tmp_path / "one")
    on_two_ranks(save_again, tmp_path, config, tmp_path / "one", tmp_path / "again")
    written, one, again = (load(config, tmp_path / name) for name in ("two", "one", "again"))
    assert len(list((tmp_path / "one" / "model_0000001").glob("*.distcp"))) == 1
    assert len(list((tmp_path / "again" / "model_0000001").glob("*.distcp"))) == 2
    for other in (one, again, load(config, tmp_path / "again", kind="ddp")):
        for name, part in other.checkpointer.parts.items():
            expected = written.checkpointer.parts[name].state_dict()
            assert_close(part.state_dict(), expected, rtol=0, atol=0)
        assert_close(other.model.state_dict(), written.model.state_dict(), rtol=0, atol=0)


def captioned(number, seed):
    """A record with so many prompts for regions that have captions."""
    record = training_record(64, 64, seed)
    record["instances"].gt_captions = ["a red dog", "a cat", "blue grass"]
    targets, prompts = record["targets"], record["prompts"]
    kept = PromptTargets(targets.seeds[:number], targets.levels[:number])
    return {**record, "targets": kept, "prompts": prompts.select(slice(number))}


def named(seed):
    """A record of which two regions have names."""
    record = training_record(64, 64, seed)
    embeddings = torch.randn(3, 12, generator=torch.Generator().manual_seed(seed))
    record["instances"].gt_text_embeddings = F.normalize(embeddings, dim=-1)
    return record


def losses_of(cfg, kind, batches, steps):
    """Losses and norms of gradients of each step, and of one amid them by one rank alone."""
    cfg.SOLVER.PARALLEL, cfg.SOLVER.FIND_UNUSED_PARAMETERS = kind, True
    cfg.SOLVER.BASE_LR = 1e-3
    torch.manual_seed(0)
    model = perturb(build_model(cfg))
    batch = batches[comm.get_rank()]
    trainer = SimpleTrainer(
        parallelize(cfg, model), [batch] * steps, build_optimizer(cfg, model), max_grad_norm=1.0
    )
    found = []
    for step in range(steps):
        torch.manual_seed(step)
        trainer.train(step, step + 1)
        found.append(trainer.storage.take())
    with gathered(model), torch.no_grad():
        if comm.get_rank() == 0:
            model.eval()(batch)
    return [{k: v for k, v in scalars.items() if "time" not in k} for scalars in found]


def compare(cfg, batches):
    copies, shared = (losses_of(cfg, kind, batches, 3) for kind in ("ddp", "fsdp"))
    for expected, line in zip(copies, shared, strict=True):
        assert line == pytest.approx(expected, rel=1e-3)


def test_a_language_model_that_ranks_share_learns_what_copies_learn(tmp_path):
    folder = write_language_model(tmp_path / "language_model")
    cfg = tiny_caption_cfg(folder, TRAIN_LANGUAGE_MODEL=True)
    assert len(find_blocks(build_model(cfg))) == 4
    on_two_ranks(compare, tmp_path, cfg, [[captioned(2, 0)], [captioned(1, 1)]])


def save_and_go_on(cfg):
    """Save a model in parts, spoil it, and go on; the language model comes from its folder."""
    model = parallelize(cfg, build_model(cfg))
    frozen = FrozenParts.from_config(cfg)
    load_weights(model, cfg.MODEL.WEIGHTS)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    with Checkpointer(model, cfg.OUTPUT_DIR, frozen=frozen, shards=True) as checkpointer:
        checkpointer.save("model_final", iteration=4)
    with torch.no_grad():
        model.region_heads["CaptionHead"].task_tokens.weight.zero_()
        model.backbone.net.pos_embed.zero_()
    assert Checkpointer(model, cfg.OUTPUT_DIR, shards=True).resume()["iteration"] == 4
    for name, value in model.state_dict().items():
        assert torch.equal(value.to_local(), expected[name].to_local()), name


def test_what_is_frozen_is_left_out_of_folders_and_files_and_comes_from_its_source(tmp_path):
    cfg = tiny_caption_cfg(write_language_model(tmp_path / "language_model"))
    cfg.MODEL.FREEZE, cfg.SOLVER.PARALLEL = ["backbone", "decoder"], "fsdp"
    cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR = str(tmp_path / "sam.pth"), str(tmp_path / "run")
    sam = build_model(tiny_sam_cfg())
    torch.save(sam.state_dict(), cfg.MODEL.WEIGHTS)
    on_two_ranks(save_and_go_on, tmp_path, cfg)
    file = tmp_path / "run" / "model_final.pth"
    stored = torch.load(file, weights_only=True)["model"]
    assert stored
    assert all(name.startswith("region_heads.CaptionHead.") for name in stored)
    assert not any("language_model" in name for name in stored)
    model = build_model(cfg)
    load_weights(model, file)
    assert torch.equal(model.backbone.net.pos_embed, sam.backbone.net.pos_embed)


def test_scalars_learn_from_all_ranks(tmp_path):
    cfg = tiny_ovsam_cfg(LEARN_LOGIT_SCALE=True)
    on_two_ranks(compare, tmp_path, cfg, [[named(0)], [named(1)]])


def go_on_from_a_file(config, folder):
    with pytest.raises(RuntimeError, match="by a run with SOLVER"):
        load(config, folder)


def test_ranks_that_share_a_model_refuse_the_checkpoint_of_copies(config, runs, tmp_path):
    on_two_ranks(go_on_from_a_file, tmp_path, config, runs / "ddp")


def test_what_cannot_be_shared_is_refused_before_a_model_is_built():
    cfg = tiny_cfg()
    cfg.SOLVER.PARALLEL = "fsdp2"
    with pytest.raises(ValueError, match="PARALLEL is ddp or fsdp, not 'fsdp2'"):
        DefaultTrainer(cfg)
    cfg.SOLVER.PARALLEL, cfg.MODEL.EMBEDDING_CACHE = "fsdp", "cache"
    with pytest.raises(ValueError, match=r"MODEL\.EMBEDDING_CACHE"):
        DefaultTrainer(cfg)
