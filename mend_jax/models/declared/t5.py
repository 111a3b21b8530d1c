"""Keys of T5, mT5 and umT5."""

from mend_jax.models.declared.common import GATED, SEQ2SEQ, activation
from mend_jax.models.layers import ACTIVATIONS
from mend_jax.models.settings import (
    Declared,
    count,
    count_or_null,
    flag,
    one_of,
    positive,
)

_T5 = {
    **SEQ2SEQ,
    "vocab_size": count(32128),
    "d_model": count(512),
    "d_kv": count(64),
    "d_ff": count(2048),
    "num_layers": count(6),
    "num_decoder_layers": count_or_null(None),
    "num_heads": count(8),
    "relative_attention_num_buckets": count(32, least=4),
    "relative_attention_max_distance": count(128),
    "layer_norm_epsilon": positive(1e-6),
    "feed_forward_proj": activation("relu", *GATED),
    "dense_act_fn": one_of(None, *ACTIVATIONS),
    "is_gated_act": one_of(None, True, False),
    "tie_word_embeddings": flag(True),
    "scale_decoder_outputs": one_of(None, True, False),
    "pad_token_id": count(0, least=0),
    "eos_token_id": count(1, least=0),
    "decoder_start_token_id": count_or_null(None, least=0),
}
_T5_POSITIONS = {"n_positions": "T5 has any number of positions"}
_T5_NAMES = {
    "hidden_size": "d_model",
    "num_attention_heads": "num_heads",
    "num_hidden_layers": "num_layers",
    "head_dim": "d_kv",
}
T5 = Declared(
    "t5", _T5, _T5_POSITIONS, _T5_NAMES, ("T5ForConditionalGeneration", "T5WithLMHeadModel")
)
_MT5 = {
    **_T5,
    "vocab_size": count(250112),
    "d_ff": count(1024),
    "num_layers": count(8),
    "num_heads": count(6),
    "feed_forward_proj": one_of("gated-gelu", *ACTIVATIONS, *GATED),
    "decoder_start_token_id": count(0, least=0),
}
UMT5 = Declared("umt5", _MT5, _T5_POSITIONS, _T5_NAMES, ("UMT5ForConditionalGeneration",))
MT5 = Declared(
    "mt5",
    {key: setting for key, setting in _MT5.items() if key != "scale_decoder_outputs"},
    {**_T5_POSITIONS, "scale_decoder_outputs": "is of T5's; mT5's class scales nothing"},
    _T5_NAMES,
    ("MT5ForConditionalGeneration",),
)
