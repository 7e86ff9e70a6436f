"""Using a trained model: clicks and boxes on an image, masks of everything in it, captions."""

from .automatic import AutomaticMaskGenerator
from .captioner import RegionCaptioner
from .predictor import SemSamPredictor

__all__ = ["AutomaticMaskGenerator", "RegionCaptioner", "SemSamPredictor"]
