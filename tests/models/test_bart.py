"""BART against Hugging Face's PyTorch module, on random weights and on a real checkpoint."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration

import mend_jax as mj
from mend_jax.models import bart
from mend_jax.models.generate import generate
from mend_jax.models.registry import Base, load
from mend_jax.models.stages import Inputs

SHAPE: dict[str, Any] = dict(
    vocab_size=parity.VOCABULARY,
    d_model=24,
    encoder_layers=2,
    decoder_layers=3,
    encoder_attention_heads=2,
    decoder_attention_heads=4,
    encoder_ffn_dim=46,
    decoder_ffn_dim=38,
    max_position_embeddings=32,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    decoder_start_token_id=2,
    forced_eos_token_id=None,
)


def torch_model(**changes: Any) -> Any:
    torch.manual_seed(0)
    model = BartForConditionalGeneration(BartConfig(**SHAPE, **changes))
    model.final_logits_bias.normal_()
    return parity.shaken(model)


@pytest.fixture(scope="module")
def both(tmp_path_factory: Any) -> tuple[Any, Base]:
    theirs = torch_model()
    return theirs, parity.saved(theirs, tmp_path_factory.mktemp("bart"))


def case() -> parity.Case:
    return parity.Case(seq2seq=True, start=2)


def test_logits(both: tuple[Any, Base]):
    parity.assert_same_logits(*both, case())


def test_logits_of_a_variant(tmp_path: Path):
    theirs = torch_model(scale_embedding=True, activation_function="relu")
    parity.assert_same_logits(theirs, parity.saved(theirs, tmp_path), case())


def test_factors(both: tuple[Any, Base]):
    sites = {
        "encoder/block_1/mlp/fc1": "model.encoder.layers.1.fc1",
        "decoder/block_0/mlp/fc2": "model.decoder.layers.0.fc2",
        "decoder/block_2/mlp/fc1": "model.decoder.layers.2.fc1",
        "decoder/block_1/cross_attention/k_proj": "model.decoder.layers.1.encoder_attn.k_proj",
    }
    parity.assert_same_factors(*both, case(), sites)


def test_generation(both: tuple[Any, Base]):
    parity.assert_same_words(*both, case())


@pytest.mark.parametrize("at", ["encoder/block_0/mlp/fc1", "decoder/block_(0|2)/mlp/fc2"])
def test_trunk_and_tail(both: tuple[Any, Base], at: str):
    parity.assert_parts_are_the_model(both[1], case(), at)


def test_default_sites(both: tuple[Any, Base]):
    blocks = ("decoder/block_1", "decoder/block_2", "encoder/block_0", "encoder/block_1")
    wanted = {f"{block}/mlp/{name}" for block in blocks for name in ("fc1", "fc2")}
    assert set(mj.default_sites(both[1])) == wanted


def test_a_bare_model_has_no_logits_bias(tmp_path: Path):
    """The hub's bart-base is a BartModel: names without `model.`, no final_logits_bias."""
    theirs = torch_model()
    theirs.final_logits_bias.zero_()
    base = parity.saved(theirs.model, tmp_path)
    assert "head" not in base.params
    parity.assert_same_logits(theirs, base, case())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"activation_function": "mish"}, "'mish'.*gelu"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings = False"),
    ],
)
def test_a_variant_that_is_not_implemented_is_refused(change: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        bart.BartConfig.from_hf(SHAPE | change)


def test_more_tokens_than_positions_are_refused(both: tuple[Any, Base]):
    base = both[1]
    params = {"params": base.params}
    short, long = (jnp.zeros((1, n), jnp.int32) for n in (5, 33))
    with pytest.raises(ValueError, match="33 positions .* has 32"):
        jax.eval_shape(base.model.apply, params, Inputs(long, target=long[:, :1]))
    with pytest.raises(ValueError, match="33 positions .* has 32"):
        jax.eval_shape(lambda: generate(base.model, base.params, short, jnp.array([5]), 33))


REAL = Path(__file__).parents[3] / "shared" / "models" / "bart-g2p-us"


@pytest.fixture(scope="module")
def real() -> Base:
    """A BART that spells out how an English word is pronounced."""
    if not REAL.exists():
        pytest.skip("the pronunciation model is not here")
    return load(str(REAL))


@pytest.fixture(scope="module")
def words(real: Base) -> tuple[np.ndarray, np.ndarray]:
    """Tokens int32[k, longest] of three words, padded with 0, and their lengths."""
    letters = json.loads((REAL / "config.json").read_text())["grapheme_chars"]
    rows = [[1, *map(letters.index, word), 2] for word in ("knowledge", "edit", "thorough")]
    lengths = np.array([len(row) for row in rows])
    tokens = np.array([row + [0] * (max(lengths) - len(row)) for row in rows], np.int32)
    return tokens, lengths


def test_real_logits(real: Base, words: tuple[np.ndarray, np.ndarray]):
    theirs = BartForConditionalGeneration.from_pretrained(REAL).eval()
    batch = parity.Case(seq2seq=True, start=real.config.decoder_start_token_id)
    batch.tokens = words[0]
    batch.mask = np.arange(words[0].shape[1]) < words[1][:, None]
    batch.theirs["attention_mask"] = torch.tensor(batch.mask).long()
    parity.assert_same_logits(theirs, real, batch)


def test_real_words(real: Base, words: tuple[np.ndarray, np.ndarray]):
    tokens, lengths = map(jnp.asarray, words)
    out = jax.jit(lambda p: generate(real.model, p, tokens, lengths, 12))(real.params)
    sounds = json.loads((REAL / "config.json").read_text())["phoneme_chars"]
    said = []
    for row in np.asarray(out).tolist():
        assert row[0] == 1  # it says its start token once more, then the word
        said.append("".join(sounds[i] for i in row[1 : row.index(real.config.eos_token_id)]))
    assert said == ["nˈɑləʤ", "ˈɛdət", "θˈɜɹO"]
