"""Files wherever they lie: on this machine, or behind a url that fsspec knows (``s3://...``)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import cast


def as_path(place: str | Path) -> Path:
    """A path; for a url an object with the same methods (universal_pathlib's ``UPath``).

    Raises:
        ImportError: if it is a url and the package is missing.
        ValueError: if fsspec does not know the url's scheme, or lacks a package for it.
    """
    if "://" not in str(place):
        return Path(place)
    try:
        from upath import UPath
    except ImportError as error:
        raise ImportError(
            f"'{place}' is a url: pip install 'semsam[remote]', and the package of fsspec for its "
            "scheme (s3fs, gcsfs, adlfs, aiohttp)"
        ) from error
    try:
        path = UPath(place)
        _ = path.fs
    except (ValueError, ImportError) as error:
        raise ValueError(f"'{place}' cannot be read: {error}") from error
    return cast(Path, path)


def is_remote(path: Path) -> bool:
    """Whether a path is a url."""
    return not isinstance(path, Path)


def read_range(path: Path, offset: int, num_bytes: int) -> bytes:
    """A piece of a file, which is opened for it: forked workers share no position, no connection.

    Args:
        path: from ``as_path``.
        offset: of the first byte.
        num_bytes: as many, or fewer where the file ends.

    Raises:
        FileNotFoundError: if the file is gone.
        OSError: if it cannot be read.
    """
    if not is_remote(path):
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(num_bytes)
    from fsspec.core import url_to_fs

    # fsspec keeps a file system a process; one from before a fork must not be used.
    files, place = url_to_fs(str(path))
    return cast(bytes, files.cat_file(place, start=offset, end=offset + num_bytes))


class RangeCache:
    """Keeps a share of the pieces of remote files in a folder of this machine.

    Which pieces are kept depends on their place alone, so that epoch after epoch the same ones are
    there, none drives out another, and processes that share the folder need not agree on anything.
    The files are taken to stay as they are: empty the folder when they change.

    Args:
        folder: is made if absent; other caches may use it too.
        share: of the pieces that are kept, 0 to 1.

    Raises:
        ValueError: for another share.
    """

    def __init__(self, folder: str | Path, share: float) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"the share that is kept is 0 to 1, not {share}")
        self.folder = Path(folder)
        self.share = share

    def read(self, path: Path, offset: int, num_bytes: int) -> bytes:
        """As ``read_range``; a file of this machine is not copied.

        Raises:
            FileNotFoundError: if the file is gone and the piece is not kept.
            OSError: if it cannot be read, or the folder not be written to.
        """
        if not is_remote(path):
            return read_range(path, offset, num_bytes)
        digest = hashlib.sha256(f"{path}:{offset}:{num_bytes}".encode()).hexdigest()
        if int(digest[:8], 16) >= self.share * 2**32:
            return read_range(path, offset, num_bytes)
        kept = self.folder / digest[:2] / digest[2:]
        with contextlib.suppress(FileNotFoundError):
            content = kept.read_bytes()
            # A machine that went down may leave an empty file.
            if len(content) == num_bytes:
                return content
        content = read_range(path, offset, num_bytes)
        kept.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=kept.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, kept)
        return content
