"""Files: one path manager, and writes that are either whole or absent."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from iopath.common.file_io import HTTPURLHandler, PathHandler
from iopath.common.file_io import PathManager as PathManagerBase


class HubHandler(PathHandler):
    """``hf://OWNER/NAME``: the folder of a model on the Hugging Face hub, downloaded once."""

    def _get_supported_prefixes(self) -> list[str]:
        return ["hf://"]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        from huggingface_hub import snapshot_download

        wanted = ["*.json", "*.safetensors", "*.bin", "*.txt", "*.model"]
        return snapshot_download(path.removeprefix("hf://"), allow_patterns=wanted)


PathManager = PathManagerBase()
PathManager.register_handler(HTTPURLHandler())
PathManager.register_handler(HubHandler())


#: What a full disk, a quota and a limit on files say.
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def atomic_write(
    path: str | Path, mode: str = "w", num_bytes: int | None = None
) -> Iterator[IO[Any]]:
    """Open a file that appears under ``path`` only when the block ends without an error.

    The bytes reach the disk before the rename, so a crash leaves the old file or the new one.

    Args:
        path: where the file will be; its folder is made if absent.
        mode: ``"w"`` or ``"wb"``.
        num_bytes: what will be written at least, if known; too little space is then found before.

    Raises:
        ValueError: if the mode does not write a new file.
        OSError: with errno ENOSPC, if there is no space for the file.
    """
    if mode not in ("w", "wb"):
        raise ValueError(f"atomic_write writes whole files: mode is 'w' or 'wb', not '{mode}'")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if num_bytes is not None and num_bytes > shutil.disk_usage(path.parent).free:
        raise no_space(path, num_bytes)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; give the result the usual permissions.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:
        written = 0
        with contextlib.suppress(FileNotFoundError):
            written = os.stat(temporary).st_size
            os.unlink(temporary)
        if is_no_space(error):
            raise no_space(path, num_bytes, written) from error
        raise


def is_no_space(error: BaseException | None) -> bool:
    """Whether it, or what it hides (torch.save fails once more on closing), is want of space."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            return True
        error = error.__context__
    return False


def no_space(path: Path, needed: int | None, written: int = 0) -> OSError:
    """The error for a file, or a folder, of which so many bytes could be written."""
    free = shutil.disk_usage(path.parent).free
    size = f"at least {needed:,}" if needed is not None else f"more than {written:,}"
    return OSError(
        errno.ENOSPC,
        f"no space: the file needs {size} bytes, of which {written:,} could be written; the disk "
        f"has {free:,} free (a quota or a limit may leave less)",
        str(path),
    )


def write_json(path: str | Path, value: object, indent: int | None = 2) -> None:
    """Write ``value`` as json, atomically."""
    with atomic_write(path) as file:
        json.dump(value, file, indent=indent)
        file.write("\n")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
