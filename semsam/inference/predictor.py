"""Interactive prediction on one image: a click or a box in, masks in the photo's own frame out."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from semsam import model_zoo
from semsam.modeling.postprocessing import upsample_masks, upsample_masks_binary
from semsam.modeling.text.classifier import Classifier
from semsam.structures import ImageList, PhotoFormat, PromptOutput, Prompts
from semsam.structures.photo_format import check_image

from .amg_utils import process_multi_mask
from .class_names import Classes, ClassNames


class ClickableModel(Protocol):
    """What a model must offer to be used here; ``PromptableSegmentor`` does."""

    @property
    def device(self) -> torch.device:
        """Where the model lies."""

    @property
    def photo_format(self) -> PhotoFormat:
        """How it expects photos and clicks."""

    def eval(self) -> Any:
        """Leave training mode."""

    def preprocess(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Records with ``image`` (3, h, w) uint8 RGB -> normalised and padded."""

    def encode_image(self, images: ImageList) -> dict[str, Any]:
        """What depends on the image alone."""

    def decode(self, features: dict[str, Any], prompts: Prompts) -> PromptOutput:
        """Answer prompts in pixels of the unpadded input."""


class SemSamPredictor:
    """Encodes an image once, then answers clicks and boxes on it.

    ::

        predictor = SemSamPredictor.from_pretrained("semantic-sam-swin-t")
        predictor.set_image(image)
        masks, scores, _ = predictor.predict(point_coords=[[420, 300]])

    Args:
        model: as ``model_zoo.get`` gives it; it is put into evaluation mode.
        min_size: the shorter side of an image is resized to this before it enters the model; None
            for the model's own format.
        dtype: what products are computed in: ``torch.bfloat16`` takes less time, for masks that
            differ from those of float32 by a few pixels.

    Raises:
        ValueError: if the size is not positive.
    """

    process_multi_mask = staticmethod(process_multi_mask)

    def __init__(
        self,
        model: ClickableModel,
        min_size: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        model.eval()
        self.model = model
        self.dtype = dtype
        self.photo_format = model.photo_format
        if min_size is not None:
            self.photo_format = replace(self.photo_format, min_size=min_size, max_size=None)
        self._features: dict[str, Any] | None = None
        self._class_names: tuple[tuple[str, ...] | Classifier, ClassNames] | None = None
        self._image_size = self._input_size = (0, 0)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str,
        device: str = "auto",
        weights: str | None = None,
        **kwargs: Any,
    ) -> SemSamPredictor:
        """A predictor with trained weights.

        Args:
            name_or_path: a name of the model zoo, a yaml file (give ``weights`` too), or the output
                folder of a training run.
            device: ``"cpu"``, ``"cuda"``, ``"auto"`` for a GPU if there is one.
            weights: file or url to load instead of the model's own.
            **kwargs: further arguments of the class.

        Raises:
            ValueError: if the name is unknown or no weights are known for it.
        """
        model = model_zoo.get(name_or_path, device=device, weights=weights)
        return cls(cast(ClickableModel, model), **kwargs)

    def set_image(self, image: np.ndarray) -> None:
        """Encode an image; later calls of ``predict`` refer to it.

        Args:
            image: (H, W, 3) uint8 RGB.

        Raises:
            ValueError: if shape or dtype are others.
        """
        check_image(image)
        self.reset_image()
        resized = self.photo_format.resize(image)
        with self.inference():
            record = {"image": torch.from_numpy(resized).permute(2, 0, 1)}
            features = self.model.encode_image(self.model.preprocess([record]))
        self._image_size = (image.shape[0], image.shape[1])
        self._input_size = (resized.shape[0], resized.shape[1])
        self._features = features

    def reset_image(self) -> None:
        """Forget the image and free its features."""
        self._features = None

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the image in its own pixels.

        Raises:
            RuntimeError: if no image is set.
        """
        self._check_state()
        return self._image_size

    @property
    def input_size(self) -> tuple[int, int]:
        """(h, w) of the image as the model sees it, before padding.

        Raises:
            RuntimeError: if no image is set.
        """
        self._check_state()
        return self._input_size

    def predict(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        mask_input: ArrayLike | None = None,
        classes: Classes | ClassNames | None = None,
    ) -> tuple[Any, ...]:
        """Masks for one prompt, and their names where classes are given.

        Args:
            point_coords: (P, 2), or (2,) for one click: x, y in pixels of the image.
            point_labels: (P,) 1 foreground, 0 background; all foreground if None.
            box: (4,) x0, y0, x1, y1 in pixels of the image.
            multimask_output: all K masks; else the one that the decoder keeps for prompts with one
                meaning, or the one with the best score.
            return_logits: real-valued masks instead of bool.
            mask_input: (h, w), one of an earlier call's ``low_res``, to be refined (SAM).
            classes: names, a classifier, its file, the name of a vocabulary of ``MODEL.NAMING`` or
                ``ClassNames``, among which each mask is named; for models with a ``TextClassHead``.

        Returns:
            masks: (K, H, W) bool in the image's frame, from level 1 (whole) to K (part), or (1, H,
                W); float32 logits if asked for.
            scores: (K,) float32, the model's estimate of each mask's IoU.
            low_res: (K, h, w) float32 logits at the decoder's stride, over the padded input.
            names: only with ``classes``: K of ``NamedScore``, the best class of each mask and its
                probability among the classes.

        Raises:
            RuntimeError: if no image is set.
            ValueError: if the prompt is missing, misshapen, outside the image, or of a kind that
                the decoder does not know (Mask-DINO: several or background points, a point and a
                box, a mask).
        """
        if point_coords is not None:
            point_coords = np.asarray(point_coords, dtype=np.float32)[None]
            if point_coords.ndim == 2:
                point_coords = point_coords[:, None]
        masks, scores, low_res, *names = self.predict_batch(
            point_coords,
            None if point_labels is None else np.asarray(point_labels).reshape(1, -1),
            None if box is None else np.asarray(box, dtype=np.float32)[None],
            multimask_output,
            return_logits,
            None if mask_input is None else np.asarray(mask_input, dtype=np.float32)[None],
            classes,
        )
        arrays = (x[0].cpu().numpy() for x in (masks, scores, low_res))
        return (*arrays, *(of_prompts[0] for of_prompts in names))

    def predict_batch(
        self,
        point_coords: ArrayLike | Tensor | None = None,
        point_labels: ArrayLike | Tensor | None = None,
        boxes: ArrayLike | Tensor | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        mask_input: ArrayLike | Tensor | None = None,
        classes: Classes | ClassNames | None = None,
    ) -> tuple[Any, ...]:
        """Masks for N prompts at once; a prompt's result does not depend on the others.

        Args:
            point_coords: (N, 2), or (N, P, 2) for several points a prompt; pixels of the image.
            point_labels: (N,) or (N, P); all foreground if None.
            boxes: (N, 4) XYXY pixels of the image.
            multimask_output: as in ``predict``.
            return_logits: as in ``predict``.
            mask_input: (N, h, w), as in ``predict``.
            classes: as in ``predict``.

        Returns:
            ``masks`` (N, K, H, W), ``scores`` (N, K), ``low_res`` (N, K, h, w) on the model's
            device, and with ``classes`` N lists of K names; as in ``predict``.

        Raises:
            RuntimeError: if no image is set.
            ValueError: as in ``predict``.
        """
        name = None if classes is None else self.class_names(classes)
        output = self.decode(self.prompts(point_coords, point_labels, boxes, mask_input))
        single = None if multimask_output else output.single
        output = output.select_masks(output.level_order if single is None else [single])
        scores, low_res = output.scores[0], output.mask_logits[0]
        named = () if name is None else tuple(x[0] for x in name(output.text))
        if not multimask_output:
            best = scores.argmax(dim=1, keepdim=True)
            scores = scores.gather(1, best)
            low_res = low_res[torch.arange(len(low_res), device=low_res.device)[:, None], best]
            named = tuple(x.gather(1, best) for x in named)
        upsample = upsample_masks if return_logits else upsample_masks_binary
        masks = upsample(low_res, output.padded_size, self._input_size, self._image_size)
        if name is None:
            return masks, scores, low_res
        return masks, scores, low_res, [name.named(*row) for row in zip(*named, strict=True)]

    def segment(
        self, classes: Classes | ClassNames, things: Collection[str] | None = None
    ) -> dict[str, Any]:
        """Segment the whole image by a list of classes, without prompts.

        For models with object queries (``MODEL.DECODER.NUM_QUERIES``) and ``MODEL.NAMING``.

        Args:
            classes: as in ``predict``.
            things: those classes of which there may be several, each a segment of its own; the
                rest is stuff. All if None.

        Returns:
            What ``Naming.segment`` gives in the image's frame: ``sem_seg`` (H, W), ``instances``
            and ``panoptic_seg``; and ``names``, the C classes.

        Raises:
            RuntimeError: if no image is set.
            ValueError: if the model does not segment images without prompts, the classes are of
                parts, ``things`` has a name that is no class, or as in ``predict``.
        """
        features = self._check_state()
        model: Any = self.model
        naming = getattr(model, "naming", None)
        if naming is None or not getattr(model.decoder, "num_queries", 0):
            raise ValueError(
                "this model answers prompts only: to segment a whole image it needs object queries "
                "(MODEL.DECODER.NUM_QUERIES) and MODEL.NAMING.VOCABULARIES"
            )
        named = self.class_names(classes)
        if named.parts:
            raise ValueError("a whole image is segmented by names of things, not of their parts")
        names = named.names
        countable = set(names if things is None else things)
        if unknown := sorted(countable - set(names)):
            raise ValueError(f"things that are none of the classes: {', '.join(unknown)}")
        height, width = self._image_size
        record = {
            "vocabulary": named.vectors,
            "is_thing": [name in countable for name in names],
            "height": height,
            "width": width,
        }
        with self.inference():
            output = model.answer_image(features)
            return {**naming.segment(output, 0, self._input_size, record), "names": names}

    def class_names(self, classes: Classes | ClassNames) -> ClassNames:
        """The classes, ready to name masks; the list or classifier given last is so already.

        Raises:
            ValueError: as ``ClassNames``, or if they were made for another model.
            FileNotFoundError: as ``ClassNames``.
        """
        if isinstance(classes, ClassNames):
            if classes.model is not self.model:
                raise ValueError("these ClassNames were made for another model: make new ones")
            return classes
        if isinstance(classes, str | Path):
            return ClassNames(self.model, classes)
        key = classes if isinstance(classes, Classifier) else tuple(classes)
        if self._class_names is None or self._class_names[0] != key:
            self._class_names = (key, ClassNames(self.model, key))
        return self._class_names[1]

    def decode(self, prompts: Prompts) -> PromptOutput:
        """The decoder's own answer: masks in its order and at its stride.

        Args:
            prompts: on one image, in pixels of the model's input (``input_size``).

        Raises:
            RuntimeError: if no image is set.
        """
        features = self._check_state()
        with self.inference():
            output = self.model.decode(features, prompts.to(self.model.device))
            return replace(
                output, mask_logits=output.mask_logits.float(), scores=output.scores.float()
            )

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Compute without gradients, in ``dtype``."""
        reduced = self.dtype != torch.float32
        device = self.model.device.type
        with torch.inference_mode(), torch.autocast(device, self.dtype, enabled=reduced):
            yield

    def _check_state(self) -> dict[str, Any]:
        if self._features is None:
            raise RuntimeError("no image is set: call set_image(image) before predicting")
        return self._features

    def prompts(
        self,
        points: ArrayLike | Tensor | None = None,
        labels: ArrayLike | Tensor | None = None,
        boxes: ArrayLike | Tensor | None = None,
        masks: ArrayLike | Tensor | None = None,
    ) -> Prompts:
        """Prompts in the model's frame from N prompts in the image's.

        Args:
            points: (N, 2) or (N, P, 2) x, y in pixels of the image.
            labels: (N,) or (N, P); all foreground if None.
            boxes: (N, 4) XYXY pixels of the image.
            masks: (N, h, w) logits as ``predict_batch`` gives them.

        Raises:
            RuntimeError: if no image is set.
            ValueError: if there is neither a point nor a box, or a shape or place is wrong.
        """
        if points is None and boxes is None:
            raise ValueError("a prompt is points, a box, or both: give at least one of them")
        made = None
        if points is not None:
            extent = self.photo_format.click_extent(self.input_size)
            coords = self._to_input(points, 2, "points are x, y")
            made = Prompts.from_points(coords, labels, extent)  # type: ignore[arg-type]
        if boxes is not None:
            corners = self._to_input(boxes, 4, "boxes are x0, y0, x1, y1")
            made = Prompts.from_boxes(corners) if made is None else made.with_boxes(corners)
        assert made is not None
        if masks is not None:
            made = made.with_masks(torch.as_tensor(masks, dtype=torch.float32)[None])
        return made

    def _to_input(self, values: ArrayLike | Tensor, size: int, what: str) -> Tensor:
        """(..., size) x, y pairs in pixels of the image -> in pixels of the model's input."""
        (height, width), (input_h, input_w) = self.image_size, self.input_size
        coords = torch.as_tensor(values, dtype=torch.float32)
        if coords.shape[-1:] != (size,) or coords.dim() < 2:
            raise ValueError(f"{what}; got shape {tuple(coords.shape)}")
        if not bool(coords.isfinite().all()):
            raise ValueError(f"prompt {coords.tolist()} has a coordinate that is no finite number")
        limit = coords.new_tensor([width, height] * (size // 2))
        if not bool(((coords >= 0) & (coords <= limit)).all()):
            raise ValueError(
                f"prompt {coords.tolist()} lies outside the image of {width} x {height} pixels"
            )
        return coords * (coords.new_tensor([input_w, input_h] * (size // 2)) / limit)
