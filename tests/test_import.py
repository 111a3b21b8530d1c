"""`import mend_jax` stays light: what only commands or single formats need is imported there."""

import subprocess
import sys

HEAVY = {
    "tyro", "huggingface_hub", "tokenizers", "transformers", "matplotlib", "gguf", "orbax",
    "grain", "tensorflow_datasets", "torch", "sqlalchemy", "peft", "xxhash", "safetensors",
    "sentencepiece",
}  # fmt: skip


def test_the_package_imports_nothing_heavy():
    said = "import sys, mend_jax; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "mend_jax" in loaded and not loaded & HEAVY
