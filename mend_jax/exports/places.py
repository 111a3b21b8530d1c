"""Where the sites of an edit are in transformers' model: tensors, modules, and parts of them.

A site is a kernel [d_in, d_out]. Hugging Face stores it transposed, except for GPT-2's Conv1D, and
some models have several of ours in one tensor, one after another along d_out.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp

from mend_jax.exports.folder import ExportError
from mend_jax.factors import Dense, Edit, Factors, add, shape_of
from mend_jax.models.registry import Base


class Place(NamedTuple):
    """Where a site is.

    module: the layer that it is in, or a part of. transposed: its weight is [d_out, d_in].
    begin, width: the site's outputs are the layer's from `begin` on, of `width` in all.
    """

    module: str
    transposed: bool
    begin: int
    width: int

    @property
    def tensor(self) -> str:
        """The name of its weight."""
        return f"{self.module}.weight"


def places_of(base: Base, sites: Sequence[str]) -> dict[str, Place]:
    """The place of each site.

    Raises:
      ExportError: the model has no kernel there.
    """
    found: dict[str, Place] = {}
    for name, one in base.family.expected_weights(base.config).items():
        begin = 0
        for leaf in one.leaves:
            if leaf.path[-1] == "kernel":
                module = name.removesuffix(".weight")
                place = Place(module, one.transpose, begin, one.shape[-1])
                found["/".join(leaf.path[:-1])] = place
                begin += leaf.shape[-1]
    if others := [site for site in sites if site not in found]:
        raise ExportError(f"{base.name} has no kernel at {others[0]!r}: an edit of another model?")
    return {site: found[site] for site in sites}


def by_module(base: Base, edit: Edit) -> dict[str, tuple[Place, Factors | Dense]]:
    """{module: (its place, what is added to its whole kernel, [d_in, d_out])}.

    Raises:
      ExportError: the model has no kernel at a site, or one of another shape.
    """
    table = base.family.expected_weights(base.config)
    found: dict[str, tuple[Place, Factors | Dense]] = {}
    for site, place in places_of(base, tuple(edit)).items():
        leaves = {"/".join(leaf.path[:-1]): leaf.shape for leaf in table[place.tensor].leaves}
        if tuple(leaves[site]) != shape_of(edit[site]):
            raise ExportError(
                f"site {site!r} of {base.name} is {leaves[site]}, and the edit "
                f"{shape_of(edit[site])}: an edit of another model?"
            )
        part = _widened(edit[site], place)
        before = found.get(place.module)
        whole = part if before is None else add({"": before[1]}, {"": part})[""]
        found[place.module] = place._replace(begin=0), whole
    return found


def _widened(part: Factors | Dense, place: Place) -> Factors | Dense:
    """Among zeros, as wide as the layer."""
    last = part.kernel if isinstance(part, Dense) else part.delta
    fill = (place.begin, place.width - place.begin - last.shape[-1])
    wide = jnp.pad(jnp.asarray(last), ((0, 0), fill))
    return Dense(wide) if isinstance(part, Dense) else Factors(jnp.asarray(part.u), wide)


def blocks_of(base: Base) -> Mapping[str, str]:
    """{stage: transformers' module}, of every block: `{"layers_3": "model.layers.3"}`."""
    found: dict[str, str] = {}
    for name, one in base.family.expected_weights(base.config).items():
        for leaf in one.leaves:
            number = re.fullmatch(r".*_(\d+)", leaf.path[0])
            module = number and re.match(rf"(.*?\.{number[1]})\.", name)
            if module:
                found.setdefault(leaf.path[0], module[1])
    return found
