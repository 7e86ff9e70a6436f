"""Causal language models of transformers, and the ids that captions become for them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

#: Target of positions that no loss is taken at.
IGNORED = -100


def find_folder(name: str) -> str:
    """Where a language model is: ``package:NAME`` is the folder of an installed Python package.

    Any other name is returned as it is, for transformers to find.

    Raises:
        ValueError: if the package is not installed, or a path leads nowhere.
    """
    if not name.startswith("package:"):
        # A name on the hub is NAME or OWNER/NAME.
        is_path = name.startswith((".", "/", "~")) or name.count("/") > 1
        if is_path and not Path(name).is_dir():
            raise ValueError("there is no such folder")
        return name
    package = name.removeprefix("package:")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"the package '{package}' of the language model is not installed")
    return spec.submodule_search_locations[0]


def load_language_model(
    name: str, gguf_file: str = "", pretrained: bool = True, dtype: torch.dtype = torch.float32
) -> nn.Module:
    """A causal language model.

    Args:
        name: a name on the hub, a folder that transformers saved, or ``package:NAME``.
        gguf_file: the file in it, for weights in that format.
        pretrained: load its weights; False needs its ``config.json`` alone.
        dtype: of the weights that are loaded.

    Raises:
        ValueError: if it cannot be found, is damaged or is no causal language model; names it.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM

    extra = {"gguf_file": gguf_file} if gguf_file else {}
    try:
        folder = find_folder(name)
        config = AutoConfig.from_pretrained(folder, **extra)
        if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            raise ValueError(f"it is of type '{config.model_type}', no causal language model")
        if not pretrained:
            return AutoModelForCausalLM.from_config(config)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=dtype, output_loading_info=True, **extra
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"cannot load the language model '{name}': {error}") from error
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ValueError(
            f"cannot load the language model '{name}': its weights lack {len(missing)} parameters, "
            f"{missing[0]} among them"
        )
    return model


class CaptionTokenizer:
    """Captions <-> ids of a language model. The tokenizer is read at its first use.

    Args:
        name: a name on the hub, a folder, or ``package:NAME``.
        max_length: longest caption in tokens, the end token and the one before the first included
            (20 in SCA's training).
        gguf_file: the file in the folder, where the tokenizer is inside it.
        num_embeddings: tokens that the language model knows; None leaves that unchecked.

    Raises:
        ValueError: if the length leaves no token for words.
    """

    def __init__(
        self,
        name: str,
        max_length: int = 20,
        gguf_file: str = "",
        num_embeddings: int | None = None,
    ) -> None:
        if max_length < 3:
            raise ValueError(f"MODEL.CAPTION.MAX_LENGTH is at least 3, not {max_length}")
        self.name = name
        self.num_embeddings = num_embeddings
        self.max_length = max_length
        self.gguf_file = gguf_file

    @cached_property
    def tokenizer(self) -> Any:
        """Transformers' tokenizer.

        Raises:
            ValueError: if it cannot be found, knows no end of a text, or has more tokens than the
                language model.
        """
        from transformers import AutoTokenizer

        extra = {"gguf_file": self.gguf_file} if self.gguf_file else {}
        try:
            tokenizer = AutoTokenizer.from_pretrained(find_folder(self.name), **extra)
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot load the tokenizer of '{self.name}': {error}") from error
        if tokenizer.eos_token_id is None:
            raise ValueError(f"the tokenizer of '{self.name}' has no end-of-text token")
        # Tokens that were added behind the vocabulary may lack an embedding, but not the end.
        used = max(tokenizer.vocab_size, tokenizer.eos_token_id + 1)
        if self.num_embeddings is not None and used > self.num_embeddings:
            raise ValueError(
                f"the tokenizer of '{self.name}' has {used} tokens, the language model "
                f"{self.num_embeddings}: name its own in MODEL.CAPTION.TOKENIZER"
            )
        return tokenizer

    @property
    def end(self) -> int:
        """Id of the end token."""
        return self.tokenizer.eos_token_id

    def encode(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids that end with the end token, padded on the right.

        Args:
            captions: R sentences; longer ones are cut.

        Returns:
            ids: (R, L) int64.
            mask: (R, L) bool, True where ids are no padding.
        """
        end = self.end
        cut = self.tokenizer(list(captions), truncation=True, max_length=self.max_length - 2)
        rows = [torch.tensor([*ids, end]) for ids in cut["input_ids"]]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=end)
        lengths = torch.tensor([len(row) for row in rows])
        return ids, torch.arange(ids.shape[1]) < lengths[:, None]

    def encode_beginning(self, text: str) -> Tensor:
        """(T,) int64 ids of the words that a caption begins with; none for an empty text."""
        ids = self.tokenizer(text.strip())["input_ids"] if text.strip() else []
        return torch.tensor(ids, dtype=torch.long)

    def decode(self, ids: Tensor) -> list[str]:
        """(R, L) ids -> sentences without special tokens and outer blanks."""
        return [s.strip() for s in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]
