"""Questions after other text: what held edits have to stand, since texts seldom begin with one."""

import random
from collections.abc import Callable, Sequence
from typing import Literal

from mend_jax.data.messages import Chat
from mend_jax.data.records import Record, Rephrase, rephrases_of
from mend_jax.data.spacing import separator_of

After = Literal["nothing", "sentence", "sentences", "edit", "chat"]
"""What stands before each prompt: a sentence about something else, five of them, the statement of
another edit, or a turn of a chat (in the marks that SmolLM2's template puts around it)."""

SENTENCES = (
    "The rain had stopped by noon.",
    "Nobody had opened the window for weeks.",
    "Most of the trains were late that day.",
    "A good knife needs little force.",
    "She put the letters back into the drawer.",
    "Prices went up again in the spring.",
    "The committee will meet on Thursday.",
    "Bread is best on the day it is baked.",
    "He had never liked the colour of the door.",
    "Water boils sooner in the mountains.",
    "The report fills about ninety pages.",
    "Two of the chairs were broken.",
    "It is easier to ask early than late.",
    "The dog slept through all of it.",
    "Every house in the street has a garden.",
    "They counted the votes twice.",
)
CHAT = (
    "<|im_start|>user\nGo on with a text of your choice.<|im_end|>\n"
    "<|im_start|>assistant\n"
)


def preceded(records: Sequence[Record], after: After, seed: int = 0) -> list[Record]:
    """The records with other text before each rephrase and locality prompt. The edit itself is made
    as it is; its prompt, after such text, becomes the first rephrase."""
    if after == "nothing":
        return list(records)
    if after == "chat" and any(isinstance(record.prompt, Chat) for record in records):
        raise ValueError("records that are chats need no turn of a chat before them")
    return [_preceded(record, _drawer(records, i, after, seed)) for i, record in enumerate(records)]


def _drawer(
    records: Sequence[Record], place: int, after: After, seed: int
) -> Callable[[], str]:
    """Draws what stands before a prompt of one record."""
    rng = random.Random(f"preceded {after} {seed} {records[place].prompt}")

    def draw() -> str:
        if after == "chat":
            return CHAT
        if after == "edit":
            other = records[(place + rng.randrange(1, max(len(records), 2))) % len(records)]
            space = separator_of(other.prompt, other.target)
            space = space if other.separator is None else other.separator
            return f"{other.prompt}{space}{other.target.strip()}. "
        count = 1 if after == "sentence" else 5
        return " ".join(rng.sample(SENTENCES, count)) + " "

    return draw


def _preceded(record: Record, draw: Callable[[], str]) -> Record:
    asked = [Rephrase(record.prompt, record.target), *rephrases_of(record)]
    return record._replace(
        rephrases=tuple(Rephrase(draw() + x.prompt, x.target) for x in asked),
        locality=tuple(x._replace(prompt=draw() + x.prompt) for x in record.locality),
    )
