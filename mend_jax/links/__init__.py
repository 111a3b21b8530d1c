"""Links: the paper's editor network, as small maps on factors that chain like optax."""

from collections.abc import Callable, Mapping
from typing import Any

from mend_jax.links.base import Around, Link, Sited, chain
from mend_jax.links.discriminant import discriminant
from mend_jax.links.normalize import Moments, normalize
from mend_jax.links.rate import rate
from mend_jax.links.residual_mlp import relu, residual_mlp
from mend_jax.links.unit_strength import unit_strength

LINKS: dict[str, Callable[..., Link]] = {
    "discriminant": discriminant,
    "normalize": normalize,
    "rate": rate,
    "residual_mlp": residual_mlp,
    "unit_strength": unit_strength,
}


def from_config(config: Mapping[str, Any], links: Mapping[str, Callable[..., Link]]) -> Link:
    """Builds the chain that `Link.config` describes.

    Args:
      config: a link's `config`.
      links: your own factories by name, beside those of this module.

    Raises:
      ValueError: a link is in neither; the known ones are named. Or a chain has no links.
    """
    arguments = dict(config)
    name = arguments.pop("link")
    known = {**LINKS, **links}
    if name == "chain" and not arguments["links"]:
        raise ValueError("a chain of no links, which edits by the bare gradient")
    if name == "chain":
        return chain(*(from_config(link, links) for link in arguments["links"]))
    if name not in known:
        raise ValueError(f"no link is called {name!r}; known: {', '.join(sorted(known))}")
    if "inner" in arguments:
        arguments["inner"] = from_config(arguments["inner"], links)
    return known[name](**arguments)


__all__ = [
    "LINKS",
    "Around",
    "Link",
    "Moments",
    "Sited",
    "chain",
    "discriminant",
    "from_config",
    "normalize",
    "rate",
    "relu",
    "residual_mlp",
    "unit_strength",
]
