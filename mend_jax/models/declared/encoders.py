"""Keys of BERT and BART."""

from mend_jax.models.declared.common import CAUSAL, SEQ2SEQ, activation
from mend_jax.models.settings import (
    Declared,
    count,
    count_or_null,
    flag,
    object_or_null,
    one_of,
    positive,
)

_CLASSIFIER = {
    "problem_type": one_of(None, "single_label_classification"),
    "num_labels": count_or_null(None),
    "id2label": object_or_null(),
}
_BERT = {
    **CAUSAL,
    **_CLASSIFIER,
    "vocab_size": count(30522),
    "hidden_size": count(768),
    "num_hidden_layers": count(12),
    "num_attention_heads": count(12),
    "intermediate_size": count(3072),
    "max_position_embeddings": count(512),
    "type_vocab_size": count(2),
    "hidden_act": activation("gelu"),
    "layer_norm_eps": positive(1e-12),
    "position_embedding_type": one_of("absolute"),
    "tie_word_embeddings": one_of(True),
}
BERT = Declared(
    "bert",
    _BERT,
    {},
    {},
    (
        "BertForSequenceClassification",
        "BertForMaskedLM",
        "BertForPreTraining",
        "BertModel",
    ),
)
_ROBERTA = {**_BERT, "pad_token_id": count(1, least=0)}


def _named(name: str) -> tuple[str, ...]:
    return (f"{name}ForSequenceClassification", f"{name}ForMaskedLM", f"{name}Model")


ROBERTA = Declared(
    "roberta", {**_ROBERTA, "vocab_size": count(50265)}, {}, {}, _named("Roberta")
)
XLM_ROBERTA = Declared("xlm-roberta", _ROBERTA, {}, {}, _named("XLMRoberta"))
CAMEMBERT = Declared("camembert", _ROBERTA, {}, {}, _named("Camembert"))
DISTILBERT = Declared(
    "distilbert",
    {
        **CAUSAL,
        **_CLASSIFIER,
        "vocab_size": count(30522),
        "dim": count(768),
        "n_layers": count(6),
        "n_heads": count(12),
        "hidden_dim": count(3072),
        "max_position_embeddings": count(512),
        "activation": activation("gelu"),
        "tie_word_embeddings": one_of(True),
    },
    {
        "sinusoidal_pos_embds": "says how positions began; they are stored",
        "tie_weights_": "says what tie_word_embeddings says",
        "output_past": "is of no encoder",
    },
    {"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"},
    _named("DistilBert"),
)
BART = Declared(
    "bart",
    {
        **SEQ2SEQ,
        "vocab_size": count(50265),
        "d_model": count(1024),
        "encoder_layers": count(12),
        "decoder_layers": count(12),
        "encoder_attention_heads": count(16),
        "decoder_attention_heads": count(16),
        "encoder_ffn_dim": count(4096),
        "decoder_ffn_dim": count(4096),
        "max_position_embeddings": count(1024),
        "activation_function": activation("gelu"),
        "scale_embedding": flag(False),
        "tie_word_embeddings": one_of(True),
        "eos_token_id": count(2, least=0),
        "decoder_start_token_id": count(2, least=0),
        "forced_bos_token_id": count_or_null(None, least=0),
        "forced_eos_token_id": count_or_null(2, least=0),
        "force_bos_token_to_be_generated": one_of(False),
        "normalize_before": one_of(False),
        "normalize_embedding": one_of(True),
        "add_final_layer_norm": one_of(False),
        "add_bias_logits": one_of(False),
        "static_position_embeddings": one_of(False),
        "extra_pos_embeddings": one_of(2),
    },
    {"(grapheme|phoneme)_chars": "are alphabets, which the tokenizer reads"},
    {
        "num_attention_heads": "encoder_attention_heads",
        "hidden_size": "d_model",
        "num_hidden_layers": "encoder_layers",
    },
    ("BartForConditionalGeneration", "BartModel"),
)
