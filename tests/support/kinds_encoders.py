"""Configurations of encoders and of encoder-decoders."""

from typing import Any

from kinds import ABSENT, ACTIVATIONS, NUMBERS, kind

BERT_SHAPE: dict[str, Any] = dict(
    hidden_size=24,
    num_hidden_layers=1,
    num_attention_heads=3,
    intermediate_size=46,
    max_position_embeddings=32,
)
BERT_SAME: dict[str, tuple[Any, ...]] = {
    "hidden_act": ACTIVATIONS,
    "layer_norm_eps": (1e-3, ABSENT),
    "position_embedding_type": ("absolute",),
    "type_vocab_size": (3,),
    "pooler_type": ("first_token_transform",),
}
ROBERTA_SAME = BERT_SAME | {"type_vocab_size": (1,), "pad_token_id": (0, 5, ABSENT)}
BERT_OTHER: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("mish", None),
    "layer_norm_eps": NUMBERS,
    "position_embedding_type": ("relative_key", "relative_key_query"),
    "problem_type": ("regression", "multi_label_classification"),
    "num_attention_heads": (5, 0),
}
ROBERTA_OTHER: dict[str, tuple[Any, ...]] = {"pad_token_id": (None, -1, 31, 2.0)}
T5_SHAPE: dict[str, Any] = dict(
    d_model=24,
    d_kv=10,
    d_ff=46,
    num_layers=1,
    num_decoder_layers=1,
    num_heads=2,
    relative_attention_num_buckets=8,
    relative_attention_max_distance=20,
    decoder_start_token_id=0,
)
T5_SAME: dict[str, tuple[Any, ...]] = {
    "feed_forward_proj": ("gated-gelu", "gelu", ABSENT),
    "dense_act_fn": ("relu", "gelu_new"),
    "is_gated_act": (True, False),
    "layer_norm_epsilon": (1e-3, ABSENT),
    "num_decoder_layers": (2, None),
    "relative_attention_num_buckets": (9, ABSENT),
    "relative_attention_max_distance": (12,),
    "n_positions": (512,),
    "scale_decoder_outputs": (False,),
}
T5_KIN: dict[str, tuple[Any, ...]] = {
    "feed_forward_proj": ("relu", ABSENT),
    "num_decoder_layers": (2,),
    "num_layers": (2,),
    "scale_decoder_outputs": (True, False),
}
T5_OTHER: dict[str, tuple[Any, ...]] = {
    "feed_forward_proj": ("gated-mish", "gated-", "a-b-c", None),
    "dense_act_fn": ("mish",),
    "relative_attention_num_buckets": (1, 2, 3, 41, 0),
    "relative_attention_max_distance": (3, 4, 0),
    "layer_norm_epsilon": NUMBERS,
    "eos_token_id": ([1, 2], 61),
    "is_encoder_decoder": (False,),
}

KINDS = {
    "bert": kind(
        "BertConfig",
        "BertForMaskedLM",
        BERT_SHAPE,
        BERT_SAME,
        {**BERT_OTHER},
    ),
    "roberta": kind(
        "RobertaConfig",
        "RobertaForMaskedLM",
        BERT_SHAPE,
        ROBERTA_SAME,
        {**BERT_OTHER, **ROBERTA_OTHER},
    ),
    "xlm-roberta": kind(
        "XLMRobertaConfig",
        "XLMRobertaForMaskedLM",
        BERT_SHAPE,
        ROBERTA_SAME,
        {**BERT_OTHER, **ROBERTA_OTHER},
    ),
    "camembert": kind(
        "CamembertConfig",
        "CamembertForMaskedLM",
        BERT_SHAPE,
        ROBERTA_SAME,
        {**BERT_OTHER, **ROBERTA_OTHER},
    ),
    "distilbert": kind(
        "DistilBertConfig",
        "DistilBertForMaskedLM",
        dict(dim=24, n_layers=1, n_heads=3, hidden_dim=46, max_position_embeddings=32),
        {
            "activation": ACTIVATIONS,
            "sinusoidal_pos_embds": (True, False),
            "num_attention_heads": (3,),
            "hidden_dim": (50,),
            "tie_weights_": (True,),
        },
        {
            "activation": ("mish", None),
            "n_heads": (5, 0),
            "hidden_size": (25,),
            "layer_norm_eps": (1e-5,),
        },
    ),
    "bart": kind(
        "BartConfig",
        "BartForConditionalGeneration",
        dict(
            d_model=24,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=4,
            encoder_ffn_dim=46,
            decoder_ffn_dim=38,
            max_position_embeddings=32,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ),
        {
            "activation_function": ACTIVATIONS,
            "scale_embedding": (True, False, ABSENT),
            "num_hidden_layers": (1,),
            "forced_bos_token_id": (0, None),
            "normalize_before": (False,),
            "encoder_layerdrop": (0.1,),
            "num_beams": (4,),
        },
        {
            "activation_function": ("mish", None),
            "normalize_before": (True,),
            "add_final_layer_norm": (True,),
            "normalize_embedding": (False,),
            "static_position_embeddings": (True,),
            "extra_pos_embeddings": (0,),
            "num_hidden_layers": (2,),
            "decoder_attention_heads": (5, 0),
            "eos_token_id": ([2, 3], 61, -1),
            "decoder_start_token_id": (61, None),
            "is_encoder_decoder": (False,),
        },
    ),
    "t5": kind("T5Config", "T5ForConditionalGeneration", T5_SHAPE, T5_SAME, T5_OTHER),
    "mt5": kind(
        "MT5Config",
        "MT5ForConditionalGeneration",
        T5_SHAPE,
        T5_KIN | {"tie_word_embeddings": (True, False)},
        T5_OTHER | {"tie_word_embeddings": (None,)},
    ),
    "umt5": kind(
        "UMT5Config",
        "UMT5ForConditionalGeneration",
        T5_SHAPE,
        T5_KIN | {"tie_word_embeddings": (True, False)},
        T5_OTHER | {"tie_word_embeddings": (None,)},
    ),
}
