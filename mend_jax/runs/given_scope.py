"""The editor of a run that is given a scope: trained for one, given it, scored with edits held."""

from collections.abc import Callable

from mend_jax.data.token_records import check_enough
from mend_jax.editors.answering import answering
from mend_jax.editors.base import Editor
from mend_jax.editors.scoped import check_factors
from mend_jax.evaluation.held import Holder, programs_of
from mend_jax.evaluation.scores import Scores
from mend_jax.evaluation.teacher_forced import Batching
from mend_jax.reports.progress import Reporter
from mend_jax.runs.held import Standing, forced_held
from mend_jax.runs.scoping import (
    ScopeRecords,
    ScopeTraining,
    add_scope,
    late_sites,
    reads_whole,
    scope_lent,
    with_scope,
)
from mend_jax.runs.task import Task
from mend_jax.runs.training import shapes_of_edit
from mend_jax.runs.work import Work
from mend_jax.saved.directory import SavedEditor
from mend_jax.scopes.registry import scope_of


def for_scope(task: Task, editor: Editor) -> Editor:
    """The editor over the tail whose edits act where they are asked for, as in a perfect scope.

    Raises:
      ValueError: its edits cannot be held in a scope.
    """
    check_factors(shapes_of_edit(task, editor))  # before anything is trained
    if reads_whole(task.base.model):
        return editor  # it acts everywhere in a text of its own
    return answering(editor, late_sites(task.base.model, task.sites))


def given_scope(task: Task, saved: SavedEditor, say: Callable[[str], None]) -> SavedEditor:
    """The editor with a scope: another's, or one trained on the run's own records."""
    config = task.config
    saved = saved._replace(config=saved.config | {"sites": list(saved.sites)})
    if config.scope_of:
        lent = scope_lent(config.scope_of, task.base, saved.sites)
        return with_scope(saved, *lent)
    parts = ([entry.record for entry in part] for part in (task.data.train, task.data.dev))
    longest = min(config.longest, ScopeTraining().longest)
    training = ScopeTraining(
        config.scope_steps, config.scope_batch, longest, config.seed, config.scope_leaks
    )
    return add_scope(saved, ScopeRecords(*parts), training, task.cache, say)


def scored_held(
    task: Task, editor: Editor, saved: SavedEditor, k: int, reporter: Reporter
) -> Scores:
    """Scores of the held-out records, of which every k are held together.

    Args:
      editor: the saved one, which has a scope, over the tail.

    Raises:
      ValueError: there are fewer than k.
    """
    config = task.config
    check_enough(task.data.validation, k)
    scope = scope_of(saved.config["scoped"]["scope"])
    programs = programs_of(Holder(editor, scope, task.outputs, task.trunk, config.protocol))
    standing = Standing(programs, Batching(None, task.cache, task.side_by_side), k)
    work = Work(saved, task.data.validation, None, reporter, config.seed)
    return forced_held(standing, work).scores
