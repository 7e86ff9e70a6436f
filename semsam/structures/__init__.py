"""The records that pass between data, models and evaluation."""

from .boxes import Boxes, box_cxcywh_to_xyxy, box_xyxy_to_cxcywh, masks_to_boxes
from .image_list import ImageList
from .instances import Instances
from .photo_format import PhotoFormat
from .prompts import PromptOutput, Prompts, PromptTargets, TextPrediction

__all__ = [
    "Boxes",
    "ImageList",
    "Instances",
    "PhotoFormat",
    "PromptOutput",
    "PromptTargets",
    "Prompts",
    "TextPrediction",
    "box_cxcywh_to_xyxy",
    "box_xyxy_to_cxcywh",
    "masks_to_boxes",
]
