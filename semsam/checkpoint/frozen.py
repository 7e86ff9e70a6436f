"""What a checkpoint does not store because it never changes: where it came from, and its digest."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from semsam.config import CfgNode
from semsam.utils.digest import digest_tensors


@dataclass(frozen=True)
class FrozenParts:
    """Parts of a model that are loaded from elsewhere and never trained.

    Attributes:
        prefixes: of their keys in the model's state dict, each with its final dot.
        weights: file, folder or url that fills them; "" where building the model does (a language
            model by name).
        sha256: digest of their keys and values; "" until it is computed.
    """

    prefixes: tuple[str, ...] = ()
    weights: str = ""
    sha256: str = ""

    @classmethod
    def from_config(cls, cfg: CfgNode) -> FrozenParts:
        """Modules under ``MODEL.FREEZE`` that ``MODEL.WEIGHTS`` fills, and a frozen language model.

        Nothing if ``SOLVER.SAVE_FROZEN``: then a checkpoint stores everything.
        """
        if cfg.SOLVER.SAVE_FROZEN:
            return cls()
        prefixes = [f"{name}." for name in cfg.MODEL.FREEZE] if cfg.MODEL.WEIGHTS else []
        caption = cfg.MODEL.CAPTION
        if (
            "CaptionHead" in cfg.MODEL.REGION_HEADS.NAMES
            and caption.PRETRAINED
            and not caption.TRAIN_LANGUAGE_MODEL
        ):
            prefixes.append("region_heads.CaptionHead.language_model.")
        weights = cfg.MODEL.WEIGHTS if cfg.MODEL.FREEZE else ""
        return cls(tuple(prefixes), weights)

    def holds(self, key: str) -> bool:
        """Whether a key of the state dict is left out."""
        return key.startswith(self.prefixes) if self.prefixes else False

    def digest(self, model: nn.Module) -> str:
        """sha256 over the names and bytes of the frozen tensors."""
        return digest_tensors({k: v for k, v in model.state_dict().items() if self.holds(k)})

    def check(self, model: nn.Module, source: str) -> None:
        """Raise ValueError unless the model holds the parts that the checkpoint was trained on."""
        found = self.digest(model)
        if found != self.sha256:
            raise ValueError(
                f"'{source}' was trained on other frozen parts ({', '.join(self.prefixes)}): its "
                f"digest of them is {self.sha256[:12]}, that of '{self.weights or 'the model'}' is "
                f"{found[:12]}"
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint file."""
        return {**asdict(self), "prefixes": list(self.prefixes)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FrozenParts:
        """The inverse of ``as_dict``."""
        return cls(**{**values, "prefixes": tuple(values["prefixes"])})
