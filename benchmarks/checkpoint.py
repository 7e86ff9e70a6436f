"""How long a step is blocked by saving a model with the state of AdamW.

    python benchmarks/checkpoint.py --folder /data/tmp

``save`` blocks for a copy to CPU memory; a blocking save for the writing as well.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import nn

from benchmarks.measure import markdown, spread
from semsam.checkpoint.checkpointer import Checkpointer
from semsam.checkpoint.snapshot import tensor_bytes

_WIDTH = 4096


class Blocks(nn.Module):
    """Linear layers of so many numbers in all."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(_WIDTH, _WIDTH) for _ in range(max(1, round(number / _WIDTH**2)))
        )


def measure(folder: Path, parameters: int, repeats: int, shards: bool) -> list[str]:
    """A row: what is written, time blocked, time blocked with waiting, steps alone and amid."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Blocks(parameters).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    optimizer.step()
    checkpointer = Checkpointer(model, folder, {"optimizer": optimizer}, keep=1, shards=shards)
    blocked, blocking, alone, amid = [], [], [], []
    for repeat in range(repeats):
        alone.append(_seconds(optimizer.step))
        start = time.perf_counter()
        checkpointer.save(f"model_{repeat:07d}", iteration=repeat)
        blocked.append(time.perf_counter() - start)
        amid.append(_seconds(optimizer.step))
        checkpointer.wait()
        start = time.perf_counter()
        checkpointer.save(f"model_{repeat:07d}", iteration=repeat)
        checkpointer.wait()
        blocking.append(time.perf_counter() - start)
    size = tensor_bytes([model.state_dict(), optimizer.state_dict()]) / 1e9
    kind = "folder" if shards else "file"
    return [f"{kind} of {size:.2f} GB", *map(spread, (blocked, blocking, alone, amid))]


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parameters", type=float, default=200e6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; a temporary one else")
    arguments = parser.parse_args()
    rows = []
    for shards in (False, True):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            number = int(arguments.parameters)
            rows.append(measure(Path(folder), number, arguments.repeats, shards))
    header = ["checkpoint", "blocked", "blocked by a blocking save", "step alone", "step amid it"]
    print(markdown(header, rows))


if __name__ == "__main__":
    main()
