"""The dimensions of T5, mT5 and umT5, and how a config.json says them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mend_jax.models import declared
from mend_jax.models.family import read_dimensions
from mend_jax.models.relative_positions import check_buckets
from mend_jax.models.settings import Declared, check_token_ids, settle


@dataclass(frozen=True)
class T5Config:
    """The dimensions; field names are those of Hugging Face's config.json."""

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_decoder_layers: int
    num_heads: int
    gated: bool = False
    activation: str = "relu"
    tied: bool = True
    scale_decoder_outputs: bool = True
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    decoder_start_token_id: int = 0
    eos_token_id: int = 1

    declared: ClassVar[Declared] = declared.T5
    tables: ClassVar[bool] = False
    """Whether each block has a table of position biases, or the first has one for all."""

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], names: Collection[str] = ()) -> "T5Config":
        """Reads a Hugging Face config.json; `names` are the tensors that there are.

        Whether the head is tied cannot be told from a config written by transformers 5: a tensor
        `lm_head.weight` says that it is not.

        Raises:
          ConfigError: a setting that is not implemented.
        """
        said = settle(config, cls.declared)
        kind, tied = said["feed_forward_proj"], said["tie_word_embeddings"]
        activation = "gelu_new" if kind == "gated-gelu" else kind.removeprefix("gated-")
        # What transformers 5 derives from other keys, a file may say otherwise, and wins.
        said |= {
            "num_decoder_layers": said["num_decoder_layers"] or said["num_layers"],
            "gated": _first(said["is_gated_act"], kind.startswith("gated-")),
            "activation": _first(said["dense_act_fn"], activation),
            "scale_decoder_outputs": _first(said.get("scale_decoder_outputs"), cls.scaled(tied)),
            "decoder_start_token_id": _first(said["decoder_start_token_id"], said["pad_token_id"]),
            "tied": cls.ties(tied) and "lm_head.weight" not in names,
        }
        check_token_ids(said, "decoder_start_token_id", "eos_token_id")
        check_buckets(
            said["relative_attention_num_buckets"], said["relative_attention_max_distance"]
        )
        return read_dimensions(cls, said)

    @classmethod
    def scaled(cls, tied: bool) -> bool:
        """Whether outputs are scaled, in a model whose file says that its head is tied, or not."""
        return tied

    @classmethod
    def ties(cls, tied: bool) -> bool:
        """Whether the head is tied, if no tensor says otherwise."""
        return tied


def _first(given: Any, derived: Any) -> Any:
    return derived if given is None else given


@dataclass(frozen=True)
class UMT5Config(T5Config):
    """umT5 (Chung et al. 2023, arXiv 2304.09151): position biases of their own in each block.

    Its head is tied whatever the file says, which says by that whether outputs are scaled.
    """

    declared: ClassVar[Declared] = declared.UMT5
    tables: ClassVar[bool] = True

    @classmethod
    def ties(cls, tied: bool) -> bool:
        """In any case."""
        return True


@dataclass(frozen=True)
class MT5Config(T5Config):
    """mT5 (Xue et al. 2020, arXiv 2010.11934): as T5 1.1; outputs are never scaled."""

    declared: ClassVar[Declared] = declared.MT5

    @classmethod
    def scaled(cls, tied: bool) -> bool:
        """Never."""
        return False

    @classmethod
    def ties(cls, tied: bool) -> bool:
        """In any case."""
        return True
