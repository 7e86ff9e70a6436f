"""Files: one path manager, and writes that are either whole or absent."""

from __future__ import annotations

import contextlib
import json
import os
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


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that appears under ``path`` only when the block ends without an error.

    The bytes reach the disk before the rename, so a crash leaves the old file or the new one.

    Args:
        path: where the file will be; its folder is made if absent.
        mode: ``"w"`` or ``"wb"``.

    Raises:
        ValueError: if the mode does not write a new file.
    """
    if mode not in ("w", "wb"):
        raise ValueError(f"atomic_write writes whole files: mode is 'w' or 'wb', not '{mode}'")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; give the result the usual permissions.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def write_json(path: str | Path, value: object, indent: int | None = 2) -> None:
    """Write ``value`` as json, atomically."""
    with atomic_write(path) as file:
        json.dump(value, file, indent=indent)
        file.write("\n")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
