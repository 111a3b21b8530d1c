"""The programs that a benchmark times, with their FLOPs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from mend_jax.cost.benchmark import flops_of, make_edit_and_answer, random_examples, random_params
from mend_jax.cost.held import held_actions
from mend_jax.cost.workload import Sizes, Workload, make_workload
from mend_jax.editors.mend import mend
from mend_jax.evaluation.teacher_forced import make_scorer
from mend_jax.models.memory import Dtype
from mend_jax.models.published import PublishedModel, config_of
from mend_jax.objectives import after_trunk, sequence_logits, sequence_loss
from mend_jax.training.state import init_state


class Runs:
    """The programs to be timed, over one base and one training state.

    A step donates the state, so the newest is kept here.
    """

    def __init__(
        self, model: PublishedModel, sizes: Sizes, dtype: Dtype, params: PyTree | None, edits: int
    ) -> None:
        """dtype: of the base's weights. params: the base's; None: random ones. edits: that are
        evaluated in a round."""
        active = jnp.float32 if dtype == "float32" else jnp.bfloat16
        self.work: Workload = make_workload(config_of(model), sizes, active)
        self.params = random_params(self.work.params, dtype) if params is None else params
        work, params = self.work, self.params
        first = after_trunk(work.trunk, params, random_examples(work, 1))
        one = jax.tree.map(lambda x: x[0], first)
        key = jax.random.key(0)
        self.state = init_state(work.editor, work.optimiser, key, params, one)
        self.answer = make_edit_and_answer(work)
        self.edits = edits
        self.scorer = make_scorer(work.editor, work.logits, work.trunk)
        whole = mend(sequence_loss(work.model), work.sites, rank=sizes.rank)
        self.lone_scorer = make_scorer(whole, sequence_logits(work.model))

    def step(self, batch: int) -> tuple[Callable[[], None], float]:
        """A training step of so many edits, and its FLOPs."""
        examples = random_examples(self.work, batch)
        flops = flops_of(self.work.step, self.state, self.params, examples)

        def run() -> None:
            self.state, metrics = self.work.step(self.state, self.params, examples)
            jax.block_until_ready((self.state, metrics))

        return run, flops

    def edit(self) -> tuple[Callable[[], None], float]:
        """One edit made, and the edited base's answer to it; and the FLOPs."""
        example = jax.tree.map(lambda x: x[0], random_examples(self.work, 1))
        flops = flops_of(self.answer, self.state.editor, self.params, example)

        def run() -> None:
            self.answer(self.state.editor, self.params, example).block_until_ready()

        return run, flops

    def evaluate(self, batch: int, alone: bool = False) -> tuple[Callable[[], None], float]:
        """Independent edits scored, `batch` at a time; and the FLOPs. `alone`: over the whole base,
        without a trunk that runs once."""
        examples = random_examples(self.work, batch)
        times = -(-self.edits // batch)
        scorer = self.lone_scorer if alone else self.scorer
        flops = flops_of(scorer, self.state.editor, self.params, examples) * times

        def run() -> None:
            for _ in range(times):
                scores = scorer(self.state.editor, self.params, examples)
            jax.block_until_ready(scores)

        return run, flops

    def held(self, edits: int) -> dict[str, Callable[[], None]]:
        """Passes and decoding, with and without so many edits held."""
        width = self.work.params["embedding"].shape[-1]
        return held_actions(self.work.model, self.params, self.work.sites, width, edits)
