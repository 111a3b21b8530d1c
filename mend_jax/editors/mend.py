"""MEND (Mitchell et al. 2022): one chain of links on the fine-tuning gradient, and its ablations.

    paper     normalize -> residual_mlp -> rate
    here      discriminant(normalize delta -> residual_mlp -> unit_strength) -> rate

The second works in coordinates in which the phrasings of one fact lie close together and other
facts far away, with edits of equal strength; it is what commands train unless `ridge` is 1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Array, Float

from mend_jax import links as link
from mend_jax.editors.base import Editor
from mend_jax.editors.gradient import gradient_editor
from mend_jax.editors.method import Ground, Method
from mend_jax.links import Link
from mend_jax.objectives import Outputs
from mend_jax.option_types import Rank, Rate, Ridge
from mend_jax.sites import Sites


def paper_chain(
    rank: int = 1920,
    alpha: float = 1e-4,
    on: Literal["both", "separate", "u", "delta", "smaller"] = "both",
    shared: bool = True,
    identity: bool = True,
    normalized: bool = True,
) -> Link:
    """The paper's editor network; the arguments are those of the links."""
    steps = [link.normalize(shared)] if normalized else []
    steps += [link.residual_mlp(rank, 2, on, shared, identity), link.rate(alpha)]
    return link.chain(*steps)


def mend(
    loss: Callable[..., Float[Array, ""]],
    at: Sites,
    *,
    rank: int = 1920,
    alpha: float = 1e-4,
    **parts: Any,
) -> Editor:
    """MEND with the paper's defaults; each ablation of Table 6 is one of the parts.

    It is nothing but `gradient_editor` over `chain(normalize(), residual_mlp(rank), rate(1e-4))`.

    Args:
      parts: as for `paper_chain`.
    """
    return gradient_editor(loss, at, paper_chain(rank, alpha, **parts))


@dataclass(frozen=True, kw_only=True)
class MendOptions:
    """Options of MEND's chain."""

    rank: Rank = 256
    """Rank of the editor network."""
    ridge: Ridge = 0.05
    """Ridge of the coordinates that tell facts apart, in which the editor works, with edits of
    unit strength; 1: neither, the paper's chain."""
    words: bool = False
    """In these coordinates, tell the words of an answer apart too: for answers of many tokens."""
    alpha: Rate = 6e-4
    """Edit rate alpha before training."""


def chain_of(options: MendOptions) -> Link:
    """The chain that the options ask for."""
    network = link.chain(link.normalize(), link.residual_mlp(options.rank))
    if options.ridge < 1:
        inner = link.chain(
            link.normalize(on="delta"), link.residual_mlp(options.rank), link.unit_strength()
        )
        network = link.discriminant(inner, options.ridge, options.words)
    return link.chain(network, link.rate(options.alpha))


def _make(
    outputs: Outputs,
    at: Sites,
    *,
    chain: Mapping[str, Any],
    links: Mapping[str, Callable[..., Link]] = {},
) -> Editor:
    return gradient_editor(outputs.loss, at, link.from_config(chain, links))


def _method(chain: Callable[[MendOptions], Link]) -> Method:
    def choose(options: MendOptions, ground: Ground) -> dict[str, Any]:
        return {"chain": chain(options).config}

    return Method(
        _make, MendOptions, choose, lambda options: {}, ("joint", "summed", "solved")
    )


METHOD = _method(chain_of)


ABLATIONS: dict[str, dict[str, Any]] = {
    "mend": {},
    "no_sharing": {"shared": False},
    "no_norm": {"normalized": False},
    "no_identity": {"identity": False},
    "only_u": {"on": "u"},
    "only_delta": {"on": "delta"},
    "only_smaller": {"on": "smaller"},
}
"""Table 6 of the paper: the parts of its chain that are changed, by name."""


def ablation(name: str) -> Method:
    """The paper's chain without one of its parts, at the run's rank and rate."""
    parts = ABLATIONS[name]
    return _method(lambda options: paper_chain(options.rank, options.alpha, **parts))
