"""Image encoders."""

from . import d2_backbone, sam_vit, swin, timm_backbone, timm_vit
from .backbone import Backbone, ShapeSpec
