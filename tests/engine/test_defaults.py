import logging

import pytest
import torch
import yaml

from semsam.config import load_cfg
from semsam.engine import DefaultTrainer, default_argument_parser, default_setup
from semsam.utils.events import read_metrics

from ..tools.tiny_run import write_config, write_images

SHORT = ["SOLVER.MAX_ITER=4", "SOLVER.LOG_PERIOD=1", "DATASETS.TEST=()"]


@pytest.fixture(autouse=True)
def logger_as_before():
    logger = logging.getLogger("semsam")
    propagate = logger.propagate
    yield
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = propagate


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "images"
    write_images(folder)
    return folder


@pytest.fixture
def make_cfg(tmp_path, images):
    def make(*overrides):
        path = write_config(tmp_path / "tiny.yaml", images, tmp_path / "output")
        return load_cfg(path, [*SHORT, *overrides])

    return make


def train(cfg, resume=False):
    default_setup(cfg)
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


def parse(*words):
    return default_argument_parser().parse_intermixed_args(["--config-file", "x.yaml", *words])


def test_options_may_be_written_with_dashes_or_underscores():
    dashes, underscores = parse("--eval-only", "--num-gpus", "2"), parse("--eval_only")
    assert dashes.eval_only
    assert dashes.num_gpus == 2
    assert underscores.eval_only
    assert parse("--num_gpus", "3").num_gpus == 3
    assert parse().num_gpus == 1


def test_overrides_may_stand_before_and_after_options():
    args = parse("A.B=1", "--resume", "C", "-1", "D.E", "('x',)")
    assert args.resume
    assert args.opts == ["A.B=1", "C", "-1", "D.E", "('x',)"]


def test_setup_leaves_a_configuration_that_repeats_the_run(make_cfg, tmp_path):
    cfg = make_cfg()
    default_setup(cfg)
    assert load_cfg(tmp_path / "output" / "config.yaml") == cfg


def test_a_negative_seed_becomes_a_fresh_one_that_is_written_down(make_cfg, tmp_path):
    cfg = make_cfg("SEED=-1")
    default_setup(cfg)
    assert cfg.SEED >= 0
    assert cfg.is_frozen()
    written = yaml.safe_load((tmp_path / "output" / "config.yaml").read_text())
    assert written["SEED"] == cfg.SEED
    resumed = make_cfg("SEED=-1")
    default_setup(resumed, parse("--resume"))
    assert resumed.SEED == cfg.SEED


def test_metrics_hold_losses_rate_and_times_of_each_line(make_cfg, tmp_path):
    train(make_cfg())
    lines = read_metrics(tmp_path / "output" / "metrics.json")
    assert [line["iteration"] for line in lines] == [0, 1, 2, 3]
    wanted = {"total_loss", "loss_mask_bce", "loss_mask_bce_0", "lr", "time", "data_time"}
    assert wanted <= lines[0].keys()
    parts = [value for name, value in lines[0].items() if name.startswith("loss_")]
    assert lines[0]["total_loss"] == pytest.approx(sum(parts))
    assert list((tmp_path / "output").glob("events.out.tfevents.*"))


def test_training_goes_on_from_given_weights(make_cfg, tmp_path):
    first = train(make_cfg())
    weights = tmp_path / "output" / "model_final.pth"
    cfg = make_cfg(f"MODEL.WEIGHTS={weights}", f"OUTPUT_DIR={tmp_path / 'second'}")
    second = DefaultTrainer(cfg)
    second.resume_or_load(resume=False)
    assert second.start_iter == 0
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_resume_falls_back_to_the_given_weights_where_there_is_no_checkpoint(make_cfg, tmp_path):
    train(make_cfg())
    weights = tmp_path / "output" / "model_final.pth"
    cfg = make_cfg(f"MODEL.WEIGHTS={weights}", f"OUTPUT_DIR={tmp_path / 'second'}")
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load(resume=True)
    saved = torch.load(weights, weights_only=True)["model"]
    assert all(torch.equal(v, saved[k]) for k, v in trainer.model.state_dict().items())


def test_a_finished_run_that_is_resumed_longer_starts_where_it_ended(make_cfg):
    train(make_cfg())
    trainer = train(make_cfg("SOLVER.MAX_ITER=6"), resume=True)
    assert trainer.start_iter == 4
    assert trainer.iter == 6
    assert trainer.scheduler.last_epoch == 6


def test_an_earlier_run_in_the_same_folder_is_pointed_out(make_cfg, tmp_path):
    train(make_cfg())
    train(make_cfg())
    assert "holds an earlier run" in (tmp_path / "output" / "log.txt").read_text()


def test_a_run_killed_before_its_first_checkpoint_does_not_resume_an_earlier_one(make_cfg):
    train(make_cfg())
    second = DefaultTrainer(make_cfg("SOLVER.MAX_ITER=0"))
    second.resume_or_load(resume=False)
    second.train()
    third = DefaultTrainer(make_cfg())
    third.resume_or_load(resume=True)
    assert third.start_iter == 0


def test_averaged_weights_are_saved_apart_and_go_on_after_resuming(make_cfg, tmp_path):
    averaging = ("SOLVER.EMA.ENABLED=True", "SOLVER.EMA.DECAY=0.5")
    trainer = train(make_cfg(*averaging))
    written = torch.load(tmp_path / "output" / "model_ema.pth", weights_only=True)["model"]
    average, own = trainer.ema.state_dict(), trainer.model.state_dict()
    assert all(torch.equal(written[name], value) for name, value in average.items())
    assert any(not torch.equal(written[name], own[name]) for name in average)

    resumed = DefaultTrainer(make_cfg(*averaging))
    resumed.resume_or_load(resume=True)
    assert all(torch.equal(v, average[name]) for name, v in resumed.ema.state_dict().items())


def test_average_starts_from_the_weights_that_were_loaded(make_cfg, tmp_path):
    train(make_cfg())
    weights = tmp_path / "output" / "model_final.pth"
    cfg = make_cfg(
        f"MODEL.WEIGHTS={weights}", "SOLVER.EMA.ENABLED=True", f"OUTPUT_DIR={tmp_path / 'second'}"
    )
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load(resume=False)
    own = dict(trainer.model.named_parameters())
    assert all(torch.equal(v, own[name]) for name, v in trainer.ema.state_dict().items())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision_trains_and_its_loss_scale_goes_on_after_resuming(
    make_cfg, tmp_path, dtype
):
    mixed = ("SOLVER.AMP.ENABLED=True", f"SOLVER.AMP.DTYPE={dtype}")
    train(make_cfg(f"OUTPUT_DIR={tmp_path / 'float32'}"))
    trainer = train(make_cfg(*mixed))
    exact, rounded = (
        read_metrics(tmp_path / folder / "metrics.json")[0]["total_loss"]
        for folder in ("float32", "output")
    )
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.03)
    resumed = DefaultTrainer(make_cfg(*mixed))
    resumed.resume_or_load(resume=True)
    assert resumed.scaler.is_enabled() == (dtype == "float16")
    assert resumed.scaler.state_dict() == trainer.scaler.state_dict()


def test_a_step_in_parts_uses_as_many_samples_as_a_whole_one(make_cfg):
    trainer = DefaultTrainer(make_cfg("SOLVER.GRAD_ACCUMULATION=2", "SOLVER.IMS_PER_BATCH=4"))
    batches = iter(trainer.build_train_loader(trainer.cfg))
    whole = iter(trainer.build_train_loader(make_cfg("SOLVER.IMS_PER_BATCH=4")))
    first, second, both = next(batches), next(batches), next(whole)
    names = [record["file_name"] for record in [*first, *second]]
    assert names == [record["file_name"] for record in both]
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert trainer.iter == 4


def test_an_unknown_precision_is_rejected(make_cfg):
    with pytest.raises(ValueError, match="bfloat16 or float16, not 'float8'"):
        DefaultTrainer(make_cfg("SOLVER.AMP.DTYPE=float8"))


def test_evaluation_without_a_dataset_is_an_error(make_cfg):
    cfg = make_cfg()
    with pytest.raises(ValueError, match=r"DATASETS\.TEST is empty"):
        DefaultTrainer.test(cfg, DefaultTrainer.build_model(cfg))
