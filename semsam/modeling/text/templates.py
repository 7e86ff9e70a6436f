"""Sentences that a class name is put into before it is encoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

#: CLIP's 80 sentences for ImageNet (Radford et al., "Learning Transferable Visual Models From
#: Natural Language Supervision", 2021).
IMAGENET = (
    "a bad photo of a {}.",
    "a photo of many {}.",
    "a sculpture of a {}.",
    "a photo of the hard to see {}.",
    "a low resolution photo of the {}.",
    "a rendering of a {}.",
    "graffiti of a {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a tattoo of a {}.",
    "the embroidered {}.",
    "a photo of a hard to see {}.",
    "a bright photo of a {}.",
    "a photo of a clean {}.",
    "a photo of a dirty {}.",
    "a dark photo of the {}.",
    "a drawing of a {}.",
    "a photo of my {}.",
    "the plastic {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a painting of the {}.",
    "a painting of a {}.",
    "a pixelated photo of the {}.",
    "a sculpture of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a plastic {}.",
    "a photo of the dirty {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a rendering of the {}.",
    "a {} in a video game.",
    "a photo of one {}.",
    "a doodle of a {}.",
    "a close-up photo of the {}.",
    "a photo of a {}.",
    "the origami {}.",
    "the {} in a video game.",
    "a sketch of a {}.",
    "a doodle of the {}.",
    "a origami {}.",
    "a low resolution photo of a {}.",
    "the toy {}.",
    "a rendition of the {}.",
    "a photo of the clean {}.",
    "a photo of a large {}.",
    "a rendition of a {}.",
    "a photo of a nice {}.",
    "a photo of a weird {}.",
    "a blurry photo of a {}.",
    "a cartoon {}.",
    "art of a {}.",
    "a sketch of the {}.",
    "a embroidered {}.",
    "a pixelated photo of a {}.",
    "itap of the {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a plushie {}.",
    "a photo of the nice {}.",
    "a photo of the small {}.",
    "a photo of the weird {}.",
    "the cartoon {}.",
    "art of the {}.",
    "a drawing of the {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "the plushie {}.",
    "a dark photo of a {}.",
    "itap of a {}.",
    "graffiti of the {}.",
    "a toy {}.",
    "itap of my {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "a tattoo of the {}.",
)

#: Lists by the number of their sentences: 1, 2 and 5 are those of Umar's open-vocabulary SAM, 80
#: CLIP's, 81 Semantic-SAM's.
TEMPLATES = {
    "1": ("{}",),
    "2": ("a {}", "{}"),
    "5": ("an image of a {}", "a {}", "{}", "A toy {}", "several {}"),
    "80": IMAGENET,
    "81": ("{}.", *IMAGENET),
}


def read_templates(entries: Sequence[str]) -> tuple[str, ...]:
    """Sentences of lists and single ones.

    Args:
        entries: keys of ``TEMPLATES``, or sentences.

    Raises:
        ValueError: as ``check_templates``.
    """
    found = [each for entry in entries for each in TEMPLATES.get(entry, (entry,))]
    check_templates(found, "templates")
    return tuple(found)


def check_templates(templates: Sequence[str], key: str) -> None:
    """Find fault with sentences that cannot take a name.

    Args:
        templates: one or more sentences.
        key: what names them, for messages.

    Raises:
        ValueError: if there is none, or one has not one pair of braces.
    """
    if not templates or not all(template.count("{}") == 1 for template in templates):
        raise ValueError(f"{key} need one {{}} each, got {list(templates)}")


def fill_templates(names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Every name in every sentence: the sentences of the first name come first."""
    return [template.replace("{}", name) for name in names for template in templates]


def clean_name(name: str) -> str:
    """A dataset's class name as words.

    Without COCO's ``-other``, ``-merged`` and ``-stuff``, as Semantic-SAM puts it into sentences;
    with blanks for LVIS' underscores and for the colon between a thing and its part.
    """
    for mark in ("-other", "-merged", "-stuff"):
        name = name.replace(mark, "")
    return name.replace("_", " ").replace(":", " ")


def clean_names(names: Sequence[str]) -> list[str]:
    """A dataset's class names as words; those that would become alike stay as they are."""
    words = [clean_name(name) for name in names]
    times = Counter(words)
    return [word if times[word] == 1 else name for word, name in zip(words, names, strict=True)]
