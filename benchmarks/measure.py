"""What the benchmarks share: repeated timing, peak memory, a table."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Sequence

import torch


def seconds(function: Callable[[], object], repeats: int = 5) -> list[float]:
    """Wall times of calls, after one that is not counted; waits for the GPU if there is one."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return times[1:]


def peak_gib() -> float:
    """Most memory that this process has held so far: of the GPU if it was used, else of the CPU."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def spread(times: Sequence[float]) -> str:
    """Median and range, such as ``1.62 s (1.60 .. 1.71)``."""
    median = statistics.median(times)
    digits = 3 if median < 1 else 2
    low, high = min(times), max(times)
    return f"{median:.{digits}f} s ({low:.{digits}f} .. {high:.{digits}f})"


def ratio(reference: Sequence[float], times: Sequence[float]) -> str:
    """How many times faster than the reference, by medians."""
    return f"{statistics.median(reference) / statistics.median(times):.1f}x"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
