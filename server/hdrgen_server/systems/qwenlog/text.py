"""What reads a prompt: Qwen2.5-VL as transformers has it, or at size s WordLlama's static table of tokens.

It owns prompts, tokens and every complaint about them. It must not know pictures, latents or the transformer.
"""

from __future__ import annotations

import importlib.util
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from hdrgen_server.systems.qwenlog.config import TextConfig
from nuke_hdrgen.wire.errors import BadInput, BadParameter

TEXT_ENCODER, TOKENIZER = "text_encoder", "tokenizer"
TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
"""The chat that Qwen-Image was trained to see around a prompt (its technical report, arXiv 2508.02324, section 2.1)."""
TEMPLATE_TOKENS = 34
"""Tokens of the template before the prompt, whose states are left out (diffusers' Qwen-Image pipeline)."""
EMPTY = " "
"""What stands for no prompt: the model's own examples give one space as the negative prompt."""
PACKAGE = "wordllama"
TABLE, VOCABULARY = "weights/l2_supercat_256.safetensors", "tokenizers/l2_supercat_tokenizer_config.json"
CHARACTERS = 20_000
"""No prompt of this length fits any encoder: what is longer is refused before it is cut into tokens."""


class TextEncoder(Protocol):
    """A frozen reader of prompts."""

    def encode(self, prompt: str) -> Tensor:
        """The tokens of a prompt, (T, width) float32. Raises BadParameter for one that it cannot read."""
        ...

    def modules(self) -> Sequence[nn.Module]:
        """Networks that lie on a device."""
        ...


def check_prompt(prompt: str) -> str:
    """The prompt without blanks around it. Raises BadParameter where nothing is left, or far too much."""
    text = prompt.strip()
    if not text:
        raise BadParameter("the prompt is empty; describe the picture in a sentence")
    if len(text) > CHARACTERS:
        raise BadParameter(f"the prompt has {len(text)} characters; a few sentences are enough, {CHARACTERS} the most")
    return text


def check_length(tokens: int, limit: int) -> None:
    """Raises BadParameter for more tokens than the encoder takes: cutting a prompt would drop wishes unsaid."""
    if tokens > limit:
        raise BadParameter(f"the prompt has {tokens} tokens, this pack reads {limit}; shorten it")


class StaticText:
    """WordLlama's token vectors (MIT): each token always has the same one, the transformer has to relate them."""

    def __init__(self, config: TextConfig, table: Tensor, vocabulary: Tokenizer) -> None:
        self._limit, self._table, self._vocabulary = config.limit, table.float(), vocabulary

    def modules(self) -> Sequence[nn.Module]:
        """None: a table in main memory."""
        return ()

    def encode(self, prompt: str) -> Tensor:
        """The tokens of a prompt, (T, width). Raises BadParameter for a long one, or letters that are not Latin."""
        foreign = next((c for c in prompt if c.isalpha() and not unicodedata.name(c, "").startswith("LATIN")), "")
        found: Any = self._vocabulary.encode(prompt)
        if foreign or any(token.startswith("<0x") for token in found.tokens):
            what = f"{foreign!r}" if foreign else "a sign"
            raise BadParameter(
                f"the prompt holds {what}, which this small pack cannot read; "
                "write it in English, or use a full-size pack"
            )
        check_length(len(found.ids), self._limit)
        return self._table[torch.tensor(found.ids)]


class QwenText:
    """Qwen2.5-VL's last states of the prompt within its template, in the encoder's own precision until the end."""

    def __init__(self, config: TextConfig, tokenizer: Any, network: Any) -> None:
        self._limit, self._tokenizer, self._network = config.limit, tokenizer, network

    def modules(self) -> Sequence[nn.Module]:
        """The language model."""
        return (self._network,)

    @torch.inference_mode()
    def encode(self, prompt: str) -> Tensor:
        """The tokens of a prompt, (T, width). Raises BadParameter for one that is too long."""
        given = self._tokenizer(TEMPLATE.format(prompt or EMPTY), return_tensors="pt")
        check_length(given.input_ids.shape[1] - TEMPLATE_TOKENS, self._limit)
        device = next(self._network.parameters()).device
        found = self._network.model(  # without the head, which would make a probability for every word
            input_ids=given.input_ids.to(device), attention_mask=given.attention_mask.to(device)
        )
        return found.last_hidden_state[0, TEMPLATE_TOKENS:].float()


def load_text(config: TextConfig, folder: Path, dtype: torch.dtype) -> TextEncoder:
    """The encoder that a configuration names; Qwen2.5-VL from `text_encoder/` and `tokenizer/` of a pack's folder.

    Raises BadInput where it is not there or another one.
    """
    return _static(config) if config.kind == "wordllama" else _qwen(config, folder, dtype)


def padded(tokens: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Several prompts' tokens as (B, T, width), zeros at the end, and which are real, (B, T)."""
    longest = max(len(prompt) for prompt in tokens)
    batch = torch.zeros(len(tokens), longest, tokens[0].shape[1])
    mask = torch.zeros(len(tokens), longest, dtype=torch.bool)
    for row, prompt in enumerate(tokens):
        batch[row, : len(prompt)], mask[row, : len(prompt)] = prompt, True
    return batch, mask


def _static(config: TextConfig) -> StaticText:
    spec = importlib.util.find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places:
        raise BadInput(f"the text encoder is missing: install the Python package {PACKAGE}, which carries its weights")
    package = Path(places[0])
    try:
        table = load_file(package / TABLE)["embedding.weight"]
        vocabulary = Tokenizer.from_file(str(package / VOCABULARY))
    except (SafetensorError, OSError, KeyError) as error:
        raise BadInput(f"{package} holds no {TABLE}; install {PACKAGE} 0.4 again") from error
    if table.shape[1] != config.width:
        raise BadInput(f"{package / TABLE} has vectors of {table.shape[1]}, this pack needs {config.width}")
    return StaticText(config, table, vocabulary)


def _qwen(config: TextConfig, folder: Path, dtype: torch.dtype) -> QwenText:
    from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

    for part in (TEXT_ENCODER, TOKENIZER):
        if not (folder / part).is_dir():
            raise BadInput(f"the text encoder is missing: {folder / part} does not exist; add the model with it")
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder / TOKENIZER, local_files_only=True)
        loaded: Any = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            folder / TEXT_ENCODER,
            local_files_only=True,
            use_safetensors=True,
            torch_dtype=dtype,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise BadInput(f"{folder / TEXT_ENCODER} cannot be loaded: {said}; fetch or add it again") from error
    network, notes = loaded
    if notes["missing_keys"]:
        raise BadInput(f"{folder / TEXT_ENCODER} has no tensor {min(notes['missing_keys'])}; fetch or add it again")
    width = int(network.config.text_config.hidden_size)
    if width != config.width:
        raise BadInput(f"{folder / TEXT_ENCODER} is {width} wide, this pack needs {config.width}; it is another model")
    return QwenText(config, tokenizer, network.eval().requires_grad_(requires_grad=False))
