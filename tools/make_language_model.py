"""A small untrained language model that knows the words of a dataset's captions, and no others.

    python tools/make_language_model.py --dataset sa1b_captions://shards --output language_model

writes a folder as transformers does: a tokenizer of whole words, and a GPT-2 of the asked size with
random weights. It is for models that learn language and vision together from little data
(``MODEL.CAPTION.TRAIN_LANGUAGE_MODEL True``).
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections import Counter
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from semsam.data import DatasetCatalog

END, UNKNOWN = "<end>", "<unknown>"


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", required=True, help="of regions with phrases")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--width", type=int, default=128, help="channels")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.output.exists():
        parser.error(f"{args.output} is there already: delete it, or name another folder")
    tokenizer = word_tokenizer(count_words(args.dataset))
    torch.manual_seed(args.seed)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=64,
        n_embd=args.width,
        n_layer=args.layers,
        n_head=args.heads,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        # As wide as the usual 0.02 is for a model of a thousand channels.
        initializer_range=args.width**-0.5,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    model = GPT2LMHeadModel(config)
    # It appears when it is whole.
    unfinished = args.output.with_name(f".{args.output.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    unfinished.rename(args.output)
    number = sum(p.numel() for p in model.parameters())
    print(f"{args.output}: {len(tokenizer)} words, {number / 1e6:.2f} M parameters")
    return 0


def count_words(dataset: str) -> Counter[str]:
    """How often each word stands in the phrases of a dataset."""
    records = DatasetCatalog.get(dataset)
    split = pre_tokenizers.Whitespace()
    words: Counter[str] = Counter()
    for number in range(len(records)):
        for region in records[number]["regions"]:
            for phrase in region["phrases"]:
                words.update(word for word, _ in split.pre_tokenize_str(phrase))
    return words


def word_tokenizer(words: Counter[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words, the most frequent first."""
    order = [END, UNKNOWN, *(word for word, _ in words.most_common())]
    vocabulary = {word: number for number, word in enumerate(order)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, unk_token=UNKNOWN, pad_token=END
    )


if __name__ == "__main__":
    sys.exit(main())
