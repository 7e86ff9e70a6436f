import runpy

import pytest

from tests.faults.speck_run import MAX_ITER, write_config

from .tiny_run import ROOT, lines

SUBMIT = runpy.run_path(str(ROOT / "tools/submit.py"))


def test_all_machines_of_a_job_meet_on_its_first_and_two_jobs_do_not(tmp_path):
    training = SUBMIT["Training"](tmp_path, ["--config-file", "a.yaml"], 8, 3)
    arguments = training.agent_arguments("17", ["node1", "node2"])
    assert arguments[:4] == ["--nnodes", "2", "--nproc-per-node", "8"]
    endpoint = arguments[arguments.index("--rdzv-endpoint") + 1]
    assert endpoint.startswith("node1:2")
    assert endpoint not in training.agent_arguments("18", ["node1", "node2"])


@pytest.mark.slow
def test_a_preempted_job_is_requeued_and_goes_on(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="submitit is not installed")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=":")
    config, output = write_config(tmp_path), tmp_path / "output"
    options = ["--local", "--gpus-per-node", "1", "--folder", str(tmp_path / "jobs"), "--"]
    overrides = [f"OUTPUT_DIR={output}", "FAULT.KIND=preempted"]
    job = SUBMIT["main"]([*options, "--config-file", str(config), *overrides])
    job.result()
    assert [line["iteration"] for line in lines(output)] == list(range(1, MAX_ITER, 2))
    text = (output / "log.txt").read_text()
    assert f"resuming from {output / 'model_0000005.pth'}" in text
    assert text.count("training from iteration") == 2
