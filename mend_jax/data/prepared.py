"""Records as a TensorFlow Datasets folder of ArrayRecord files, read at random places.

For records too many to be held in memory, and for those who have such folders already. Needs the
packages of `pip install "mend_jax[data]"`; TensorFlow is none of them, and this file is imported
only where a folder is written or read.
"""

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grain
import tensorflow_datasets as tfds
from google.protobuf.json_format import ParseError

from mend_jax.data.fields import RecordError
from mend_jax.data.messages import Chat
from mend_jax.data.records import Locality, Record, Rephrase, rephrases_of
from mend_jax.files import file_checksum, read_json, write_text
from mend_jax.typed import checked

_CHECKSUMS = "checksums.json"
"""Of the other files of a folder."""
SPLIT = "train"
"""All records of a folder are in one split."""
HALF = ".incomplete"
"""In the name of the folder that TFDS writes in; it is renamed when it is whole."""


class Records(tfds.core.GeneratorBasedBuilder):
    """A data set that holds the records given, in their order."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, records: Iterable[Record] = (), **options: Any) -> None:
        self._records = records
        super().__init__(**options)

    def _info(self) -> Any:
        text, several = tfds.features.Text(), tfds.features.Sequence
        features = {
            "prompt": text,
            "target": text,
            "subject": text,
            "separator": text,
            "rephrases": several({"prompt": text, "target": text}),
            "locality": several(dict.fromkeys(Locality._fields, text)),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        return enumerate(map(example_of, self._records))


def write_prepared(folder: str | Path, records: Iterable[Record]) -> Path:
    """Writes `folder`/records/1.0.0 and returns that path.

    Raises:
      RecordError: the folder holds prepared records already.
    """
    if _found(folder):
        raise RecordError(f"{folder} holds prepared records already: give another folder")
    for half in Path(folder).glob(f"*/*{HALF}*"):  # of one that was killed
        shutil.rmtree(half)
    builder = Records(records, data_dir=str(folder), file_format="array_record")
    builder.download_and_prepare()
    written = Path(builder.data_dir)
    write_text(written / _CHECKSUMS, json.dumps(_checksums(written), indent=1) + "\n")
    return written


def open_prepared(folder: str | Path) -> Any:
    """A sequence of examples, none of which is read before it is asked for.

    Args:
      folder: what was given to `write_prepared`, or what it returned.

    Raises:
      RecordError: it holds no prepared records; or its files are not those that were written.
    """
    found = _found(folder)
    if len(found) != 1:
        raise RecordError(f"{folder}: {len(found)} prepared data sets in this folder, not one")
    _check(found[0])
    with _readable(found[0]):
        return tfds.builder_from_directory(str(found[0])).as_data_source(SPLIT)


def _checksums(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.iterdir() if file.name != _CHECKSUMS)
    return {file.name: file_checksum([file]) for file in files}


def _check(folder: Path) -> None:
    """Holds the files against the checksums beside them; folders of other makers have none."""
    path = folder / _CHECKSUMS
    if not path.is_file():
        return
    known = checked(dict[str, str], read_json(path, RecordError), str(path), RecordError)
    now = _checksums(folder)
    if wrong := sorted(name for name in known | now if known.get(name) != now.get(name)):
        raise RecordError(
            f"{folder}: {', '.join(wrong)} {'is' if len(wrong) == 1 else 'are'} not as written: "
            "damaged, changed, or gone. Prepare the records again"
        )


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """What the packages that read it raise is an error of its files."""
    try:
        yield
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, ParseError) as error:
        if isinstance(error, RecordError):
            raise
        what = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise RecordError(f"{folder}: cannot be read as prepared records ({what})") from None


def read_prepared(folder: str | Path) -> list[Record]:
    """All records, in the order in which they were written."""
    source = open_prepared(folder)
    with _readable(Path(folder)):
        return [record_of(source[i]) for i in range(len(source))]


def shuffled(folder: str | Path, seed: int) -> Any:
    """An endless Grain iterator over the records, each epoch in a fresh order.

    Its `get_state()` is the position, and `set_state` goes on from one.
    """
    source = grain.MapDataset.source(open_prepared(folder))
    return iter(source.map(record_of).shuffle(seed=seed).repeat().to_iter_dataset())


def example_of(record: Record) -> dict[str, Any]:
    """The record as it is stored: every field is there, and may be an empty text.

    A separator is stored in quotes, since that of no record is none, and not an empty one.

    Raises:
      RecordError: it is a chat, for which these files have no field.
    """
    asked = (record.prompt, *(r.prompt for r in rephrases_of(record)))
    if any(isinstance(prompt, Chat) for prompt in (*asked, *(x.prompt for x in record.locality))):
        raise RecordError(f"{record.prompt!r}: chats cannot be prepared; train on the JSONL itself")
    return record._asdict() | {
        "separator": _quoted(record.separator),
        "rephrases": [
            {"prompt": r, "target": ""} if isinstance(r, str) else r._asdict()
            for r in record.rephrases
        ],
        "locality": [
            item._asdict() | {"separator": _quoted(item.separator)} for item in record.locality
        ],
    }


def _quoted(separator: str | None) -> str:
    return "" if separator is None else f'"{separator}"'


def _unquoted(stored: str) -> str | None:
    return stored[1:-1] if stored else None


def record_of(example: Mapping[str, Any]) -> Record:
    """The record of what TFDS reads: bytes, and of several rephrases one list a field."""

    def rows(field: str, *names: str) -> list[list[str]]:
        columns = [example[field][name] for name in names if name in example[field]]
        return [[part.decode() for part in row] for row in zip(*columns, strict=True)]

    prompt, target, subject = (example[x].decode() for x in ("prompt", "target", "subject"))
    rephrases = (Rephrase(*row) for row in rows("rephrases", *Rephrase._fields))
    locality = (Locality(*row) for row in rows("locality", *Locality._fields))
    separator = example.get("separator", b"").decode()  # absent from older folders
    return Record(
        prompt,
        target,
        tuple(r if r.target else r.prompt for r in rephrases),
        tuple(x._replace(separator=_unquoted(x.separator or "")) for x in locality),
        subject,
        _unquoted(separator),
    )


def _found(folder: str | Path) -> list[Path]:
    files = Path(folder).rglob("dataset_info.json")
    return sorted(file.parent for file in files if HALF not in file.parent.name)
