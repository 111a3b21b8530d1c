"""Tokenizers for bases that are trained here, each in the manner of its family.

    GPT-2, GPT-Neo, GPT-J   byte-level BPE               BART   the same, between <s> and </s>
    T5                      Unigram, </s> at the end     BERT   WordPiece, lower case, [CLS] [SEP]

Every text gets a space in front, so that a name at the beginning of a text is the same tokens as
one in its middle: little data is to be learned from.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = {
    "causal": ("<|endoftext|>",),
    "bart": ("<s>", "<pad>", "</s>"),
    "t5": ("<pad>", "</s>", "<unk>"),
    "bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
}


def manner_of(model_type: str) -> str:
    """In whose manner a base of this type cuts its texts."""
    return model_type if model_type in SPECIAL else "causal"


def train_tokenizer(manner: str, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
    """A tokenizer of at most `vocab_size` tokens; the special ones come first.

    Args:
      manner: "causal", "bart", "t5" or "bert".
    """
    from tokenizers import (
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )

    special = list(SPECIAL[manner])
    common: Any = {"vocab_size": vocab_size, "special_tokens": special, "show_progress": False}
    trainer: Any
    if manner == "t5":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(unk_token="<unk>", **common)
    elif manner == "bert":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(**common)
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(initial_alphabet=alphabet, **common)
    tokenizer.train_from_iterator(texts, trainer)
    around = {"t5": "$A </s>", "bart": "<s> $A </s>", "bert": "[CLS] $A [SEP]"}.get(manner)
    if around:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=around, special_tokens=[(t, tokenizer.token_to_id(t)) for t in special]
        )
    return tokenizer
