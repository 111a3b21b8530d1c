"""mend_jax: editing large pre-trained language models in JAX.

A fine-tuning gradient of a linear layer is kept as the factors it is made of; small pure functions
turn them into an edit: a value that can be applied, added, dropped, saved and merged.

Each word has one meaning here:

| word | meaning |
|---|---|
| base | the pre-trained model that is edited; its frozen weights are `params` |
| site | a linear layer whose kernel may be edited, by the name of its path |
| u, delta | at a site: what goes in, and the loss's gradient at what comes out, a row a token |
| edit | `{site: Factors(u, delta)}`, or `Dense`: what is added to the kernels |
| link | a learned or counted step from factors to factors; `chain` makes one of several |
| editor | an editing method: pure functions that make an edit of an example and put it to work |
| pair | `Pair(inputs, labels)`: what goes into the base, and what should come out |
| example | the pair to edit to, pairs that score the edit, and pairs that must stay |
| record | an example as words: prompt, target, rephrases, locality, subject |
| trunk, tail | the stages of the base before the first edited site, and from there on |
| scope | where an edit holds; elsewhere the base answers |
| held edits | many edits as one value, to which one is added and from which one is removed |
| store | where edits are kept: rows of a database with an append-only history |
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mend_jax.calls import linear_sites
from mend_jax.data.codec import Codec, codec_of
from mend_jax.data.records import Locality, Record, write_records
from mend_jax.data.sources.base import Reading
from mend_jax.data.sources.facts import facts_records
from mend_jax.data.sources.registry import read_records
from mend_jax.editors.base import Editor, EditorState, no_edit, untrained
from mend_jax.editors.cache import cache
from mend_jax.editors.enn import enn
from mend_jax.editors.finetune import finetune
from mend_jax.editors.finetune_together import finetune_together
from mend_jax.editors.grace import grace
from mend_jax.editors.gradient import gradient_editor
from mend_jax.editors.held import Holding, held_together
from mend_jax.editors.in_context import in_context
from mend_jax.editors.ke import ke
from mend_jax.editors.mend import mend
from mend_jax.editors.method import Method
from mend_jax.editors.scoped import scoped
from mend_jax.editors.solved import solved
from mend_jax.editors.summed import summed
from mend_jax.example import Example, Pair
from mend_jax.factors import Dense, Edit, Factors, add, norm, scale, to_dense
from mend_jax.intercept import capture, edited, merge
from mend_jax.links import Link, chain, discriminant, normalize, rate, residual_mlp, unit_strength
from mend_jax.models.generate import generate
from mend_jax.models.registry import Base, default_sites, load
from mend_jax.models.stages import Inputs, split
from mend_jax.objectives import Outputs, outputs_of, sequence_logits, sequence_loss
from mend_jax.opened import Opened, ask, forget, open, tell, tell_records
from mend_jax.parallel import make_mesh, start_distributed
from mend_jax.saved.directory import SavedEditor, load_editor, save_editor
from mend_jax.scopes.network import Scope, two_keys
from mend_jax.scopes.whole_text import two_keys_of_text
from mend_jax.sites import SiteError, Sites
from mend_jax.training.optimiser import editor_optimiser
from mend_jax.training.state import Placement, TrainState, init_state
from mend_jax.training.step import Objective, make_step

if TYPE_CHECKING:
    from mend_jax.exports.card import Card
    from mend_jax.exports.gguf import export_gguf
    from mend_jax.exports.huggingface import export_huggingface
    from mend_jax.exports.peft import export_peft
    from mend_jax.exports.published import publish_editor
    from mend_jax.exports.scoped import export_scoped
    from mend_jax.store.store import EditStore

__all__ = [
    "Base",
    "Card",
    "Codec",
    "Dense",
    "Edit",
    "EditStore",
    "Editor",
    "EditorState",
    "Example",
    "Factors",
    "Holding",
    "Inputs",
    "Link",
    "Locality",
    "Method",
    "Objective",
    "Opened",
    "Outputs",
    "Pair",
    "Placement",
    "Reading",
    "Record",
    "SavedEditor",
    "Scope",
    "SiteError",
    "Sites",
    "TrainState",
    "add",
    "ask",
    "cache",
    "capture",
    "chain",
    "codec_of",
    "default_sites",
    "discriminant",
    "edited",
    "editor_optimiser",
    "enn",
    "export_gguf",
    "export_huggingface",
    "export_peft",
    "export_scoped",
    "facts_records",
    "finetune",
    "finetune_together",
    "forget",
    "generate",
    "grace",
    "gradient_editor",
    "held_together",
    "in_context",
    "init_state",
    "ke",
    "linear_sites",
    "load",
    "load_editor",
    "make_mesh",
    "make_step",
    "mend",
    "merge",
    "no_edit",
    "norm",
    "normalize",
    "open",
    "outputs_of",
    "publish_editor",
    "rate",
    "read_records",
    "residual_mlp",
    "save_editor",
    "scale",
    "scoped",
    "sequence_logits",
    "sequence_loss",
    "solved",
    "split",
    "start_distributed",
    "summed",
    "tell",
    "tell_records",
    "to_dense",
    "two_keys",
    "two_keys_of_text",
    "unit_strength",
    "untrained",
    "write_records",
]


LATER = {
    "Card": "mend_jax.exports.card",
    "EditStore": "mend_jax.store.store",
    "export_gguf": "mend_jax.exports.gguf",
    "export_huggingface": "mend_jax.exports.huggingface",
    "export_peft": "mend_jax.exports.peft",
    "export_scoped": "mend_jax.exports.scoped",
    "publish_editor": "mend_jax.exports.published",
}
"""Names that are imported where they are used: of the store, which needs a database, and of what is
built upon it."""


def __getattr__(name: str) -> Any:
    if name not in LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(LATER[name]), name)
