"""Send a training to SLURM: an elastic agent on each machine, requeued and resumed when preempted.

    python tools/submit.py --nodes 4 --hours 72 --slurm partition=gpu -- --config-file FILE.yaml

What follows ``--`` is for train_net.py. Needs ``pip install 'semsam[slurm]'``; the folders of the
job and of the run have to be the same on all machines.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRAIN = Path(__file__).resolve().with_name("train_net.py")


@dataclass
class Training:
    """What each machine of a job does: its agent starts the workers and keeps them alive.

    SLURM runs a preempted job anew under its old number; what it has begun it then goes on with.

    Args:
        folder: where a machine notes that the job has begun.
        arguments: for train_net.py.
        workers: a machine.
        max_restarts: of the workers, as long as the job lasts.
    """

    folder: Path
    arguments: list[str]
    workers: int
    max_restarts: int

    def __call__(self) -> None:
        """Run the agent of this machine."""
        import submitit
        from torch.distributed import run

        job = submitit.JobEnvironment()
        begun = self.folder / f"{job.job_id}_{job.global_rank}.begun"
        resume = ["--resume"] if begun.exists() else []
        begun.touch()
        where = self.agent_arguments(job.job_id, job.hostnames)
        run.main([*where, str(TRAIN), *self.arguments, *resume])

    def checkpoint(self) -> Any:
        """What submitit puts in the queue again when the job's time is over, or it is preempted."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)

    __submitit_checkpoint__ = checkpoint  # what later versions ask for

    def agent_arguments(self, job_id: str, hosts: Sequence[str]) -> list[str]:
        """Options of torchrun, the same on all machines of a job."""
        # Jobs that share a machine shall not share a port.
        port = 20000 + zlib.crc32(job_id.encode()) % 10000
        return [
            *("--nnodes", str(len(hosts))),
            *("--nproc-per-node", str(self.workers)),
            *("--max-restarts", str(self.max_restarts)),
            *("--rdzv-backend", "c10d"),
            *("--rdzv-endpoint", f"{hosts[0]}:{port}"),
            *("--rdzv-id", job_id),
            # SIGTERM announces a preemption, which submitit answers; workers stop with SIGHUP.
            *("--signals-to-handle", "SIGHUP"),
        ]


def main(argv: Sequence[str] | None = None) -> Any:
    """Submit; returns submitit's job."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=1, help="machines")
    parser.add_argument("--gpus-per-node", type=int, default=8, help="workers a machine")
    parser.add_argument("--cpus-per-gpu", type=int, default=8, help="more than loader processes")
    parser.add_argument("--hours", type=int, default=24, help="after which the job is requeued")
    parser.add_argument("--max-restarts", type=int, default=3, help="of workers that died")
    parser.add_argument("--folder", type=Path, default=Path("output/jobs"), help="job's files")
    parser.add_argument(
        "--slurm",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="options of sbatch: partition, account, qos, constraint, ...",
    )
    parser.add_argument("--local", action="store_true", help="run on this machine, without SLURM")
    parser.add_argument("training", nargs="+", help="after --, the arguments of train_net.py")
    args = parser.parse_args(argv)
    try:
        import submitit
    except ImportError as error:
        raise SystemExit("submitit is missing: pip install 'semsam[slurm]'") from error

    # submitit counts how often a job may run out of its time.
    executor = submitit.AutoExecutor(
        args.folder, cluster="local" if args.local else "slurm", slurm_max_num_timeout=1000
    )
    executor.update_parameters(
        name="semsam",
        nodes=args.nodes,
        tasks_per_node=1,
        timeout_min=60 * args.hours,
        gpus_per_node=args.gpus_per_node,
        cpus_per_task=args.gpus_per_node * args.cpus_per_gpu,
        # A machine that fails for good ends the job.
        slurm_srun_args=["--kill-on-bad-exit=1"],
        slurm_additional_parameters=dict(option.split("=", 1) for option in args.slurm),
    )
    folder = args.folder.resolve()
    training = Training(folder, args.training, args.gpus_per_node, args.max_restarts)
    job = executor.submit(training)
    print(f"job {job.job_id}: {job.paths.stdout}")
    return job


if __name__ == "__main__":
    main()
