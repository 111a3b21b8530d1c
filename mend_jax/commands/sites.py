"""Where a model is best edited: MEND at several places, trained alike.

    mend-jax sites --model ID --steps 200 --out DIR
    mend-jax sites --model ID --places default,mlp_2,attention_3 --minutes 2 --out DIR

    default      the layers that the family is edited at by default, or --sites
    mlp_N        the MLPs of the last N blocks (of an encoder-decoder: of either part)
    reads_N      of these, the layers that read the residual stream
    writes_N     those that write to it
    attention_N  the linear layers of the last N blocks that are not of the MLP

Scored are the --dev records that are set apart from training, by which each editor's best
checkpoint is chosen, too: those that are held out otherwise are not looked at, and are left for
what is decided here. Writes what `mend-jax compare` writes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from mend_jax.commands.command import Command, Preset
from mend_jax.commands.compare import CompareConfig, run
from mend_jax.option_types import accepted_by
from mend_jax.runs.options import check_config
from mend_jax.runs.places import placed, places_named


@dataclass(frozen=True, kw_only=True)
class Places(CompareConfig):
    """Options of the comparison of places."""

    out: Path = Path("runs/sites")
    dev: int = 200
    """Training records held out, by subject, for early stop, the best checkpoint and the scores; 0
    is refused, since nothing would be scored."""
    places: Annotated[str, accepted_by(places_named)] = (
        "default,mlp_1,mlp_2,mlp_3,reads_3,writes_3,attention_3"
    )
    """Which rows, by name, with commas."""

    on_development: ClassVar[bool] = True


def compare_places(config: Places) -> None:
    """MEND, trained at each of the places."""
    check_config(config)
    run(config, placed(config, config.places))


PRESETS = {
    "pronunciations": Preset(
        {
            "places": "default,mlp_1,reads_1,writes_1,attention_1", "steps": 150, "rank": 256,
            "learning_rate": 3e-5, "alpha": 4e-4, "alpha_learning_rate": 6e-5, "decay": "cosine",
            "c_edit": 0.05, "ridge": 0.05, "calibrate": 48, "swap": True, "near": 2, "far": 2,
            "max_validation": 20, "patience": 0, "longest_answer": 32, "evaluate_every": 1000,
        },
        "with a BART that spells words as sounds and the files of make_pronunciations, 200 edits: "
        "default 0.889 (edit success), reads_1 0.879, writes_1 0.879, attention_1 0.839; 26 "
        "minutes on two CPU cores beside other work, seed 0 (results/sites_bart)",
    ),
}  # fmt: skip

COMMAND = Command(Places, compare_places, __doc__, PRESETS)
