"""Runs labellers over any number of photos: batched, resumable, and undisturbed by bad input."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from semsam.config import CfgNode
from semsam.data.records import BadRecordError
from semsam.modeling.build import resolve_device
from semsam.utils import comm

from .build import build_labelers, build_mask_source
from .labelling import Annotated, Failure, annotate_photos, failure
from .manifest import make_manifest, settings_of
from .mask_sources import Item, MaskSource
from .output import OutputFolder, ResultWriter, Summary, sole_run
from .pictures import draw_result, encode_png
from .progress import RunProgress, check_summary
from .records import MaskedPhoto

logger = logging.getLogger(__name__)

T = TypeVar("T")
#: Photos that go through the models together, and whether each is still to be done.
Group = list[tuple[Item, bool]]
#: A photo of a group, whether it is still to be done, and its content, which is being read.
Reading = tuple[Item, bool, Future[MaskedPhoto]]


class AnnotationEngine:
    """Labels masks of photos.

    ::

        engine = build_engine(cfg, "photos")
        engine.run("results")

    Args:
        masks: photos with masks.
        labelers: as ``LABELER`` describes them. Of a field that two give, or that the input has,
            the first keeps the name; the other's is called ``"<class of the labeller>.<field>"``.
        images_per_batch: photos that go through the labellers together; bounds memory.
        num_threads: threads that read, and as many that write.
        device: where the labellers' models lie, for the manifest: "auto", "cpu" or "cuda".
        settings: what else the results depend on, for the manifest; what json can hold.

    Raises:
        ValueError: if there is no labeller, two are of one class, or a number is not positive.
    """

    def __init__(
        self,
        masks: MaskSource,
        labelers: Sequence[Any],
        images_per_batch: int = 4,
        num_threads: int = 2,
        device: str = "auto",
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.labelers = {type(labeler).__name__: labeler for labeler in labelers}
        if not labelers or len(self.labelers) < len(labelers):
            names = [type(labeler).__name__ for labeler in labelers]
            raise ValueError(f"labellers are one or more, each of its own class, got {names}")
        if min(images_per_batch, num_threads) < 1:
            raise ValueError(
                f"images_per_batch and num_threads are at least 1, got {images_per_batch}, "
                f"{num_threads}"
            )
        self.masks = masks
        self.images_per_batch = images_per_batch
        self.num_threads = num_threads
        self.device = resolve_device(device)
        self.settings = settings or {}

    def annotate(self, photo: MaskedPhoto) -> dict[str, Any]:
        """Label the masks of one photo.

        Returns:
            The photo's fields and annotations, with those of the labellers.

        Raises:
            BadRecordError: if a labeller fails; the message names it and says why.
        """
        done = self.annotate_batch([photo])[0]
        if isinstance(done, Failure):
            raise BadRecordError(f"{photo.name}: {done.stage}: {done.reason}")
        return done.result

    def annotate_batch(self, photos: Sequence[MaskedPhoto]) -> list[Annotated | Failure]:
        """Label the masks of some photos, which go through each model together.

        See ``semsam.annotation.labelling.annotate_photos``.
        """
        return annotate_photos(self.labelers, photos)

    def run(
        self,
        output_dir: str | Path,
        resume: bool = True,
        save_img: bool = False,
        parquet: bool = False,
    ) -> Summary:
        """Label all photos, and leave a json of each in a folder.

        Photos are grouped in their order, whatever has been done of them, and a rank takes every
        ``world_size``-th group; finished photos of an unfinished group go through the models again.
        So results do not depend on interruptions and on the number of ranks, also where a model
        rounds differently in batches of another size. A photo that cannot be done is noted in
        ``failures.jsonl``, and tried again by the next run.

        Args:
            output_dir: see ``semsam.annotation.output``.
            resume: go on with what is there.
            save_img: leave a picture of each photo too.
            parquet: move the jsons into parquet files when all is done.

        Returns:
            What the folder holds of all photos; the same on every rank.

        Raises:
            FileNotFoundError: if there is no photo.
            ValueError: if the folder's results were made with something else.
            RuntimeError: if no mask of any photo was labelled, and the message says why; or if
                another run is writing to the folder.
            OSError: if results cannot be written.
        """
        items = self.masks.items()
        with sole_run(output_dir):
            output = OutputFolder(output_dir, self.manifest(), items, resume)
            own = make_groups(items, self.images_per_batch)[
                comm.get_rank() :: comm.get_world_size()
            ]
            groups = pending_groups(own, output, save_img)
            with RunProgress(groups, len(items)) as progress:
                for photos, masks in self.annotate_groups(groups, output, save_img):
                    progress.update(photos, masks)
            summary = output.close(parquet)
        check_summary(summary)
        return summary

    def annotate_groups(
        self, groups: Sequence[Group], output: ResultWriter, save_img: bool = False
    ) -> Iterator[tuple[int, int]]:
        """Label the photos of groups that are still to be done, and write their results.

        Args:
            groups: photos that go through the models together.
            output: where results go; all are written when the iterator ends.
            save_img: leave a picture of each photo too.

        Yields:
            For each group the number of its photos that were still to be done, and of its masks.

        Raises:
            OSError: if results cannot be written.
            RuntimeError: if the GPU is in a state in which no further call can succeed.
        """
        with _WritingThreads(output, self.num_threads, save_img) as writer:
            for group in self._read_ahead(groups):
                yield sum(pending for _, pending, _ in group), self._do(group, writer)

    def manifest(self) -> dict[str, Any]:
        """What decides the results; see ``semsam.annotation.manifest``."""
        return make_manifest(self.masks, self.labelers, self.device.type, self.settings)

    def _read_ahead(self, groups: Sequence[Group]) -> Iterator[list[Reading]]:
        """Groups with photos, of which the next group's are being read meanwhile."""
        pool = ThreadPoolExecutor(self.num_threads, thread_name_prefix="read")
        try:
            ahead: deque[list[Reading]] = deque()
            for group in groups:
                ahead.append([(i, p, pool.submit(self.masks.read, i)) for i, p in group])
                if len(ahead) > 1:
                    yield ahead.popleft()
            yield from ahead
        finally:
            pool.shutdown(cancel_futures=True)

    def _do(self, group: list[Reading], writer: _WritingThreads) -> int:
        """Label a group of photos; the number of their masks."""
        photos = self._find_masks([_attempt("read", future.result) for _, _, future in group])
        found: list[tuple[Item, bool, MaskedPhoto]] = []
        for (item, pending, _), photo in zip(group, photos, strict=True):
            if isinstance(photo, MaskedPhoto):
                found.append((item, pending, photo))
            elif pending:
                writer.fail(item, photo)
        if not any(pending for _, pending, _ in found):
            return 0
        results = self.annotate_batch([photo for _, _, photo in found])
        for (item, pending, photo), done in zip(found, results, strict=True):
            if pending and isinstance(done, Failure):
                writer.fail(item, done)
            elif pending and isinstance(done, Annotated):
                writer.write(item, photo, done)
        return sum(len(photo.annotations) for _, _, photo in found)

    def _find_masks(self, photos: list[MaskedPhoto | Failure]) -> list[MaskedPhoto | Failure]:
        """Photos that could be read with their masks; together, and one by one where that fails."""
        read = [photo for photo in photos if isinstance(photo, MaskedPhoto)]
        given: Any = _attempt("masks", partial(self.masks.find_masks, read)) if read else []
        if isinstance(given, Failure):
            given = [given]
            if len(read) > 1:
                logger.warning("masks of %d photos: %s", len(read), given[0].reason)
                given = [result for photo in read for result in self._find_masks([photo])]
        found = iter(given)
        return [next(found) if isinstance(photo, MaskedPhoto) else photo for photo in photos]


class _WritingThreads:
    """Threads that draw and write; a few photos may wait for them, then the caller does."""

    def __init__(self, output: ResultWriter, num_threads: int, save_img: bool) -> None:
        self.output = output
        self.save_img = save_img
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="write")
        self._waiting: deque[Future[None]] = deque()
        self._max_waiting = 4 * num_threads

    def __enter__(self) -> _WritingThreads:
        return self

    def __exit__(self, kind: type | None, value: object, traceback: TracebackType | None) -> None:
        self._pool.shutdown()
        while self._waiting and kind is None:
            self._waiting.popleft().result()

    def write(self, item: Item, photo: MaskedPhoto, done: Annotated) -> None:
        """Write a result as soon as a thread is free.

        Raises:
            OSError: if an earlier one could not be written.
        """
        self._waiting.append(self._pool.submit(self._write, item, photo, done))
        while len(self._waiting) > self._max_waiting:
            self._waiting.popleft().result()

    def fail(self, item: Item, why: Failure) -> None:
        """Note a failure."""
        self.output.fail(item, why.stage, why.reason)

    def _write(self, item: Item, photo: MaskedPhoto, done: Annotated) -> None:
        try:
            picture = encode_png(draw_result(photo, done.names)) if self.save_img else None
            self.output.write(item, done.result, done.labelled, photo.image.shape[:2], picture)
        except OSError:
            # No place on the disk, say: the others could not be written either.
            raise
        except Exception as error:
            self.fail(item, failure("write", error))


def make_groups(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Cut the photos of a run into groups that go through the models together."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def pending_groups(
    groups: Sequence[Sequence[Item]], output: OutputFolder, save_img: bool = False
) -> list[Group]:
    """Those groups in which a photo is still to be done; its result, if any, is forgotten."""
    marked = [[(item, output.claim(item, save_img)) for item in group] for group in groups]
    return [group for group in marked if any(pending for _, pending in group)]


def build_engine(cfg: CfgNode, images: str | Path) -> AnnotationEngine:
    """The engine that ``cfg.ANNOTATION`` describes, its models loaded.

    Args:
        cfg: the configuration.
        images: a folder, or one image.

    Raises:
        ValueError: if a name is not registered, or a key has no value that is needed.
    """
    node = cfg.ANNOTATION
    return AnnotationEngine(
        build_mask_source(cfg, images),
        build_labelers(cfg),
        images_per_batch=node.IMAGES_PER_BATCH,
        num_threads=node.NUM_THREADS,
        device=cfg.MODEL.DEVICE,
        settings=settings_of(node),
    )


def _attempt(stage: str, function: Callable[[], T]) -> T | Failure:
    try:
        return function()
    except Exception as error:
        return failure(stage, error)
