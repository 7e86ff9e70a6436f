"""Seconds and memory of naming masks: classes x masks, up to 20,000 classes.

    python benchmarks/classifier.py
    python benchmarks/classifier.py --classes 20000 --masks 1000 --sentences 80

``top_classes`` scores a part of the masks at a time; the plain form computes every product at once,
then probabilities and the best classes. Memory is what a call adds at its peak, measured in a
process of its own; both times of a row are of one process.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import torch
from measure import markdown, ratio, seconds, spread
from torch import Tensor
from torch.nn.functional import normalize

from semsam.modeling.text.classifier import Classifier, top_classes

TOP = 5


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, nargs="+", default=[80, 1203, 5000, 20000])
    parser.add_argument("--masks", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--sentences", type=int, default=1, help="a class, not averaged")
    parser.add_argument("--dim", type=int, default=768, help="channels of the text space")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    rows = []
    for classes in args.classes:
        for masks in args.masks:
            case = (masks, classes, args.sentences, args.dim, args.device)
            embeddings, classifier = make(*case)
            ours = seconds(lambda e=embeddings, c=classifier: top_classes(e, c, TOP), args.repeats)
            plain = seconds(lambda e=embeddings, c=classifier: plain_form(e, c), args.repeats)
            del embeddings, classifier
            memory = [f"{in_a_process(form, case):.2f} GiB" for form in (chunked_form, plain_form)]
            row = [f"{classes:,}", f"{masks:,}", spread(ours), spread(plain), ratio(plain, ours)]
            rows.append([*row, *memory])
    print(f"{args.sentences} sentences a class, {args.dim} channels, {args.device}")
    header = ["classes", "masks", "top_classes", "plain", "times faster"]
    print(markdown([*header, "memory", "plain's memory"], rows))


def make(
    masks: int, classes: int, sentences: int, dim: int, device: str
) -> tuple[Tensor, Classifier]:
    """Random embeddings (masks, dim) and a random classifier."""
    generator = torch.Generator(device).manual_seed(0)
    draw = {"generator": generator, "device": device}
    weights = normalize(torch.randn(classes, sentences, dim, **draw), dim=-1)
    names = tuple(f"class {i}" for i in range(classes))
    return normalize(torch.randn(masks, dim, **draw), dim=-1), Classifier(names, weights, "random")


def chunked_form(embeddings: Tensor, classifier: Classifier) -> object:
    """What semsam does."""
    return top_classes(embeddings, classifier, TOP)


def plain_form(embeddings: Tensor, classifier: Classifier) -> object:
    """Every product at once."""
    products = embeddings @ classifier.weights.flatten(0, 1).T
    scores = products.unflatten(1, classifier.weights.shape[:2]).amax(dim=2)
    return (math.e * scores).softmax(dim=1).topk(TOP, dim=1)


def in_a_process(form: Callable[[Tensor, Classifier], object], case: tuple) -> float:
    """GiB that a call adds at its peak."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(added_gib, (form, case))


def added_gib(form: Callable[[Tensor, Classifier], object], case: tuple) -> float:
    """As ``in_a_process``, in this one."""
    embeddings, classifier = make(*case)
    # What torch sets up at its first product is not the call's.
    form(embeddings[:1], classifier)
    if case[-1] != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        form(embeddings, classifier)
        return (torch.cuda.max_memory_allocated() - before) / 2**30
    # Linux forgets the peak; what the input needed while it was made is not the call's.
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_rss_gib()
    form(embeddings, classifier)
    return peak_rss_gib() - before


def peak_rss_gib() -> float:
    """Most memory held since the peak was forgotten."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


if __name__ == "__main__":
    main()
