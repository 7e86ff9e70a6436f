"""Image encoders."""

from . import d2_backbone, sam_vit, swin, timm_backbone
from .backbone import Backbone, ShapeSpec
