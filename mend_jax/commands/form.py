"""The form in which tyro shows a config class: each option with its text and what is allowed of it.

    form_of(TrainConfig, {"steps": 300})     # a dataclass, with a preset's options as its defaults
    filled(TrainConfig, what tyro returns)   # the config

tyro would read the classes themselves, but knows nothing of the rules in their types.
"""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Mapping
from typing import Annotated, Any

from mend_jax.option_checks import OWN, hints_of, is_group, plain, rules_of


def form_of(config: type[Any], given: Mapping[str, Any]) -> type[Any]:
    """A dataclass with the same fields; `given` are defaults that take the place of its own."""
    import tyro

    hints, said = hints_of(config), docstrings(config)
    fields: list[tuple[str, Any, Any]] = []
    for field in dataclasses.fields(config):
        name, hint = field.name, hints[field.name]
        default = {"default": given[name]} if name in given else _default(field)
        if is_group(hint):
            inner = form_of(plain(hint), vars(given[name]) if name in given else {})
            group = tyro.conf.arg(name="" if name == OWN else None)
            fields.append((name, Annotated[inner, group], dataclasses.field(default_factory=inner)))
        else:
            text = tyro.conf.arg(help=explained(said.get(name, ""), hint) or None)
            fields.append((name, Annotated[hint, text], dataclasses.field(**default)))
    body = {"__doc__": config.__doc__}
    return dataclasses.make_dataclass(config.__name__, fields, namespace=body, kw_only=True)


def filled(config: type[Any], form: Any) -> Any:
    """The config of a form's values."""
    hints = hints_of(config)
    values = {}
    for field in dataclasses.fields(config):
        hint, value = hints[field.name], getattr(form, field.name)
        values[field.name] = filled(plain(hint), value) if is_group(hint) else value
    return config(**values)


def _default(field: dataclasses.Field[Any]) -> dict[str, Any]:
    if field.default is not dataclasses.MISSING:
        return {"default": field.default}
    made = field.default_factory
    return {} if made is dataclasses.MISSING else {"default_factory": made}


def explained(text: str, hint: Any) -> str:
    """An option's text on one line, followed by what is allowed."""
    line = " ".join(text.split())
    allowed = ", ".join(rule.says for rule in rules_of(hint) if rule.says)
    return f"{line} [{allowed}]" if allowed else line


def docstrings(config: Any) -> Mapping[str, str]:
    """The text below each field of a class, the nearest base's first."""
    found: dict[str, str] = {}
    for cls in config.__mro__:
        try:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        except (OSError, TypeError):
            continue
        body = getattr(tree, "body", [])
        for field, text in zip(body, body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                if isinstance(text.value, ast.Constant) and isinstance(field.target, ast.Name):
                    found.setdefault(field.target.id, str(text.value.value))
    return found
