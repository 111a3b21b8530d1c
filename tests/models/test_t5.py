"""T5 in its variants against Hugging Face's PyTorch module."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import parity
import pytest
import torch
from transformers import (
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
    UMT5Config,
    UMT5ForConditionalGeneration,
)
from transformers.models.t5.modeling_t5 import T5Attention

import mend_jax as mj
from mend_jax.models import t5
from mend_jax.models.registry import Base
from mend_jax.models.relative_positions import bucket_rows, check_buckets
from mend_jax.models.settings import ConfigError

SHAPE = dict(
    vocab_size=parity.VOCABULARY,
    d_model=24,
    d_kv=10,
    d_ff=46,
    num_layers=2,
    num_decoder_layers=3,
    num_heads=2,
    relative_attention_num_buckets=8,
    relative_attention_max_distance=20,
    decoder_start_token_id=0,
    eos_token_id=1,
)
GATED = {"feed_forward_proj": "gated-gelu"}
KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "1.0": (T5Config, T5ForConditionalGeneration, {}),
    "1.1": (T5Config, T5ForConditionalGeneration, GATED | {"tie_word_embeddings": False}),
    "1.1, tied": (T5Config, T5ForConditionalGeneration, GATED),
    "mT5": (MT5Config, MT5ForConditionalGeneration, {"tie_word_embeddings": False}),
    "umT5": (UMT5Config, UMT5ForConditionalGeneration, {}),
}


def torch_model(kind: str) -> Any:
    torch.manual_seed(0)
    config, module, own = KINDS[kind]
    model = module(config(**SHAPE, **own))
    if kind == "1.1":  # transformers 5 ties what was never tied, and would not save it
        model.lm_head.weight = torch.nn.Parameter(torch.randn(parity.VOCABULARY, 24))
    return parity.shaken(model, 0.1)  # scores are not scaled: with more, softmax is one-hot


@pytest.fixture(scope="module", params=list(KINDS))
def both(request: Any, tmp_path_factory: Any) -> tuple[Any, Base]:
    theirs = torch_model(request.param)
    return theirs, parity.saved(theirs, tmp_path_factory.mktemp("t5"))


def test_logits(both: tuple[Any, Base]):
    parity.assert_same_logits(*both, parity.Case(seq2seq=True))


def test_factors(both: tuple[Any, Base]):
    wide = "wi_0" if both[1].config.gated else "wi"
    sites = {
        f"encoder/block_1/mlp/{wide}": f"encoder.block.1.layer.1.DenseReluDense.{wide}",
        "decoder/block_0/mlp/wo": "decoder.block.0.layer.2.DenseReluDense.wo",
        "decoder/block_2/mlp/wo": "decoder.block.2.layer.2.DenseReluDense.wo",
        "decoder/block_1/cross_attention/k": "decoder.block.1.layer.1.EncDecAttention.k",
    }
    parity.assert_same_factors(*both, parity.Case(seq2seq=True), sites)


def test_generation(both: tuple[Any, Base]):
    parity.assert_same_words(*both, parity.Case(seq2seq=True))


@pytest.mark.parametrize("at", ["encoder/block_1/mlp/wo", "decoder/block_(0|2)/mlp/wo"])
def test_trunk_and_tail(both: tuple[Any, Base], at: str):
    parity.assert_parts_are_the_model(both[1], parity.Case(seq2seq=True), at)


def test_default_sites(both: tuple[Any, Base]):
    wide = "wi_0" if both[1].config.gated else "wi"
    blocks = ("decoder/block_1", "decoder/block_2", "encoder/block_0", "encoder/block_1")
    wanted = {f"{block}/mlp/{name}" for block in blocks for name in (wide, "wo")}
    assert set(mj.default_sites(both[1])) == wanted


@pytest.mark.parametrize("both_ways", [True, False])
@pytest.mark.parametrize("buckets, farthest", [(32, 128), (8, 20)])
def test_relative_buckets(both_ways: bool, buckets: int, farthest: int):
    distance = np.arange(-300, 301)[None]
    wanted = T5Attention._relative_position_bucket(
        torch.tensor(distance), bidirectional=both_ways, num_buckets=buckets, max_distance=farthest
    )
    found = t5.relative_bucket(jnp.asarray(distance), both_ways, buckets, farthest)
    np.testing.assert_array_equal(found, wanted.numpy())


def test_rows_of_other_buckets_are_those_of_transformers():
    """At every distance, also where a logarithm is a whole number; or such buckets are refused,
    which few are."""
    refused = 0
    tried = [(n, far) for n in range(4, 66, 3) for far in (*range(n // 2 + 1, 260, 5), 1024)]
    for buckets, farthest in tried + [(64, 256), (34, 27), (17, 27)]:
        try:
            check_buckets(buckets, farthest)
        except ConfigError:
            refused += 1
            continue
        past = -torch.arange(farthest + 9)
        for one_way, both_ways in ((buckets, False), (buckets // 2, True)):
            wanted = T5Attention._relative_position_bucket(past, both_ways, buckets, farthest)
            found = bucket_rows(one_way, farthest)
            np.testing.assert_array_equal(found, wanted[: farthest + 1], f"{buckets} {farthest}")
            assert set(wanted[farthest:].tolist()) == {one_way - 1} == {int(found[-1])}
    assert 2 <= refused < len(tried) // 20


@pytest.mark.parametrize("buckets, farthest", [(17, 27), (32, 16), (32, 2**21)])
def test_buckets_that_rounding_decides_are_refused(buckets: int, farthest: int):
    with pytest.raises(ConfigError, match=f"num_buckets = {buckets}, .*distance = {farthest}"):
        check_buckets(buckets, farthest)


def test_an_activation_that_is_not_implemented_is_refused():
    with pytest.raises(ConfigError, match="feed_forward_proj = 'gated-softplus'.*'gelu_new'"):
        t5.T5Config.from_hf(SHAPE | {"feed_forward_proj": "gated-softplus"})
