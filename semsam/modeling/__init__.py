"""The model: backbone, pixel decoder, prompt decoder, region heads, criterion."""

from .build import build_model

__all__ = ["build_model"]
