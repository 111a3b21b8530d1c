"""What a config.json may say: transformers' own defaults, and nothing unknown passes."""

from typing import Any

import pytest
import transformers
from transformers.models.auto import modeling_auto

from mend_jax.models import declared
from mend_jax.models.published import PUBLISHED
from mend_jax.models.registry import FAMILIES
from mend_jax.models.settings import OFF, ConfigError, Declared, settle

TABLES = {
    table.model_type: table for table in vars(declared).values() if isinstance(table, Declared)
}
DERIVED = {
    "head_dim": "made of hidden_size and heads",
    "word_embed_proj_dim": "as wide as hidden_size",
    "num_key_value_heads": "as many as heads",
    "layer_types": "made of the window",
    "no_rope_layers": "made of no_rope_layer_interval",
    "sliding_window": "null without use_sliding_window",
    "attention_types": "global and local by turns",
    "attention_layers": "attention_types, written out",
    "num_decoder_layers": "as many as the encoder's",
    "dense_act_fn": "of feed_forward_proj",
    "is_gated_act": "of feed_forward_proj",
    "scale_decoder_outputs": "of tie_word_embeddings",
    "rope_parameters": "holds rope_theta",
    "id2label": "made of num_labels",
    "num_labels": "made of id2label",
    "mlp_only_layers": "a list, empty where there is none",
}
"""Where the class holds what it derived, not the default of the key."""


def their_class(model_type: str) -> Any:
    return type(transformers.AutoConfig.for_model(model_type))


def test_every_model_type_has_its_table():
    assert set(TABLES) == set(FAMILIES)


@pytest.mark.parametrize("model_type", TABLES)
def test_defaults_are_those_of_transformers(model_type: str):
    said = their_class(model_type)().to_dict()
    ours = settle({}, TABLES[model_type])
    shared = (said.keys() & ours.keys()) - DERIVED.keys()
    assert len(shared) >= 8
    assert {key: ours[key] for key in shared} == {key: said[key] for key in shared}
    if "rope_theta" in ours:
        theirs = said["rope_parameters"]
        assert ours["rope_theta"] == theirs.get("full_attention", theirs)["rope_theta"]


@pytest.mark.parametrize("model_type", TABLES)
def test_defaults_of_derived_keys_are_those_of_the_class(model_type: str):
    """What a class derives from nulls is a field of it all the same."""
    fields = their_class(model_type).__dataclass_fields__
    ours = settle({}, TABLES[model_type])
    keys = ("head_dim", "num_key_value_heads", "sliding_window", "max_window_layers")
    for key in keys:
        if key in ours and key in fields:
            assert ours[key] == fields[key].default, key


@pytest.mark.parametrize("model_type", TABLES)
def test_all_that_transformers_writes_is_known(model_type: str):
    family, raw = FAMILIES[model_type], their_class(model_type)().to_dict()
    if model_type == "t5":
        raw["decoder_start_token_id"] = 0
    family.dimensions(raw, ())
    for key in TABLES[model_type].read.keys() | OFF.keys():
        family.dimensions({k: v for k, v in raw.items() if k != key}, ())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_are_read(name: str):
    FAMILIES[PUBLISHED[name]["model_type"]].dimensions(PUBLISHED[name], ())


@pytest.mark.parametrize("model_type", TABLES)
@pytest.mark.parametrize("value", [0, False, True, 1.5, "x", [], {}])
def test_an_unknown_key_is_refused_by_name(model_type: str, value: Any):
    with pytest.raises(ConfigError, match=r"config\.json: logit_softcap = .* no such setting"):
        FAMILIES[model_type].dimensions({"logit_softcap": value}, ())
    FAMILIES[model_type].dimensions({"logit_softcap": None}, ())


def test_all_that_is_wrong_is_named_at_once():
    wrong = {"n_head": 0, "layer_norm_epsilon": float("nan"), "own": 1}
    with pytest.raises(ConfigError) as caught:
        FAMILIES["gpt2"].dimensions(wrong, ())
    assert all(key in str(caught.value) for key in wrong)


@pytest.mark.parametrize("model_type", TABLES)
def test_numbers_without_sense_are_refused_by_name(model_type: str):
    senseless = (float("nan"), float("inf"), -1, "1", [1], True, 10**400)
    for key, setting in TABLES[model_type].read.items():
        if "whole" in setting.wanted or "number" in setting.wanted:
            for value in senseless:
                if value != 10**400 or "finite" in setting.wanted:
                    with pytest.raises(ConfigError, match=f"{key} = "):
                        settle({key: value}, TABLES[model_type])


@pytest.mark.parametrize("model_type", TABLES)
def test_other_architectures_are_refused(model_type: str):
    """Classifiers, embedding models and the like, of which transformers has classes."""
    named = {
        name
        for key, table in vars(modeling_auto).items()
        if key.endswith("_MAPPING_NAMES") and model_type in table
        for name in (table[model_type],)
        if isinstance(name, str)
    }
    read = set(TABLES[model_type].architectures)
    assert len(named - read) >= 2 and named & read
    for name in named - read:
        with pytest.raises(ConfigError, match=f"architectures = .*{name}.* not implemented"):
            FAMILIES[model_type].dimensions({"architectures": [name]}, ())


HUB: dict[str, dict[str, Any]] = {
    "bert-base-cased": {
        "model_type": "bert",
        "architectures": ["BertForMaskedLM"],
        "attention_probs_dropout_prob": 0.1,
        "gradient_checkpointing": False,
        "directionality": "bidi",
        "pooler_fc_size": 768,
        "pooler_type": "first_token_transform",
        "position_embedding_type": "absolute",
        "transformers_version": "4.6.0.dev0",
        "use_cache": True,
    },
    "gpt2": {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1,
        "n_ctx": 1024,
        "n_positions": 1024,
        "output_past": True,
        "summary_activation": None,
        "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        "_num_labels": 1,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
    },
    "flan-t5": {
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        "d_model": 512,
        "d_ff": 1024,
        "num_layers": 8,
        "num_heads": 6,
        "dense_act_fn": "gelu_new",
        "feed_forward_proj": "gated-gelu",
        "is_gated_act": True,
        "n_positions": 512,
        "output_past": True,
        "initializer_factor": 1.0,
        "tie_word_embeddings": False,
        "decoder_start_token_id": 0,
        "torch_dtype": "float32",
    },
    "bart-base": {
        "model_type": "bart",
        "architectures": ["BartModel"],
        "add_bias_logits": False,
        "add_final_layer_norm": False,
        "classif_dropout": 0.1,
        "encoder_layerdrop": 0.0,
        "early_stopping": True,
        "forced_bos_token_id": 0,
        "forced_eos_token_id": 2,
        "gradient_checkpointing": False,
        "no_repeat_ngram_size": 3,
        "normalize_before": False,
        "normalize_embedding": True,
        "num_beams": 4,
        "d_model": 768,
        "encoder_layers": 6,
        "num_hidden_layers": 6,
    },
    "gpt-j-6b": {
        "model_type": "gptj",
        "architectures": ["GPTJForCausalLM"],
        "rotary": True,
        "scale_attn_weights": True,
        "summary_use_proj": True,
        "tokenizer_class": "GPT2Tokenizer",
        "gradient_checkpointing": False,
        "tie_word_embeddings": False,
    },
    "llama-3.1": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "eos_token_id": [128001, 128008, 128009],
        "pretraining_tp": 1,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "factor": 8.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "torch_dtype": "bfloat16",
        "transformers_version": "4.43.0.dev0",
    },
    "smollm2": {
        "model_type": "llama",
        "is_llama_config": True,
        "rope_interleaved": False,
        "rope_scaling": None,
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
    },
    "qwen2.5": {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "num_hidden_layers": 24,
        "max_window_layers": 21,
        "sliding_window": 32768,
        "use_sliding_window": False,
        "use_mrope": False,
    },
}
"""Keys as they stand in well-known files of the Hugging Face hub."""


@pytest.mark.parametrize("name", HUB)
def test_files_of_the_hub_are_read(name: str):
    FAMILIES[HUB[name]["model_type"]].dimensions(HUB[name], ())
