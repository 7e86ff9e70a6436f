import pytest
import torch
from torch import nn

from semsam.config import get_cfg
from semsam.modeling import build_model
from semsam.structures import ImageList, PhotoFormat, PromptOutput


@pytest.fixture(scope="session")
def tiny_model():
    """A real Semantic-SAM of a few thousand weights, random."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.SWIN.EMBED_DIM = 12
    cfg.MODEL.SWIN.DEPTHS = [1, 1, 1, 1]
    cfg.MODEL.SWIN.NUM_HEADS = [1, 2, 3, 4]
    for node in (cfg.MODEL.PIXEL_DECODER, cfg.MODEL.DECODER):
        node.NUM_LAYERS = 1
        node.NUM_HEADS = 4
        node.DIM_FEEDFORWARD = 32
    cfg.MODEL.PIXEL_DECODER.CONV_DIM = cfg.MODEL.PIXEL_DECODER.MASK_DIM = 32
    cfg.MODEL.DECODER.HIDDEN_DIM = 32
    cfg.MODEL.CRITERION.NAME = ""
    torch.manual_seed(0)
    return build_model(cfg).eval()


class DiscModel(nn.Module):
    """Answers every click with a disc around it for each radius, in pixels of the input."""

    stride = 4

    def __init__(self, radii, scores):
        super().__init__()
        self.device = torch.device("cpu")
        self.photo_format = PhotoFormat()
        self.radii = torch.tensor(radii, dtype=torch.float32)
        self.scores = torch.tensor(scores, dtype=torch.float32)

    def preprocess(self, records):
        return ImageList.from_tensors([x["image"].float() for x in records], size_divisibility=32)

    def encode_image(self, images):
        return {"padded_size": images.padded_size}

    def decode(self, features, prompts):
        height, width = features["padded_size"]
        y = (torch.arange(height // self.stride) + 0.5) * self.stride
        x = (torch.arange(width // self.stride) + 0.5) * self.stride
        clicks = prompts.points[0, :, 0]
        distance = torch.hypot(x - clicks[:, 0, None, None], y[:, None] - clicks[:, 1, None, None])
        number = len(clicks)
        return PromptOutput(
            mask_logits=(self.radii[:, None, None] - distance[:, None])[None],
            scores=self.scores.expand(1, number, -1),
            boxes=None,
            tokens=torch.zeros(1, number, len(self.radii), 1),
            valid=prompts.valid,
            padded_size=(height, width),
        )


@pytest.fixture
def disc_model():
    return DiscModel
