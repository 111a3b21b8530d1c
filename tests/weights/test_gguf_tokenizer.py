"""Tokenizers from GGUF metadata: the ids of transformers and of SentencePiece, and back to text."""

import io
import pathlib

import pytest
import sentencepiece as spm
from transformers import AutoTokenizer

from mend_jax.weights import WeightsError
from mend_jax.weights.gguf_tokenizer import tokenizer_from_gguf

TEXTS = [
    "The capital of France is Paris.",
    " leading space and  two spaces",
    "   three, trailing   ",
    "line\nline\n\nparagraph\ttab",
    "1234567890 and 3.14159, 2024-01-31",
    "I'll don't we've CAN'T",
    "naïve café, Ångström, ﬁ ligature",
    "emoji 🙂👩‍👩‍👧 flags 🇫🇷",
    "汉字かな漢字 한국어 العربية",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|>",
    "<|im_start| broken",
    "def f(x):\n    return x**2  # ok",
    "\x00\x7f\ufeff",
    "",
]
PARAGRAPHS = ["One fish two fish.", "Red fish, blue fish: 1234.", "  Café  naïve ", "日本 🙂\n"]


@pytest.fixture(scope="module")
def theirs(smollm2):
    path = pathlib.Path(smollm2.origin)
    return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


@pytest.mark.parametrize("text", TEXTS)
def test_smollm2_ids_are_those_of_transformers(smollm2, theirs, text):
    ids = smollm2.tokenizer.encode(text).ids
    assert ids == theirs(text)["input_ids"]
    assert smollm2.tokenizer.decode(ids, skip_special_tokens=False) == text


def test_smollm2_digits_stand_alone(smollm2, theirs):
    """So the model was trained, and so llama.cpp cuts; transformers ignores the name `smollm`."""
    encode = smollm2.tokenizer.encode
    for space in ("\n\n", "   ", " \n "):
        assert encode(space + "12").ids == encode(space).ids + encode("1").ids + encode("2").ids
    assert encode("\n\n12").ids != theirs("\n\n12")["input_ids"]


def test_control_tokens_are_special(smollm2):
    encoded = smollm2.tokenizer.encode("<|im_start|>hi<|im_end|>")
    assert encoded.ids[0] == 1 and encoded.ids[-1] == 2
    assert smollm2.tokenizer.decode(encoded.ids) == "hi"
    assert smollm2.tokenizer.get_vocab_size() == smollm2.config["vocab_size"]


WORDS = ["Ġ", "a", "b", "ab", "Ã", "©", "1", "2", "3", "4", "12", "123", "<s>", "</s>"]


def byte_level(pre: str, **more):
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": WORDS,
        "tokenizer.ggml.token_type": [3 if word.startswith("<") else 1 for word in WORDS],
        "tokenizer.ggml.merges": ["1 2", "12 3"],
        "tokenizer.ggml.bos_token_id": WORDS.index("<s>"),
        "tokenizer.ggml.eos_token_id": WORDS.index("</s>"),
    } | {f"tokenizer.ggml.{key}": value for key, value in more.items()}


@pytest.mark.parametrize(
    ("pre", "tokens"),
    [
        ("gpt-2", ["a", "b", "Ġ", "123", "4"]),
        ("smollm", ["a", "b", "Ġ", "1", "2", "3", "4"]),
        ("qwen2", ["a", "b", "Ġ", "1", "2", "3", "4"]),
        ("llama-bpe", ["<s>", "ab", "Ġ", "123", "4"]),  # `ab` is a word, but no merge makes it
    ],
)
def test_each_family_cuts_its_own_way(pre, tokens):
    assert tokenizer_from_gguf(byte_level(pre), "here").encode("ab 1234").tokens == tokens


def test_qwen2_composes_accents_first():
    tokenizer = tokenizer_from_gguf(byte_level("qwen2"), "here")
    assert tokenizer.encode("e\u0301").tokens == tokenizer.encode("\u00e9").tokens == ["Ã", "©"]


def test_first_and_last_tokens_follow_the_flags():
    fields = byte_level("llama-bpe", add_bos_token=False, add_eos_token=True)
    tokenizer = tokenizer_from_gguf(fields, "here")
    assert tokenizer.encode("a").tokens == ["a", "</s>"]
    assert tokenizer.encode("a", add_special_tokens=False).tokens == ["a"]


@pytest.fixture(scope="module")
def sentencepiece():
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(PARAGRAPHS * 20),
        model_writer=model,
        model_type="bpe",
        vocab_size=340,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return spm.SentencePieceProcessor(model_proto=model.getvalue())


def test_a_first_token_with_a_colon_in_it():
    """As it is written: it is a name, not a pattern."""
    fields = byte_level("llama-bpe", add_bos_token=True)
    tokens = fields["tokenizer.ggml.tokens"]
    at = fields["tokenizer.ggml.bos_token_id"]
    fields["tokenizer.ggml.tokens"] = [*tokens[:at], "<s:x:1>", *tokens[at + 1 :]]
    assert tokenizer_from_gguf(fields, "a.gguf").encode("ab").ids == [at, tokens.index("ab")]


def test_sentencepiece_ids_are_those_of_sentencepiece(sentencepiece):
    ids = range(sentencepiece.vocab_size())
    types = [
        3 if sentencepiece.is_control(i) else 6 if sentencepiece.is_byte(i) else 1 for i in ids
    ]
    fields = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [sentencepiece.id_to_piece(i) for i in ids],
        "tokenizer.ggml.scores": [sentencepiece.get_score(i) for i in ids],
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.bos_token_id": sentencepiece.bos_id(),
        "tokenizer.ggml.unknown_token_id": sentencepiece.unk_id(),
    }
    tokenizer = tokenizer_from_gguf(fields, "here")
    for text in [*PARAGRAPHS, "two blue fishes", "  unseen Ω words\n", "汉字"]:
        expected = sentencepiece.encode(text)
        assert tokenizer.encode(text).ids == [sentencepiece.bos_id(), *expected]
        assert tokenizer.decode(expected) == text


def test_unknown_kinds_are_named():
    with pytest.raises(WeightsError, match="here cuts .* 'tekken'.*known are gpt-2, smollm, llama"):
        tokenizer_from_gguf(byte_level("tekken"), "here")
    with pytest.raises(WeightsError, match="here has a tokenizer of kind 'bert'; known are gpt2"):
        tokenizer_from_gguf(byte_level("gpt-2", model="bert"), "here")
    fields = byte_level("gpt-2")
    del fields["tokenizer.ggml.merges"]
    with pytest.raises(WeightsError, match="here lacks the metadata tokenizer.ggml.merges"):
        tokenizer_from_gguf(fields, "here")
