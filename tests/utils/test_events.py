import json
import logging

from semsam.utils.events import ConsoleWriter, EventStorage, JSONWriter, read_metrics


def test_storage_gives_the_mean_since_the_last_take():
    storage = EventStorage()
    storage.put_scalars(loss=1.0, lr=0.5)
    storage.put_scalar("loss", 2.0)
    assert storage.take() == {"loss": 1.5, "lr": 0.5}
    storage.put_scalar("loss", 5.0)
    assert storage.take() == {"loss": 5.0}
    assert storage.take() == {}


def test_storage_goes_on_between_two_takes():
    first, second = EventStorage(), EventStorage()
    first.put_scalar("loss", 1.0)
    second.load_state_dict(first.state_dict())
    second.put_scalar("loss", 3.0)
    assert second.take() == {"loss": 2.0}


def test_json_lines_from_the_resumed_iteration_on_are_dropped(tmp_path):
    path = tmp_path / "metrics.json"
    first = JSONWriter(path)
    for iteration in range(4):
        first.write(iteration, {"loss": float(iteration)})
    first.close()
    with path.open("a") as file:
        file.write('{"iteration": 4, "lo')

    second = JSONWriter(path, start_iter=2)
    second.write(2, {"loss": 20.0})
    second.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["iteration"], line["loss"]) for line in lines] == [(0, 0.0), (1, 1.0), (2, 20.0)]


def test_a_line_is_in_the_file_as_soon_as_it_is_written(tmp_path):
    writer = JSONWriter(tmp_path / "metrics.json")
    writer.write(0, {"loss": 1.0})
    assert read_metrics(tmp_path / "metrics.json") == [{"iteration": 0, "loss": 1.0}]
    writer.close()


def test_console_line_names_losses_rate_times_and_memory(caplog):
    scalars = {"loss_mask_bce": 1.0, "loss_mask_bce_0": 7.0, "total_loss": 8.0}
    scalars |= {"lr": 1e-4, "time": 2.0, "data_time": 0.5}
    with caplog.at_level(logging.INFO, logger="semsam.utils.events"):
        ConsoleWriter(max_iter=1830).write(29, scalars)
    (line,) = caplog.messages
    assert line.startswith("iter 30/1830  total_loss 8  loss_mask_bce 1  lr 0.0001  2.000 s/iter")
    assert "data 0.500 s" in line
    assert "eta 1:00:00" in line
    assert "peak memory" in line
    assert "loss_mask_bce_0" not in line
