"""PromptableSegmentor: backbone + pixel decoder + prompt decoder + region heads + criterion."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Any

import torch
from torch import Tensor, nn

from semsam.config import CfgNode, configurable
from semsam.modeling.build import (
    BACKBONE,
    CRITERION,
    DECODER,
    META_ARCH,
    PIXEL_DECODER,
    REGION_HEAD,
    extra_tokens,
)
from semsam.modeling.embedding_cache import EmbeddingCache
from semsam.modeling.interaction import clicks_of_rounds, correct
from semsam.modeling.naming import Naming
from semsam.modeling.postprocessing import upsample_masks_binary
from semsam.structures import (
    ImageList,
    Instances,
    PhotoFormat,
    PromptOutput,
    Prompts,
    PromptTargets,
    box_cxcywh_to_xyxy,
)


@META_ARCH.register
class PromptableSegmentor(nn.Module):
    """Segments what a click or a box points at, at several granularities.

    Args:
        backbone: image -> maps by name.
        pixel_decoder: maps -> ``multi_scale`` and ``mask_features``; None if the decoder reads the
            backbone's maps itself.
        decoder: features and prompts -> ``PromptOutput``.
        region_heads: further predictions for each prompt, by name.
        naming: names masks by vocabularies that are known in training, from the embeddings of a
            ``TextClassHead``; with a decoder that has queries, images are asked for everything too.
        criterion: the masks' losses; None where only region heads learn, or nothing does.
        prompt_rounds: times that prompts are answered in a training step, each corrected by the
            answer before; losses are their mean.
        pixel_mean: of RGB, 0..255.
        pixel_std: of RGB, 0..255.
        freeze: names of modules that do not learn ("backbone", "decoder", ...); they stay in
            evaluation mode.
        photo_format: how a predictor hands over a photo; the default if None.
        embedding_cache: where ``forward`` keeps what a frozen encoder (backbone and pixel decoder)
            makes of an image.

    Raises:
        ValueError: if there is nothing of a name in ``freeze``, or the encoder of an
            ``embedding_cache`` is not in it.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    @configurable
    def __init__(
        self,
        *,
        backbone: nn.Module,
        pixel_decoder: nn.Module | None,
        decoder: nn.Module,
        region_heads: dict[str, nn.Module],
        criterion: nn.Module | None,
        naming: Naming | None = None,
        pixel_mean: list[float],
        pixel_std: list[float],
        prompt_rounds: int = 1,
        freeze: Sequence[str] = (),
        photo_format: PhotoFormat | None = None,
        embedding_cache: EmbeddingCache | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pixel_decoder = pixel_decoder
        self.decoder = decoder
        self.region_heads = nn.ModuleDict(region_heads)
        self.criterion = criterion
        self.naming = naming
        self.prompt_rounds = prompt_rounds
        self.frozen = tuple(self._submodule(name) for name in freeze)
        for module in self.frozen:
            module.requires_grad_(False)
        learning = [name for name in self._encoder() if name not in freeze]
        if embedding_cache is not None and learning:
            raise ValueError(
                "MODEL.EMBEDDING_CACHE needs an encoder that does not learn: add "
                f"{', '.join(learning)} to MODEL.FREEZE, which is {list(freeze)}"
            )
        self.embedding_cache = embedding_cache
        self.photo_format = photo_format or PhotoFormat()
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Build every part that the configuration names."""
        model, photo = cfg.MODEL, cfg.INPUT.PHOTO
        backbone = BACKBONE.get(model.BACKBONE.NAME)(cfg)
        shapes = backbone.output_shape()
        encoder = {"backbone": backbone}
        if model.PIXEL_DECODER.NAME:
            encoder["pixel_decoder"] = PIXEL_DECODER.get(model.PIXEL_DECODER.NAME)(cfg, shapes)
        head_classes = {name: REGION_HEAD.get(name) for name in model.REGION_HEADS.NAMES}
        extra = extra_tokens(cfg)
        decoder = DECODER.get(model.DECODER.NAME)(cfg, num_extra_tokens=sum(extra.values()))
        criterion = CRITERION.get(model.CRITERION.NAME)(cfg) if model.CRITERION.NAME else None
        return {
            "pixel_decoder": None,
            **encoder,
            "decoder": decoder,
            "region_heads": {n: h(cfg, decoder.token_dim) for n, h in head_classes.items()},
            "criterion": criterion,
            "naming": Naming(cfg) if model.NAMING.VOCABULARIES else None,
            "pixel_mean": model.PIXEL_MEAN,
            "pixel_std": model.PIXEL_STD,
            "prompt_rounds": model.PROMPT_ROUNDS,
            "freeze": model.FREEZE,
            "photo_format": PhotoFormat(
                min_size=photo.MIN_SIZE,
                max_size=photo.MAX_SIZE or None,
                interpolation=photo.INTERPOLATION,
                click_ratio=photo.CLICK_RATIO,
            ),
            "embedding_cache": EmbeddingCache(cfg, encoder) if model.EMBEDDING_CACHE else None,
        }

    def _encoder(self) -> dict[str, nn.Module]:
        """The parts that see the image alone, by name."""
        parts = {"backbone": self.backbone, "pixel_decoder": self.pixel_decoder}
        return {name: part for name, part in parts.items() if part is not None}

    def _submodule(self, name: str) -> nn.Module:
        try:
            return self.get_submodule(name)
        except AttributeError as error:
            parts = ", ".join(n for n, _ in self.named_children())
            raise ValueError(f"cannot freeze '{name}': {error}; parts are {parts}") from error

    def train(self, mode: bool = True) -> PromptableSegmentor:
        """Training mode for what learns; frozen modules stay in evaluation mode."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    @property
    def device(self) -> torch.device:
        """Where the model lies, and where inputs are moved to."""
        return self.pixel_mean.device

    def forward(
        self, batched_inputs: list[dict[str, Any]]
    ) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Losses while training, predictions otherwise.

        Args:
            batched_inputs: records with ``image`` (3, h, w) uint8 RGB and ``prompts``; to train
                also ``instances`` (ground truth) and ``targets``, and what ``Naming.name`` reads
                where all that is in the image is annotated with its classes; to predict optionally
                ``height`` and ``width`` of the frame in which results are wanted, and
                ``predict_masks``, False for no ``pred_masks`` and no ``mask_logits``.

            Without ``prompts``, but with a ``vocabulary``: what ``Naming.segment`` reads.

        Returns:
            Training: name -> weighted scalar. For images without prompts what ``Naming.segment``
            gives. Else one ``{"instances": Instances}`` an image with
            one entry a prompt, its K masks from level 1 on: ``pred_masks`` (N, K, height, width)
            bool, ``scores`` (N, K), ``pred_boxes`` (N, K, 4) XYXY, ``mask_logits`` (N, K, h, w)
            over the padded input, and the fields of the region heads; beside it ``padded_size``
            (H, W) of that input.

        Raises:
            ValueError: if a record has no prompts, nor a vocabulary where that would do.
        """
        if not self.training and self.naming and not any("prompts" in x for x in batched_inputs):
            return self._segment(batched_inputs)
        for i, record in enumerate(batched_inputs):
            if "prompts" not in record:
                raise ValueError(
                    f"record {i} ({record.get('file_name', 'no name')}) has no prompts"
                )
        images = self.preprocess(batched_inputs)
        prompts = Prompts.collate([x["prompts"] for x in batched_inputs]).to(self.device)
        features = self._features(images, batched_inputs)
        output = self.decode(features, prompts, self._reads_masks(batched_inputs))
        if self.training:
            return self._losses(features, prompts, output, batched_inputs)
        answers = output.select_masks(output.level_order)
        more: dict[str, Any] = {}
        for head in self.region_heads.values():
            more.update(head.inference(output))
        return [
            {
                "instances": self._instances(answers, more, i, image_size, record),
                "padded_size": output.padded_size,
            }
            for i, (image_size, record) in enumerate(
                zip(images.image_sizes, batched_inputs, strict=True)
            )
        ]

    def _segment(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Everything in each image, by the names of a vocabulary."""
        assert self.naming is not None
        for i, record in enumerate(batched_inputs):
            if "vocabulary" not in record:
                raise ValueError(
                    f"record {i} ({record.get('file_name', 'no name')}) has neither prompts nor a "
                    "vocabulary; the metadata of its data set name one: MetadataCatalog.get(NAME)"
                    f".set(vocabulary=...) of {', '.join(self.naming.names)}"
                )
        images = self.preprocess(batched_inputs)
        output = self.answer_image(self._features(images, batched_inputs))
        return [
            self.naming.segment(output, i, image_size, record)
            for i, (image_size, record) in enumerate(
                zip(images.image_sizes, batched_inputs, strict=True)
            )
        ]

    def preprocess(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Normalise each image, then pad with zeros (the mean colour) to one size."""
        images = [
            (x["image"].to(self.device, non_blocking=True) - self.pixel_mean) / self.pixel_std
            for x in batched_inputs
        ]
        padding: Any = self.backbone.padding_constraints
        return ImageList.from_tensors(images, **padding)

    def encode_image(self, images: ImageList) -> dict[str, Any]:
        """Everything that depends on the images alone; keep it to decode many prompts."""
        maps = self._encode(images.tensor)
        return self.decoder.prepare({**maps, "padded_size": images.padded_size})

    def _encode(self, images: Tensor) -> dict[str, Any]:
        """(B, 3, H, W) -> what backbone and pixel decoder make of them."""
        parts = self._encoder().values()
        learns = images.requires_grad or any(p.requires_grad for x in parts for p in x.parameters())
        # Without a gradient encoders may take ways that need less memory.
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            maps = self.backbone(images)
            return maps if self.pixel_decoder is None else self.pixel_decoder(maps)

    def _features(self, images: ImageList, records: list[dict[str, Any]]) -> dict[str, Any]:
        """``encode_image``, but images that the cache knows are not encoded again."""
        if self.embedding_cache is None:
            return self.encode_image(images)
        pixels = [record["image"] for record in records]
        maps = self.embedding_cache.encode(pixels, images.tensor, self._encode)
        return self.decoder.prepare({**maps, "padded_size": images.padded_size})

    def decode(
        self, features: dict[str, Any], prompts: Prompts, predict_masks: bool = True
    ) -> PromptOutput:
        """Answer the prompts of the images that ``encode_image`` saw."""
        return self._complete(self.decoder(features, prompts, predict_masks))

    def answer_image(self, features: dict[str, Any]) -> PromptOutput:
        """Ask for everything in the images that ``encode_image`` saw; one prompt each."""
        return self._complete(self.decoder.answer_image(features))

    def _complete(self, output: PromptOutput) -> PromptOutput:
        """The decoder's answer with what region heads add to it."""
        for head in self.region_heads.values():
            if hasattr(head, "complete"):
                output = head.complete(output)  # type: ignore[operator]
        return output

    def _reads_masks(self, records: list[dict[str, Any]]) -> bool:
        """Whether anything looks at the masks of these records."""
        if any(head.reads_masks for head in self.region_heads.values()):
            return True
        if self.training:
            return self.criterion is not None
        return any(record.get("predict_masks", True) for record in records)

    def _losses(
        self,
        features: dict[str, Any],
        prompts: Prompts,
        output: PromptOutput,
        batched_inputs: list[dict[str, Any]],
    ) -> dict[str, Tensor]:
        if self.criterion is None and not self.region_heads:
            raise RuntimeError("this model has no criterion; name one in MODEL.CRITERION.NAME")
        instances: list[Instances] = [x["instances"].to(self.device) for x in batched_inputs]
        targets: list[PromptTargets] = [x["targets"].to(self.device) for x in batched_inputs]
        for record in batched_inputs:
            if "text_encoder" in record and "TextClassHead" in self.region_heads:
                head = self.region_heads["TextClassHead"]
                head.check_encoder(record["text_encoder"], record["file_name"])
        if self.naming is not None:
            for own, record in zip(instances, batched_inputs, strict=True):
                if "vocabulary" in record:
                    self.naming.name(own, record)
        losses: dict[str, Tensor] = {}
        for head in self.region_heads.values():
            losses.update(head.losses(output, instances, targets))
        if self.criterion is None:
            return losses
        rounds = [self.criterion(output, instances, targets)]
        for click in clicks_of_rounds(self.prompt_rounds):
            prompts = correct(output, prompts, instances, targets, click)
            output = self.decode(features, prompts)
            rounds.append(self.criterion(output, instances, targets))
        means = {k: torch.stack([r[k] for r in rounds]).mean() for k in rounds[0]}
        if self.naming is not None and self.decoder.num_queries:
            everything = self.answer_image(features)
            vocabularies = [x.get("vocabulary") for x in batched_inputs]
            losses.update(
                self.naming.image_losses(everything, self.criterion, instances, vocabularies)
            )
        return {**means, **losses}

    def _instances(
        self,
        answers: PromptOutput,
        more: dict[str, Any],
        index: int,
        image_size: tuple[int, int],
        record: dict[str, Any],
    ) -> Instances:
        size = (record.get("height", image_size[0]), record.get("width", image_size[1]))
        valid = answers.valid[index]
        frame = answers.padded_size
        result = Instances(size)
        if record.get("predict_masks", True):
            mask_logits = answers.mask_logits[index][valid]
            result.pred_masks = upsample_masks_binary(mask_logits, frame, image_size, size)
            result.mask_logits = mask_logits
        result.scores = answers.scores[index][valid]
        if answers.boxes is not None:
            scale = (size[1] / image_size[1] * frame[1], size[0] / image_size[0] * frame[0]) * 2
            boxes = box_cxcywh_to_xyxy(answers.boxes[index][valid])
            result.pred_boxes = boxes * boxes.new_tensor(scale)
        for name, values in more.items():
            own = values[index]
            kept = own[valid] if isinstance(own, Tensor) else list(compress(own, valid.tolist()))
            result.set(name, kept)
        return result
