"""The tokenizer of a Hugging Face model folder, of whatever files it is made."""

from pathlib import Path
from typing import Any

from mend_jax.files import check_no_pointer, read_json
from mend_jax.typed import checked
from mend_jax.weights.errors import WeightsError
from mend_jax.weights.tokenizer_config import as_configured

_VOCABULARIES = ("vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")
_BESIDE = ("merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""Files that a tokenizer without a tokenizer.json is made of, beside its vocabulary."""
AGAIN = "Download it again."


def tokenizer_of(folder: Path, config: dict) -> Any:
    """The folder's tokenizer, without the padding and the truncation that it may come with."""
    tokenizer = _stored_tokenizer(folder, config)
    if tokenizer is not None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
    return tokenizer


def tokenizer_files(folder: Path) -> list[Path]:
    """What the folder's tokenizer is made of."""
    whole, beside = ("tokenizer.json", "tokenizer_config.json"), (*_VOCABULARIES, *_BESIDE)
    first = whole if (folder / whole[0]).is_file() else beside
    found = [folder / name for name in first if (folder / name).is_file()]
    return found or [path for path in (folder / "config.json",) if path.is_file()]


def _stored_tokenizer(folder: Path, config: dict) -> Any:
    """A `tokenizers.Tokenizer`, or None.

    Raises:
      WeightsError: it cannot be read.
    """
    for path in tokenizer_files(folder):
        check_no_pointer(path, WeightsError)
    try:
        if (folder / "tokenizer.json").exists():
            from tokenizers import Tokenizer  # not needed to import this package

            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            beside = folder / "tokenizer_config.json"
            said = json_object(beside) if beside.exists() else {}
            return as_configured(tokenizer, said, str(beside))
        if any((folder / name).exists() for name in _VOCABULARIES):
            from transformers import AutoTokenizer  # slow to import, and seldom needed

            return AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
    except WeightsError:
        raise
    except BaseException as error:  # tokenizers raises bare Exception; its Rust code may panic
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        names = ", ".join(path.name for path in tokenizer_files(folder))
        raise WeightsError(f"{folder}: {names} cannot be read: {error}. {AGAIN}") from error
    if "grapheme_chars" in config and "phoneme_chars" in config:
        from mend_jax.weights.spelling import spelling_tokenizer  # loads `tokenizers`

        return spelling_tokenizer(config, str(folder))
    return None


def json_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object, or WeightsError."""
    return checked(dict[str, Any], read_json(path, WeightsError, AGAIN), str(path), WeightsError)
