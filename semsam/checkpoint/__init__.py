"""Reading and writing weights."""

from .loading import load_backbone_weights, load_weights, read_state_dict

__all__ = ["load_backbone_weights", "load_weights", "read_state_dict"]
