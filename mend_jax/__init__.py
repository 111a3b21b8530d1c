"""mend_jax: editing large language models in JAX."""

from mend_jax.editors.base import Editor, EditorState, Example, Pair
from mend_jax.editors.gradient import gradient_editor, mend
from mend_jax.factors import Dense, Factors, add, norm, scale, to_dense
from mend_jax.intercept import SiteError, capture, edited, linear_sites, merge
from mend_jax.links import Link, chain, normalize, rate, residual_mlp
from mend_jax.models.stages import Inputs, split
from mend_jax.objectives import sequence_logits, sequence_loss
from mend_jax.training import TrainState, editor_optimiser, init_state, make_step
