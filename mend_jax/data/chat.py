"""A chat as the one text that a model was taught to go on with."""

from collections.abc import Mapping, Sequence
from typing import Any

from mend_jax.models.registry import Base

Messages = Sequence[Mapping[str, str]]
"""{"role", "content"}, in order."""


def chat_prompt(base: Base, messages: Messages) -> str:
    """The chat in the model's own template, up to where its answer begins.

    Raises:
      ValueError: the model has no template, the template refuses the messages, or a message is not
        of this form.
    """
    if not base.chat.source:
        raise ValueError(f"{base.name!r} has no chat template: give the prompt as a text")
    for message in messages:
        if set(message) != {"role", "content"}:
            raise ValueError(f"a message is {{'role', 'content'}}, found {dict(message)}")
    if not messages:
        raise ValueError("a chat without messages asks for nothing")
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template  # slow to import

    tokens: dict[str, Any] = dict(base.chat.tokens)
    try:
        found: Any = render_jinja_template(
            [[dict(message) for message in messages]],
            chat_template=base.chat.source,
            add_generation_prompt=True,
            **tokens,
        )
    except TemplateError as error:
        raise ValueError(f"the chat template of {base.name!r} refuses: {error}") from None
    return str(found[0][0])
