"""docs/models.md says which models are read, and what is refused of them and why, as the sweep of
configurations finds it. Made anew by `python tests/models/test_models_page.py`."""

import re
from collections.abc import Iterator
from pathlib import Path

from configurations import KINDS, raw_config
from kinds import GENERAL_OTHER

from mend_jax.models import declared
from mend_jax.models.refused import REFUSED
from mend_jax.models.registry import FAMILIES, ArchitectureError, family_of
from mend_jax.models.settings import OFF, ConfigError, Declared, settle
from mend_jax.weights.gguf_kinds import KINDS as GGUF

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
TABLES = {
    table.model_type: table for table in vars(declared).values() if isinstance(table, Declared)
}
INTRODUCTION = """# Models

What `load` reads, and what it refuses. The tests compare each of these configurations with Hugging
Face's PyTorch module, to 1e-5 in the logits: it is equal, or it is refused with an error that names
the file and the key. Whatever else a config.json says, and is not known to change nothing, is
refused, too. What is possible in place of a refused value stands in brackets.

This page is made by `python tests/models/test_models_page.py`.

## Model types

| `model_type` | architectures | edited by default | GGUF |
|---|---|---|---|
"""


def sites(model_type: str) -> str:
    """The layers edited by default, of a model of its class's own size."""
    family = FAMILIES[model_type]
    raw = dict(raw_config(model_type, {}))
    blocks = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers")
    more = ("num_decoder_layers", "decoder_layers")
    raw |= {key: 12 for key in (*blocks, *more) if key in raw}
    raw |= {key: None for key in ("layer_types", "attention_types") if key in raw}
    if "attention_types" in raw:
        raw["attention_types"] = [[["global", "local"], 6]]
    return family.default_sites(family.dimensions(raw, ()))


def refusals(name: str) -> Iterator[str]:
    """One line for each key that has values which are refused as not supported."""
    model_type = name.partition(",")[0]
    read, family = TABLES[model_type].read, FAMILIES[model_type]
    found: dict[tuple[str, str], list[str]] = {}
    unknown = []
    for key, values in KINDS[name].other.items():
        typed = key in read and re.search("number|object|list", read[key].wanted)
        for value in () if key in GENERAL_OTHER else values:
            if value is None or (typed and not read[key].fits(value)):
                continue  # of another type, or a number without sense
            try:
                family.dimensions(raw_config(name, {key: value}), ())
            except ConfigError as error:
                problem, split, reason = error.problems[0].partition(" is not supported")
                if "no such setting here" in reason:
                    unknown.append(key)
                elif split and key.startswith("rope_"):
                    kinds = re.findall("rope_type = ('.*?')$", problem)
                    found.setdefault((key, reason.strip(" :()")), []).extend(kinds)
                elif split:
                    found.setdefault((key, reason.strip(" :()")), []).append(repr(value))
    for (key, reason), values in found.items():
        said = ", ".join(f"`{value}`" for value in dict.fromkeys(values))
        if said:
            yield f"- `{key}`: {said}{f' ({reason})' * bool(reason)}"
    if unknown:
        yield f"- any of {', '.join(f'`{key}`' for key in dict.fromkeys(unknown))}: it has no such"


def page() -> str:
    lines = [INTRODUCTION.rstrip("\n")]
    gguf = {kind.model_type for kind in GGUF.values()}
    for model_type in sorted(FAMILIES):
        architectures = ", ".join(TABLES[model_type].architectures)
        read = "yes" if model_type in gguf else ""
        lines.append(f"| {model_type} | {architectures} | `{sites(model_type)}` | {read} |")
    text = "\n".join(lines).replace("|11)", "\\|11)")
    text = re.sub(r"`[^`\n]*`", lambda m: m[0].replace("\\|", "|").replace("|", "\\|"), text)
    lines = [text, "", "Mistral's GGUF files are of architecture `llama`.", ""]
    lines += ["Of a mixture of experts, attention, the router (`mlp/gate`) and the MLPs of layers"]
    lines += ["without experts are sites. The kernels of experts are none.", ""]
    lines += ["## Model types that are refused", ""]
    lines += [f"- {', '.join(f'`{one}`' for one in types)}: {why}." for types, why in REFUSED]
    lines += ["", "## Settings that are refused", "", "In all models:", ""]
    for key, setting in sorted(OFF.items()):
        lines.append(f"- `{key}` ({setting.wanted})")
    alike: dict[tuple[str, ...], list[str]] = {}
    for name in KINDS:
        alike.setdefault(tuple(refusals(name)), []).append(name.replace(", ", " "))
    for own, names in alike.items():
        if own:
            lines += ["", f"### {', '.join(names)}", "", *own]
    return "\n".join(lines) + "\n"


def test_the_page_is_what_the_sweep_finds():
    assert PAGE.read_text(encoding="utf-8") == page(), f"make it anew: python {__file__}"


def test_the_sweep_has_every_family():
    assert {name.partition(",")[0] for name in KINDS} == set(FAMILIES) == set(TABLES)


def test_refused_types_are_refused_with_the_reason():
    for types, why in REFUSED:
        for one in types:
            assert one not in FAMILIES
            try:
                family_of({"model_type": one})
            except ArchitectureError as error:
                assert why in str(error)
            else:
                raise AssertionError(one)


def test_defaults_settle():
    assert all(settle({}, table) for table in TABLES.values())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
