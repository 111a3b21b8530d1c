"""Trains an editor for your model on your records, scores it on others, and writes it to a folder.

    mend-jax train --model smollm2-135m --out DIR
    mend-jax train --model smollm2-135m --train FILE --validation FILE --out DIR

Without files, on the project's facts; `--records FILE` adds your own to them. The editor gets a
scope, in which many of its edits can be held; --no-scope trains it alone. Says how long it will
take, and how much memory, before it begins; and ends with a `mend-jax edit` to type. Then `mend-jax
evaluate` scores the editor on any records. The paper's runs are experiments/train_*.py.
"""

import shlex

from mend_jax.commands.command import Command
from mend_jax.data.messages import Chat
from mend_jax.runs.options import ScopedConfig, TrainConfig
from mend_jax.runs.run import Run, run


def train(config: TrainConfig) -> None:
    """Trains, and says how to edit."""
    done = run(config)
    if done is not None:
        print(f"\nTo make an edit with it:\n{edit_command(config, done)}")


def edit_command(config: TrainConfig, done: Run) -> str:
    """`mend-jax edit` with the first of the held-out records, to be typed."""
    record = done.validation[0]
    prompt, chat = record.prompt, isinstance(record.prompt, Chat)
    if isinstance(prompt, Chat):
        prompt = prompt.messages[-1]["content"]
    asked = ["--editor", str(config.out), "--prompt", prompt, "--target", record.target]
    asked += ["--separator", record.separator] if record.separator is not None else []
    asked += ["--chat"] if chat else []
    asked += ["--trust", config.editor] if ":" in config.editor else []
    return shlex.join(["mend-jax", "edit", *asked])


COMMAND = Command(ScopedConfig, train, __doc__)
