"""Trains a small base of any family on the project's facts, to have knowledge to edit offline.

    mend-jax pretrain --family t5 --out runs/t5

Writes a Hugging Face folder (config.json, model.safetensors, tokenizer.json) that `mj.load` and the
`experiments.train_*` commands take, and pretraining.json: exact match on the facts in a phrasing
that was trained on, and in two that no training text contains. BERT learns to verify claims: first
the facts, then the verdicts.
"""

import json
import random
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from mend_jax.commands.command import Command
from mend_jax.data.codec import Tokens, codec_of
from mend_jax.data.sources.claims import claim
from mend_jax.data.sources.facts import Relation, relations
from mend_jax.data.sources.pararel import pararel_relations
from mend_jax.data.sources.pretraining import ENDINGS, Questions, common_words
from mend_jax.data.tokenizers import train_tokenizer
from mend_jax.files import write_text
from mend_jax.models.registry import FAMILIES, Base
from mend_jax.runs.pretraining import Epoch, exact_match, pretrain
from mend_jax.weights.export import write_folder

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


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Options of pretraining; the defaults are meant for 15 minutes on two CPU cores."""

    family: Family
    """Model family."""
    out: Path
    """Folder for the base; must be empty or absent."""
    pararel: Path | None = None
    """Folder of ParaRel's data, to learn up to 1,000 of its facts as well."""
    facts: int = 0
    """Learn only so many facts of each relation (0: all)."""
    steps: int | None = None
    """Training steps; by default the family's own (3,000 to 4,500)."""
    naming: int | None = None
    """Of BERT: steps before these, to learn the facts by; by default 3,500."""
    batch: int = 64
    """Questions a step."""
    learning_rate: float | None = None
    """Peak learning rate (warm-up, then cosine decay); by default the family's own."""
    vocabulary: int = 6000
    """Most tokens of the tokenizer that is trained."""
    seed: int = 0
    """Seeds everything that is random."""


def knowledge(config: Pretrain) -> tuple[Relation, ...]:
    """What is to be learned."""
    found = relations()
    if config.pararel is not None:
        known = {subject for relation in found for subject, _ in relation.facts}
        found += pararel_relations(config.pararel, 1000, known, config.seed)
    if config.facts:
        found = tuple(r._replace(facts=r.facts[: config.facts]) for r in found)
    return found


def fresh_base(config: Pretrain, known: tuple[Relation, ...]) -> tuple[Base, dict[str, Any]]:
    """A base with random parameters and a tokenizer of its own, and its config.json."""
    family = FAMILIES[config.family]
    manner = config.family if config.family in ("t5", "bart", "bert") else "causal"
    texts = [
        claim(phrasing, *fact) for r in known for fact in r.facts for phrasing in r.phrasings
    ]
    spelled = [word + ending for word in common_words() for ending in ENDINGS]
    everyday = [form for word in spelled for form in (word, word.capitalize())]
    tokenizer = train_tokenizer(manner, [*texts, *everyday], config.vocabulary)
    shape = {
        "model_type": config.family,
        **SHAPES[config.family],
        "vocab_size": tokenizer.get_vocab_size(),
    }
    dimensions = family.dimensions(shape, ())
    model = family.model(dimensions)
    params = fresh(model, config.seed)
    return Base(model, params, tokenizer, dimensions, str(config.out), family), shape


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


def run(config: Pretrain) -> dict[str, Any]:
    """Trains, scores, writes; returns the content of pretraining.json.

    Raises:
      ValueError: the folder is not empty; --naming where it does nothing.
    """
    if config.out.exists() and any(config.out.iterdir()):
        raise ValueError(f"{config.out} is not empty: give another --out")
    if config.naming is not None and config.family != "bert":
        raise ValueError(f"--naming is for BERT: {config.family} answers questions from the start")
    chosen = {k: getattr(config, k) for k in ("steps", "naming", "learning_rate")}
    training = TRAINING[config.family]._replace(
        **{k: v for k, v in chosen.items() if v is not None}
    )
    known = knowledge(config)
    base, shape = fresh_base(config, known)
    asked = Questions(known, base.model.kind == "classifier", common_words())
    encode = codec_of(base).pair
    stop = "\n" if base.model.kind == "causal" else ""  # others end their answers anyway

    def draw(rng: np.random.Generator) -> list[Tokens]:
        lesson = asked.lesson(random.Random(int(rng.integers(2**32))))
        return [encode(prompt, answer + stop) for prompt, answer in lesson]

    facts = sum(len(relation.facts) for relation in known)
    size = sum(x.size for x in jax.tree.leaves(base.params))
    print(f"{config.family}: {size:,} parameters, {facts:,} facts")

    def report(step: int, loss: float, seconds: float) -> None:
        print(f"step {step:>6}  loss {loss:.4f}  {seconds:.0f} s", flush=True)

    began = time.perf_counter()
    params = base.params
    teach = partial(
        pretrain, learning_rate=training.learning_rate, warm_up=training.warm_up,
        batch=config.batch, seed=config.seed, report=report,
    )  # fmt: skip
    if training.naming:
        namer, draw_names = naming(base, asked._replace(verify=False))
        print("first the facts: the words of the object, at the first token of a question")
        named = teach(namer, fresh(namer, config.seed), draw_names, steps=training.naming)
        params = {**params, **{k: v for k, v in named.items() if k != "head"}}
        print("now the verdicts")
    params = teach(base.model, params, draw, steps=training.steps)
    seconds = time.perf_counter() - began
    rng = random.Random(f"questions {config.seed}")
    scores = {}
    for name, pairs in (("trained", asked.every(rng)), ("unseen", asked.unseen(rng))):
        right = exact_match(base.model, params, [encode(*pair) for pair in pairs])
        scores[name] = {"exact_match": float(np.mean(right)), "n": len(pairs)}
        print(f"{name} phrasings: {np.mean(right):.3f} of {len(pairs):,} answered right")
    write_folder(
        config.out, shape, params, base.family.expected_weights(base.config), base.tokenizer
    )
    result = {
        "family": config.family,
        "parameters": size,
        "facts": facts,
        **scores,
        "seconds": round(seconds, 1),
        "config": {k: v for k, v in asdict(config).items() if k != "out"}
        | {"pararel": config.pararel is not None}
        | training._asdict(),
    }
    write_text(config.out / "pretraining.json", json.dumps(result, indent=1) + "\n")
    return result

COMMAND = Command(Pretrain, run, __doc__)
