"""What a link is: `Link(init, observe, apply)`, three pure functions on `{site: Factors}`.

A link acts on all sites at once, because sites of one shape share a network. Dead rows (u = 0 or
delta = 0: padding, positions without gradient) come out as zero rows.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import PRNGKeyArray, PyTree

from mend_jax.factors import Factors

Sited = Mapping[str, Factors]


class Around(NamedTuple):
    """What surrounds the observed edits: factors of their outer and locality pairs, one by one.

    Leading axes [edits, k]; the rows of an absent pair are dead.
    """

    outer: Sited
    locality: Sited


class Link(NamedTuple):
    """One step of a chain: learned parameters `phi`, running statistics `stats`, pure functions.

    init(key, factors) -> (phi, stats); only the shapes of `factors` are used.
    observe(phi, stats, factors, around=None) -> stats; no gradient; `factors` may have leading
      batch axes. `around` is given before training only (`Editor.calibrate`).
    apply(phi, stats, factors) -> factors; for one edit, vmappable.
    config: how to build the link again, `{"link": name, **arguments}` (for saved editors).
    """

    init: Callable[[PRNGKeyArray, Sited], tuple[PyTree, PyTree]]
    observe: Callable[..., PyTree]
    apply: Callable[[PyTree, PyTree, Sited], dict[str, Factors]]
    config: dict[str, Any]


def chain(*links: Link) -> Link:
    """The links one after the other; each observes what the one before puts out."""

    def init(key: PRNGKeyArray, factors: Sited) -> tuple[PyTree, PyTree]:
        keys = jax.random.split(key, max(len(links), 1))
        states = [link.init(k, factors) for link, k in zip(links, keys, strict=False)]
        return tuple(phi for phi, _ in states), tuple(stats for _, stats in states)

    def observe(
        phi: PyTree, stats: PyTree, factors: Sited, around: Around | None = None
    ) -> PyTree:
        after: list[PyTree] = []
        for link, p, s in zip(links, phi, stats, strict=True):
            after.append(link.observe(p, s, factors, around))
            factors = link.apply(p, after[-1], factors)
            if around is not None:
                around = Around(*(link.apply(p, after[-1], side) for side in around))
        return jax.lax.stop_gradient(tuple(after))

    def apply(phi: PyTree, stats: PyTree, factors: Sited) -> dict[str, Factors]:
        for link, p, s in zip(links, phi, stats, strict=True):
            factors = link.apply(p, s, factors)
        return dict(factors)

    config = {"link": "chain", "links": [link.config for link in links]}
    return Link(init, observe, apply, config)


def observe_nothing(
    phi: PyTree, stats: PyTree, factors: Sited, around: Around | None = None
) -> PyTree:
    """`Link.observe` of links without statistics."""
    del phi, factors, around
    return stats
