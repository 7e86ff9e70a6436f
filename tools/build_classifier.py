r"""A classifier file from class names: what a text encoder makes of them in sentences.

    python tools/build_classifier.py names.txt names.safetensors \
        --encoder openai/clip-vit-large-patch14 --templates 80
    python tools/build_classifier.py lvis_v1_val.json lvis.safetensors --clean-names \
        --encoder open_clip:ViT-L-14:datacomp_xl_s13b_b90k --templates 5 --keep-sentences

NAMES is a .txt file with a name a line, a .json file (a list, a dict from id to name, or COCO's
categories), a data set (paco_train, objects365_val, parts://FILE.json), or a table: ade20k, camvid,
cityscapes, coco, coco_panoptic. Names of parts are whole:part.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from semsam.data.vocabulary import read_names
from semsam.modeling.build import resolve_device
from semsam.modeling.text.classifier import BACKGROUNDS, build_classifier, check_names
from semsam.modeling.text.clip import ClipTextEncoder
from semsam.modeling.text.encoder import TextEncoder
from semsam.modeling.text.sentence_encoder import SentenceEncoder
from semsam.modeling.text.templates import TEMPLATES, clean_names, read_templates

#: Encoders that are used as they are.
KINDS = {"ClipTextEncoder": ClipTextEncoder, "SentenceEncoder": SentenceEncoder}


class Counted:
    """A text encoder that shows how many of the sentences it has read."""

    def __init__(self, encoder: TextEncoder, total: int) -> None:
        self._encoder = encoder
        self._bar = tqdm(total=total, unit="sentence", disable=None)
        self.dim, self.name = encoder.dim, encoder.name

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """As ``TextEncoder``."""
        self._bar.update(len(texts))
        return self._encoder(texts)


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", metavar="NAMES", help="a file or a table, see above")
    parser.add_argument("output", type=Path, metavar="OUT.safetensors", help="must not exist yet")
    parser.add_argument("--encoder", required=True, help="as MODEL.TEXT.MODEL takes it")
    parser.add_argument("--kind", default="ClipTextEncoder", choices=KINDS, help="MODEL.TEXT.NAME")
    parser.add_argument(
        "--templates",
        nargs="+",
        default=["80"],
        metavar="SENTENCE",
        help=f"sentences with {{}} for the name, or lists of them: {', '.join(TEMPLATES)}",
    )
    parser.add_argument(
        "--keep-sentences", action="store_true", help="each instead of their mean: larger"
    )
    parser.add_argument(
        "--background",
        choices=BACKGROUNDS,
        default="none",
        help="rows for masks of no class: the word 'background', or 'not a NAME' for each name",
    )
    parser.add_argument(
        "--clean-names",
        action="store_true",
        help="'sky' for COCO's 'sky-other-merged', 'fire hydrant' for 'fire_hydrant'",
    )
    parser.add_argument("--batch-size", type=int, default=256, help="sentences at once")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    if args.output.suffix != ".safetensors":
        parser.error(f"{args.output}: a classifier's file is called NAME.safetensors")
    if args.output.exists():
        parser.error(f"{args.output} is there already: delete it, or name another file")
    try:
        names, templates = read_names(args.names), read_templates(args.templates)
        names = clean_names(names) if args.clean_names else names
        check_names(names)
        encoder = KINDS[args.kind](args.encoder, resolve_device(args.device), "--encoder")
        built = build_classifier(
            names,
            Counted(encoder, len(names) * len(templates)),
            templates,
            average=not args.keep_sentences,
            background=args.background,
            batch_size=args.batch_size,
        )
    except (FileNotFoundError, ValueError, RuntimeError) as error:
        parser.error(str(error))
    built.save(args.output)
    rows, sentences, dim = built.weights.shape
    print(f"{args.output}: {rows} rows of {sentences} x {dim}, by {built.encoder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
