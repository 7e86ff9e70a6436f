"""Models by name: a yaml file, trained weights where they were released, and their licence."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from semsam.checkpoint.loading import load_weights
from semsam.config import CfgNode, load_cfg
from semsam.modeling import build_model
from semsam.utils.file_io import PathManager
from semsam.utils.registry import nearest_name

_RELEASE = "https://github.com/UX-Decoder/Semantic-SAM/releases/download/checkpoint"
_SAM = "https://dl.fbaipublicfiles.com/segment_anything"
_SCA = "hf://xk-huang/segment-caption-anything"


@dataclass(frozen=True)
class ZooEntry:
    """One model.

    Attributes:
        config: yaml file under ``configs/``.
        url: released weights, a file or a folder on the hub; None where none were released.
        sha256: hex digest of that file; None where its publisher states none.
        licence: of the weights.
    """

    config: str
    url: str | None = None
    sha256: str | None = None
    licence: str = "Apache-2.0"


MODELS = {
    "semantic-sam-swin-t": ZooEntry(
        "semantic_sam/semantic_sam_swin_t_sa1b.yaml",
        f"{_RELEASE}/swint_only_sam_many2many.pth",
        licence="not stated by the publisher, beyond the licence of the original's repository",
    ),
    "semantic-sam-swin-b": ZooEntry("semantic_sam/semantic_sam_swin_b_sa1b.yaml"),
    "semantic-sam-swin-l": ZooEntry(
        "semantic_sam/semantic_sam_swin_l_sa1b.yaml",
        f"{_RELEASE}/swinl_only_sam_many2many.pth",
        licence="not stated by the publisher, beyond the licence of the original's repository",
    ),
    "semantic-sam-swin-l-reproduce-sam": ZooEntry("semantic_sam/reproduce_sam_swin_l_sa1b.yaml"),
    "semantic-sam-swin-t-coco": ZooEntry("semantic_sam/semantic_sam_swin_t_sa1b_coco.yaml"),
    "semantic-sam-swin-l-joint": ZooEntry("semantic_sam/semantic_sam_swin_l_joint.yaml"),
    "sam-vit-b": ZooEntry(
        "sam/sam_vit_b.yaml",
        f"{_SAM}/sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    "sam-vit-l": ZooEntry(
        "sam/sam_vit_l.yaml",
        f"{_SAM}/sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    "sam-vit-h": ZooEntry(
        "sam/sam_vit_h.yaml",
        f"{_SAM}/sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
    "ovsam-vit-b": ZooEntry("ovsam/vit_b.yaml"),
    "ovsam-vit-l": ZooEntry("ovsam/vit_l.yaml"),
    "ovsam-vit-h": ZooEntry("ovsam/vit_h.yaml"),
    "sca-vit-h-gpt2-large-vg": ZooEntry("sca/vit_h_gpt2_large_vg.yaml", f"{_SCA}-gpt2_large-vg"),
    "sca-vit-h-gpt2-large-pt": ZooEntry("sca/vit_h_gpt2_large_pt.yaml", f"{_SCA}-gpt2_large-pt"),
    "sca-vit-h-gpt2-large-pt-vg": ZooEntry(
        "sca/vit_h_gpt2_large_pt_vg.yaml", f"{_SCA}-gpt2_large-pt_vg"
    ),
    "sca-vit-h-open-llama-3b-vg": ZooEntry(
        "sca/vit_h_open_llama_3b_vg.yaml", f"{_SCA}-ollm3bv2-vg"
    ),
}


def get(
    name: str,
    device: str = "auto",
    trained: bool = True,
    weights: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> nn.Module:
    """Build a model in evaluation mode.

    Args:
        name: a name of ``MODELS``, a yaml file, or the output folder of a training run (its
            ``config.yaml`` and ``model_final.pth``).
        device: ``"cpu"``, ``"cuda"``, or ``"auto"`` for a GPU if there is one.
        trained: load weights; False leaves the random initialisation.
        weights: file or url to load instead of the model's own; implies ``trained``.
        overrides: ``KEY VALUE`` or ``KEY=VALUE`` changes of the configuration.

    Raises:
        ValueError: if the name is unknown, no weights are known for it, or a file does not have
            the digest of the table.
        FileNotFoundError: if there is no such weights file.
    """
    # A checkpoint holds the whole model: the backbone's own weights need not be fetched, nor those
    # of a released model's language model.
    fixed = ["MODEL.DEVICE", device, "MODEL.BACKBONE.WEIGHTS", "", "MODEL.TIMM.PRETRAINED", "False"]
    if name in MODELS:
        fixed += ["MODEL.CAPTION.PRETRAINED", "False"]
    cfg = load_cfg(config_path(name), [*overrides, *fixed])
    if weights is None and trained:
        weights = _known_weights(name) or cfg.MODEL.WEIGHTS
        if not weights:
            raise ValueError(f"no weights known for '{name}': give weights=FILE, or trained=False")
    model = build_model(cfg)
    if weights is not None:
        load_weights(model, weights)
    return model.eval()


def get_config(name: str) -> CfgNode:
    """The frozen configuration of a model, by the names that ``get`` takes."""
    return load_cfg(config_path(name))


def config_path(name: str) -> Path:
    """The yaml file behind a name.

    Raises:
        ValueError: if the name is neither a model, nor a yaml file, nor a run's folder.
    """
    if name in MODELS:
        return _configs_folder() / MODELS[name].config
    path = Path(name)
    if path.is_dir() and (path / "config.yaml").is_file():
        return path / "config.yaml"
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path
    raise ValueError(
        f"no model '{name}'{nearest_name(name, list(MODELS))}: give a yaml file, the folder of a "
        f"training run, or one of {', '.join(MODELS)}"
    )


def _configs_folder() -> Path:
    """``configs/`` inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def _known_weights(name: str) -> str | None:
    """Released weights, or those that a run ended with; None where there are neither."""
    if name in MODELS:
        entry = MODELS[name]
        if entry.url is None:
            raise ValueError(
                f"no weights of '{name}' were released: give weights=FILE, or trained=False for a "
                "random initialisation"
            )
        return _fetch(entry.url, entry.sha256)
    final = Path(name) / "model_final.pth"
    return str(final) if final.is_file() else None


def _fetch(url: str, sha256: str | None) -> str:
    """Local copy of a released file, downloaded once."""
    local = PathManager.get_local_path(url)
    if sha256 is not None:
        with open(local, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != sha256:
            raise ValueError(
                f"'{local}' is not the file at {url}: sha256 {digest}, expected {sha256}; delete "
                "it to download it again"
            )
    return local
