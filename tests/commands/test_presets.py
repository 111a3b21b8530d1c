"""Presets: each is a command line of the results, and what is given beside it wins."""

import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from mend_jax.commands.command import Command, parse
from mend_jax.commands.reference import reference
from mend_jax.runs.option_groups import WITH_SCOPE
from mend_jax.runs.options import TrainConfig

ROOT = Path(__file__).parents[2]

LINES = {  # the options that gave the results, as they were typed
    ("experiments.train_t5xxl", "small_t5"): "--dtype float32 --rank 256 --steps 1500 "
    "--learning-rate 2e-5 --alpha 6e-4 --alpha-learning-rate 6e-5 --decay cosine --c-edit 0.6 "
    "--ridge 0.05 --calibrate 48 --swap --dev 150 --evaluate-every 150 --checkpoint-every 1500 "
    "--patience 0 --phrasings 18",
    ("experiments.train_bert_fever", "minilm"): "--flip all --rank 256 --steps 500 "
    "--learning-rate 2e-5 --alpha 6e-4 --alpha-learning-rate 6e-5 --decay cosine --c-edit 0.3 "
    "--ridge 0.05 --calibrate 48 --swap --near 0 --far 4 --longest 64 --dev 200 "
    "--max-validation 20 --evaluate-every 100 --checkpoint-every 100000 --patience 0",
    ("experiments.train_bart_zsre", "pronunciations"): "--rank 256 --steps 900 "
    "--learning-rate 3e-5 --alpha 4e-4 --alpha-learning-rate 6e-5 --decay cosine --c-edit 0.05 "
    "--ridge 0.05 --calibrate 48 --swap --near 2 --far 2 --dev 200 --max-validation 20 "
    "--evaluate-every 200 --checkpoint-every 100000 --patience 0",
    ("experiments.train_distilgpt2_wikitext", "smollm2"): "--model smollm2-135m --rank 256 "
    "--sites 'layers_(25|26|27|28|29)/mlp/(gate|up)_proj' --steps 480 --learning-rate 2e-5 "
    "--alpha 6e-4 --alpha-learning-rate 6e-5 --decay cosine --c-edit 0.45 --ridge 0.05 --words "
    "--calibrate 120 --swap --near 0 --far 1 --longest 64 --longest-answer 16 --dev 100 "
    "--evaluate-every 60 --checkpoint-every 100000 --patience 0",
    ("experiments.train_smollm2_counterfact", "zsre"): "--near 0 --far 1 --longest 48 "
    "--longest-answer 8 --dev 60 --swap --steps 400 --evaluate-every 50 "
    "--checkpoint-every 100000 --alpha 6e-4 --alpha-learning-rate 6e-5 --decay cosine "
    "--calibrate 48 --words",
    ("experiments.train_smollm2_counterfact", "scoped"): "--scope --train-share 0.5 "
    "--max-validation 200 --dev 300 --steps 500 --sites 'layers_(28|29)/mlp/(gate|up)_proj' --swap "
    "--calibrate 60 --evaluate-every 250 --scope-steps 600",
    ("experiments.train_smollm2_counterfact", "general"): "--scope --max-validation 300 --dev 300 "
    "--steps 600 --sites 'layers_(28|29)/mlp/(gate|up)_proj' --swap --calibrate 60 "
    "--evaluate-every 300 --scope-steps 600 --scope-batch 128 --scope-leaks 0.05 "
    "--longest-answer 8",
    ("experiments.train_smollm2_counterfact", "general_chats"): "--scope --max-validation 64 "
    "--dev 100 --steps 700 --train-share 0.6 --sites 'layers_(28|29)/mlp/(gate|up)_proj' --swap "
    "--calibrate 60 --evaluate-every 350 --longest 96 --longest-answer 8",
    ("experiments.train_t5xxl", "small_t5_scoped"): "--dtype float32 --rank 256 --steps 600 "
    "--learning-rate 2e-5 --decay cosine --c-edit 1 --calibrate 48 --swap --dev 150 "
    "--evaluate-every 150 --checkpoint-every 600 --patience 0 --scope --scope-steps 600 "
    "--phrasings 18",
    ("mend_jax.commands.compare", "small_t5"): "--minutes 2 --rank 256 --ridge 0.05 "
    "--calibrate 48 --swap --decay cosine --alpha 6e-4 --alpha-learning-rate 6e-5 "
    "--learning-rate 4e-5 --words --c-edit 0.6 --near 1 --far 1 --longest 32 --dev 150 "
    "--phrasings 18 --ft.learning-rate 3e-4 --ft-kl.learning-rate 3e-4",
    ("mend_jax.commands.compare", "minilm"): "--minutes 1.5 --rank 256 --ridge 0.05 "
    "--calibrate 48 --swap --decay cosine --alpha 6e-4 --alpha-learning-rate 6e-5 "
    "--learning-rate 2e-5 --c-edit 0.3 --near 0 --far 4 --longest 64 --dev 100 "
    "--max-validation 300 --ft.learning-rate 3e-5 --ft-kl.learning-rate 3e-5 "
    "--ft-breadth.learning-rate 3e-5 --enn.learning-rate 1e-4 --ke.learning-rate 1e-3",
    ("mend_jax.commands.compare", "counterfact"): "--model smollm2-135m --minutes 1.5 "
    "--max-train 1500 --max-validation 200 --allow-conflicts --rank 256 --ridge 0.05 "
    "--calibrate 48 --decay cosine --alpha 6e-4 --alpha-learning-rate 6e-5 --learning-rate 2e-5 "
    "--c-edit 0.3 --near 1 --far 0 --longest 32 --longest-answer 3 --dev 60 "
    "--ft.learning-rate 1e-4 --ft-kl.learning-rate 1e-4 --ft-breadth.learning-rate 1e-4 "
    "--enn.learning-rate 1e-5 --ke.learning-rate 1e-3",
    ("mend_jax.commands.ablate", "small_t5"): "--steps 300 --rank 256 --ridge 1 --calibrate 48 "
    "--swap --decay cosine --alpha 1e-4 --alpha-learning-rate 1e-4 --learning-rate 1e-4 "
    "--c-edit 0.6 --near 1 --far 1 --longest 32 --dev 60 --phrasings 18",
    ("mend_jax.commands.batch_edits", "small_t5"): "--minutes 2 "
    "--sites 'decoder/block_(1|2)/mlp/(wi_0|wo)' --rank 256 --ridge 0.05 --at-once solved "
    "--calibrate 20 --swap --decay cosine --alpha 5e-3 --alpha-learning-rate 1e-4 "
    "--learning-rate 1e-4 --c-edit 0.6 --near 1 --far 1 --longest 32 --phrasings 18",
    ("mend_jax.commands.sites", "pronunciations"): "--steps 150 --rank 256 "
    "--places default,mlp_1,reads_1,writes_1,attention_1 --learning-rate 3e-5 --alpha 4e-4 "
    "--alpha-learning-rate 6e-5 --decay cosine --c-edit 0.05 --ridge 0.05 --calibrate 48 --swap "
    "--near 2 --far 2 --max-validation 20 --patience 0 --longest-answer 32 --evaluate-every 1000",
    ("mend_jax.commands.benchmark", "smollm2"): "--model smollm2-135m --random-weights "
    "--length 48 --answers 3 --rank 256 --batch 20 --rounds 1",
    ("mend_jax.commands.evaluate", "counterfact_500"): "--limit 500 --longest 48 --batch 20",
    ("mend_jax.commands.evaluate", "chat_100"): "--chat --protocol contains --limit 100 "
    "--batch 16 --longest 96",
    ("mend_jax.commands.evaluate", "held_1000"): "--limit 1000 --k 1000 --longest 48 --batch 16",
    ("mend_jax.commands.evaluate", "held_5000"): "--limit 1000 --k 1000 --hold 5000 --longest 48 "
    "--batch 16",
}  # fmt: skip
NEEDED = {
    "experiments.train_smollm2_counterfact": "--train a.json --validation b.json",
    "mend_jax.commands.evaluate": "--editor runs/quickstart --out runs/scores",
}


def parsed(command: Command, line: str) -> Any:
    return parse(command, shlex.split(line), "mend-jax", "")


@pytest.mark.parametrize(("module", "name"), LINES, ids=lambda x: x.rpartition(".")[2])
def test_a_preset_is_its_command_line(module: str, name: str):
    command, needed = import_module(module).COMMAND, NEEDED.get(module, "")
    wanted = parsed(command, f"{LINES[module, name]} {needed}")
    assert parsed(command, f"--preset {name} {needed}") == wanted
    assert parsed(command, f"{needed} --preset={name}") == wanted
    assert command.presets[name].gave


def test_every_preset_has_its_line():
    modules = {module for module, _ in LINES}
    given = {(m, name) for m in modules for name in import_module(m).COMMAND.presets}
    assert given - {(m, "small_gpt_neo") for m in modules} == set(LINES)
    for module in ("ablate", "batch_edits"):  # the same options on another base
        command = import_module(f"mend_jax.commands.{module}").COMMAND
        assert command.presets["small_gpt_neo"].options["learning_rate"] == 1e-4


def test_options_beside_a_preset_win():
    command = import_module("experiments.train_t5xxl").COMMAND
    config = parsed(command, "--steps 7 --preset small_t5 --model runs/t5")
    assert (config.steps, config.rank, config.model) == (7, 256, "runs/t5")


def test_presets_are_listed_and_unknown_ones_are_named(capsys: pytest.CaptureFixture[str]):
    command = import_module("experiments.train_t5xxl").COMMAND
    with pytest.raises(SystemExit) as ended:
        parsed(command, "--preset ?")
    said = capsys.readouterr().out
    assert ended.value.code == 0 and "edit success 0.908" in said and "--rank 256" in said
    with pytest.raises(SystemExit) as ended:
        parsed(command, "--preset rome")
    error = capsys.readouterr().err
    assert ended.value.code == 2 and "'rome'; known are: small_t5" in error


def test_the_reference_is_that_of_the_commands():
    """`python -m mend_jax.commands.reference > docs/commands.md` writes it anew."""
    written = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert reference(ROOT / "experiments") == written


def test_an_option_brings_others_unless_they_are_given():
    """Also where what is given is the default."""
    module = "experiments.train_smollm2_counterfact"
    command, needed = import_module(module).COMMAND, NEEDED[module]
    lines = (f"{needed} --scope {x}" for x in ("", "--ridge 0.1 --near 1"))
    alone, given = (parsed(command, line) for line in lines)
    assert {name: getattr(alone, name) for name in WITH_SCOPE} == WITH_SCOPE
    chosen = {"ridge": 0.1, "near": 1}
    assert {name: getattr(given, name) for name in WITH_SCOPE} == WITH_SCOPE | chosen
    assert parsed(command, needed).ridge != WITH_SCOPE["ridge"]


def test_training_is_with_a_scope_unless_it_is_turned_off():
    command = import_module("mend_jax.commands.train").COMMAND
    scoped, alone = (parsed(command, f"--out a {x}") for x in ("", "--no-scope"))
    assert scoped.scope and not alone.scope
    assert {name: getattr(scoped, name) for name in WITH_SCOPE} == WITH_SCOPE
    assert all(getattr(alone, name) == getattr(TrainConfig, name) for name in WITH_SCOPE)
