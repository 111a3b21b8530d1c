"""An editing method chosen by name, and the editor that it makes on a task."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from mend_jax.editors.base import Editor
from mend_jax.editors.mend import ABLATIONS, ablation
from mend_jax.editors.method import Method
from mend_jax.editors.registry import EDITORS, make_editor, method_of
from mend_jax.models.registry import Base
from mend_jax.objectives import Outputs
from mend_jax.option_checks import refusal
from mend_jax.option_types import Batch
from mend_jax.runs.options import TrainConfig
from mend_jax.runs.scoping import late_sites
from mend_jax.runs.task import Task, ground_of


class Chosen(NamedTuple):
    """A method for one run.

    name: in the table of editors, or an import path. own: the method's own options. config: the
    run's options, with those that this method is trained with. called: in reports.
    """

    name: str
    method: Method
    own: Any
    config: TrainConfig
    called: str


def choose(config: TrainConfig, name: str) -> Chosen:
    """The method of this name for a run of its own: what it is trained with takes the place of
    options that are as the command has them by default.

    Raises:
      ValueError: no such method.
    """
    method = method_of(name)
    own = config if isinstance(config, method.options) else method.options()
    changes = {
        key: value
        for key, value in method.trained_with(own).items()
        if getattr(config, key) == getattr(type(config), key)
    }
    return Chosen(name, method, own, replace(config, **changes), name)


def contenders(config: TrainConfig, names: str, own: Any) -> dict[str, Chosen]:
    """The methods that a comma-separated list names, in its order, each with its own options.

    Args:
      own: has the options of each method under its name, unless it is a part of `config`.

    Raises:
      ValueError: a name is not known; says which are.
    """
    found = {}
    for name in editors_named(names):
        method = method_of(name)
        options = method.options
        mine = config if isinstance(config, options) else getattr(own, name, options())
        changed = replace(config, **method.trained_with(mine))
        found[name] = Chosen(name, method, mine, changed, name)
    return found


def many_at_once(chosen: Mapping[str, Chosen], ks: str) -> dict[str, Chosen]:
    """The methods, each for every number of edits at once of a comma-separated list.

    Raises:
      ValueError: as `numbers_of`.
    """

    def with_k(one: Chosen, k: int) -> Chosen:
        batch = max(one.config.batch // k, 1)
        return one._replace(config=replace(one.config, k=k, batch=batch))

    every = numbers_of(ks)
    return {f"{name}_{k}": with_k(one, k) for name, one in chosen.items() for k in every}


def numbers_of(ks: str) -> list[int]:
    """The numbers of edits at once in a comma-separated list.

    Raises:
      ValueError: one is no such number, or stands there twice.
    """
    found: list[int] = []
    for text in (part.strip() for part in ks.split(",")):
        k = int(text) if re.fullmatch("[0-9]{1,9}", text) else 0
        if said := refusal(Batch, k):
            raise ValueError(f"numbers of edits, with commas, are wanted; {text!r} is none: {said}")
        if k in found:
            raise ValueError(f"{k} stands there twice")
        found.append(k)
    return found


def ablations(config: TrainConfig, names: str) -> dict[str, Chosen]:
    """The paper's chain, and the chain without each of its parts, by name as in `contenders`."""
    return {
        name: Chosen("mend", ablation(name), config, config, name)
        for name in ablations_named(names)
    }


def sites_for(chosen: Chosen, base: Base, sites: tuple[str, ...]) -> tuple[str, ...]:
    """Where this method edits the base, if these are the run's sites."""
    return chosen.method.sites(chosen.own, base.model, sites)


def options_of(task: Task, chosen: Chosen) -> dict[str, Any]:
    """What the editor is made of, as a saved editor has it."""
    options = chosen.method.choose(chosen.own, ground_of(task))
    if not task.config.scope:
        return options
    return chosen.method.within(options, late_sites(task.base.model, task.sites))


def editor_of(
    task: Task, chosen: Chosen, options: Mapping[str, Any], outputs: Outputs
) -> Editor:
    """The editor over the tail of the task's base, or over all of it."""
    way = chosen.method.way(task.config.at_once, task.config.k)
    return make_editor(chosen.name, options, outputs, task.sites, way)


def editors_named(names: str) -> list[str]:
    """The editors of a comma-separated list, by name or import path.

    Raises:
      ValueError: there is none; one is not known, or cannot be imported, or stands there twice.
    """
    chosen = listed(names, EDITORS, "editors")
    for name in chosen:
        method_of(name)
    return chosen


def ablations_named(names: str) -> list[str]:
    """The same of the ablations.

    Raises:
      ValueError: there is none; one is not known, or stands there twice.
    """
    chosen = listed(names, ABLATIONS, "ablations")
    if unknown := [name for name in chosen if name not in ABLATIONS]:
        raise ValueError(f"no ablation is called {unknown[0]!r}; known are {', '.join(ABLATIONS)}")
    return chosen


def listed(names: str, known: Iterable[str], what: str) -> list[str]:
    """The names of a comma-separated list.

    Args:
      known, what: what could be named, and what it is called, for the error.

    Raises:
      ValueError: there is none; one stands there twice.
    """
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    if not chosen:
        raise ValueError(f"no {what} are named; known are {', '.join(known)}")
    if twice := [name for i, name in enumerate(chosen) if name in chosen[:i]]:
        raise ValueError(f"{twice[0]!r} stands there twice")
    return chosen
