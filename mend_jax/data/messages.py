"""Prompts that are chats: in a record, "messages" in the place of "prompt".

    {"messages": [{"role": "user", "content": "What is the capital of France?"}], "target": "Rome"}

A `Chat` is a text like other prompts, so that records, notes and tables need not ask which of the
two they have; a model is given it in its own template (`data.chat`), where its answer begins.
"""

from collections.abc import Mapping, Sequence
from typing import Any, SupportsIndex

Messages = Sequence[Mapping[str, str]]
"""{"role", "content"}, in order."""
PARTS = {"role", "content"}


class Chat(str):
    """A chat as a prompt. As a text it reads "role: content", a turn a line."""

    messages: tuple[dict[str, str], ...]

    def __new__(cls, messages: Messages) -> "Chat":
        """Raises ValueError for messages of another form, or none at all."""
        check_messages(messages)
        chat = super().__new__(cls, "\n".join(f"{m['role']}: {m['content']}" for m in messages))
        chat.messages = tuple(dict(message) for message in messages)
        return chat

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> "Chat":
        """Within what is said."""
        said = [m | {"content": m["content"].replace(old, new, count)} for m in self.messages]
        return Chat(said)

    def __radd__(self, before: str) -> "Chat":
        """With a text before what is said first."""
        first, *rest = self.messages
        return Chat([first | {"content": before + first["content"]}, *rest])

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (self.messages,)


def check_messages(messages: Any) -> None:
    """Raises ValueError for what is no chat."""
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise ValueError(f"messages are a list, found {type(messages).__name__}")
    for message in messages:
        if not isinstance(message, Mapping) or set(message) != PARTS:
            found = dict(message) if isinstance(message, Mapping) else message
            raise ValueError(f"a message is {{'role', 'content'}}, found {found!r:.80}")
        if not all(isinstance(part, str) and part.strip() for part in message.values()):
            raise ValueError(f"role and content are texts, found {dict(message)!r:.80}")
    if not messages:
        raise ValueError("a chat without messages asks for nothing")
