"""Tiny random models that find masks, with their processors, as transformers saves them."""

import torch


def write_sam(folder, seed=0):
    """A SamModel of a few thousand random weights with its processor, as transformers saves."""
    from transformers import (
        SamConfig,
        SamImageProcessor,
        SamMaskDecoderConfig,
        SamModel,
        SamPromptEncoderConfig,
        SamVisionConfig,
    )

    torch.manual_seed(seed)
    config = SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=16,
            output_channels=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=64,
            patch_size=8,
            window_size=4,
            global_attn_indexes=[0],
            mlp_dim=16,
            num_pos_feats=8,
            initializer_range=0.2,
        ),
        prompt_encoder_config=SamPromptEncoderConfig(
            hidden_size=16, image_size=64, patch_size=8, mask_input_channels=4
        ),
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=16, mlp_dim=16, num_attention_heads=2, iou_head_hidden_dim=16
        ),
        initializer_range=0.2,
    )
    model = SamModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    model.save_pretrained(folder)
    SamImageProcessor(
        size={"longest_edge": 64},
        pad_size={"height": 64, "width": 64},
        mask_size={"longest_edge": 16},
        mask_pad_size={"height": 16, "width": 16},
    ).save_pretrained(folder)
    return str(folder)


def write_sam2(folder, seed=0):
    """As ``write_sam``, a Sam2Model."""
    from transformers import (
        Sam2Config,
        Sam2HieraDetConfig,
        Sam2ImageProcessor,
        Sam2MaskDecoderConfig,
        Sam2Model,
        Sam2PromptEncoderConfig,
        Sam2VisionConfig,
    )

    torch.manual_seed(seed)
    backbone = Sam2HieraDetConfig(
        hidden_size=8,
        num_attention_heads=1,
        image_size=[64, 64],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 2, 2],
        blocks_per_stage=[1, 1, 2, 1],
        window_size_per_stage=[8, 4, 4, 4],
        global_attention_blocks=[3],
        mlp_ratio=2.0,
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=32,
    )
    config = Sam2Config(
        vision_config=vision,
        prompt_encoder_config=Sam2PromptEncoderConfig(
            hidden_size=32, image_size=64, patch_size=16, mask_input_channels=4
        ),
        mask_decoder_config=Sam2MaskDecoderConfig(
            hidden_size=32, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=32
        ),
    )
    Sam2Model(config).save_pretrained(folder)
    size = {"height": 64, "width": 64}
    Sam2ImageProcessor(size=size, mask_size={"height": 16, "width": 16}).save_pretrained(folder)
    return str(folder)


def write_sam3(folder, seed=0):
    """As ``write_sam``, the part of SAM 3 that answers clicks."""
    from transformers import (
        Sam3ImageProcessor,
        Sam3TrackerConfig,
        Sam3TrackerMaskDecoderConfig,
        Sam3TrackerModel,
        Sam3TrackerPromptEncoderConfig,
        Sam3VisionConfig,
        Sam3ViTConfig,
    )

    torch.manual_seed(seed)
    backbone = Sam3ViTConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        window_size=2,
        global_attn_indexes=[1],
        pretrain_image_size=56,
    )
    config = Sam3TrackerConfig(
        vision_config=Sam3VisionConfig(
            backbone_config=backbone,
            fpn_hidden_size=32,
            backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        ),
        prompt_encoder_config=Sam3TrackerPromptEncoderConfig(
            hidden_size=32, image_size=56, mask_input_channels=4
        ),
        mask_decoder_config=Sam3TrackerMaskDecoderConfig(
            hidden_size=32, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=32
        ),
    )
    Sam3TrackerModel(config).save_pretrained(folder)
    size = {"height": 56, "width": 56}
    Sam3ImageProcessor(size=size, mask_size={"height": 16, "width": 16}).save_pretrained(folder)
    return str(folder)
