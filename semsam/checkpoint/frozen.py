"""What a checkpoint does not store because it never changes: where it came from, and its digest."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from semsam.config import CfgNode
from semsam.utils.digest import digest_tensors

#: Prefix of the keys of a caption head's language model.
LANGUAGE_MODEL = "region_heads.CaptionHead.language_model."


@dataclass(frozen=True)
class FrozenParts:
    """Parts of a model that are loaded from elsewhere and never trained.

    Attributes:
        prefixes: of their keys in the model's state dict, each with its final dot.
        weights: file, folder or url that fills them; "" where building the model does (a language
            model by name).
        sha256: for each prefix a digest of its keys and values; none until they are computed.
    """

    prefixes: tuple[str, ...] = ()
    weights: str = ""
    sha256: tuple[str, ...] = ()

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
            prefixes.append(LANGUAGE_MODEL)
        weights = cfg.MODEL.WEIGHTS if cfg.MODEL.FREEZE else ""
        return cls(tuple(prefixes), weights)

    def holds(self, key: str) -> bool:
        """Whether a key of the state dict is left out."""
        return key.startswith(self.prefixes) if self.prefixes else False

    def digest(self, model: nn.Module) -> tuple[str, ...]:
        """sha256 of each prefix: names and bytes of its tensors, in the order of their names."""
        state = model.state_dict().items()
        return tuple(
            digest_tensors({key: value for key, value in state if key.startswith(prefix)})
            for prefix in self.prefixes
        )

    def check(self, model: nn.Module, source: str) -> None:
        """Raise ValueError unless the model holds the parts that the checkpoint was trained on."""
        differ = [
            f"{prefix.removesuffix('.')} of {self._origin(prefix)} (sha256 {found[:12]}, "
            f"trained on {wanted[:12]})"
            for prefix, found, wanted in zip(
                self.prefixes, self.digest(model), self.sha256, strict=True
            )
            if found != wanted
        ]
        if differ:
            raise ValueError(f"'{source}' was trained on other frozen parts: {', '.join(differ)}")

    def _origin(self, prefix: str) -> str:
        """Where a frozen part of a model came from."""
        if prefix == LANGUAGE_MODEL:
            return "MODEL.CAPTION.LANGUAGE_MODEL"
        return f"'{self.weights}'"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint file."""
        return {**asdict(self), "prefixes": list(self.prefixes), "sha256": list(self.sha256)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FrozenParts:
        """The inverse of ``as_dict``."""
        lists = {key: tuple(values[key]) for key in ("prefixes", "sha256")}
        return cls(**{**values, **lists})
