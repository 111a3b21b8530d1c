"""Edits with scopes, in a transformers model: each acts only where it belongs.

    from scoped_edits import attach

    edits = attach(model, "FOLDER")    # model(...) and model.generate(...) as ever
    edits.remove()                     # the model as it was

This file stands alone: it needs torch, transformers and safetensors, and the two files beside it.

At every position of a text two keys are made of states below the edited layers: of whom the text
speaks, and what is asked here. The held edit to both of whose keys they are near enough begins to
act there, by adding x u^T delta to what its layers put out; it goes on while the tokens that follow
are its target's. Keys of what was read live with the key-value cache, in decoding, beams and turns.
Attention masks have to be [texts, tokens].
"""

import functools
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

CONFIG, ARRAYS = "scoped_edits.json", "scoped_edits.safetensors"
VERSION = 2
NONE = -1  # in place of an edit's number


def attach(model: Any, folder: str | Path) -> "ScopedEdits":
    """Lets the edits of a folder act in a model, until they are removed.

    Raises:
      ValueError: another version of the format; the edits were made on another model.
    """
    folder = Path(folder)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if config["version"] != VERSION:
        raise ValueError(f"{folder} is of version {config['version']}; this file reads {VERSION}")
    return ScopedEdits(model, config, load_file(folder / ARRAYS))


class ScopedEdits:
    """Edits that are attached to a model.

    edits: what they say, in order. acting: of the last pass, the number of the edit that acted at
    each position of each text, or -1.
    """

    def __init__(self, model: Any, config: dict[str, Any], arrays: dict[str, Any]) -> None:
        self.edits, self._config = config["edits"], config
        self.acting: list[list[int]] = []
        check_base(model, config)
        self._device = next(model.get_submodule(config["stages"][-1]).parameters()).device
        here = {k: x.to(self._device) for k, x in arrays.items() if not k.startswith("rows/")}
        self._phi = {k.removeprefix("scope/"): x for k, x in here.items()}
        self._targets = [[t for t in row if t != NONE] for row in arrays["target"].tolist()]
        self._states: list[torch.Tensor] = []
        self._memory, self._at = Memory(), tuple[torch.Tensor, ...]()
        self._hooks = [model.base_model.register_forward_pre_hook(self._begin, with_kwargs=True)]
        self._hooks.append(model.base_model.register_forward_hook(self._end))
        for name in config["stages"]:
            block, last = model.get_submodule(name), name == config["stages"][-1]
            keep = functools.partial(self._keep, last)
            self._hooks.append(block.register_forward_pre_hook(keep, with_kwargs=True))
        for site, place in config["sites"].items():
            module = model.get_submodule(place["module"])
            device = next(module.parameters()).device
            u, delta = (arrays[f"rows/{site}/{name}"].to(device) for name in ("u", "delta"))
            change = functools.partial(self._change, u, delta, place["begin"])
            self._hooks.append(module.register_forward_hook(change))

    def remove(self) -> None:
        """The model is as it was."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _begin(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        """Before a pass: its tokens, and what is known of those before."""
        tokens = kwargs.get("input_ids", args[0] if args else None)
        if tokens is None:
            raise ValueError("scoped edits follow tokens: give input_ids, not inputs_embeds")
        cache = _cache_in([*args, *kwargs.values()])
        past = int(cache.get_seq_length()) if cache is not None else 0
        memory = getattr(cache, "scoped_edits", None) if past else Memory()
        if memory is None or len(memory.places) < past:
            raise ValueError("the cache was filled without these edits: begin with a new one")
        self._memory, self._states, self._at = memory.first(past), [], ()
        mask = kwargs.get("attention_mask")
        if mask is not None and mask.dim() != 2:
            raise ValueError("scoped edits need an attention_mask of [texts, tokens]")
        if mask is None or mask.shape[1] != past + tokens.shape[1]:
            mask = torch.ones(len(tokens), past + tokens.shape[1], device=tokens.device)
        self._memory.mask = mask.bool().to(self._device)
        self._tokens = tokens
        self._remember(cache)

    def _end(self, module: Any, args: Any, output: Any) -> None:
        """After a pass: its cache, if it has made one, knows what was read."""
        self._remember(_cache_in(output.values() if isinstance(output, dict) else output))

    def _remember(self, cache: Any) -> None:
        if cache is not None:
            cache.scoped_edits = self._memory
            following(cache)

    def _keep(self, last: bool, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        """Before a block whose input the scope reads; before the last of them all is decided."""
        state = args[0] if args else kwargs["hidden_states"]
        self._states.append(state.detach().to(self._device, torch.float32))
        if last:
            with torch.no_grad():
                fire = self._fire(torch.stack(self._states, 2))
            self.acting = self._memory.go_on(fire, self._tokens, self._targets)
            which = torch.tensor(self.acting, device=self._device)
            texts, positions = (which != NONE).nonzero(as_tuple=True)
            self._at = (texts, positions, which[texts, positions]) if len(texts) else ()

    def _fire(self, states: torch.Tensor) -> torch.Tensor:
        """[k, n]: the edit that each position decides for by itself, or NONE."""
        w, memory = self._phi, self._memory
        size = torch.rsqrt(states.square().mean(-1, keepdim=True) + 1e-6)
        plain = (states * size - w["centre"]) / w["spread"]
        early, late = plain.flatten(2).tensor_split([len(w["kernels/key"])], -1)
        whom = self._pooled("", late, early) @ w["kernels/subject"]
        inner = F.gelu(late @ w["kernels/inner"], approximate="tanh")
        what = inner @ w["kernels/outer"] + late @ w["kernels/skip"]
        if self._config["asked_heads"]:
            what = what + self._pooled("asked_", inner, inner) @ w["kernels/asked"]
        near = []
        for name, key in (("subject", whom), ("relation", what)):
            unit = key * torch.rsqrt(key.square().sum(-1, keepdim=True) + 1e-6)
            logit = unit @ w[f"keys/{name}"].T - w[f"threshold/{name}"]
            near.append(w[f"steep/{name}"].exp() * logit)
        best, which = torch.minimum(*near).max(-1)
        return torch.where((best > 0) & memory.mask[:, -states.shape[1] :], which, NONE)

    def _pooled(self, name: str, asking: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        """[k, n, heads * width]: attention of every position over those up to it."""
        w, memory, (k, n), width = self._phi, self._memory, asking.shape[:2], self._config["width"]
        parts = {"query": asking, "key": read, "value": read}
        new = {x: (v @ w[f"kernels/{name}{x}"]).view(k, n, -1, width) for x, v in parts.items()}
        keys, values = (memory.with_new(name + x, new[x]) for x in ("key", "value"))
        at, far = torch.arange(keys.shape[1], device=keys.device), w[f"{name}distance"]
        distance = at[-n:, None] - at
        scores = torch.einsum("kqhw,kshw->khqs", new["query"], keys) * width**-0.5
        scores = scores + far[:, distance.clamp(0, far.shape[1] - 1)]
        seen = (distance >= 0) & memory.mask[:, None, None, :] | (distance == 0)
        scores = scores.masked_fill(~seen, float("-inf")).softmax(-1)
        return torch.einsum("khqs,kshw->kqhw", scores, values).reshape(k, n, -1)

    def _change(self, u: Any, delta: Any, begin: int, _: Any, args: Any, output: Any) -> Any:
        """What a layer puts out, with the acting edits' x u^T delta where they act."""
        if not self._at:
            return None
        texts, positions, which = (x.to(output.device) for x in self._at)
        shape = (*self._tokens.shape, -1)  # some models give a layer all texts in one row
        x = args[0].reshape(shape)[texts, positions].float()
        moved = torch.einsum("md,mrd,mre->me", x, u[which].float(), delta[which].float())
        out = output.reshape(shape).clone()
        at = (texts, positions, slice(begin, begin + moved.shape[1]))
        out[at] = (out[at].float() + moved).to(out.dtype)
        return out.reshape(output.shape)


class Memory:
    """What is known of texts that were read: the scope's keys and values [k, t, heads, width], and
    for each position, of each text, the edit that acts and how much of its target was said."""

    def __init__(self) -> None:
        self.read: dict[str, torch.Tensor] = {}
        self.places: list[list[tuple[int, int]]] = []
        self.mask = torch.ones(0)

    def first(self, n: int) -> "Memory":
        """Of n positions, with lists of its own."""
        made = Memory()
        made.read, made.places = {k: x[:, :n] for k, x in self.read.items()}, self.places[:n]
        return made

    def with_new(self, name: str, new: torch.Tensor) -> torch.Tensor:
        """Keys or values of all positions, these now among them."""
        self.read[name] = torch.cat((self.read.get(name, new[:, :0]), new), 1)
        return self.read[name]

    def go_on(
        self, fire: torch.Tensor, tokens: torch.Tensor, targets: list[list[int]]
    ) -> list[list[int]]:
        """The edit that acts at each of the new positions: one that is active goes on while the
        tokens are its target's; else each position decides for itself."""
        k, began = len(tokens), len(self.places)
        last = self.places[-1] if self.places else [(NONE, 0)] * k
        for firing, said in zip(fire.T.tolist(), tokens.T.tolist(), strict=True):
            now = []
            for (edit, n), begins, token in zip(last, firing, said, strict=True):
                target = targets[edit] if edit != NONE else []
                goes_on = n + 1 < len(target) and target[n] == token
                now.append((edit, n + 1) if goes_on else (begins, 0))
            self.places.append(now)
            last = now
        new = self.places[began:]
        return [[place[text][0] for place in new] for text in range(k)]

    def choose(self, texts: list[int]) -> None:
        """Goes on with these texts."""
        self.read = {k: x[torch.tensor(texts, device=x.device)] for k, x in self.read.items()}
        self.places = [[place[text] for text in texts] for place in self.places]


def following(cache: Any) -> None:
    """Makes a key-value cache, once, of a kind that chooses texts in its memory of them too."""
    kind = type(cache)
    if hasattr(kind, "follows_edits"):
        return

    def changed(name: str) -> Any:
        def change(self: Any, how: Any) -> None:
            getattr(kind, name)(self, how)
            texts = torch.arange(len(self.scoped_edits.places[0]))
            repeats = name == "batch_repeat_interleave"
            chosen = texts.repeat_interleave(how) if repeats else texts[torch.as_tensor(how).cpu()]
            self.scoped_edits.choose(chosen.tolist())

        return change

    names = ("reorder_cache", "batch_select_indices", "batch_repeat_interleave")
    methods = {name: changed(name) for name in names}
    cache.__class__ = type(kind.__name__, (kind,), {"follows_edits": True, **methods})


def check_base(model: Any, config: dict[str, Any]) -> None:
    """Raises ValueError unless the model has the layers of the edits' base, and their weights."""
    for name, wanted in config["probes"].items():
        try:
            weight = model.get_submodule(name).weight
        except AttributeError:
            raise ValueError(f"no layer {name!r}: {config['base']} is wanted") from None
        if not weight.is_floating_point():
            continue  # of a quantised model
        values, far = torch.tensor(wanted["values"]), torch.tensor(float("inf"))
        if list(weight.shape) == wanted["shape"]:
            far = (weight.detach().flatten()[wanted["at"]].float().cpu() - values).abs().max()
        if far > 0.02 * values.abs().max():
            raise ValueError(f"the weights of {name} are others than those of {config['base']}")


def _cache_in(values: Any) -> Any:
    return next((x for x in values if hasattr(x, "get_seq_length")), None)
