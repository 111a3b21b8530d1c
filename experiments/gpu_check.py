"""Checks a machine with a GPU, in at most ten minutes and without a download; writes one JSON.

    python -m experiments.gpu_check --json gpu_check.json
    python -m experiments.gpu_check --size tiny --steps 3 --json gpu_check.json    # on a CPU

Times of a training step and of an edit; a training run on random weights of T5-XL's shapes; its
memory against what the compiler planned; a small model of every architecture against float32. It
needs jax, flax, optax, jaxtyping and numpy, and nothing else: in a notebook,

    !pip install -q flax optax jaxtyping && python -m experiments.gpu_check --json gpu_check.json
"""

import argparse
import json
import os
from pathlib import Path


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--size", choices=("tiny", "small", "xl"), default="xl")
    parser.add_argument("--steps", type=int, default=20, help="of the training run")
    parser.add_argument("--batch", type=int, default=10, help="edits of a step")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which no part begins")
    parser.add_argument("--json", type=Path, required=True, help="the file to write")
    options = parser.parse_args()
    if min(options.steps, options.batch, options.minutes) <= 0:
        parser.error("--steps, --batch and --minutes are to be more than 0")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # its peak is to be seen
    from mend_jax.cost.gpu_check import check

    found = check(options.size, options.steps, options.batch, options.minutes)
    options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{found['device']}, jax {found['jax']}, {found['seconds']} s")
    for name, part in found["parts"].items():
        print(f"  {name:<20} {json.dumps(part)[:160]}")


if __name__ == "__main__":
    main()
