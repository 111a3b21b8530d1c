"""What a model is given: tokens outside its vocabulary, and padding on the left."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import torch
from compare import assert_close
from configurations import our_base, raw_config, tensors_of, torch_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig

from mend_jax.data.codec import codec_of
from mend_jax.models.generate import generate
from mend_jax.models.registry import Base
from mend_jax.models.stages import Inputs

CAUSAL = (
    "llama", "mistral", "qwen3", "mixtral", "gemma3_text",
    "gpt2", "gpt_neo", "gpt_neox", "gptj", "opt",
)  # fmt: skip
BASES: dict[str, tuple[Any, Base]] = {}


def both(name: str, folder: Path) -> tuple[Any, Base]:
    """A small model here and there, made once."""
    if name not in BASES:
        changes = {"sliding_window": 5} if name == "mistral" else {}
        raw = raw_config(name, changes)
        theirs = torch_model(name, raw)
        BASES[name] = theirs, our_base(raw, tensors_of(theirs), folder)
    return BASES[name]


@pytest.mark.parametrize("token", [-1, -100, parity.VOCABULARY, 2**31 - 1])
@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "bart", "t5"])
def test_a_token_outside_the_vocabulary(name: str, token: int, tmp_path: Path):
    """Refused where it can be looked at; inside jit its logits are no number at all."""
    _, base = both(name, tmp_path)
    tokens = jnp.asarray([[5, token, 7]], jnp.int32)
    fine = jnp.asarray([[5, 6, 7]], jnp.int32)
    mask = jnp.ones((1, 3), bool)
    variables = {"params": base.params}
    cases = [Inputs(tokens, mask=mask, target=fine)]
    if base.model.kind == "seq2seq":
        cases.append(Inputs(fine, mask=mask, target=tokens))
    for inputs in cases:
        with pytest.raises(ValueError, match=f"token {token} is not in .* vocabulary, 0 to 60"):
            base.model.apply(variables, inputs)
        logits = jax.jit(base.model.apply)(variables, inputs)
        assert np.isnan(np.asarray(logits)[0, 1:]).all()
    if base.model.kind != "masked":
        with pytest.raises(ValueError, match=f"token {token} is not in"):
            generate(base.model, base.params, tokens, jnp.asarray([3]), 1)


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_a_tokenizer_of_another_model(name: str, tmp_path: Path):
    """Its tokens are refused where texts become tokens, in prompts, targets and conditions."""
    base = both(name, tmp_path)[1]
    words = {"a": 5, "far": 61, "?": 0}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    codec = codec_of(base._replace(tokenizer=tokenizer))
    codec.pair("a a", "a")
    for prompt, target in (("far a", "a"), ("a", "a far")):
        with pytest.raises(ValueError, match="token 61 is not in .* vocabulary"):
            codec.pair(prompt, target)
    with pytest.raises(ValueError, match="token 61 is not in .* vocabulary"):
        codec.prompt("far")


def run(base: Base, inputs: Inputs) -> np.ndarray:
    return np.asarray(jax.jit(base.model.apply)({"params": base.params}, inputs))


@pytest.mark.parametrize("name", CAUSAL)
def test_padding_on_the_left_is_not_seen(name: str, tmp_path: Path):
    """As transformers with positions from the mask; padding inside a text too."""
    theirs, base = both(name, tmp_path)
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, parity.VOCABULARY, (3, 13)).astype(np.int32)
    mask = np.arange(13) >= np.array([[0], [4], [9]])
    mask[1, 7] = False
    positions = torch.tensor(np.maximum(np.cumsum(mask, axis=1) - 1, 0))
    with torch.no_grad():
        wanted = theirs(
            torch.tensor(tokens).long(),
            attention_mask=torch.tensor(mask).long(),
            position_ids=positions,
        ).logits.numpy()
    inputs = Inputs(jnp.asarray(tokens), mask=jnp.asarray(mask))
    found = run(base, inputs)
    assert_close(found[mask], wanted[mask], 1e-5)
    read = jnp.asarray([[12, 3], [12, 9], [12, 10]], jnp.int32)
    some = run(base, inputs._replace(read=read))
    assert_close(some, np.take_along_axis(found, np.asarray(read)[..., None], axis=1), 1e-5)


@pytest.mark.parametrize("name", CAUSAL)
def test_padding_on_the_right_is_as_if_there_were_no_mask(name: str, tmp_path: Path):
    """Bit for bit, at the padding too."""
    _, base = both(name, tmp_path)
    tokens, mask = parity.padded((13, 9, 1))
    inputs = Inputs(jnp.asarray(tokens))
    with_mask = inputs._replace(mask=jnp.asarray(mask))
    np.testing.assert_array_equal(run(base, with_mask), run(base, inputs))
    nothing = inputs._replace(mask=jnp.zeros(tokens.shape, bool))
    np.testing.assert_array_equal(run(base, nothing), run(base, inputs))


def test_a_cache_takes_no_mask(tmp_path: Path):
    base = both("llama", tmp_path)[1]
    inputs = Inputs(jnp.ones((1, 3), jnp.int32), mask=jnp.ones((1, 3), bool))
    with pytest.raises(ValueError, match="a cache takes no mask: pad to the right"):
        base.model.clone(cache_length=5).apply({"params": base.params}, inputs, mutable=["cache"])


FORCED = [
    ({"forced_bos_token_id": 7, "forced_eos_token_id": 9}, None),
    ({"forced_bos_token_id": 7, "forced_eos_token_id": None}, None),
    ({}, None),  # BART's own default is to end
    ({"forced_bos_token_id": 7}, {"forced_bos_token_id": 8, "decoder_start_token_id": 2}),
    ({"forced_eos_token_id": 9}, {"decoder_start_token_id": 2}),
]


@pytest.mark.parametrize("config, generation", FORCED)
def test_forced_tokens(config: dict[str, Any], generation: dict[str, Any] | None, tmp_path: Path):
    """What config.json says, unless there is a generation_config.json, which then says it all."""
    raw = raw_config("bart", {"decoder_start_token_id": 2, **config})
    theirs = torch_model("bart", raw)
    ids = {"decoder_start_token_id": 2, "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}
    said = ({"forced_eos_token_id": 2} | config) if generation is None else generation
    theirs.generation_config = GenerationConfig(**(ids | said))
    more = {} if generation is None else {"generation_config": generation}
    base = our_base(raw | more, tensors_of(theirs), tmp_path)
    tokens = np.array([[3, 4, 5, 6]], np.int32)
    for new in (1, 5):
        ours = generate(base.model, base.params, jnp.asarray(tokens), jnp.asarray([4]), new)
        with torch.no_grad():
            wanted = theirs.generate(
                torch.tensor(tokens).long(),
                max_new_tokens=new,
                min_new_tokens=new,
                do_sample=False,
                num_beams=1,
            )[0, 1:]
        forced = said.get("forced_eos_token_id"), said.get("forced_bos_token_id")
        free = new if forced[0] is None else new - 1  # theirs says no end before the last place
        said_ours = np.asarray(ours)[0]
        if 2 not in said_ours[:free]:
            np.testing.assert_array_equal(said_ours, wanted.numpy())
        assert forced[0] is None or said_ours[-1] == forced[0]
        assert forced[1] is None or new == 1 or said_ours[0] == forced[1]
