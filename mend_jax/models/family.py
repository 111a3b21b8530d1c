"""What a model family is: the five things that each family's file ends with, and its tables."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, field, fields
from typing import Any, NamedTuple, TypeVar

from mend_jax.parallel import Partition
from mend_jax.weights import Expected

T = TypeVar("T")


class Family(NamedTuple):
    """A family of models.

    dimensions(config.json as a dict, names of the tensors) -> the family's frozen dataclass of
      dimensions; raises ValueError for a variant that is not implemented.
    model(dimensions, dtype=...) -> the staged Linen module.
    expected_weights(dimensions) -> {name of a Hugging Face tensor: where it goes}.
    default_sites(dimensions) -> regular expression of the layers edited by default.
    partition: how the parameters are spread over the mesh axis "model".
    spare: {regular expression of the names of tensors: why the model does without them}.
    copies: {name of a tensor: that of the one which it has to equal, and which is used}.
    """

    dimensions: Callable[[Mapping[str, Any], Collection[str]], Any]
    model: Callable[..., Any]
    expected_weights: Callable[[Any], dict[str, Expected]]
    default_sites: Callable[[Any], str]
    partition: Partition
    spare: Mapping[str, str] = {}
    copies: Mapping[str, str] = {}


def last_blocks(n: int, count: int) -> str:
    """Regular expression for the numbers of the last `count` of n blocks."""
    return "|".join(str(i) for i in range(max(n - count, 0), n))


# ----------------------------------------------------------------------------- dimensions


def later(default: T) -> T:
    """A field of dimensions that came after editors had been saved: at its default it does not
    count in a base's fingerprint, so that they know their base again."""
    return field(default=default, metadata={"later": True})


def told_apart(dimensions: Any) -> dict[str, Any]:
    """What dimensions tell bases apart by: {field: value}."""
    kept = (f for f in fields(dimensions) if not f.metadata.get("later"))
    said = {f.name for f in fields(dimensions) if getattr(dimensions, f.name) != f.default}
    names = said | {f.name for f in kept}
    return {name: value for name, value in asdict(dimensions).items() if name in names}


def read_dimensions(kind: type[T], settled: Mapping[str, Any], **own: Any) -> T:
    """A family's dimensions: each field as `own` says, else by the same name in `settled`."""
    known: Any = fields(kind)  # type: ignore[arg-type]
    return kind(**{f.name: settled[f.name] for f in known if f.name in settled} | own)


# ------------------------------------------------------------------------- where the tensors go


def _path(ours: str, theirs: str) -> tuple[str, ...]:
    return tuple(ours.split("/") if ours else theirs.split("."))


def expect_linear(
    theirs: str,
    shape: tuple[int, int],
    ours: str = "",
    transpose: bool = True,
    bias: bool = True,
) -> dict[str, Expected]:
    """Kernel [d_in, d_out] and bias of one linear layer.

    Args:
      theirs: name in the file, without ".weight". ours: path here, with slashes, if it is another.
      transpose: the file has [d_out, d_in].
    """
    path = _path(ours, theirs)
    table = {f"{theirs}.weight": Expected((*path, "kernel"), shape, transpose)}
    if bias:
        table[f"{theirs}.bias"] = Expected((*path, "bias"), shape[1:], False)
    return table


def expect_fused(theirs: str, parts: Mapping[str, tuple[int, int]]) -> dict[str, Expected]:
    """Kernels of several linear layers of one input that the file has as one, [d_out, d_in].

    Args:
      theirs: name in the file, without ".weight". parts: {path here, with dots: [d_in, d_out]}.
    """
    each = tuple(Expected((*_path("", to), "kernel"), shape, True) for to, shape in parts.items())
    shape = (each[0].shape[0], sum(one.shape[1] for one in each))
    return {f"{theirs}.weight": Expected((), shape, True, each)}


def expect_norm(theirs: str, d: int, ours: str = "", bias: bool = True) -> dict[str, Expected]:
    """Scale and bias of one norm; names as in `expect_linear`."""
    path = _path(ours, theirs)
    table = {f"{theirs}.weight": Expected((*path, "scale"), (d,), False)}
    if bias:
        table[f"{theirs}.bias"] = Expected((*path, "bias"), (d,), False)
    return table


def expect_table(theirs: str, shape: tuple[int, int], ours: str) -> dict[str, Expected]:
    """A table of rows, such as an embedding; names as in `expect_linear`."""
    return {f"{theirs}.weight": Expected(_path(ours, theirs), shape, False)}


def expect_blocks(
    count: int, theirs: str, ours: str, block: Mapping[str, Expected]
) -> dict[str, Expected]:
    """The tensors of so many equal blocks.

    Args:
      theirs, ours: what blocks are called; block i is `theirs.i` in the file and `ours_i` here.
      block: the tensors of one of them, without these.
    """
    return {
        f"{theirs}.{i}.{name}": one.under(tuple(f"{ours}_{i}".split("/")))
        for i in range(count)
        for name, one in block.items()
    }


# -------------------------------------------------------------------- where they lie on a mesh


def features_apart(wide: str, narrow: str, biases: bool = False) -> Partition:
    """Heads and MLP features on different devices: attention and MLP end in one sum over them each.

    Args:
      wide: names of the layers that make those features ("a|b"), whose outputs are cut.
      narrow: of the layers that add them up, whose inputs are cut.
      biases: cut those of the wide layers, too.
    """
    rules: Partition = ((rf".*/({wide})/kernel", (None, "model")),)
    if biases:
        rules += ((rf".*/({wide})/bias", ("model",)),)
    return (*rules, (rf".*/({narrow})/kernel", ("model", None)))
