"""Editors of MEND's own archives (`archive_file`), over a base.

A network, and its statistics, belong to a shape [d_in, d_out], or, unshared, to a matrix, whose
name has # for dots. The rates are numbered as the matrices were listed in the run's config, which
is not in the archive: `listed` says how that is known.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mend_jax import links
from mend_jax.editors.base import EditorState
from mend_jax.factors import natural
from mend_jax.links import Link
from mend_jax.models.registry import Base
from mend_jax.objectives import outputs_of
from mend_jax.saved.archive_file import Archive
from mend_jax.saved.arrays import EditorError, check_trained
from mend_jax.saved.building import blank_example, build_editor
from mend_jax.saved.directory import SavedEditor
from mend_jax.weights.names import spellings

NET = re.compile(r"(?P<net>mlp[12]?)\.layers\.(?P<layer>\d+)\.(?P<leaf>.+)")
LEAVES = {"U": "u", "V": "v", "b": "bias", "scale": "mode_scale.weight",
          "shift": "mode_shift.weight"}  # fmt: skip
STATISTICS = ("u_mean", "v_mean", "u_std", "v_std", "u_s", "v_s", "k")
SIDES = {"both": "mlp", "u": "mlp1", "delta": "mlp2"}


class Unsaid(NamedTuple):
    """What an archive does not say.

    descent: edits are subtracted, as in the paper; the authors' code adds them, and so do all
      archives that it made. normalized: the statistics are used. identity: of the networks, that
      they began as the identity, with a residual.
    """

    descent: bool = False
    normalized: bool = True
    identity: bool = True


def editor_of_archive(
    archive: Archive, base: Base, sites: Sequence[str], matrices: Sequence[str], unsaid: Unsaid
) -> SavedEditor:
    """The editor that an archive holds, over a base.

    Args:
      sites: the edited layers. matrices: their names by the authors (`inner_params`), in the order
        of their config; empty: as `listed` finds them.

    Raises:
      EditorError: arrays are missing, left over or mis-shaped, which is to say: of another base, or
        of other matrices; the statistics have seen nothing.
    """
    known = matrices_of(base)
    if matrices:
        spelt = {name: site for site, one in known.items() for name in one.names}
        if unknown := [name for name in matrices if name not in spelt]:
            raise EditorError(f"{base.name} has no matrix {unknown[0]!r}")
        order = [spelt[name] for name in matrices]
    else:
        order = listed(archive, known, sites)
    if len(archive.rates) != len(order):
        raise EditorError(
            f"{archive.origin} has rates of {len(archive.rates)} matrices, and {len(order)} are to "
            f"be edited ({', '.join(order)}): say which (--sites, or --matrices in their order)"
        )
    at = tuple(sorted(order, key=natural))
    chain = chain_of(archive, unsaid)
    config = {"editor": "mend", "options": {"chain": chain.config}, "sites": at}
    editor = build_editor(config, outputs_of(base.model))
    example = blank_example(base, None)
    shapes = jax.eval_shape(lambda p: editor.init(jax.random.key(0), p, example), base.params)
    reading = _Reading(archive, {site: known[site] for site in order})
    state = EditorState(*jax.tree_util.tree_map_with_path(reading.leaf, tuple(shapes)))
    reading.check(unsaid.normalized)
    check_trained(state, archive.origin)
    told = {"archive": Path(archive.origin).name, "matrices": order}
    return SavedEditor(editor, state, base, at, told)


def chain_of(archive: Archive, unsaid: Unsaid) -> Link:
    """The chain that the archive's arrays are of."""
    parts = [(*_parts(name), array) for name, array in archive.arrays.items()]
    nets = [(group, NET.fullmatch(rest), array) for group, rest, array in parts]
    found = [(group, net, array) for group, net, array in nets if net is not None]
    if not found:
        raise EditorError(f"{archive.origin}: it holds no network")
    sides = {group: {net["net"] for g, net, _ in found if g == group} for group, _, _ in found}
    shared = all(group.startswith("(") for group in sides)
    kinds = {frozenset(kind) for kind in sides.values()}
    on = {frozenset({"mlp"}): "both", frozenset({"mlp1", "mlp2"}): "separate",
          frozenset({"mlp1"}): "u", frozenset({"mlp2"}): "delta"}  # fmt: skip
    kind = on.get(next(iter(kinds)), "smaller") if len(kinds) == 1 else "smaller"
    rank = max(array.shape[1] for _, net, array in found if net["leaf"] == "u")
    blocks = 1 + max(int(net["layer"]) for _, net, _ in found)
    mlp = links.residual_mlp(rank, blocks, kind, shared, unsaid.identity)  # type: ignore[arg-type]
    first = [links.normalize(shared)] if unsaid.normalized else []
    return links.chain(*first, mlp, links.rate(descent=unsaid.descent))


class Matrix(NamedTuple):
    """A kernel in PyTorch. names: it may have one of these. shape: (d_in, d_out)."""

    names: tuple[str, ...]
    shape: tuple[int, ...]


def matrices_of(base: Base) -> dict[str, Matrix]:
    """{site: its matrix}, of all kernels that are one in PyTorch, in the base's order."""
    return {
        "/".join(one.path[:-1]): Matrix(spellings(name), one.shape)
        for name, one in base.family.expected_weights(base.config).items()
        if len(one.leaves) == 1 and one.path[-1] == "kernel"
    }


def listed(archive: Archive, known: Mapping[str, Matrix], sites: Sequence[str]) -> list[str]:
    """The sites in the order of the authors' configs, in which rates and modes are numbered.

    Unshared networks stand in the archive in that order. Shared ones stand in the order in which
    their shapes are first listed; the authors list encoders before decoders, then block by block.

    Raises:
      EditorError: a site is no matrix of its own in PyTorch.
    """
    if missing := [site for site in sites if site not in known]:
        raise EditorError(f"{archive.origin}: {missing[0]!r} is not one matrix in PyTorch")
    groups, every = list(dict.fromkeys(_parts(name)[0] for name in archive.arrays)), list(known)

    def place(site: str) -> tuple[Any, ...]:
        group = _group_of(archive, known[site])
        number = groups.index(group) if group in groups else len(groups)
        if not group.startswith("("):
            return (number,)
        block = re.search(r"\d+", site)
        return site.startswith("decoder"), int(block[0]) if block else 0, number, every.index(site)

    return sorted(sites, key=place)


def _group_of(archive: Archive, matrix: Matrix) -> str:
    """What the archive calls the network of a matrix."""
    groups = {_parts(name)[0] for name in archive.arrays}
    own = [name.replace(".", "#") for name in matrix.names]
    d_in, d_out = matrix.shape
    return next((name for name in own if name in groups), f"({d_in}, {d_out})")


def _parts(name: str) -> tuple[str, str]:
    """The network of an array, and the array's name there."""
    group, _, rest = name.partition(".")
    return group, rest


def _name(key: Any) -> Any:
    """What a key of a path in a tree says."""
    return next(getattr(key, kind) for kind in ("key", "name", "idx") if hasattr(key, kind))


class _Reading:
    """The leaves of an editor's state, out of an archive's arrays; what does not fit is noted.

    matrices: by site, in the order of the archive's rates.
    """

    def __init__(self, archive: Archive, matrices: Mapping[str, Matrix]) -> None:
        self.archive, self.order = archive, list(matrices)
        self.theirs = {site: _group_of(archive, matrix) for site, matrix in matrices.items()}
        self.ours = {
            site: "{}x{}".format(*matrix.shape) if self.theirs[site].startswith("(") else site
            for site, matrix in matrices.items()
        }
        self.used: set[str] = set()
        self.problems: list[str] = []

    def leaf(self, path: tuple[Any, ...], shape: jax.ShapeDtypeStruct) -> np.ndarray:
        """The array at a place of (phi, stats)."""
        keys = [_name(key) for key in path[2:]]
        if keys[0] == "alpha":
            return np.asarray(self.archive.rates[self.order.index(keys[1])])
        mine = [site for site in self.order if self.ours[site] == keys[0]]
        if keys[1:] == ["rows"]:
            rest = "k"
        elif keys[1] in ("mean", "m2"):
            rest = f"{'u' if keys[2] == 'u' else 'v'}_{'mean' if keys[1] == 'mean' else 's'}"
        else:
            rest = f"{SIDES[keys[1]]}.layers.{keys[2]}.{LEAVES[keys[3]]}"
        name = f"{self.theirs[mine[0]]}.{rest}"
        array = self.archive.arrays.get(name)
        self.used.add(name)
        if array is None:
            self.problems.append(f"{name} is missing")
            return np.zeros(shape.shape, np.float32)
        array = array.reshape(()) if rest == "k" and array.size == 1 else array
        if array.shape != shape.shape:
            self.problems.append(f"{name} has shape {array.shape}, expected {shape.shape}")
        elif keys[-1] in ("scale", "shift"):  # a row a site: theirs as listed, ours by name
            return array[[mine.index(site) for site in sorted(mine, key=natural)]]
        return array

    def check(self, normalized: bool) -> None:
        """Raises EditorError for what did not fit, and what was not read."""
        spare = ("u_std", "v_std") if normalized else STATISTICS
        rest = [n for n in self.archive.arrays if n not in self.used and _parts(n)[1] not in spare]
        problems = [*self.problems, *(f"{name} is of no edited matrix" for name in rest)]
        if problems:
            raise EditorError(
                f"{self.archive.origin}: {len(problems)} arrays do not fit, so it was made for "
                f"another base, or other matrices: {'; '.join(problems[:10])}"
            )
