"""Small bases to train from nothing: of every family the dimensions, the course, the tokenizer.

A new family that shall have one is a row of each table.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from mend_jax.data.encoding import Tokens
from mend_jax.data.sources.claims import claim
from mend_jax.data.sources.common_words import ENDINGS, common_words
from mend_jax.data.sources.fact_questions import Questions
from mend_jax.data.sources.facts import Relation
from mend_jax.data.tokenizers import manner_of, train_tokenizer
from mend_jax.models.registry import FAMILIES, Base
from mend_jax.runs.pretraining import Epoch

Family = Literal["t5", "bart", "gpt2", "gpt_neo", "gptj", "bert"]

SHAPES: Mapping[str, Mapping[str, Any]] = {
    "t5": {
        "architectures": ["T5ForConditionalGeneration"],
        "d_model": 128,
        "d_kv": 32,
        "d_ff": 512,
        "num_layers": 3,
        "num_decoder_layers": 3,
        "num_heads": 4,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "is_encoder_decoder": True,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
    },
    "bart": {
        "architectures": ["BartForConditionalGeneration"],
        "d_model": 128,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 512,
        "decoder_ffn_dim": 512,
        "max_position_embeddings": 128,
        "activation_function": "gelu",
        "is_encoder_decoder": True,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
    },
    "gpt2": {
        "architectures": ["GPT2LMHeadModel"],
        "n_embd": 128,
        "n_layer": 4,
        "n_head": 4,
        "n_positions": 128,
    },
    "gpt_neo": {
        "architectures": ["GPTNeoForCausalLM"],
        "hidden_size": 128,
        "num_layers": 4,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 2]],
        "window_size": 16,
        "max_position_embeddings": 128,
    },
    "gptj": {
        "architectures": ["GPTJForCausalLM"],
        "n_embd": 128,
        "n_layer": 4,
        "n_head": 4,
        "rotary_dim": 16,
        "n_positions": 128,
        "tie_word_embeddings": False,
    },
    "bert": {
        "architectures": ["BertForSequenceClassification"],
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 512,
        "max_position_embeddings": 128,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "id2label": {"0": "SUPPORTS"},  # one logit, of the claim's being true
        "label2id": {"SUPPORTS": 0},
    },
}
"""The dimensions, as in config.json; what is missing is Hugging Face's default."""


class Training(NamedTuple):
    """How long and how fast a family learns. warm_up: steps. naming: steps before all others, in
    which a classifier learns the facts that it shall verify claims by."""

    steps: int
    learning_rate: float
    warm_up: int
    naming: int = 0


TRAINING: Mapping[str, Training] = {
    "t5": Training(3600, 2e-3, 100),
    "bart": Training(4500, 1e-3, 300),
    "gpt2": Training(4500, 2e-3, 100),
    "gpt_neo": Training(4500, 2e-3, 100),
    "gptj": Training(4500, 2e-3, 100),
    "bert": Training(3000, 1e-3, 300, naming=3500),
}
"""Where norms come after the sums (BART, BERT), a faster start ends on a plateau."""


def fresh_base(
    kind: Family, known: Sequence[Relation], vocabulary: int, seed: int, name: str
) -> tuple[Base, dict[str, Any]]:
    """A base with random parameters and a tokenizer of its own, and its config.json."""
    family = FAMILIES[kind]
    texts = [
        claim(phrasing, *fact) for r in known for fact in r.facts for phrasing in r.phrasings
    ]
    spelled = [word + ending for word in common_words() for ending in ENDINGS]
    everyday = [form for word in spelled for form in (word, word.capitalize())]
    tokenizer = train_tokenizer(manner_of(kind), [*texts, *everyday], vocabulary)
    shape = {
        "model_type": kind,
        **SHAPES[kind],
        "vocab_size": tokenizer.get_vocab_size(),
    }
    dimensions = family.dimensions(shape, ())
    model = family.model(dimensions)
    params = fresh(model, seed)
    return Base(model, params, tokenizer, dimensions, name, family), shape


def fresh(model: Any, seed: int) -> Any:
    """Random parameters."""
    return model.init(jax.random.key(seed), model.example_inputs())["params"]


def naming(base: Base, asked: Questions) -> tuple[Any, Epoch]:
    """(an encoder with one block less that names objects, what it learns from).

    A verdict takes two things, the fact and a comparison with it, and from nothing neither is
    learned, since each is of use only where the other is there (the loss stays at ln 2). So all
    blocks but the last learn the facts first: at the first token of a question, the tokens of its
    object in any order. The last block has then only to compare.
    """
    blocks = base.config.num_hidden_layers - 1
    dimensions = replace(base.config, task="masked_lm", num_hidden_layers=blocks)
    tokenizer = base.tokenizer

    def encode(question: str, object_: str) -> Tokens:
        ids = np.asarray(tokenizer.encode(question).ids, np.int32)
        labels = np.asarray(tokenizer.encode(object_, add_special_tokens=False).ids, np.int32)
        return Tokens(ids, np.zeros(len(labels), np.int32), labels)

    def draw(rng: np.random.Generator) -> list[Tokens]:
        return [encode(*pair) for pair in asked.lesson(random.Random(int(rng.integers(2**32))))]

    return base.model.clone(config=dimensions), draw
