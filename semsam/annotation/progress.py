"""What a run of annotation tells while it goes on and when it ends."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from tqdm import tqdm

from semsam.utils import comm

from .output import Summary

logger = logging.getLogger(__name__)


class RunProgress:
    """A bar with images/s, masks/s and the time left; written seldom where it goes to a file.

    Args:
        groups: what is to be done here, pairs of a photo and whether it is still to be done.
        num_photos: of the whole run.
    """

    def __init__(self, groups: Sequence[Sequence[tuple[Any, bool]]], num_photos: int) -> None:
        number = sum(pending for group in groups for _, pending in group)
        logger.info("%d photos, of which this process has %d to do", num_photos, number)
        self._bar = tqdm(
            total=number,
            desc="annotation",
            unit="image",
            mininterval=0.2 if sys.stderr.isatty() else 30.0,
            disable=not comm.is_main_process(),
        )
        self._masks = 0
        self._start = time.perf_counter()

    def __enter__(self) -> RunProgress:
        return self

    def __exit__(self, kind: type | None, value: object, traceback: TracebackType | None) -> None:
        self._bar.close()

    def update(self, photos: int, masks: int) -> None:
        """Count photos that are done, and masks that went through the labellers."""
        self._masks += masks
        rate = self._masks / (time.perf_counter() - self._start)
        self._bar.set_postfix_str(f"{rate:.1f} masks/s", refresh=False)
        self._bar.update(photos)


def check_summary(summary: Summary) -> None:
    """Log what a run has come to.

    Raises:
        RuntimeError: if no mask of any photo was labelled; the message says why.
    """
    logger.info(
        "%d of %d photos have a result, with labels of %d of %d masks; %d failed",
        summary.finished,
        summary.photos,
        summary.labelled,
        summary.masks,
        summary.failed,
    )
    if summary.labelled:
        return
    if summary.reasons:
        reason, number = summary.reasons[0]
        why = (
            f"{summary.failed} of {summary.photos} photos failed, {number} of them with '{reason}'"
        )
    elif not summary.masks:
        why = f"none of the {summary.photos} photos has a mask or a box"
    else:
        why = f"the labellers had nothing to say of any of the {summary.masks} masks"
    raise RuntimeError(f"nothing was labelled: {why}")
