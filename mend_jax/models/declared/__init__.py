"""What the config.json of each model type may say: keys, transformers' defaults, what is possible.

One table a model type, after transformers' config class of that name (5.x); `settings.settle`
reads by them. A value that is not in its table's reach is not implemented.
"""

from mend_jax.models.declared.encoders import (
    BART,
    BERT,
    CAMEMBERT,
    DISTILBERT,
    ROBERTA,
    XLM_ROBERTA,
)
from mend_jax.models.declared.experts import MIXTRAL, QWEN3_MOE
from mend_jax.models.declared.gpts import GPT2, GPT_NEO, GPT_NEOX, GPTJ, OPT
from mend_jax.models.declared.llama import (
    GEMMA,
    GEMMA2,
    GEMMA3,
    GRANITE,
    LLAMA,
    MINISTRAL,
    MISTRAL,
    OLMO2,
    PHI3,
    QWEN2,
    QWEN3,
    SEED_OSS,
    SMOLLM3,
)
from mend_jax.models.declared.t5 import MT5, T5, UMT5

__all__ = [
    "BART",
    "BERT",
    "CAMEMBERT",
    "DISTILBERT",
    "GEMMA",
    "GEMMA2",
    "GEMMA3",
    "GPT2",
    "GPTJ",
    "GPT_NEO",
    "GPT_NEOX",
    "GRANITE",
    "LLAMA",
    "MINISTRAL",
    "MISTRAL",
    "MIXTRAL",
    "MT5",
    "OLMO2",
    "OPT",
    "PHI3",
    "QWEN2",
    "QWEN3",
    "QWEN3_MOE",
    "ROBERTA",
    "SEED_OSS",
    "SMOLLM3",
    "T5",
    "UMT5",
    "XLM_ROBERTA",
]
