"""Trains a small base of any family on the project's facts, to have knowledge to edit offline.

    python -m experiments.pretrain --family t5 --out runs/t5

Writes a Hugging Face folder (config.json, model.safetensors, tokenizer.json) that `mj.load` and the
`experiments.train_*` commands take, and pretraining.json: exact match on the facts in a phrasing
that was trained on, and in two that no training text contains. BERT learns to verify claims.
"""

import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from experiments.command import main
from mend_jax.data.claims import claim, draw_claim
from mend_jax.data.codec import Tokens, codec_of
from mend_jax.data.facts import Relation, relations
from mend_jax.data.pararel import pararel_relations
from mend_jax.data.tokenizers import train_tokenizer
from mend_jax.files import write_text
from mend_jax.models.registry import FAMILIES, Base
from mend_jax.pretraining import exact_match, pretrain
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
    """How long and how fast a family learns; warm_up: steps."""

    steps: int
    learning_rate: float
    warm_up: int


TRAINING: Mapping[str, Training] = {
    "t5": Training(3600, 2e-3, 100),
    "bart": Training(4500, 1e-3, 300),
    "gpt2": Training(4500, 2e-3, 100),
    "gpt_neo": Training(4500, 2e-3, 100),
    "gptj": Training(4500, 2e-3, 100),
    "bert": Training(4500, 1e-3, 300),
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
    """Training steps; by default the family's own (3,600 to 4,500)."""
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


class Questions(NamedTuple):
    """What is asked of a base: (prompt, answer) of a fact in a phrasing; verdicts of a classifier.

    every(rng): each fact once, in one of its phrasings. unseen(rng): each, in all held-out ones.
    lesson(rng): as `every`, but most phrasings have lost words or got wrong ones, so that what is
      learned is the subject and not the sentence.
    """

    known: tuple[Relation, ...]
    verify: bool
    words: tuple[str, ...]

    def every(self, rng: random.Random) -> list[tuple[str, str]]:
        """Each fact once, in one of the phrasings to train on."""
        return [
            self._ask(rng, relation, fact, rng.choice(relation.phrasings))
            for relation in self.known
            for fact in relation.facts
        ]

    def lesson(self, rng: random.Random) -> list[tuple[str, str]]:
        """Each fact once, in what is left of one of the phrasings to train on."""
        return [
            self._ask(
                rng, relation, fact, disturbed(rng.choice(relation.phrasings), rng, self.words)
            )
            for relation in self.known
            for fact in relation.facts
        ]

    def unseen(self, rng: random.Random) -> list[tuple[str, str]]:
        """Each fact in each of the phrasings that are held out."""
        return [
            self._ask(rng, relation, fact, phrasing)
            for relation in self.known
            for fact in relation.facts
            for phrasing in relation.held_out
        ]

    def _ask(
        self, rng: random.Random, relation: Relation, fact: tuple[str, str], phrasing: str
    ) -> tuple[str, str]:
        if not self.verify:
            return phrasing.format(fact[0]), fact[1]
        object_, verdict = draw_claim(rng, relation, fact, sorted({o for _, o in relation.facts}))
        return claim(phrasing, fact[0], object_), verdict


def common_words() -> tuple[str, ...]:
    """Everyday words of English: no base should take one that it never saw for a name."""
    text = resources.files("mend_jax.data").joinpath("common_words.txt")
    return tuple(text.read_text(encoding="utf-8").split())


ENDINGS = ("", "s", "ed", "ing")
"""Of a common word, so that its forms are no news either."""


def noise(rng: random.Random, words: Sequence[str]) -> str:
    """A form of a common word, or a word that is none, of the halves of two."""
    first, second = rng.choice(words), rng.choice(words)
    if rng.random() < 0.5:
        return first + rng.choice(ENDINGS)
    return first[: (len(first) + 1) // 2] + second[len(second) // 2 :]


def disturbed(phrasing: str, rng: random.Random, words: Sequence[str]) -> str:
    """The phrasing with words gone, exchanged and put in between; the subject is never lost.

    How much of it is left varies from all to nothing but the subject.
    """
    share = rng.random()
    out: list[str] = []
    for word in phrasing.split():
        loses = "{}" not in word and rng.random() < share
        if rng.random() < share * (0.6 if loses else 0.3):
            other = noise(rng, words)
            out.append(other if out else other.capitalize())
        if not loses:
            out.append(word)
    return " ".join(out)


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
    params = model.init(jax.random.key(config.seed), model.example_inputs())["params"]
    return Base(model, params, tokenizer, dimensions, str(config.out), family), shape


def run(config: Pretrain) -> dict[str, Any]:
    """Trains, scores, writes; returns the content of pretraining.json.

    Raises:
      ValueError: the folder is not empty.
    """
    if config.out.exists() and any(config.out.iterdir()):
        raise ValueError(f"{config.out} is not empty: give another --out")
    training = TRAINING[config.family]
    if config.steps is not None:
        training = training._replace(steps=config.steps)
    if config.learning_rate is not None:
        training = training._replace(learning_rate=config.learning_rate)
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
    params = pretrain(
        base.model, base.params, draw, **training._asdict(), batch=config.batch, seed=config.seed,
        report=report,
    )  # fmt: skip
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


if __name__ == "__main__":
    main(Pretrain, run, __doc__)
