"""The mapper against the original's, with its recorded draws."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from semsam.config import get_cfg
from semsam.data.mappers import PromptableMapper
from semsam.data.records import decode_annotations
from semsam.structures import Instances
from tests.parity.golden import SEMANTIC_SAM, Fixture, cases


class RecordedDraws:
    """Gives the recorded uniform numbers, then those of a seeded generator."""

    def __init__(self, calls):
        self.calls = list(calls)
        self.rest = np.random.default_rng(0)

    def uniform(self, low, high, *size):
        if not self.calls:
            return self.rest.uniform(low, high, *size)
        (recorded_low, recorded_high, *_), value = self.calls.pop(0)
        assert (low, high) == (recorded_low, recorded_high)
        return value

    def __getattr__(self, name):
        return getattr(self.rest, name)


def run_mapper(fixture: Fixture):
    """The mapped record, and the Geometry that made it."""
    cfg = get_cfg()
    cfg.INPUT.IMAGE_SIZE = fixture.meta["image_size"]
    # So many prompts that every mask is the seed of one, and none is left out as unused.
    cfg.INPUT.NUM_PROMPTS = len(fixture.meta["annotations"])
    mapper = PromptableMapper(cfg, is_train=fixture.meta["is_train"])
    encoded = io.BytesIO()
    Image.fromarray(fixture["in.image_hwc"].numpy()).save(encoded, "png")
    record = {
        "file_name": fixture.name,
        "image_id": 0,
        "image_bytes": encoded.getvalue(),
        "annotations": fixture.meta["annotations"],
    }
    draws = fixture.meta["np_uniform_calls"]
    augment = mapper.jitter if mapper.is_train else lambda size, _: mapper.resize(size)
    geometry = augment(tuple(fixture["in.image_hwc"].shape[:2]), RecordedDraws(draws))
    return mapper({**record, "rng": RecordedDraws(draws)}), geometry, record


def as_stored(maps: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Every eighth pixel, where the fixture keeps no more."""
    return maps if maps.shape == expected.shape else maps[..., ::8, ::8]


def padding_is_foreground(fixture: Fixture) -> bool:
    """Whether this is the recorded variant in which every mask holds the padding as well."""
    return fixture.meta["is_train"] and bool(fixture.meta["seg_pad_value"])


def recorded(fixture: Fixture, key: str, content: tuple[int, int]) -> torch.Tensor:
    """A recorded field of the instances, without masks of padding alone."""
    if not padding_is_foreground(fixture):
        return fixture[key]
    masks = fixture["out.gt_masks"].bool()
    masks[:, content[0] :] = False
    masks[:, :, content[1] :] = False
    values = masks if key == "out.gt_masks" else fixture[key]
    return values[masks.flatten(1).any(dim=1)]


@pytest.mark.parametrize(
    ("fixture", "what"),
    cases(SEMANTIC_SAM, "sam_mapper", "image", "masks", "boxes", "classes", "points", "padding"),
)
def test_mapper_gives_what_the_original_gives(fixture, what):
    mapped, geometry, record = run_mapper(fixture)
    instances: Instances = mapped["instances"]
    if what == "image":
        expected = fixture["out.image"]
        assert torch.equal(as_stored(mapped["image"], expected), expected)
    elif what == "masks":
        expected = recorded(fixture, "out.gt_masks", geometry.content).bool()
        assert torch.equal(as_stored(instances.gt_masks, expected), expected)
    elif what == "boxes":
        if padding_is_foreground(fixture):
            pytest.skip("recorded boxes enclose the padding, which is no part of a mask here")
        torch.testing.assert_close(
            instances.gt_boxes.tensor, fixture["out.gt_boxes"], atol=1e-4, rtol=0
        )
    elif what == "classes":
        expected = recorded(fixture, "out.gt_classes", geometry.content)
        assert torch.equal(instances.gt_classes, expected)
    elif what == "points":
        annotations = decode_annotations(record, geometry.source)
        clicks = annotations.clicks[geometry.apply_masks(annotations.masks).areas > 0]
        moved = geometry.apply_points(np.stack([clicks - 3, clicks + 3], axis=1))
        boxes = torch.from_numpy(np.hstack([moved.min(axis=1), moved.max(axis=1)]))
        expected = recorded(fixture, "out.point_coords", geometry.content)
        torch.testing.assert_close(boxes, expected, atol=1e-4, rtol=0)
    else:
        if padding_is_foreground(fixture):
            pytest.skip("the padding mask of this variant is empty: masks hold the padding")
        expected = fixture["out.padding_mask"].bool()
        padding = torch.ones(geometry.output, dtype=torch.bool)
        padding[: geometry.content[0], : geometry.content[1]] = False
        assert torch.equal(as_stored(padding, expected), expected)
