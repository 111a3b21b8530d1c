"""The checker behind pytest's `--jaxtyping-packages`: beartype, told what it cannot know.

Every annotated function of mend_jax is checked when a test calls it, shapes and all.
"""

from collections.abc import Callable

from beartype import BeartypeConf, FrozenDict, beartype
from flax.linen.linear import PromoteDtypeFn

checked = beartype(
    conf=BeartypeConf(
        is_pep484_tower=True,  # an int is a float, as for mypy
        hint_overrides=FrozenDict({PromoteDtypeFn: Callable}),  # a protocol without its marker
    )
)
