"""A family against Hugging Face's PyTorch module, on the same random weights and padded inputs.

The families' tests make a small PyTorch model, save it, load it here, and compare logits, captured
factors and greedy generation; sequences differ in length, and no length is even by chance.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from compare import assert_close

import mend_jax as mj
from mend_jax.models.generate import generate
from mend_jax.models.registry import Base, load
from mend_jax.models.stages import Inputs

LENGTHS = (21, 9, 14)
ANSWERS = (7, 3, 5)  # of the decoder's side, in an encoder-decoder
VOCABULARY = 61


def shaken(model: Any, scale: float = 0.2) -> Any:
    """The model with noise on every parameter: no norm is 1, no bias 0."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return model.eval()


def saved(model: Any, folder: Path) -> Base:
    """What `load` makes of the model's own files."""
    model.save_pretrained(folder)
    return load(str(folder))


def padded(lengths: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random tokens int32[k, longest], 0 where padded, and the mask."""
    longest = max(lengths)
    tokens = np.random.default_rng(seed).integers(3, VOCABULARY, size=(len(lengths), longest))
    mask = np.arange(longest) < np.asarray(lengths)[:, None]
    return (tokens * mask).astype(np.int32), mask


class Case:
    """One batch for both sides. `rows`: the logits that count."""

    def __init__(self, seq2seq: bool, start: int = 0) -> None:
        self.tokens, self.mask = padded(LENGTHS)
        self.rows = self.mask
        self.target = None
        self.theirs = {"attention_mask": torch.tensor(self.mask).long()}
        if seq2seq:
            self.target, self.rows = padded(ANSWERS, seed=1)
            self.target[:, 0] = start
            self.theirs["decoder_input_ids"] = torch.tensor(self.target).long()

    @property
    def ours(self) -> Inputs:
        target = None if self.target is None else jnp.asarray(self.target)
        return Inputs(jnp.asarray(self.tokens), mask=jnp.asarray(self.mask), target=target)

    def run_theirs(self, model: Any) -> Any:
        return model(input_ids=torch.tensor(self.tokens).long(), **self.theirs)


def assert_same_logits(theirs: Any, base: Base, case: Case, relative: float = 1e-5) -> None:
    """At every position that is not padding, in float32."""
    ours = jax.jit(base.model.apply)({"params": base.params}, case.ours)
    with torch.no_grad():
        wanted = case.run_theirs(theirs).logits
    assert ours.dtype == jnp.float32
    assert_close(np.asarray(ours)[case.rows], wanted.numpy()[case.rows], relative)


def assert_same_factors(
    theirs: Any,
    base: Base,
    case: Case,
    sites: Mapping[str, str | tuple[str, slice]],
    relative: float = 1e-5,
) -> None:
    """u and delta at the sites ({our site: their module, or which of its outputs}) against
    PyTorch's hooks."""
    rng = np.random.default_rng(1)
    labels = np.where(case.rows, rng.integers(VOCABULARY, size=case.rows.shape), -100)
    labels[:, 0] = -100
    seen: dict[str, Any] = {}
    hooks = []
    parts = {}
    for site, module in sites.items():
        name, parts[site] = (module, slice(None)) if isinstance(module, str) else module

        def keep(_: Any, inputs: Any, output: Any, site: str = site) -> None:
            output.retain_grad()
            seen[site] = inputs[0], output

        hooks.append(theirs.get_submodule(name).register_forward_hook(keep))
    logits = case.run_theirs(theirs).logits
    for hook in hooks:
        hook.remove()
    value = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.tensor(labels).flatten().long(), ignore_index=-100
    )
    value.backward()
    pair = mj.Pair(case.ours, jnp.asarray(labels, jnp.int32))
    loss = mj.sequence_loss(base.model)
    ours, captured = jax.jit(mj.capture(loss, list(sites)))(base.params, pair)
    assert_close(ours, value.item(), relative)
    assert set(captured) == set(sites)
    for site, factors in captured.items():
        u, delta = (x.detach().flatten(0, -2).numpy() for x in (seen[site][0], seen[site][1].grad))
        delta = delta[:, parts[site]]
        live = np.any(delta != 0, axis=-1)
        assert live.any() and not np.any(factors.delta[~live])
        assert_close(factors.u[live], u[live], relative)
        assert_close(factors.delta, delta, relative)


def assert_same_words(theirs: Any, base: Base, case: Case, new: int = 6) -> None:
    """Greedy generation for each sequence alone (theirs) and for the padded batch (ours)."""
    lengths = jnp.asarray(LENGTHS, jnp.int32)
    tokens = jnp.asarray(case.tokens)
    ours = jax.jit(lambda p: generate(base.model, p, tokens, lengths, new))(base.params)
    for row, n, said in zip(case.tokens, LENGTHS, np.asarray(ours), strict=True):
        with torch.no_grad():
            wanted = theirs.generate(
                torch.tensor(row[None, :n]).long(),
                attention_mask=torch.ones(1, n, dtype=torch.long),
                max_new_tokens=new,
                min_new_tokens=new,
                do_sample=False,
                num_beams=1,
                use_cache=False,
                pad_token_id=0,
            )[0]
        np.testing.assert_array_equal(said, wanted[-new:].numpy())


def assert_same_sentences(theirs: Any, base: Base, new: int = 40) -> None:
    """Greedy generation of many tokens after four prompts of different lengths, padded to one."""
    lengths = (17, 4, 11, 8)
    tokens, _ = padded(lengths, seed=2)
    prompts, places = jnp.asarray(tokens), jnp.asarray(lengths, jnp.int32)
    ours = np.asarray(generate(base.model, base.params, prompts, places, new))
    for row, n, said in zip(tokens, lengths, ours, strict=True):
        with torch.no_grad():
            wanted = theirs.generate(
                torch.tensor(row[None, :n]).long(),
                attention_mask=torch.ones(1, n, dtype=torch.long),
                max_new_tokens=new,
                min_new_tokens=new,
                do_sample=False,
                num_beams=1,
                pad_token_id=0,
            )[0]
        np.testing.assert_array_equal(said, wanted[-new:].numpy())


def assert_parts_are_the_model(base: Base, case: Case, at: str) -> None:
    """The tail after the trunk is the model, cut anywhere from the first block of `at` on."""
    variables = {"params": base.params}
    wanted = jax.jit(base.model.apply)(variables, case.ours)
    trunk, tail = mj.split(base.model, at)
    assert trunk is not None
    carry = jax.jit(trunk.apply)(variables, case.ours)
    found = jax.jit(tail.apply)(variables, carry)
    assert_close(np.asarray(found)[case.rows], np.asarray(wanted)[case.rows], 1e-6)


def assert_read_positions_are_the_full_logits(base: Base, case: Case) -> None:
    """Logits asked for at some positions only, in any order."""
    read = jnp.asarray([[0, 20, 5], [8, 8, 1], [13, 2, 3]], jnp.int32)
    run = jax.jit(lambda inputs: base.model.apply({"params": base.params}, inputs))
    everywhere = np.asarray(run(case.ours))
    wanted = np.take_along_axis(everywhere, np.asarray(read)[..., None], axis=1)
    assert_close(run(case.ours._replace(read=read)), wanted, 1e-5)
