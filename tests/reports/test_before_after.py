"""The model's own words, asked of many prompts at once."""

from tiny_run import Finished, some_records

from mend_jax.reports.before_after import SIDE_BY_SIDE, before_after_of

pytest_plugins = ["finished_run"]


def test_many_prompts_are_answered_as_few(finished: Finished):
    """In whatever batches; each once, in order."""
    shown = before_after_of(finished.run.saved, 3)
    edit = shown.edit("Person 3 lives in", "Oslo")
    prompts = [prompt for r in some_records(0, 7) for prompt in (r.prompt, *r.rephrases)]
    assert SIDE_BY_SIDE < len(prompts) < 2 * SIDE_BY_SIDE
    answers = shown.ask(edit, prompts)
    assert [answer.prompt for answer in answers] == prompts
    few = [answer for i in range(0, 21, 7) for answer in shown.ask(edit, prompts[i : i + 7])]
    assert answers == few and any(answer.before != answer.after for answer in answers)
    assert shown.ask(edit, []) == []
