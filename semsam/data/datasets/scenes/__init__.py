"""Drawn scenes of objects with parts and subparts, with names, attributes and captions.

Everything comes from one ``numpy.random.Generator``, so a seed is a data set. Objects are trees of
parts painted back to front on a canvas that notes which part is on top at each pixel; a region's
mask is what its part and everything below it own in the end, so masks are nested and occlusion
needs no thought. A click in a scene has up to five granularities (pane, window, facade, house,
row of houses).
"""

from .scene import Region, Scene, draw_scene

__all__ = ["Region", "Scene", "draw_scene"]
