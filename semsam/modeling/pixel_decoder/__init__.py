"""Pixel decoders: backbone maps -> multi-scale features and mask features."""

from . import ms_deform
