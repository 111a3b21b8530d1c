"""The trained editors that come with the package, by the name of their base."""

from importlib import resources
from pathlib import Path

from mend_jax.saved.arrays import EditorError

SHIPPED = ("smollm2-135m",)


def shipped(model: str) -> Path:
    """The directory of the editor for a base.

    Raises:
      EditorError: none comes with the package for this one.
    """
    if model not in SHIPPED:
        raise EditorError(
            f"no editor comes with the package for {model!r} (there is one for "
            f"{', '.join(SHIPPED)}): train one (mend-jax train --model {model} --out DIR) "
            "and give its directory"
        )
    return Path(str(resources.files("mend_jax") / "saved" / "editors" / model))
