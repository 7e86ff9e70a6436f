"""Using a trained model: clicks and boxes on an image, and masks of everything in it."""

from .automatic import AutomaticMaskGenerator
from .predictor import SemSamPredictor

__all__ = ["AutomaticMaskGenerator", "SemSamPredictor"]
