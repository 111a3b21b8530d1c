"""Places at which a model could be edited, by name: which layers, of which last blocks."""

import re
from collections.abc import Callable
from typing import Any

from mend_jax.editors.mend import METHOD
from mend_jax.models.stages import linear_in, sites_of
from mend_jax.runs.methods import Chosen, listed
from mend_jax.runs.options import TrainConfig

DEFAULT = "default"
KINDS = ("mlp", "reads", "writes", "attention")
_NAMED = re.compile(rf"({'|'.join(KINDS)})_([1-9]\d?)")


def places_named(names: str) -> list[str]:
    """The places of a comma-separated list.

    Raises:
      ValueError: there is none; one is not known, or stands there twice.
    """
    known = (DEFAULT, *(f"{kind}_N" for kind in KINDS))
    chosen = listed(names, known, "places")
    if unknown := [x for x in chosen if x != DEFAULT and not _NAMED.fullmatch(x)]:
        raise ValueError(f"no place is called {unknown[0]!r}; known are {', '.join(known)}")
    return chosen


def sites_at(place: str, model: Any, default: tuple[str, ...]) -> tuple[str, ...]:
    """The linear layers of a place.

    Raises:
      ValueError: the model has fewer blocks, or no such layers.
    """
    if place == DEFAULT:
        return default
    match = _NAMED.fullmatch(place)
    assert match is not None
    kind, count = match[1], int(match[2])
    stacks: dict[str, list[str]] = {}
    for block in model.stages[1:-1]:  # between the embedding and the head
        stacks.setdefault(re.sub(r"\d+$", "", block), []).append(block)
    if few := [name for name, blocks in stacks.items() if len(blocks) < count]:
        raise ValueError(f"{place}: of {few[0]}N there are {len(stacks[few[0]])}")
    last = [block for blocks in stacks.values() for block in blocks[-count:]]
    every = linear_in(model)
    found = [site for block in last for site in _layers(kind, block, every)]
    if not found:
        raise ValueError(f"{place}: the model has no such linear layers")
    return sites_of(model, found)


def _layers(kind: str, block: str, every: tuple[str, ...]) -> list[str]:
    """Of one block, in the order in which they are called."""
    within = [site for site in every if site.startswith(f"{block}/")]
    mlp = [site for site in within if site.startswith(f"{block}/mlp/")]
    if kind == "attention":
        return [site for site in within if site not in mlp]
    return {"mlp": mlp, "reads": mlp[:-1], "writes": mlp[-1:]}[kind]


def placed(config: TrainConfig, names: str) -> dict[str, Chosen]:
    """MEND at each of the places that a comma-separated list names."""

    def at(place: str) -> Callable[..., tuple[str, ...]]:
        return lambda options, model, default: sites_at(place, model, default)

    return {
        name: Chosen("mend", METHOD._replace(sites=at(name)), config, config, name)
        for name in places_named(names)
    }
