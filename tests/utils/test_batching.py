import logging
import weakref

import numpy as np
import pytest
import torch

from semsam.utils.batching import Batches

#: Bytes; more than any machine has.
TOO_MUCH = 2**50


def torch_squares(limit, calls):
    """Squares; torch's own allocator runs out of memory above ``limit`` items."""

    def function(part):
        calls.append(len(part))
        if len(part) > limit:
            torch.empty(TOO_MUCH, dtype=torch.uint8)
        return [item**2 for item in part]

    return function


def numpy_squares(limit, calls):
    """As ``torch_squares``, with numpy's MemoryError."""

    def function(part):
        calls.append(len(part))
        if len(part) > limit:
            np.empty(TOO_MUCH, dtype=np.uint8)
        return [item**2 for item in part]

    return function


@pytest.mark.parametrize("squares", [torch_squares, numpy_squares])
def test_a_batch_is_halved_until_it_fits_and_every_item_gets_its_result(squares, caplog):
    calls = []
    with caplog.at_level(logging.WARNING, "semsam"):
        results = Batches(8).run(squares(3, calls), range(10), "cpu")
    assert results == [item**2 for item in range(10)]
    assert calls == [8, 4, 2, 2, 2, 2, 2]
    assert len(caplog.records) == 2
    assert "going on with batches of 2" in caplog.text


def test_the_smaller_size_is_remembered():
    calls = []
    batches = Batches(8, "CLIP")
    batches.run(torch_squares(4, calls), range(8))
    batches.run(torch_squares(4, calls), range(8))
    assert calls == [8, 4, 4, 4, 4]
    assert batches.size == 4


def test_the_memory_of_the_failed_call_is_free_before_the_next():
    references = []

    def function(part):
        assert not any(reference() for reference in references)
        activations = torch.zeros(len(part))
        references.append(weakref.ref(activations))
        if len(part) > 1:
            torch.empty(TOO_MUCH, dtype=torch.uint8)
        return part

    assert Batches(4).run(function, [1, 2, 3]) == [1, 2, 3]


def test_one_item_that_is_too_much_is_the_callers_error():
    with pytest.raises(RuntimeError, match="memory"):
        Batches(4).run(torch_squares(0, []), range(4))


def test_other_errors_are_not_retried():
    calls = []

    def function(part):
        calls.append(len(part))
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        Batches(4).run(function, range(4))
    assert calls == [4]


def test_a_function_that_loses_a_result_is_named():
    with pytest.raises(ValueError, match="BLIP gave 1 results for 2 items"):
        Batches(2, "BLIP").run(lambda part: part[:1], [1, 2, 3])


def test_no_items_need_no_call():
    assert Batches(4).run(torch_squares(0, []), []) == []


def test_a_size_of_zero_is_rejected():
    with pytest.raises(ValueError, match="at least one"):
        Batches(0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_out_of_memory_is_halved_too():
    free = torch.cuda.mem_get_info()[0]

    def function(part):
        torch.empty(len(part) * free // 5, dtype=torch.uint8, device="cuda")
        return part

    assert Batches(16).run(function, range(16), "cuda") == list(range(16))
