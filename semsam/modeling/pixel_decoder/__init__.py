"""Pixel decoders: backbone maps -> multi-scale features and mask features."""

from . import fpn_neck, ms_deform
