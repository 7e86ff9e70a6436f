"""Texts that a causal language model writes behind prompts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from semsam.modeling.text.language_model import CaptionTokenizer, load_language_model
from semsam.utils.batching import Batches

#: Where a model that only continues text begins an example of its own.
_END_OF_EXAMPLE = "\n\n"


class TextWriter:
    """Continues prompts, in batches: the most likely words, so that a run can be repeated.

    Args:
        name: a causal language model of transformers: a folder, a name on the hub, or
            ``package:NAME``.
        device: where it runs.
        key: the configuration key that names it, for messages.
        gguf_file: the file in the folder, for weights in that format.
        chat: put prompts to it as a user's messages, as its tokenizer's chat template has it; else
            it continues them as they are, up to an empty line.
        max_new_tokens: longest text in tokens.
        num_beams: of the search; 1 takes the most likely token each time.
        repetition_penalty: above 1 words that were there become less likely.
        batch_size: prompts that are continued at once.
        dtype: of the weights; bfloat16 on a GPU and float32 on a CPU if None.

    Raises:
        RuntimeError: if it cannot be loaded.
        ValueError: if it is to chat, but has no chat template, or a number is out of range.
    """

    def __init__(
        self,
        name: str,
        device: torch.device,
        key: str = "name",
        gguf_file: str = "",
        chat: bool = False,
        max_new_tokens: int = 40,
        num_beams: int = 1,
        repetition_penalty: float = 1.0,
        batch_size: int = 16,
        dtype: torch.dtype | None = None,
    ) -> None:
        from transformers import GenerationConfig

        if min(max_new_tokens, num_beams) < 1 or repetition_penalty < 1:
            raise ValueError(
                f"of '{name}' max_new_tokens, num_beams and repetition_penalty are at least 1, got "
                f"{max_new_tokens}, {num_beams}, {repetition_penalty}"
            )
        if dtype is None:
            # Language models overflow in float16.
            dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        try:
            model: Any = load_language_model(name, gguf_file, dtype=dtype)
            tokenizer = CaptionTokenizer(name, gguf_file=gguf_file).tokenizer
        except ValueError as error:
            raise RuntimeError(f"{key}: {error}") from error
        if chat and not tokenizer.chat_template:
            raise ValueError(f"{key}: '{name}' has no chat template: set CHAT to False")
        self.model = model.requires_grad_(False).eval().to(device)
        self._device = device
        self._chat = chat
        self._batches = Batches(batch_size, "the language model")
        # Texts begin where prompts end, in every row at one place.
        tokenizer.padding_side = tokenizer.truncation_side = "left"
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        self._tokenizer = tokenizer
        longest = getattr(model.config, "max_position_embeddings", None)
        if longest is not None and longest <= max_new_tokens:
            raise ValueError(
                f"{key}: '{name}' reads {longest} tokens, which leaves no room for a prompt before "
                f"{max_new_tokens} new ones"
            )
        self._max_prompt = longest - max_new_tokens if longest else None
        ends = model.generation_config.eos_token_id or tokenizer.eos_token_id
        self._ends: list[int] = [*ends] if isinstance(ends, list) else [ends]
        self._settings = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=num_beams,
            repetition_penalty=repetition_penalty,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=model.generation_config.bos_token_id,
            eos_token_id=self._ends,
        )

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """What follows on each of N prompts; a prompt that is too long is cut at its beginning."""
        distinct = list(dict.fromkeys(prompts))
        texts = dict(
            zip(distinct, self._batches.run(self._write, distinct, self._device), strict=True)
        )
        return [texts[prompt] for prompt in prompts]

    @torch.inference_mode()
    def _write(self, prompts: Sequence[str]) -> list[str]:
        tokens = self._tokenizer(
            [self._as_message(prompt) for prompt in prompts] if self._chat else list(prompts),
            add_special_tokens=not self._chat,
            padding=True,
            truncation=self._max_prompt is not None,
            max_length=self._max_prompt,
            return_tensors="pt",
        ).to(self._device)
        ids = self.model.generate(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            generation_config=self._settings,
            stopping_criteria=[] if self._chat else [self._has_empty_line],
        )
        new = ids[:, tokens["input_ids"].shape[1] :]
        return [self._finish(row) for row in new]

    def _finish(self, ids: Tensor) -> str:
        """The text of a row of new ids, without what comes after its end or is cut off."""
        text = self._tokenizer.decode(ids, skip_special_tokens=True)
        if not self._chat and _END_OF_EXAMPLE in text:
            return text.split(_END_OF_EXAMPLE)[0]
        ends = torch.tensor(self._ends, device=ids.device)
        return text if torch.isin(ids, ends).any() else drop_unfinished(text)

    def _has_empty_line(self, ids: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Of each row of (N, L) ids whether it has just ended with an empty line."""
        tails = self._tokenizer.batch_decode(ids[:, -2:])
        return torch.tensor([_END_OF_EXAMPLE in tail for tail in tails], device=ids.device)

    def _as_message(self, prompt: str) -> str:
        message = [{"role": "user", "content": prompt}]
        return self._tokenizer.apply_chat_template(
            message, add_generation_prompt=True, tokenize=False
        )


def drop_unfinished(text: str) -> str:
    """A text that was cut off at some token, without the item or the word that may be half."""
    whole = re.match(r".*[,;.!?\n]", text, re.DOTALL)
    return whole.group() if whole else text.rpartition(" ")[0]
