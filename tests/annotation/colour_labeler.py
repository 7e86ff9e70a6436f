"""A labeller without a model: the colour that is nearest to a mask's mean."""

import time

import numpy as np

from semsam.annotation.build import LABELER
from semsam.annotation.records import Labels

NAMES = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}


@LABELER.register
class ColourLabeler:
    def __init__(self, cfg=None):
        self.batches = []

    def label(self, photos):
        self.batches.append([photo.name for photo in photos])
        return [
            Labels([self.name(photo, i) for i in range(len(photo.annotations))]) for photo in photos
        ]

    def name(self, photo, index):
        mask = photo.mask(index)
        if not mask.any():
            return {"class_name": None, "class_proposals": []}
        mean = photo.image[mask].mean(axis=0)
        distances = {name: float(np.abs(mean - rgb).sum()) for name, rgb in NAMES.items()}
        ranking = sorted(NAMES, key=distances.get)
        return {"class_name": ranking[0], "class_proposals": ranking[:2]}


@LABELER.register
class SlowColourLabeler(ColourLabeler):
    def label(self, photos):
        time.sleep(0.1 * len(photos))
        return super().label(photos)
