"""SegFormer of transformers as a model that ``tools/train_net.py`` trains and evaluates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from semsam.config import CfgNode, configurable
from semsam.data import MetadataCatalog
from semsam.modeling.build import META_ARCH

#: Of pixels that are not learned.
_IGNORED = -100


def add_config(cfg: CfgNode) -> None:
    """Add the model's keys to ``cfg``; called because the yaml names this file in IMPORTS."""
    node = cfg.MODEL.SEGFORMER = CfgNode()
    node.HIDDEN_SIZES = [32, 64, 160, 256]
    node.DEPTHS = [2, 2, 2, 2]
    node.NUM_HEADS = [1, 2, 5, 8]
    node.DECODER_SIZE = 256
    node.DROP_PATH_RATE = 0.1


@META_ARCH.register
class SegformerSegmenter(nn.Module):
    """SegFormer (Xie et al., 2021) that learns the classes of a dataset.

    Args:
        class_names: C names, in the order of their ids; labels that are no class are not learned.
        pixel_mean: RGB, 0 to 255.
        pixel_std: RGB.
        **sizes: of ``SegformerConfig``.
    """

    @configurable
    def __init__(
        self,
        class_names: Sequence[str],
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        **sizes: Any,
    ) -> None:
        super().__init__()
        names = dict(enumerate(class_names))
        label2id = {name: number for number, name in names.items()}
        config = SegformerConfig(id2label=names, label2id=label2id, **sizes)
        self.segformer = SegformerForSemanticSegmentation(config)
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(3, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(3, 1, 1), False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """``MODEL.SEGFORMER``, and the classes of the first of ``DATASETS.TRAIN``.

        Raises:
            ValueError: if no dataset is named, or it does not say what its classes are.
        """
        names = [MetadataCatalog.get(name).get("stuff_classes") for name in cfg.DATASETS.TRAIN]
        if not names or names[0] is None:
            raise ValueError(
                f"DATASETS.TRAIN is {cfg.DATASETS.TRAIN}: its first has to have stuff_classes"
            )
        node = cfg.MODEL.SEGFORMER
        return {
            "class_names": names[0],
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "hidden_sizes": list(node.HIDDEN_SIZES),
            "depths": list(node.DEPTHS),
            "num_attention_heads": list(node.NUM_HEADS),
            "decoder_hidden_size": node.DECODER_SIZE,
            "drop_path_rate": node.DROP_PATH_RATE,
        }

    def forward(self, records: list[dict[str, Any]]) -> Any:
        """Losses in training, else ``{"sem_seg": (H, W) class ids}`` each.

        Args:
            records: ``SemSegMapper``'s; those of a training batch are of one size.
        """
        if not self.training:
            return [{"sem_seg": self._segment(record)} for record in records]
        logits = self._logits(torch.stack([record["image"] for record in records]))
        labels = torch.stack([record["sem_seg"] for record in records]).to(logits.device)
        is_class = (labels >= 0) & (labels < logits.shape[1])
        labels = torch.where(is_class, labels, _IGNORED)
        scores = _resize(logits, tuple(labels.shape[-2:]))
        # A batch without a class has no mean.
        total = F.cross_entropy(scores, labels, ignore_index=_IGNORED, reduction="sum")
        return {"loss_sem_seg": total / is_class.sum().clamp(min=1)}

    def _logits(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, C, H / 4, W / 4)."""
        pixels = images.to(self.pixel_mean.device, torch.float32)
        return self.segformer((pixels - self.pixel_mean) / self.pixel_std).logits

    def _segment(self, record: dict[str, Any]) -> Tensor:
        logits = self._logits(record["image"][None])
        return _resize(logits, (record["height"], record["width"]))[0].argmax(dim=0)


def _resize(logits: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)
