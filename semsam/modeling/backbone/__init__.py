"""Image encoders."""

from . import d2_backbone, swin, timm_backbone
from .backbone import Backbone, ShapeSpec
