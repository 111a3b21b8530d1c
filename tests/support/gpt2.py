"""GPT-2 in plain Linen, after Hugging Face's `GPT2LMHeadModel`: the model of the golden numbers.

Dense kernels are [in, out], as Conv1D has them. Nothing of mend_jax is used.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Attention(nn.Module):
    heads: int

    @nn.compact
    def __call__(self, x: Float[Array, "k n d"], mask: Int[Array, "k n"]) -> Float[Array, "k n d"]:
        k, n, d = x.shape
        qkv = nn.Dense(3 * d, name="c_attn")(x).reshape(k, n, 3, self.heads, d // self.heads)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        scores = jnp.einsum("kqhd,kshd->khqs", query, key) / jnp.sqrt(d // self.heads)
        seen = jnp.tril(jnp.ones((n, n), bool))[None, None] & (mask[:, None, None] != 0)
        weights = jax.nn.softmax(jnp.where(seen, scores, jnp.finfo(jnp.float32).min))
        return nn.Dense(d, name="c_proj")(
            jnp.einsum("khqs,kshd->kqhd", weights, value).reshape(k, n, d)
        )


class MLP(nn.Module):
    inner: int

    @nn.compact
    def __call__(self, x: Float[Array, "k n d"]) -> Float[Array, "k n d"]:
        h = nn.gelu(nn.Dense(self.inner, name="c_fc")(x), approximate=True)  # gelu_new
        return nn.Dense(x.shape[-1], name="c_proj")(h)


class Block(nn.Module):
    heads: int
    inner: int

    @nn.compact
    def __call__(self, x: Float[Array, "k n d"], mask: Int[Array, "k n"]) -> Float[Array, "k n d"]:
        x = x + Attention(self.heads, name="attn")(nn.LayerNorm(1e-5, name="ln_1")(x), mask)
        return x + MLP(self.inner, name="mlp")(nn.LayerNorm(1e-5, name="ln_2")(x))


class GPT2(nn.Module):
    vocabulary: int = 23
    width: int = 8
    inner: int = 12
    heads: int = 2
    layers: int = 3
    positions: int = 32

    @nn.compact
    def __call__(self, ids: Int[Array, "k n"], mask: Int[Array, "k n"]) -> Float[Array, "k n v"]:
        normal = nn.initializers.normal(0.02)
        wte = self.param("wte", normal, (self.vocabulary, self.width))
        wpe = self.param("wpe", normal, (self.positions, self.width))
        x = wte[ids] + wpe[None, : ids.shape[1]]
        for i in range(self.layers):
            x = Block(self.heads, self.inner, name=f"h_{i}")(x, mask)
        return nn.LayerNorm(1e-5, name="ln_f")(x) @ wte.T
