"""Prompts: what each encoder makes of them, and what it refuses."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from hdrgen_server.systems.qwenlog import text
from hdrgen_server.systems.qwenlog.config import S_TEXT, TextConfig
from nuke_hdrgen.wire.errors import BadInput, BadParameter

CPU = torch.float32


def test_words_that_mean_alike_lie_closer():
    encoder = text.load_text(S_TEXT, Path(), CPU)
    sunset, beach, warehouse = (encoder.encode(word)[1:].mean(dim=0) for word in ("sunset", "beach", "warehouse"))
    near, far = (torch.cosine_similarity(sunset, other, dim=0) for other in (beach, warehouse))
    assert near > far + 0.1
    assert encoder.encode("").shape == (1, 256), "no prompt is one token, not none"


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("日本の夕焼け", "holds '日', which this small pack cannot read; write it in English"),
        ("закат", "holds 'з'"),
        ("sun 🌅", "holds a sign"),
        ("a sunset " * 60, "tokens, this pack reads 96; shorten it"),
    ],
)
def test_prompts_that_the_small_encoder_cannot_read_are_refused(prompt, said):
    encoder = text.load_text(S_TEXT, Path(), CPU)
    with pytest.raises(BadParameter, match=said):
        encoder.encode(prompt)


@pytest.mark.parametrize(("prompt", "said"), [("", "is empty"), (" \n\t", "is empty"), ("x" * 20_001, "20001 char")])
def test_empty_and_endless_prompts_are_refused(prompt, said):
    with pytest.raises(BadParameter, match=said):
        text.check_prompt(prompt)
    assert text.check_prompt(" a lamp ") == "a lamp"


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="install the Python package wordllama"):
        text.load_text(S_TEXT, Path(), CPU)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Qwen2.5-VL with random weights and a vocabulary of the template's words."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    splits = pre_tokenizers.Whitespace()
    words = [word for word, _ in splits.pre_tokenize_str(text.TEMPLATE.format("lamp sun"))]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys([*words, "?"]))}
    rope = {"type": "mrope", "mrope_section": [1, 1, 2], "rope_theta": 1e6, "rope_type": "default"}
    config = Qwen2_5_VLConfig(
        text_config={**sizes, "num_key_value_heads": 1, "vocab_size": len(vocabulary), "rope_parameters": rope},
        vision_config={"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 16},
    )
    torch.manual_seed(2)
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(tmp_path / "text_encoder")
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    inner.pre_tokenizer = splits
    PreTrainedTokenizerFast(tokenizer_object=inner).save_pretrained(tmp_path / "tokenizer")
    return tmp_path


def test_qwen_gives_its_last_states_after_the_template(folder):
    encoder = text.load_text(TextConfig("qwen2.5-vl", 16, 40), folder, CPU)
    found = encoder.encode("lamp sun")
    tokens = encoder._tokenizer(text.TEMPLATE.format("lamp sun"), return_tensors="pt")
    with torch.no_grad():
        states = encoder._network(**tokens, output_hidden_states=True).hidden_states[-1][0]
    assert len(found) == tokens.input_ids.shape[1] - text.TEMPLATE_TOKENS
    torch.testing.assert_close(found, states[text.TEMPLATE_TOKENS :])
    with pytest.raises(BadParameter, match="this pack reads 1; shorten it"):
        text.load_text(TextConfig("qwen2.5-vl", 16, 1), folder, CPU).encode("lamp sun lamp sun " * 40)


def test_an_encoder_that_is_not_there_or_another_is_named(folder):
    with pytest.raises(BadInput, match="is 16 wide, this pack needs 3584"):
        text.load_text(TextConfig("qwen2.5-vl", 3584, 40), folder, CPU)
    (folder / "text_encoder" / "model.safetensors").write_bytes(b"short")
    with pytest.raises(BadInput, match="text_encoder cannot be loaded"):
        text.load_text(TextConfig("qwen2.5-vl", 16, 40), folder, CPU)
    with pytest.raises(BadInput, match=r"text encoder is missing: .*text_encoder does not exist"):
        text.load_text(TextConfig("qwen2.5-vl", 16, 40), folder / "none", CPU)
