"""A chat as the one text that a model was taught to go on with; and records that are chats."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from mend_jax.data.messages import Chat, Messages, check_messages
from mend_jax.data.records import Record, Rephrase, rephrases_of
from mend_jax.models.registry import Base

BEFORE: tuple[Messages, ...] = (
    (
        {"role": "user", "content": "Hello! I would like to ask you something."},
        {"role": "assistant", "content": "Of course, go ahead."},
    ),
    ({"role": "system", "content": "You answer in a few words."},),
)
"""What comes before a question: turns of another order than those of the edit."""


class Turn(NamedTuple):
    """What stands before the model's turn in a chat, and the mark at its end; empty, where a
    template has none."""

    begin: str = ""
    end: str = ""


def special_tokens(tokenizer: Any) -> list[str]:
    """The marks of a tokenizer, as they are written."""
    added = tokenizer.get_added_tokens_decoder().values()
    return [token.content for token in added if token.special]


def turn_of(base: Base) -> Turn:
    """How the base's template writes the model's turn, if a special token begins it."""
    asked, said = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    try:
        before, begun, whole = (
            _written(base, messages, goes_on)
            for messages, goes_on in (([asked], False), ([asked], True), ([asked, said], False))
        )
    except ValueError:
        return Turn()
    begin, end = begun.removeprefix(before), whole.removeprefix(f"{begun}b").strip()
    marks = special_tokens(base.tokenizer)
    if begun == begin or end not in marks or not any(mark in begin for mark in marks):
        return Turn()
    return Turn(begin, end)


def chat_prompt(base: Base, messages: Messages) -> str:
    """The chat in the model's own template, up to where its answer begins.

    Raises:
      ValueError: the model has no template, the template refuses the messages, or a message is not
        of this form.
    """
    return _written(base, messages, goes_on=True)


def _written(base: Base, messages: Messages, goes_on: bool) -> str:
    """The chat in the model's own template; with the beginning of its answer, if it goes on."""
    if not base.chat.source:
        raise ValueError(f"{base.name!r} has no chat template: give the prompt as a text")
    check_messages(messages)
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template  # slow to import

    tokens: dict[str, Any] = dict(base.chat.tokens)
    try:
        found: Any = render_jinja_template(
            [[dict(message) for message in messages]],
            chat_template=base.chat.source,
            add_generation_prompt=goes_on,
            **tokens,
        )
    except TemplateError as error:
        raise ValueError(f"the chat template of {base.name!r} refuses: {error}") from None
    return str(found[0][0])


def text_of(base: Base, prompt: str | Messages) -> str:
    """A prompt as the text that a model goes on with: a chat in the base's own template.

    Raises:
      ValueError: as `chat_prompt`.
    """
    if isinstance(prompt, Chat):
        return chat_prompt(base, prompt.messages)
    return prompt if isinstance(prompt, str) else chat_prompt(base, prompt)


def in_template(base: Base, records: Iterable[Record]) -> list[Record]:
    """The records with each chat as a text in the base's template.

    Raises:
      ValueError: as `chat_prompt`.
    """

    def one(record: Record) -> Record:
        return record._replace(
            prompt=text_of(base, record.prompt),
            rephrases=tuple(
                text_of(base, r)
                if isinstance(r, str) else r._replace(prompt=text_of(base, r.prompt))
                for r in record.rephrases
            ),
            locality=tuple(x._replace(prompt=text_of(base, x.prompt)) for x in record.locality),
        )  # fmt: skip

    return [one(record) for record in records]


def said_by_user(prompt: str, before: Messages = ()) -> Chat:
    """A chat in which the user says this; one that is a chat already stays as it is.

    Args:
      before: turns that come first.
    """
    if isinstance(prompt, Chat):
        return prompt
    return Chat([*before, {"role": "user", "content": prompt.strip()}])


def as_chats(records: Sequence[Record], before: Sequence[Messages] = ((),)) -> list[Record]:
    """The records with each prompt as what a user says; the answer is the model's turn.

    Args:
      before: what comes before the rephrases of a record, in turn.
    """

    def one(record: Record) -> Record:
        again = [
            Rephrase(said_by_user(r.prompt, before[i % len(before)]), r.target)
            for i, r in enumerate(rephrases_of(record))
        ]
        stays = [
            x._replace(prompt=said_by_user(x.prompt), separator=None) for x in record.locality
        ]
        asked = said_by_user(record.prompt)
        return record._replace(
            prompt=asked, rephrases=tuple(again), locality=tuple(stays), separator=None
        )

    return [one(record) for record in records]
