r"""What a language model makes of COCO's captions, and how much of it is in the photos.

    python benchmarks/candidates.py --config-file configs/ovsam/data_engine_small.yaml \
        --coco datasets/coco --photos 40

prints a table of the candidates of the first photos' first captions, by template, and compares the
names with the things that COCO says are in the photos. No detector is needed.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from semsam.annotation.caption_candidates import Candidate, CandidateFinder
from semsam.annotation.noun_phrases import NounPhrases
from semsam.annotation.text_writer import TextWriter
from semsam.config import load_cfg
from semsam.modeling.build import resolve_device


def main() -> None:
    """Print the table and the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--coco", required=True, type=Path, help="folder with annotations/")
    parser.add_argument("--photos", type=int, default=40)
    parser.add_argument("--rows", type=int, default=6, help="photos in the table")
    parser.add_argument("opts", nargs="*", help="overrides, KEY VALUE")
    args = parser.parse_args()
    captions, things, known = read_coco(args.coco / "annotations", args.photos)
    finder = make_finder(args.config_file, args.opts)
    found = finder([[caption] for caption in captions])
    sources = [None, *range(len(finder.templates))]
    for caption, candidates in list(zip(captions, found, strict=True))[: args.rows]:
        columns = [", ".join(c.name for c in candidates if (0, t) in c.sources) for t in sources]
        print(f"| {' | '.join([caption, *columns])} |")
    print_counts(found, things, known)


def make_finder(config_file: str, opts: list[str]) -> CandidateFinder:
    """The language model and the templates of a configuration."""
    cfg = load_cfg(config_file, opts)
    node = cfg.ANNOTATION.DATA_ENGINE
    writer = TextWriter(
        node.LANGUAGE_MODEL,
        resolve_device(cfg.MODEL.DEVICE),
        gguf_file=node.GGUF_FILE,
        chat=node.CHAT,
        max_new_tokens=node.MAX_NEW_TOKENS,
        num_beams=node.NUM_BEAMS,
        repetition_penalty=node.REPETITION_PENALTY,
        batch_size=node.LANGUAGE_BATCH_SIZE,
    )
    return CandidateFinder(writer, node.TEMPLATES, NounPhrases(node.SPACY_MODEL))


def read_coco(folder: Path, number: int) -> tuple[list[str], list[set[str]], set[str]]:
    """Of the photos with the lowest ids the first caption and the things; all things' names."""
    first: dict[int, str] = {}
    for row in json.loads((folder / "captions_val2017.json").read_bytes())["annotations"]:
        first.setdefault(row["image_id"], row["caption"].strip())
    content = json.loads((folder / "instances_val2017.json").read_bytes())
    names = {row["id"]: row["name"] for row in content["categories"]}
    things: dict[int, set[str]] = {image: set() for image in sorted(first)[:number]}
    for row in content["annotations"]:
        things.get(row["image_id"], set()).add(names[row["category_id"]])
    return [first[image] for image in things], list(things.values()), set(names.values())


def print_counts(found: list[list[Candidate]], things: list[set[str]], known: set[str]) -> None:
    """How many names there are, new ones, and ones of things that are in the photos."""
    own = [{c.name for c in its if (0, None) in c.sources} for its in found]
    every = [{c.name for c in its} for its in found]
    new = [all_names - its for all_names, its in zip(every, own, strict=True)]
    print(f"names a caption: {sum(map(len, every)) / len(every):.1f}")
    print(f"its own: {sum(map(len, own)) / len(own):.1f}")
    print(f"things in the photos: {sum(map(len, things))}")
    for what, names in (("the captions' own words", own), ("all candidates", every)):
        named = sum(len(a & b) for a, b in zip(names, things, strict=True))
        print(f"of which {what} name: {named}")
    guesses = sum(len(names & known) for names in new)
    right = sum(len(a & b) for a, b in zip(new, things, strict=True))
    print(f"new names of COCO's things: {guesses}, in their photo: {right}")
    print("most frequent new names:", Counter(n for names in new for n in names).most_common(10))


if __name__ == "__main__":
    main()
