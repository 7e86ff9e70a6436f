"""What a frozen encoder makes of images, kept on disk from epoch to epoch."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from semsam.config import CfgNode, configurable
from semsam.utils.digest import digest_tensors
from semsam.utils.file_io import atomic_write

logger = logging.getLogger(__name__)

Maps = dict[str, Tensor]

#: Keys of MODEL that leave the encoder's maps as they are, or show in its weights.
_NOT_OF_THE_ENCODER = (
    "WEIGHTS",
    "DEVICE",
    "FREEZE",
    "EMBEDDING_CACHE",
    "ACTIVATION_CHECKPOINTING",
    "DECODER",
    "REGION_HEADS",
    "CAPTION",
    "TEXT",
    "CRITERION",
    "PROMPT_ROUNDS",
)


class EmbeddingCache:
    """The encoder's maps of an image, in a file that is found by the image's pixels.

    A file is named after the pixels, the frame to which they are padded and the precision of the
    encoder; its folder after the encoder's weights and settings. What was made of another image, or
    by another encoder, is never found. Several processes may share a folder.

    float32 maps are stored as float16, which rounds to 11 bits (a relative error of 2^-11). What is
    encoded now is rounded as well, so that training does not hang on what the folder holds.

    Args:
        folder: made if absent; ``<encoder>/<two digits>/<image>.safetensors``.
        encoder: parts of the encoder by name; they do not change but by ``load_state_dict``.
        settings: text that differs between encoders of equal weights (heads, windows, the mean
            colour).
    """

    @configurable
    def __init__(
        self, folder: str | Path, encoder: Mapping[str, nn.Module], settings: str = ""
    ) -> None:
        self.folder = Path(folder)
        self._encoder = dict(encoder)
        self._settings = settings
        self._encoder_folder: Path | None = None
        for part in self._encoder.values():
            part.register_load_state_dict_post_hook(self._forget_weights)

    @classmethod
    def from_config(cls, cfg: CfgNode, encoder: Mapping[str, nn.Module]) -> dict[str, Any]:
        """``MODEL.EMBEDDING_CACHE``; settings are MODEL's keys but for those of other parts."""
        settings = {k: v for k, v in cfg.MODEL.items() if k not in _NOT_OF_THE_ENCODER}
        return {
            "folder": cfg.MODEL.EMBEDDING_CACHE,
            "encoder": encoder,
            "settings": CfgNode(settings).dump(),
        }

    def encode(
        self, images: Sequence[Tensor], batch: Tensor, encode: Callable[[Tensor], Maps]
    ) -> Maps:
        """Read the maps of images that were encoded before; encode and write those of the others.

        Args:
            images: B of (3, h, w), as the mapper gives them.
            batch: (B, 3, H, W), the same images as the encoder takes them.
            encode: rows of ``batch`` -> maps by name, (rows, ...) each.

        Returns:
            Maps by name, (B, ...) float32 each.

        Raises:
            ValueError: if the encoder gives anything else than tensors.
        """
        paths = self._paths(images, batch)
        known = {i: maps for i, path in enumerate(paths) if (maps := _read(path)) is not None}
        missing = [i for i in range(len(paths)) if i not in known]
        if missing:
            fresh = encode(batch[missing])
            for row, i in enumerate(missing):
                known[i] = {name: _to_store(name, value, row) for name, value in fresh.items()}
                with atomic_write(paths[i], "wb") as file:
                    file.write(safetensors.torch.save(known[i]))
        return {
            name: torch.stack([known[i][name].to(batch.device).float() for i in range(len(paths))])
            for name in known[0]
        }

    def _paths(self, images: Sequence[Tensor], batch: Tensor) -> list[Path]:
        if self._encoder_folder is None:
            weights = {
                f"{name}.{key}": value
                for name, part in self._encoder.items()
                for key, value in part.state_dict().items()
            }
            words = f"{digest_tensors(weights)} {self._settings}"
            name = hashlib.sha256(words.encode()).hexdigest()[:32]
            self._encoder_folder = self.folder / name
            logger.info("image embeddings are kept in %s", self._encoder_folder)
        kind = batch.device.type
        mixed = torch.is_autocast_enabled(kind)
        precision = torch.get_autocast_dtype(kind) if mixed else batch.dtype
        paths = []
        for image in images:
            total = hashlib.sha256(
                f"{image.dtype} {tuple(image.shape)} {tuple(batch.shape[1:])} {precision}".encode()
            )
            total.update(image.cpu().contiguous().numpy().data)
            name = total.hexdigest()
            paths.append(self._encoder_folder / name[:2] / f"{name}.safetensors")
        return paths

    def _forget_weights(self, *_: Any) -> None:
        self._encoder_folder = None


def _read(path: Path) -> Maps | None:
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError:
        return None
    except SafetensorError as error:
        logger.warning("%s is damaged (%s): its image is encoded again", path, error)
        return None


def _to_store(name: str, value: Any, row: int) -> Tensor:
    if not isinstance(value, Tensor):
        raise ValueError(
            f"MODEL.EMBEDDING_CACHE stores maps by name; the encoder's '{name}' is a "
            f"{type(value).__name__}: leave the key empty for this encoder"
        )
    one = value[row].detach().cpu()
    half = one.half()
    # What is too large for float16, and bfloat16, is stored as it is.
    fits = one.dtype == torch.float32 and bool(half.isfinite().all())
    return (half if fits else one).clone(memory_format=torch.contiguous_format)
