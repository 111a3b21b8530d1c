"""The scopes that are known, by the names that configs give them."""

from collections.abc import Mapping
from typing import Any

from mend_jax.scopes.network import Scope, two_keys
from mend_jax.scopes.whole_text import two_keys_of_text

SCOPES = {"two_keys": two_keys, "two_keys_of_text": two_keys_of_text}


def scope_of(config: Mapping[str, Any]) -> Scope:
    """The scope that a config describes.

    Raises:
      ValueError: of a kind that is not known here.
    """
    options = dict(config)
    name = options.pop("scope", None)
    if name not in SCOPES:
        raise ValueError(f"no scope is called {name!r}; known are {', '.join(SCOPES)}")
    options.setdefault("asked_heads", 0)  # which scopes did not have at first
    return SCOPES[name](tuple(options.pop("stages")), **options)
