import torch

from semsam.modeling import build_model
from tests.tiny import perturb, tiny_sam_cfg


def test_attention_by_rows_is_the_attention_that_gradients_go_through():
    torch.manual_seed(0)
    backbone = perturb(build_model(tiny_sam_cfg())).backbone.eval()
    images = torch.randn(2, 3, 64, 64)
    with_gradient = backbone(images)["image_embedding"]
    assert with_gradient.requires_grad
    with torch.no_grad():
        by_rows = backbone(images)["image_embedding"]
    torch.testing.assert_close(by_rows, with_gradient.detach(), rtol=1e-4, atol=1e-5)
