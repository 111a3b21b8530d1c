"""tokenizer_config.json beside tokenizer.json: the tokens are those that transformers gives."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer, WordPieceTrainer
from transformers import AutoTokenizer

from mend_jax.files import read_json
from mend_jax.weights.errors import WeightsError
from mend_jax.weights.tokenizer_config import as_configured

TEXT = "Hello<|x|> Café 北京b and more"


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        ["Hello Hello and more more"] * 2,
        BpeTrainer(
            initial_alphabet=alphabet,
            special_tokens=["<|endoftext|>"],
            vocab_size=290,
            show_progress=False,
        ),
    )
    return tokenizer


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = WordPieceTrainer(special_tokens=special, vocab_size=80, show_progress=False)
    tokenizer.train_from_iterator(["hello cafe 北 京 b and more < | x >"] * 2, trainer)
    return tokenizer


ADDED = {
    str(byte_level().get_vocab_size()): {"content": "<|x|>", "special": True, "normalized": False}
}


@pytest.mark.parametrize(
    ("tokenizer", "config"),
    [
        *(
            (byte_level, {"tokenizer_class": name, "add_prefix_space": space})
            for name in ("GPT2Tokenizer", "PreTrainedTokenizerFast")
            for space in (True, False)
        ),
        (byte_level, {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": ADDED}),
        (byte_level, {"tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder": ADDED}),
        *(
            (word_piece, {"tokenizer_class": name, "do_lower_case": lower})
            for name in ("BertTokenizer", "PreTrainedTokenizerFast")
            for lower in (True, False)
        ),
        (word_piece, {"tokenizer_class": "BertTokenizer", "strip_accents": False}),
        (word_piece, {"tokenizer_class": "BertTokenizer", "strip_accents": None}),
        (word_piece, {"tokenizer_class": "BertTokenizer", "tokenize_chinese_chars": False}),
    ],
)
def test_the_tokens_are_those_of_transformers(
    tmp_path: Path, tokenizer: Any, config: dict[str, Any]
):
    model_type = "gpt2" if tokenizer is byte_level else "bert"
    file = tmp_path / "tokenizer.json"
    tokenizer().save(str(file))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    theirs = AutoTokenizer.from_pretrained(tmp_path)(TEXT, add_special_tokens=False).input_ids
    read = read_json(tmp_path / "tokenizer_config.json", WeightsError)
    ours = as_configured(Tokenizer.from_file(str(file)), read, "here")
    assert ours.encode(TEXT, add_special_tokens=False).ids == theirs


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"add_prefix_space": 3}, "here: 'add_prefix_space' must be true or false, is 3"),
        ({"added_tokens_decoder": [1]}, "here: 'added_tokens_decoder' must be an object of token"),
        ({"added_tokens_decoder": {"x": {"content": "a"}}}, "'added_tokens_decoder' must be"),
        ({"added_tokens_decoder": {"1" * 9000: {"content": "a"}}}, "'added_tokens_decoder' must"),
        ({"added_tokens_decoder": {"1": {"content": 3}}}, "'added_tokens_decoder' must be"),
        ({"added_tokens_decoder": {"1": {"content": "a", "special": 1}}}, "'special' must be true"),
        ({"added_tokens_decoder": {"7": {"content": "<|new|>"}}}, "'<|new|>' is token 7, token"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(config: dict[str, Any], message: str):
    with pytest.raises(WeightsError) as error:
        as_configured(byte_level(), config, "here")
    assert message in str(error.value)


def test_a_space_inside_of_other_steps_is_refused_if_the_files_disagree():
    tokenizer = byte_level()
    steps = [pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    as_configured(tokenizer, {"add_prefix_space": False}, "here")
    with pytest.raises(WeightsError, match="'add_prefix_space' is True, tokenizer.json that it is"):
        as_configured(tokenizer, {"add_prefix_space": True}, "here")
