"""The editing methods by name: the one table that commands, saved editors and reports read.

A new method is one file and one line here. A method of one's own needs no line: its import path
`package.module:name` is its name, where `name` is a function (outputs, sites, **options) -> Editor,
or a `Method`.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from mend_jax.editors import (
    cache,
    enn,
    finetune,
    finetune_together,
    grace,
    in_context,
    ke,
    mend,
)
from mend_jax.editors.base import Editor, no_edit
from mend_jax.editors.held import Holding, held_together
from mend_jax.editors.method import AtOnce, Method
from mend_jax.editors.solved import solved
from mend_jax.editors.summed import summed
from mend_jax.links import Link
from mend_jax.objectives import Outputs
from mend_jax.sites import Sites

EDITORS: dict[str, Method] = {
    "mend": mend.METHOD,
    "ft": finetune.FT,
    "ft_kl": finetune.FT_KL,
    "ft_breadth": finetune_together.METHOD,
    "enn": enn.METHOD,
    "ke": ke.METHOD,
    "cache": cache.METHOD,
    "grace": grace.METHOD,
    "in_context": in_context.METHOD,
    "none": Method(lambda outputs, at: no_edit()),
}

HOLDINGS: dict[str, Callable[[Outputs, Sites], Holding]] = {
    "summed": lambda outputs, at: summed(),
    "solved": lambda outputs, at: solved(outputs.loss, at),
}
"""Ways to hold many edits together, by name: built of a model's outputs and the sites."""


def method_of(name: str) -> Method:
    """The method of this name, or at this import path (`package.module:name`).

    Raises:
      ValueError: there is none; says which are known, or what cannot be imported.
    """
    if name in EDITORS:
        return EDITORS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError(
            f"no editor is called {name!r}; known are {', '.join(EDITORS)}, and import paths "
            "(package.module:name)"
        )
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"the editor {name!r} cannot be imported ({error})") from error
    if isinstance(found, Method):
        return found
    if not callable(found):
        raise ValueError(f"{name!r} is a {type(found).__name__}: neither a function nor a Method")
    return Method(found, trained_with=lambda options: {}, at_once=("joint", "summed", "solved"))


def make_editor(
    name: str,
    options: Mapping[str, Any],
    outputs: Outputs,
    at: Sites,
    at_once: AtOnce = "joint",
    links: Mapping[str, Callable[..., Link]] | None = None,
) -> Editor:
    """An editor by name, over the outputs of a model or of its tail.

    Its config holds the name and the options, so that `saved` makes the same one again.

    Args:
      links: factories of your own links, by name, if its chain has any.

    Raises:
      ValueError: no such method, or way to hold edits; or as the method says.
    """
    own = {"links": links} if links else {}
    editor = method_of(name).make(outputs, at, **options, **own)
    given = {"options": dict(options)}
    editor = editor._replace(config={**given, **editor.config, "editor": name})
    if at_once == "joint":
        return editor
    if at_once not in HOLDINGS:
        known = ", ".join(("joint", *HOLDINGS))
        raise ValueError(f"edits are not made at once by {at_once!r}; known are {known}")
    return held_together(editor, HOLDINGS[at_once](outputs, at))
