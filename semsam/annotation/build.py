"""The registry of labellers, and how one is built."""

from __future__ import annotations

from semsam.utils.registry import Registry

LABELER = Registry("LABELER")
"""``cls(cfg)``, models loaded once; ``label(Sequence[MaskedPhoto])`` -> a ``Labels`` a photo."""
