import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from semsam.config import get_cfg
from semsam.data import MetadataCatalog
from semsam.evaluation import (
    DatasetEvaluator,
    DatasetEvaluators,
    build_evaluator,
    inference_on_dataset,
)
from semsam.evaluation.evaluator import format_table, gather_by_image


class Doubler(nn.Module):
    """Doubles each record's value; its first part is frozen in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Dropout()
        self.trained = nn.Dropout()
        self.train()
        self.frozen.eval()

    def forward(self, inputs):
        assert not self.training
        assert not self.trained.training
        assert not torch.is_grad_enabled()
        return [2 * x["value"] for x in inputs]


class Mean(DatasetEvaluator):
    def __init__(self, task="mean"):
        self.task = task

    def reset(self):
        self.values = []

    def process(self, inputs, outputs):
        self.values += outputs

    def evaluate(self):
        return {self.task: {"value": sum(self.values) / len(self.values)}}


BATCHES = [[{"value": 1}, {"value": 2}], [{"value": 6}]]


def test_every_image_is_predicted_without_gradients_in_evaluation_mode():
    evaluator = Mean()
    for _ in range(2):
        assert inference_on_dataset(Doubler(), BATCHES, evaluator) == {"mean": {"value": 6.0}}


def test_every_submodule_has_its_mode_back_after_evaluation_and_after_an_error():
    model = Doubler()
    inference_on_dataset(model, BATCHES, Mean())
    assert (model.training, model.trained.training, model.frozen.training) == (True, True, False)
    with pytest.raises(KeyError):
        inference_on_dataset(model, [[{}]], Mean())
    assert (model.training, model.trained.training, model.frozen.training) == (True, True, False)


def test_a_plain_function_is_evaluated_like_a_module():
    results = inference_on_dataset(lambda inputs: [x["value"] for x in inputs], BATCHES, Mean())
    assert results == {"mean": {"value": 3.0}}


def test_several_evaluators_see_the_same_predictions():
    results = inference_on_dataset(Doubler(), BATCHES, [Mean("a"), Mean("b")])
    assert results == {"a": {"value": 6.0}, "b": {"value": 6.0}}


def test_two_tasks_of_one_name_are_an_error():
    evaluators = DatasetEvaluators([Mean(), Mean()])
    evaluators.reset()
    evaluators.process([{}], [1.0])
    with pytest.raises(RuntimeError, match="task 'mean'"):
        evaluators.evaluate()


def test_an_evaluation_of_nothing_is_an_error():
    with pytest.raises(RuntimeError, match="nothing was evaluated"):
        gather_by_image({})


def _gather(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    shares = [{30: "c", 10: "a", 20: "b"}, {20: "b", 40: "d"}]
    torch.save(list(gather_by_image(shares[rank]).items()), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_ranks_agree_and_an_image_that_two_ranks_saw_counts_once(tmp_path):
    # Forked, because a fresh process would import torch again for seconds.
    mp.start_processes(_gather, args=(str(tmp_path),), nprocs=2, start_method="fork")
    alone = list(gather_by_image({40: "d", 20: "b", 10: "a", 30: "c"}).items())
    assert torch.load(tmp_path / "0.pt") == torch.load(tmp_path / "1.pt") == alone


def test_table_has_a_row_a_metric_and_a_column_a_task():
    table = format_table({"max": {"1-IoU": 54.504, "clicks": 7}, "oracle": {"1-IoU": 73.8}})
    assert table.splitlines() == [
        "|        |   max | oracle |",
        "| ------ | ----- | ------ |",
        "| 1-IoU  | 54.50 |  73.80 |",
        "| clicks |     7 |        |",
    ]


@pytest.mark.parametrize(
    ("evaluator_type", "message"),
    [(None, "has no evaluator; call"), ("InteractiveEvaluater", "mean 'InteractiveEvaluator'")],
)
def test_a_dataset_without_a_known_evaluator_is_an_error_that_lists_them(evaluator_type, message):
    MetadataCatalog.get("odd").set(evaluator_type=evaluator_type)
    try:
        with pytest.raises(ValueError, match=message):
            build_evaluator(get_cfg(), "odd")
    finally:
        MetadataCatalog.remove("odd")
