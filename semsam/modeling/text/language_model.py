"""Causal language models of transformers, and the ids that captions become for them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

#: Target of positions that no loss is taken at.
IGNORED = -100


def find_folder(name: str) -> str:
    """Where a language model is: ``package:NAME`` is the folder of an installed Python package.

    Any other name is returned as it is, for transformers to find.

    Raises:
        ValueError: if the package is not installed.
    """
    if not name.startswith("package:"):
        return name
    package = name.removeprefix("package:")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"the package '{package}' of the language model is not installed")
    return spec.submodule_search_locations[0]


def load_language_model(name: str, gguf_file: str = "", pretrained: bool = True) -> nn.Module:
    """A causal language model in float32.

    Args:
        name: a name on the hub, a folder that transformers saved, or ``package:NAME``.
        gguf_file: the file in it, for weights in that format.
        pretrained: load its weights; False needs its ``config.json`` alone.

    Raises:
        ValueError: if it cannot be found or is no causal language model; names it.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    folder, extra = find_folder(name), {"gguf_file": gguf_file} if gguf_file else {}
    try:
        if pretrained:
            return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **extra)
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, **extra))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot load the language model '{name}': {error}") from error


class CaptionTokenizer:
    """Captions <-> ids of a language model. The tokenizer is read at its first use.

    Args:
        name: a name on the hub, a folder, or ``package:NAME``.
        max_length: longest caption in tokens, the end token and the one before the first included
            (20 in SCA's training).
        gguf_file: the file in the folder, where the tokenizer is inside it.
    """

    def __init__(self, name: str, max_length: int = 20, gguf_file: str = "") -> None:
        self.name = name
        self.max_length = max_length
        self.gguf_file = gguf_file

    @cached_property
    def tokenizer(self) -> Any:
        """Transformers' tokenizer.

        Raises:
            ValueError: if it cannot be found, or knows no end of a text.
        """
        from transformers import AutoTokenizer

        extra = {"gguf_file": self.gguf_file} if self.gguf_file else {}
        try:
            tokenizer = AutoTokenizer.from_pretrained(find_folder(self.name), **extra)
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot load the tokenizer of '{self.name}': {error}") from error
        if tokenizer.eos_token_id is None:
            raise ValueError(f"the tokenizer of '{self.name}' has no end-of-text token")
        return tokenizer

    def encode(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids that end with the end token, padded on the right.

        Args:
            captions: R sentences; longer ones are cut.

        Returns:
            ids: (R, L) int64.
            mask: (R, L) bool, True where ids are no padding.
        """
        end = self.tokenizer.eos_token_id
        cut = self.tokenizer(list(captions), truncation=True, max_length=self.max_length - 2)
        rows = [torch.tensor([*ids, end]) for ids in cut["input_ids"]]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=end)
        lengths = torch.tensor([len(row) for row in rows])
        return ids, torch.arange(ids.shape[1]) < lengths[:, None]

    def decode(self, ids: Tensor) -> list[str]:
        """(R, L) ids -> sentences without special tokens and outer blanks."""
        return [s.strip() for s in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]
