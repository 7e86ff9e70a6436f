"""Names for masks from vocabularies that are known in training: of prompts, and of whole images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semsam.config import CfgNode, configurable
from semsam.structures import Instances, PromptOutput, PromptTargets, masks_to_boxes

from .criterion.matcher import Pairs
from .criterion.pair_losses import mean_over_ranks, named_layers
from .postprocessing import upsample_masks
from .segmentation_tasks import panoptic_segments, semantic_classes, top_instances
from .text.classifier import Classifier, check_encoder, is_part
from .text.encoder import is_same_encoder, model_label


class Naming(nn.Module):
    """Classifies masks by vocabularies, one a data set, and learns from their true classes.

    The masks' embeddings are ``TextClassHead``'s. Those of prompts learn from the vectors of their
    classes, as any criterion teaches names: of parts (see ``is_part``) in a space of their own. An
    image that is asked for everything
    (``MaskDINODecoder.answer_image``) has masks that are nothing, for which a vector is learned,
    and each of its masks is one of the vocabulary's classes or nothing.

    Args:
        vocabularies: by name; averaged over their sentences.
        class_weight: of ``loss_class`` and, in matching, of a class's probability.
        no_object_weight: of masks that are nothing, in ``loss_class``.
        object_mask_threshold: see ``panoptic_segments``.
        overlap_threshold: see ``panoptic_segments``.
        top_k: instances of an image, at most.

    Raises:
        ValueError: if vocabularies have different numbers of channels, or were built with
            different text encoders; names both.
    """

    @configurable
    def __init__(
        self,
        vocabularies: dict[str, Classifier],
        class_weight: float = 4.0,
        no_object_weight: float = 0.1,
        object_mask_threshold: float = 0.25,
        overlap_threshold: float = 0.8,
        top_k: int = 100,
    ) -> None:
        super().__init__()
        self.names = {key: classifier.names for key, classifier in vocabularies.items()}
        self.encoders = {key: classifier.encoder for key, classifier in vocabularies.items()}
        channels = {classifier.weights.shape[-1] for classifier in vocabularies.values()}
        if len(channels) != 1:
            raise ValueError(f"vocabularies have vectors of several sizes: {sorted(channels)}")
        (first, encoder), *others = self.encoders.items()
        for key, other in others:
            if not is_same_encoder(encoder, other):
                raise ValueError(
                    f"vocabulary '{first}' was built with the text encoder '{encoder}', '{key}' "
                    f"with '{other}': build both with the same"
                )
        for key, classifier in vocabularies.items():
            vectors = F.normalize(classifier.weights.mean(dim=1), dim=-1)
            self.register_buffer(f"vectors_{key}", vectors, persistent=False)
            of_parts = torch.tensor([is_part(name) for name in classifier.names])
            self.register_buffer(f"of_parts_{key}", of_parts, persistent=False)
        self.no_object = nn.Parameter(F.normalize(torch.randn(channels.pop()), dim=-1))
        #: How many names of each vocabulary are of parts.
        self.num_parts = {key: sum(map(is_part, names)) for key, names in self.names.items()}
        self.class_weight = class_weight
        self.no_object_weight = no_object_weight
        self.object_mask_threshold = object_mask_threshold
        self.overlap_threshold = overlap_threshold
        self.top_k = top_k

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read ``MODEL.NAMING``, and the files of its vocabularies.

        Raises:
            ValueError: if an entry is not NAME:FILE or a name stands twice, a file is no
                classifier, it was built with another text encoder than ``MODEL.TEXT.MODEL`` or has
                other channels than ``MODEL.TEXT_CLASS.EMBED_DIM``, or the model lacks the parts
                that naming builds on.
            FileNotFoundError: if there is no such file.
        """
        node, vocabularies = cfg.MODEL.NAMING, {}
        if "TextClassHead" not in cfg.MODEL.REGION_HEADS.NAMES:
            raise ValueError(
                "MODEL.NAMING needs embeddings: add TextClassHead to MODEL.REGION_HEADS.NAMES"
            )
        if cfg.MODEL.CRITERION.NAME not in ("", "ManyToManyCriterion"):
            raise ValueError(
                "MODEL.NAMING matches masks as ManyToManyCriterion does; MODEL.CRITERION.NAME is "
                f"'{cfg.MODEL.CRITERION.NAME}'"
            )
        for entry in node.VOCABULARIES:
            name, _, path = entry.partition(":")
            if not name.isidentifier() or not path:
                raise ValueError(f"MODEL.NAMING.VOCABULARIES are NAME:FILE, got '{entry}'")
            if name in vocabularies:
                raise ValueError(f"MODEL.NAMING.VOCABULARIES has '{name}' twice")
            vocabularies[name] = _load(Path(path), cfg)
        return {
            "vocabularies": vocabularies,
            "class_weight": node.CLASS_WEIGHT,
            "no_object_weight": node.NO_OBJECT_WEIGHT,
            "object_mask_threshold": node.OBJECT_MASK_THRESHOLD,
            "overlap_threshold": node.OVERLAP_THRESHOLD,
            "top_k": node.TOP_K,
        }

    def logits(self, output: PromptOutput, image: int, vocabulary: str | Tensor) -> Tensor:
        """How well names fit the masks of an image.

        Args:
            output: with ``text``.
            image: position in the batch.
            vocabulary: its name, or (C, D) unit vectors of names that training need not have known.

        Returns:
            (N, K, C + 1) float32; the last is for "nothing".

        Raises:
            ValueError: if there is no such vocabulary.
        """
        assert output.text is not None, "the model has no TextClassHead"
        text = output.text
        names = self._vectors(vocabulary) if isinstance(vocabulary, str) else vocabulary
        vectors = torch.cat([names, F.normalize(self.no_object, dim=-1)[None]])
        with torch.autocast(vectors.device.type, enabled=False):
            return text.logit_scale.float() * text.embeddings[image].float() @ vectors.T

    def name(self, instances: Instances, record: Mapping[str, Any]) -> None:
        """Add the vectors of their classes to an image's instances, for the criterion.

        Args:
            instances: with ``gt_classes``; gain ``gt_text_embeddings`` and, where the vocabulary
                has names of parts, ``gt_part_embeddings``: zeros for classes of the other kind.
            record: of the image: ``vocabulary``, its name; if known ``is_thing`` and ``is_part``, a
                bool a class of its data set.

        Raises:
            ValueError: if there is no such vocabulary, or it does not fit the data set's classes.
        """
        vocabulary = record["vocabulary"]
        vectors = self._vectors(vocabulary)
        known = len(vectors), self.num_parts[vocabulary]
        number = len(record.get("is_thing", vectors))
        parts = sum(record["is_part"]) if "is_part" in record else known[1]
        if (number, parts) != known:
            raise ValueError(
                f"vocabulary '{vocabulary}' has {known[0]} names, {known[1]} of parts, the data "
                f"set of '{record.get('file_name', 'an image')}' {number} classes, {parts} of "
                "parts: tools/build_classifier.py takes names from a data set"
            )
        classes = instances.gt_classes
        if len(classes) and (largest := int(classes.max())) >= len(vectors):
            raise ValueError(
                f"the data have a class {largest}, their vocabulary '{vocabulary}' has "
                f"{len(vectors)} names: 0 to {len(vectors) - 1}"
            )
        of_parts = self.get_buffer(f"of_parts_{vocabulary}")[classes, None]
        vectors = vectors[classes]
        instances.gt_text_embeddings = vectors * ~of_parts
        if parts:
            instances.gt_part_embeddings = vectors * of_parts

    def image_losses(
        self,
        output: PromptOutput,
        criterion: nn.Module,
        instances: Sequence[Instances],
        vocabularies: Sequence[str | None],
    ) -> dict[str, Tensor]:
        """Masks and classes of images that were asked for everything.

        An image is a prompt whose targets are all its instances: the criterion matches and
        supervises its Q masks as it does a prompt's K, with the classes in the cost.

        Args:
            output: of ``answer_image``, with ``text``; earlier layers in ``aux``.
            criterion: ``ManyToManyCriterion``.
            instances: ``gt_boxes``, ``gt_classes`` and, if known, ``gt_masks`` of each image.
            vocabularies: name of each image's; None for one that is not wholly annotated. Images
                of parts are as without: not all of their things are annotated.

        Returns:
            The criterion's losses with ``_image``, and ``loss_class_image``.
        """
        targets, costs = [], []
        vocabularies = [
            name if name and not self.num_parts[name] else None for name in vocabularies
        ]
        for i, vocabulary in enumerate(vocabularies):
            number = len(instances[i]) if vocabulary else 0
            levels = torch.arange(number, device=output.scores.device)[None]
            targets.append(PromptTargets(levels.new_zeros(1), levels))
            if vocabulary:
                probabilities = self.logits(output, i, vocabulary).detach().softmax(dim=-1)
                costs.append(-self.class_weight * probabilities[..., instances[i].gt_classes])
            else:
                costs.append(output.scores.new_zeros(*output.scores.shape[1:], 0))
        pairs = criterion.match(output, list(instances), targets, costs)
        # Their names are classes among all others and nothing, not contrasted with each other.
        losses = criterion.supervise(_without_text(output), list(instances), pairs)
        named = [i for i, vocabulary in enumerate(vocabularies) if vocabulary]
        normalizer = mean_over_ranks(len(named), output.scores.device)
        for suffix, layer in named_layers(output):
            total = self._nothing_yet(layer)
            for i in named:
                logits = self.logits(layer, i, vocabularies[i] or "")[0]
                total = total + self._set_loss(logits, instances[i], pairs[i])
            losses["loss_class" + suffix] = self.class_weight * total / normalizer
        return {_of_image(name): loss for name, loss in losses.items()}

    def segment(
        self, output: PromptOutput, image: int, image_size: tuple[int, int], record: dict[str, Any]
    ) -> dict[str, Any]:
        """Semantic, instance and panoptic segmentation of an image that was asked for everything.

        Args:
            output: of ``answer_image``, with ``text``.
            image: position in the batch.
            image_size: (H, W) of the network's input without padding.
            record: ``vocabulary``, as in ``logits``; ``is_thing``, a bool a class, all things if
                absent; ``height`` and ``width`` of the wanted frame, else the input's.

        Returns:
            ``sem_seg`` (height, width) int64 classes; ``instances`` with ``pred_masks`` (N, height,
            width) bool, ``scores``, ``pred_classes``, and ``pred_boxes`` (N, 4) XYXY;
            ``panoptic_seg``: (height, width) int32 ids and a list of segments. They are as in
            detectron2, but for ``sem_seg``, which holds scores of each class there.

        Raises:
            ValueError: if there is no such vocabulary, or it has not one name an ``is_thing``.
        """
        size = (record.get("height", image_size[0]), record.get("width", image_size[1]))
        logits = self.logits(output, image, record["vocabulary"])[0]
        probabilities = logits.softmax(dim=-1)[:, :-1]
        is_thing = torch.ones(probabilities.shape[1], dtype=torch.bool, device=logits.device)
        if "is_thing" in record:
            is_thing = torch.as_tensor(record["is_thing"], device=logits.device)
        if len(is_thing) != probabilities.shape[1]:
            raise ValueError(
                f"the data have {len(is_thing)} classes, the vocabulary that they are segmented by "
                f"has {probabilities.shape[1]}"
            )
        masks = upsample_masks(
            output.mask_logits[image, 0].float(), output.padded_size, image_size, size
        )
        found = top_instances(probabilities * is_thing, masks, self.top_k)
        instances = Instances(size)
        instances.pred_masks = masks[found["queries"]] > 0
        instances.scores, instances.pred_classes = found["scores"], found["classes"]
        instances.pred_boxes = masks_to_boxes(instances.pred_masks)
        return {
            "sem_seg": semantic_classes(probabilities, masks),
            "instances": instances,
            "panoptic_seg": panoptic_segments(
                probabilities, masks, is_thing, self.object_mask_threshold, self.overlap_threshold
            ),
        }

    def classifier(self, vocabulary: str) -> Classifier:
        """A vocabulary, averaged over its sentences.

        Raises:
            ValueError: if there is no such vocabulary.
        """
        vectors = self._vectors(vocabulary)[:, None]
        return Classifier(self.names[vocabulary], vectors, self.encoders[vocabulary])

    def _vectors(self, vocabulary: str) -> Tensor:
        """(C, D) unit-norm."""
        if vocabulary not in self.names:
            known = ", ".join(self.names)
            raise ValueError(f"no vocabulary '{vocabulary}' in MODEL.NAMING; there are: {known}")
        return self.get_buffer(f"vectors_{vocabulary}")

    def _nothing_yet(self, output: PromptOutput) -> Tensor:
        """A zero that is connected to all that learns classes, also where no image has one."""
        assert output.text is not None
        return 0.0 * (output.text.embeddings.sum() + self.no_object.sum())

    def _set_loss(self, logits: Tensor, instances: Instances, pairs: Pairs) -> Tensor:
        """(Q, C + 1) logits of an image's masks, of which those without a partner are nothing."""
        classes = logits.shape[1]
        truth = torch.full((len(logits),), classes - 1, device=logits.device)
        truth[pairs.masks] = instances.gt_classes[pairs.targets]
        weight = logits.new_ones(classes)
        weight[-1] = self.no_object_weight
        return F.cross_entropy(logits, truth, weight)


def _load(path: Path, cfg: CfgNode) -> Classifier:
    """A vocabulary that fits the model; an error names its file."""
    found, dim = Classifier.load(path), cfg.MODEL.TEXT_CLASS.EMBED_DIM
    try:
        if cfg.MODEL.TEXT.MODEL:
            check_encoder(found, model_label(cfg.MODEL.TEXT.MODEL))
        if found.weights.shape[2] != dim:
            raise ValueError(
                f"the vocabulary has {found.weights.shape[2]} channels, MODEL.TEXT_CLASS.EMBED_DIM "
                f"is {dim}"
            )
        parts = [name for name in found.names if is_part(name)]
        if parts and not cfg.MODEL.TEXT_CLASS.PARTS:
            raise ValueError(
                f"it has names of parts ('{parts[0]}'), which need a space of their own: set "
                "MODEL.TEXT_CLASS.PARTS True"
            )
    except ValueError as error:
        raise ValueError(f"'{path}': {error}") from None
    return found


def _without_text(output: PromptOutput) -> PromptOutput:
    return replace(output, text=None, aux=[_without_text(layer) for layer in output.aux])


def _of_image(name: str) -> str:
    """``loss_x`` -> ``loss_x_image``, ``loss_x_3`` -> ``loss_x_image_3``."""
    stem, _, layer = name.rpartition("_")
    return f"{stem}_image_{layer}" if layer.isdigit() else f"{name}_image"
