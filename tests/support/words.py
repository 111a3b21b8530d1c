"""A tokenizer with one token a word."""

from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = "the capital of france brazil is paris lima rome a city new york called one two".split()


def words(begin: bool = False) -> Tokenizer:
    """One token a word; with `begin`, token 0 in front of every text, as Llama's has."""
    vocabulary = {"<s>": 0, "?": 1} | {word: i for i, word in enumerate(WORDS, 2)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if begin:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    return tokenizer


def ids(text: str) -> list[int]:
    """The tokens of a text."""
    return words().encode(text).ids
