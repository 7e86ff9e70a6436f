"""Image encoders."""

from . import swin, timm_backbone
from .backbone import Backbone, ShapeSpec
