"""Prompt decoders: features and prompts -> masks, scores, tokens."""

from . import mask_dino, sam
