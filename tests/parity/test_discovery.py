"""Every fixture in the folder is either a test case or skipped by name."""

import pytest

from .golden import GOLDEN, SEMANTIC_SAM, all_fixtures

#: Kinds that a test in this folder reads.
COVERED = {
    "auto_mask",
    "auto_mask_stub",
    "click_choice",
    "evaluator",
    "inference",
    "interactive_eval",
    "ms_deform_attn",
    "multi_granularity_eval",
    "optimizer_steps",
    "predictor_post",
    "sam_mapper",
    "semantic",
    "training",
}

#: Systems whose fixtures state no kind, and the tests that find them.
OWN_LAYOUT = {
    "open_vocabulary_sam": "test_open_vocabulary_sam and test_zero_shot",
    "sam": "test_sam",
    "sca": "test_sca, test_lsj and test_caption_metrics",
    "ssa": "test_ssa_*",
}


def folders():
    names = sorted(p.name for p in GOLDEN.iterdir() if p.is_dir()) if GOLDEN.is_dir() else []
    return [pytest.param(name, id=f"{name}/discovery") for name in names]


@pytest.mark.parametrize("folder", folders())
def test_a_system_without_tests_is_skipped_by_name(folder):
    if folder in OWN_LAYOUT:
        pytest.skip(f"'{folder}' has a layout of its own: {OWN_LAYOUT[folder]} read it")
    if folder != SEMANTIC_SAM:
        pytest.skip(f"semsam does not have the system '{folder}' yet")
    assert {f.meta["kind"] for f in all_fixtures(folder)} & COVERED


@pytest.mark.parametrize(
    "fixture",
    [pytest.param(f, id=f"{SEMANTIC_SAM}/{f.name}/kind") for f in all_fixtures(SEMANTIC_SAM)],
)
def test_a_fixture_of_an_unknown_kind_is_skipped_by_name(fixture):
    kind = fixture.meta["kind"]
    if kind not in COVERED:
        pytest.skip(f"'{fixture.name}' is of the unknown kind '{kind}'")
    assert fixture.path.with_suffix(".safetensors").is_file()
