"""Trains an editor for your model on your records, scores it on others, and writes it to a folder.

    mend-jax train --model smollm2-135m --train FILE --validation FILE --out DIR

Without files, on the project's facts. Then `mend-jax evaluate` scores the editor on any records,
and `mend-jax edit` makes one edit with it. The paper's runs are experiments/train_*.py.
"""

from mend_jax.commands.command import Command
from mend_jax.runs.options import TrainConfig
from mend_jax.runs.run import run

COMMAND = Command(TrainConfig, run, __doc__)
