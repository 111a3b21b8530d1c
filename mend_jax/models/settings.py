"""What a config.json says, read whole: each key is read, known to change nothing here, or refused.

A model type declares the keys that it reads, each with transformers' default and the values that
are implemented (`Setting`). What it does not declare may only be what concerns training, text
generation or the file itself (`IGNORED`): any other key might change what the model computes, so it
is refused by name. A key that is absent means what transformers' config class means by it.
"""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple


class ConfigError(ValueError):
    """A model's settings cannot be used; says the file, each key at fault, and what would do."""

    def __init__(self, problems: Sequence[str], where: str = "config.json") -> None:
        self.problems = tuple(problems)
        super().__init__(f"{where}: {'; '.join(self.problems)}")


class Setting(NamedTuple):
    """A key that is read. default: transformers', where it is absent. fits: whether a value is
    implemented. wanted: which values are, in words."""

    default: Any
    fits: Callable[[Any], bool]
    wanted: str


class Declared(NamedTuple):
    """What the config.json of a model type may say.

    read: the keys, and what they may be. ignored: {regular expression of further keys: why they
    change nothing}. aliases: other names of keys that are read. architectures: classes whose
    checkpoints are read.
    """

    model_type: str
    read: Mapping[str, Setting]
    ignored: Mapping[str, str]
    aliases: Mapping[str, str]
    architectures: tuple[str, ...]


# --------------------------------------------------------------------- kinds of values


def _is_whole(x: Any, least: int) -> bool:
    return isinstance(x, int) and not isinstance(x, bool) and x >= least


def is_positive(x: Any) -> bool:
    """Whether it is a finite number above 0."""
    number = isinstance(x, int | float) and not isinstance(x, bool)
    return number and 0 < x <= sys.float_info.max


def count(default: int | None, least: int = 1) -> Setting:
    """A whole number."""
    return Setting(default, lambda x: _is_whole(x, least), f"a whole number from {least} on")


def count_or_null(default: int | None, least: int = 1) -> Setting:
    """A whole number or nothing."""
    wanted = f"null or a whole number from {least} on"
    return Setting(default, lambda x: x is None or _is_whole(x, least), wanted)


def positive(default: float) -> Setting:
    """A finite number above 0."""
    return Setting(default, is_positive, "a finite number above 0")


def positive_or_null(default: float | None) -> Setting:
    """A finite number above 0, or nothing."""
    wanted = "null or a finite number above 0"
    return Setting(default, lambda x: x is None or is_positive(x), wanted)


def one_of(default: Any, *others: Any) -> Setting:
    """These values, and of their types: 1 is not true."""
    values = (default, *others)

    def fits(x: Any) -> bool:
        return any(type(x) is type(value) and x == value for value in values)

    return Setting(default, fits, f"{', '.join(map(repr, values))} {'is' * (not others) or 'are'}")


def flag(default: bool) -> Setting:
    """True or false."""
    return one_of(default, not default)


def object_or_null(kind: type = dict) -> Setting:
    """A JSON object (or list), or nothing."""
    what = "an object" if kind is dict else "a list"
    return Setting(None, lambda x: x is None or isinstance(x, kind), f"{what} or null")


# --------------------------------------------------------------------- reading


IGNORED: Mapping[str, str] = {
    r"model_type|architectures|generation_config": "is read apart",
    r"_?name_or_path|_commit_hash|_from_model_config|transformers_version|transformers\.js_config"
    r"|(torch_)?dtype|torchscript|use_bfloat16|unsloth_(fixed|version)|tokenizer_class"
    r"|tf_legacy_loss": "says where the file is from, or how stored",
    r"_?(attn|experts)_implementation(_autoset|_internal)?|_attn_implementation_autoset"
    r"|chunk_size_feed_forward|pretraining_tp|reorder_and_upcast_attn"
    r"|gradient_checkpointing|use_cache": "is another way to the same numbers",
    r"output_(past|hidden_states|attentions|scores)|return_dict(_in_generate)?": (
        "says what else a call returns"
    ),
    r"[a-z_]*dropout(_rate|_prob)?"
    r"|(resid|embd|attn)_pdrop|(encoder_|decoder_)?layerdrop|classif_dropout"
    r"|init_std|initializer_(range|factor)|replacing_rate|save_step"
    r"|student_(encoder|decoder)_layers": "is of training only",
    r"(bos|eos|pad|sep|cls|mask|unk)_token_id|prefix|task_specific_params|do_sample"
    r"|(max|min)(_new)?_(length|tokens)|early_stopping|num_beams|num_beam_groups|temperature"
    r"|top_[kp]|typical_p|(repetition|length|diversity)_penalty|num_return_sequences"
    r"|(encoder_)?no_repeat_ngram_size|bad_words_ids|suppress_tokens|begin_suppress_tokens"
    r"|remove_invalid_values|exponential_decay_length_penalty": (
        "is of text generation: whoever calls `generate` says how to choose"
    ),
    r"_?num_labels|id2label|label2id|finetuning_task|problem_type|summary_[a-z_]+"
    r"|pooler_[a-z_]+|directionality": "is of a head for another task",
}
"""{regular expression of keys: why they change nothing in any family}."""

OFF: Mapping[str, Setting] = {
    "add_cross_attention": one_of(False),
    "auto_map": one_of(None),
    "cross_attention_hidden_size": one_of(None),
    "forced_bos_token_id": one_of(None),
    "forced_eos_token_id": one_of(None),
    "is_decoder": one_of(False),
    "pruned_heads": one_of({}, None),
    "quantization_config": one_of(None),
}
"""Keys that any config.json may have, of which one value is implemented."""

_HINTS = {
    "auto_map": "the model brings Python code of its own, which is not run",
    "quantization_config": 'load it as it was before it was quantised; dtype="int8" quantises it',
}


def settle(config: Mapping[str, Any], declared: Declared) -> dict[str, Any]:
    """{key: value} of all that the model type reads, each as given or by transformers' default.

    Args:
      config: the content of config.json; under `generation_config`, where there is one, that of
        generation_config.json, which alone says what `generate` is forced to.

    Raises:
      ConfigError: keys or values that are not implemented, two keys that disagree, or another
        architecture; all are named.
    """
    given = dict(config)
    problems = _wrong_architecture(given, declared)
    problems += _fold_generation(given)
    for alias, key in declared.aliases.items():
        if alias in given and given.setdefault(key, given[alias]) != given[alias]:
            problems.append(f"{alias} = {given[alias]!r} and {key} = {given[key]!r} disagree")
        given.pop(alias, None)
    read = {**OFF, **declared.read}
    ignored = "|".join((*IGNORED, *declared.ignored))
    for key, value in given.items():
        if key in read:
            if not read[key].fits(value):
                problems.append(_unfit(key, value, read[key].wanted))
        elif value is not None and not re.fullmatch(ignored, key):
            problems.append(
                f"{key} = {_short(value)} is not supported: {declared.model_type} models have no "
                "such setting here. If it changes nothing in the model, take it out"
            )
    if problems:
        raise ConfigError(problems)
    return {key: given.get(key, setting.default) for key, setting in read.items()}


def require(holds: bool, problem: str) -> None:
    """Raises ConfigError with the problem unless it holds."""
    if not holds:
        raise ConfigError([problem])


def check_heads(said: Mapping[str, Any], width: str, heads: str) -> None:
    """Raises ConfigError unless so many heads share the width evenly."""
    require(
        said[width] % said[heads] == 0,
        f"{heads} = {said[heads]} does not divide {width} = {said[width]}",
    )


def check_token_ids(said: Mapping[str, Any], *keys: str) -> None:
    """Raises ConfigError if one of these keys names a token outside the vocabulary."""
    size = said["vocab_size"]
    for key in keys:
        inside = said[key] is None or said[key] < size
        require(inside, f"{key} = {said[key]} is not in a vocabulary of {size} tokens")


def _wrong_architecture(config: Mapping[str, Any], declared: Declared) -> list[str]:
    named = config.get("architectures") or []
    if isinstance(named, list) and all(name in declared.architectures for name in named):
        return []
    return [
        f"architectures = {_short(named)} is not implemented for {declared.model_type} models "
        f"({', '.join(declared.architectures)})"
    ]


def _fold_generation(config: dict[str, Any]) -> list[str]:
    """Puts what generation_config.json says over what config.json says."""
    said = config.get("generation_config")
    if said is None:
        return []
    if not isinstance(said, dict):
        return [f"generation_config = {_short(said)} is not supported (an object is)"]
    for key in ("forced_bos_token_id", "forced_eos_token_id"):
        config[key] = said.get(key)
    start, ours = (where.get("decoder_start_token_id") for where in (said, config))
    if start is not None and config.setdefault("decoder_start_token_id", start) != start:
        return [f"decoder_start_token_id = {ours!r}, but generation_config.json says {start!r}"]
    return []


def _unfit(key: str, value: Any, wanted: str) -> str:
    hint = f": {_HINTS[key]}" if key in _HINTS else ""
    return f"{key} = {_short(value)} is not supported ({wanted}){hint}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
