"""The editing methods of the comparison, by name, each with the options that it is trained with."""

from dataclasses import dataclass
from typing import Any

from mend_jax.data.batches import collate, shapes_of
from mend_jax.editors.base import Editor, no_edit
from mend_jax.editors.cache import cache
from mend_jax.editors.enn import enn, used_by
from mend_jax.editors.finetune import finetune, finetune_together
from mend_jax.editors.gradient import mend
from mend_jax.editors.ke import ke
from mend_jax.example import Pair
from mend_jax.objectives import Outputs
from mend_jax.runs.comparison import Method
from mend_jax.runs.options import ExperimentError, TrainConfig
from mend_jax.runs.run import mend_editor
from mend_jax.runs.task import Setting, example_of
from mend_jax.saved.directory import made_at_once

LOCALITIES = 100
"""Locality pairs of training records that FT+KL walks through, one a step."""


@dataclass(frozen=True, kw_only=True)
class MethodOptions(TrainConfig):
    """Options of all methods; those of a training run are MEND's."""

    steps: int = 0
    """Training steps of every editor that is trained; 0: as many as fit in --minutes."""
    minutes: float = 2.0
    """Time to train each editor, unless --steps says how long."""
    ft_learning_rate: float = 1e-4
    """Of FT and FT+KL, by RMSprop. The paper: 1e-4 for T5, 5e-6 for GPT-Neo and GPT-J, else
    1e-6."""
    ft_steps: int = 100
    """Steps of FT and FT+KL at most; they end when the edit is answered."""
    ft_c_edit: float = 1e-2
    """Weight of the edit loss in FT+KL."""
    breadth_learning_rate: float = 1e-3
    """Of fine-tuning on all edits at once, by Adam."""
    breadth_epochs: int = 20
    """Epochs of it."""
    enn_learning_rate: float = 1e-5
    """Of ENN's base."""
    enn_rate: float = 1e-2
    """ENN's edit rates before training."""
    enn_rate_learning_rate: float = 1e-3
    """Of ENN's edit rates."""
    ke_learning_rate: float = 3e-4
    """Of KE's network."""
    cache_epsilon: float | None = None
    """Radius of the cache; by default from training records (mend_jax/editors/cache.py)."""


def methods_of(names: str, options: MethodOptions) -> dict[str, Method]:
    """The methods that a comma-separated list names, in its order.

    Raises:
      ExperimentError: a name is not known; says which are.
    """
    return _chosen(names, _known(options))


def many_at_once(names: str, ks: str, options: MethodOptions) -> dict[str, Method]:
    """The methods, each for every number of edits at once.

    Raises:
      ExperimentError: a name is not known, or a number is none.
    """
    numbers = [text.strip() for text in ks.split(",")]
    if wrong := [text for text in numbers if not text.isdigit() or int(text) < 1]:
        raise ExperimentError(f"--ks are numbers of edits, with commas; {wrong[0]!r} is none")
    return {
        f"{name}_{k}": method._replace(
            changes={**method.changes, "k": k, "batch": max(options.batch // k, 1)}, called=name
        )
        for name, method in methods_of(names, options).items()
        for k in map(int, numbers)
    }


def _chosen(names: str, known: dict[str, Method]) -> dict[str, Method]:
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in chosen if name not in known]:
        raise ExperimentError(
            f"no editor is called {unknown[0]!r}; known are {', '.join(known)}"
        )
    if not chosen:
        raise ExperimentError(f"no editors are named; known are {', '.join(known)}")
    return {name: known[name] for name in chosen}


def _known(options: MethodOptions) -> dict[str, Method]:
    def build_mend(setting: Setting, outputs: Outputs) -> Editor:
        return mend_editor(setting.config, outputs, setting.sites)

    def build_ft(setting: Setting, outputs: Outputs) -> Editor:
        return finetune(
            outputs, setting.sites,
            learning_rate=options.ft_learning_rate, steps=options.ft_steps,
        )  # fmt: skip

    def build_ft_kl(setting: Setting, outputs: Outputs) -> Editor:
        return finetune(
            outputs, setting.sites, learning_rate=options.ft_learning_rate,
            steps=options.ft_steps, locality=localities(setting), c_edit=options.ft_c_edit,
        )  # fmt: skip

    def build_breadth(setting: Setting, outputs: Outputs) -> Editor:
        return finetune_together(
            outputs, setting.sites, seed=options.seed,
            learning_rate=options.breadth_learning_rate, epochs=options.breadth_epochs,
        )  # fmt: skip

    def build_enn(setting: Setting, outputs: Outputs) -> Editor:
        trained = used_by(setting.outputs, setting.base.params, example_of(setting))
        return enn(outputs, setting.sites, rate=options.enn_rate, trains=trained)

    def build_ke(setting: Setting, outputs: Outputs) -> Editor:
        made = ke(outputs, setting.sites)
        how = "summed" if setting.config.k > 1 else "joint"  # it makes one edit at a time
        return made_at_once(made, how, outputs, setting.sites)

    def build_cache(setting: Setting, outputs: Outputs) -> Editor:
        return cache(outputs, setting.sites, epsilon=options.cache_epsilon)

    alone = {"calibrate": 0}
    enn_rates = {
        "learning_rate": options.enn_learning_rate,
        "alpha_learning_rate": options.enn_rate_learning_rate,
    }
    return {
        "mend": Method(build_mend),
        "ft": Method(build_ft, alone),
        "ft_kl": Method(build_ft_kl, alone),
        "ft_breadth": Method(build_breadth, alone, together=True),
        "enn": Method(build_enn, alone | enn_rates),
        "ke": Method(build_ke, alone | {"learning_rate": options.ke_learning_rate}),
        "cache": Method(build_cache, {"calibrate": max(options.calibrate, 1)}),
        "none": Method(lambda setting, outputs: no_edit(), alone),
    }


ABLATIONS: dict[str, dict[str, Any]] = {
    "mend": {},
    "no_sharing": {"shared": False},
    "no_norm": {"normalized": False},
    "no_identity": {"identity": False},
    "only_u": {"on": "u"},
    "only_delta": {"on": "delta"},
    "only_smaller": {"on": "smaller"},
}
"""Table 6 of the paper, as options of its chain."""


def ablations(names: str) -> dict[str, Method]:
    """The paper's chain, and the chain without each of its parts, by name as in `methods_of`."""

    def method(changes: dict[str, Any]) -> Method:
        def build(setting: Setting, outputs: Outputs) -> Editor:
            config = setting.config
            made = mend(
                outputs.loss, setting.sites, rank=config.rank, alpha=config.alpha, **changes
            )
            return made_at_once(made, config.at_once, outputs, setting.sites)

        return Method(build)

    return _chosen(names, {name: method(changes) for name, changes in ABLATIONS.items()})


def localities(setting: Setting) -> Pair:
    """Locality pairs of training records, tokens [n, 1, ...].

    Raises:
      ExperimentError: the training records have none.
    """
    records = setting.data.train
    pairs = [pair for record in records for pair in record.locality][:LOCALITIES]
    if not pairs:
        raise ExperimentError("FT+KL needs locality pairs, and the training records have none")
    return collate([[pair] for pair in pairs], shapes_of(records).locality)
