"""A model of three weights, named by IMPORTS, that does harm at a step that a test chooses."""

import math
import os
import resource
import signal
import time
from pathlib import Path

import torch
from torch import nn

from semsam.config import CfgNode
from semsam.modeling.build import META_ARCH
from semsam.utils import comm


def add_config(cfg: CfgNode) -> None:
    """Add what goes wrong ("" for nothing), on which rank (-1 for all), and in which step."""
    cfg.FAULT = CfgNode({"KIND": "", "RANK": -1, "STEP": 7})


@META_ARCH.register
class Speck(nn.Module):
    """Guesses the mean red, green and blue of images, with noise from the global generator.

    It counts its steps in a buffer, which checkpoints hold. The harm is done once in a folder.
    """

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        self.colour = nn.Parameter(torch.zeros(3))
        # Makes checkpoints larger than all other files of a run.
        self.register_buffer("ballast", torch.zeros(2**18))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.fault = cfg.FAULT
        self.folder = Path(cfg.OUTPUT_DIR)

    def forward(self, records: list[dict]) -> dict[str, torch.Tensor]:
        means = torch.stack([r["image"].float().mean((1, 2)) for r in records])
        guess = self.colour + 0.1 * torch.randn(3)
        error = (guess - means / 255).abs().mean()
        poison = self._harm() if int(self.steps) == self.fault.STEP else 0.0
        self.steps += 1
        return {"loss_colour": error, "loss_size": 0.1 * self.colour.square().sum() + poison}

    def _harm(self) -> float:
        """Kill, spoil a file, or return what poisons a loss."""
        rank, mark = comm.get_rank(), self.folder / f"harmed_{comm.get_rank()}"
        kind = self.fault.KIND
        if not kind or mark.exists() or self.fault.RANK not in (-1, rank):
            return 0.0
        mark.touch()
        # Checkpoints are written while steps go on: harm is done when the newest is whole.
        while not (newest := self._newest()):
            time.sleep(0.01)
        if kind == "kill, newest checkpoint cut" and rank == 0:
            path = next(newest.glob("*.distcp")) if newest.is_dir() else newest
            path.write_bytes(path.read_bytes()[:-100])
        if kind.startswith("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "preempted":  # as SLURM tells the process that submitit has made an agent
            os.kill(os.getppid(), signal.SIGUSR2)
            time.sleep(60)
        if kind == "no space":
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, resource.RLIM_INFINITY))
            return 0.0
        return math.nan

    def _newest(self) -> Path | None:
        """The checkpoint of two steps before; None as long as it is being written."""
        name = (self.folder / "last_checkpoint").read_text()
        return self.folder / name if f"{self.fault.STEP - 2:07d}" in name else None
