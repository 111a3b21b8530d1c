"""The formats of exports by name. A new one is a file, and a line here."""

from mend_jax.exports import gguf, huggingface, peft, scoped
from mend_jax.exports.folder import ExportError
from mend_jax.exports.format import Format

FORMATS: dict[str, Format] = {
    "scoped": scoped.FORMAT,
    "huggingface": huggingface.FORMAT,
    "peft": peft.FORMAT,
    "gguf": gguf.FORMAT,
}


def format_of(name: str) -> Format:
    """The format of this name.

    Raises:
      ExportError: there is none; the known ones are named.
    """
    if name not in FORMATS:
        raise ExportError(f"no format is called {name!r}; known are {', '.join(FORMATS)}")
    return FORMATS[name]
