"""The engine on Ray Data: many workers, on one machine or on a cluster, one folder of results."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .engine import AnnotationEngine, Group, make_groups, pending_groups
from .output import OutputFolder, ResultWriter, Summary, sole_run
from .progress import RunProgress, check_summary

#: Groups of photos that a worker is given at once: while it does one it reads the next.
_GROUPS_AT_ONCE = 8
#: Less at once where there are few groups, so that workers end at about one time.
_TURNS = 4


def annotate_on_ray(
    make_engine: Callable[[], AnnotationEngine],
    output_dir: str | Path,
    num_workers: int,
    address: str = "local",
    device: str = "auto",
    resume: bool = True,
    save_img: bool = False,
    parquet: bool = False,
) -> Summary:
    """Label all photos, as ``AnnotationEngine.run`` does, with the same results.

    Every worker makes an engine of its own, and keeps its models. Photos are grouped as one worker
    would group them, so that results do not depend on the number of workers. Ray starts a worker
    that died again, with the photos that it had.

    Args:
        make_engine: called on every worker; photos and models have to be where it looks for them on
            every machine.
        output_dir: a folder that every machine sees under this path.
        num_workers: engines at once.
        address: of a running cluster (``"auto"`` finds that of this machine); ``"local"`` starts
            one on this machine for the run, unless this process is in one already.
        device: ``"cuda"``: a GPU a worker; ``"cpu"``: CPUs are shared among the workers;
            ``"auto"``: GPUs if the cluster has any.
        resume: go on with what is there.
        save_img: leave a picture of each photo too.
        parquet: move the jsons into parquet files when all is done.

    Returns:
        What the folder holds of all photos.

    Raises:
        ValueError: if the number of workers is not positive, the cluster has too few GPUs, or the
            folder's results were made with something else.
        ConnectionError: if there is no cluster at the address.
        RuntimeError: if ray is not installed, an engine cannot be made, no mask of any photo was
            labelled, or another run is writing to the folder; the message says why.
        FileNotFoundError: if there is no photo.
        OSError: if results cannot be written.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers is at least 1, got {num_workers}")
    ray = _start(address)
    resources = _worker_resources(ray.cluster_resources(), num_workers, device)
    output_dir = Path(output_dir).absolute()
    try:
        manifest, items, size = ray.get(
            ray.remote(**resources, max_retries=0)(_describe).remote(make_engine)
        )
        with sole_run(output_dir):
            output = OutputFolder(output_dir, manifest, items, resume)
            groups = pending_groups(make_groups(items, size), output, save_img)
            with RunProgress(groups, len(items)) as progress:
                if groups:
                    rows = _dataset(ray, groups, num_workers).map_batches(
                        _Worker,
                        fn_constructor_args=(make_engine, output_dir, save_img),
                        batch_size=None,
                        compute=ray.data.ActorPoolStrategy(size=min(num_workers, len(groups))),
                        **resources,
                    )
                    for row in rows.iter_rows():
                        progress.update(row["photos"], row["masks"])
            summary = output.close(parquet)
    except ray.exceptions.RayTaskError as error:
        raise _cause(error) from error
    check_summary(summary)
    return summary


class _Worker:
    """An engine that lives in one of Ray's processes."""

    def __init__(
        self, make_engine: Callable[[], AnnotationEngine], output_dir: Path, save_img: bool
    ) -> None:
        import ray

        self.engine = make_engine()
        actor = ray.get_runtime_context().get_actor_id()
        self.output = ResultWriter(output_dir, f"ray{actor}")
        self.save_img = save_img

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        groups: list[Group] = [pickle.loads(group) for group in batch["group"]]
        counts = list(self.engine.annotate_groups(groups, self.output, self.save_img))
        photos, masks = zip(*counts, strict=True)
        return {"photos": list(photos), "masks": list(masks)}


def _describe(make_engine: Callable[[], AnnotationEngine]) -> tuple[dict[str, Any], Any, int]:
    engine = make_engine()
    return engine.manifest(), engine.masks.items(), engine.images_per_batch


def _dataset(ray: Any, groups: Sequence[Group], num_workers: int) -> Any:
    rows = [{"group": pickle.dumps(group)} for group in groups]
    blocks = max(-(-len(rows) // _GROUPS_AT_ONCE), num_workers * _TURNS)
    return ray.data.from_items(rows, override_num_blocks=min(blocks, len(rows)))


def _start(address: str) -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise RuntimeError("ray is not installed: pip install 'semsam[ray]'") from error
    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=True)
    # One bar is enough.
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray


def _worker_resources(cluster: dict[str, float], num_workers: int, device: str) -> dict[str, float]:
    """What Ray is asked for, a worker."""
    gpus = cluster.get("GPU", 0.0)
    if device == "cpu" or (device == "auto" and not gpus):
        # Ray gives a worker as many threads as CPUs.
        return {"num_cpus": max(1, int(cluster.get("CPU", 1)) // num_workers)}
    if gpus < num_workers:
        raise ValueError(
            f"{num_workers} workers need as many GPUs, the cluster has {gpus:g}. MODEL.DEVICE cpu "
            "starts CPU processes"
        )
    return {"num_gpus": 1, "num_cpus": 1}


def _cause(error: Any) -> BaseException:
    """What a worker raised, without Ray's wrapping."""
    cause: BaseException = error
    while isinstance(getattr(cause, "cause", None), BaseException):
        cause = cause.cause  # type: ignore[attr-defined]
    known = (ValueError, FileNotFoundError, OSError, RuntimeError)
    return cause if isinstance(cause, known) else RuntimeError(str(cause))
