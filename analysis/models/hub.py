"""The part of a hub model that a vocabulary needs: its config, its tokenizer, and the byte range of its input embeddings.

A model of 15 GB has input embeddings of 1 GB. Their tensor is found by the index and by the header of the one safetensors file
that holds it, and is fetched by Range requests into a folder of the cache, which `vocabulary.py` reads like any local model:

    <cache>/hub/<owner--name>/ref                  the commit that was fetched
    <cache>/hub/<owner--name>/<commit>/            config.json, the tokenizer's files, a model.safetensors of one tensor, and checksums.json
    <cache>/hub/<owner--name>/<commit>.incoming/   the same while it comes; an interrupted fetch goes on from here

What this machine holds already, as it came, is served without the network; what is damaged is fetched again. A repository is a stranger's: what it says about names, sizes and
places is checked before it is used, and nothing of it is run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import reprlib
import shutil
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from soft_prompt_explorer.analysis.core.errors import ModelError, NoSuchModelError
from soft_prompt_explorer.analysis.core.folders import (
    cache_folder,
    cache_folders,
    locked,
    remove_at_once,
    sync,
    temporary_folder,
    write_whole,
)
from soft_prompt_explorer.analysis.core.kept import KeptFiles, not_kept
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.core.words import listed
from soft_prompt_explorer.analysis.models.fetching import (
    FIRST_ANSWER,
    INCOMING,
    REACHED,
    RemoteFile,
    bytes_arrived,
    megabytes,
    why_it_broke,
)
from soft_prompt_explorer.analysis.models.tensor_names import embedding_tensor_name

INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
# What holds a tokenizer when there is no tokenizer.json, and what goes with it.
OTHER_TOKENIZERS = ("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
TOKENIZER_COMPANIONS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
_BYTES_PER_VALUE = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_LARGEST_JSON = 64 * 2**20  # of a config, an index or a safetensors header
_LARGEST_TOKENIZER = 256 * 2**20
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_at_hand(name: str) -> bool:
    """Whether the vocabulary of this hub id can be read without the network."""
    return _at_hand(name) is not None


def vocabulary_folder(name: str, report: Report = no_report, *, tried: Sequence[str] = ()) -> Path:
    """A folder with the config, the tokenizer and the input embeddings of a hub model; fetched only where this machine lacks them.

    Parameters
    ----------
    name : a hub id, as `models.resolve_model` recognises one.
    tried : where the name was looked for before, for the sentence that says it is nowhere.

    Raises
    ------
    NoSuchModelError
        This machine does not hold it, and the hub does not answer or knows no such model.
    ModelError
        The repository is not one that can be read, or the connection broke off for good.
    """
    folder = _at_hand(name)
    if folder is not None:
        return folder
    report(0.0, f"asking the hub for {name}")
    damaged = [f"what is kept of it in {home}, which is damaged" for cache in cache_folders() if (home := _home(cache, name)).is_dir()]
    commit = latest_commit(name, tried=[*tried, *damaged])

    from httpx2 import HTTPError

    problem = OSError()
    for root in (cache_folder, temporary_folder):
        try:
            home = _home(root(), name)
            home.mkdir(parents=True, exist_ok=True)
            with locked(home / ".lock"):  # two processes that start together fetch once
                if not _is_whole(home, commit):
                    _fetch(name, commit, home / commit, report)
                if (home / "ref").is_dir():  # whoever put it there: no file could take its place
                    remove_at_once(home / "ref")
                write_whole(home / "ref", commit.encode("ascii"))
            return home / commit
        except HTTPError as error:
            raise ModelError(
                f"Fetching the vocabulary of {name} from the hub broke off ({why_it_broke(error)}); "
                "what arrived is kept, and the next attempt goes on from there."
            ) from error
        except OSError as error:
            not_kept(cache_folder() / "hub", error)
            problem = error
    raise ModelError(
        f"The vocabulary of {name} cannot be kept in {_home(cache_folder(), name)} nor among the temporary files "
        f"({problem.strerror or type(problem).__name__})."
    ) from problem


def latest_commit(name: str, *, tried: Sequence[str] = ()) -> str:
    """The commit that the hub serves for this model. Asked once and briefly.

    Raises
    ------
    NoSuchModelError
        The hub does not answer or knows no such model.
    ModelError
        What answers is no hub, or the repository is closed or holds no config.json.
    """
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError

    try:
        url = huggingface_hub.hf_hub_url(name, "config.json")
        commit = huggingface_hub.get_hf_file_metadata(url, timeout=FIRST_ANSWER).commit_hash
    except EntryNotFoundError as error:
        raise ModelError(f"The hub's {name} holds no config.json, so it is not a model that can be read.") from error
    except GatedRepoError as error:
        raise ModelError(
            f"The hub gives {name} only to those who accepted its terms; accept them on its page, then log in with `hf auth login`."
        ) from error
    except Exception as error:  # whatever the network or the hub raises, or that it was told to be offline
        places = [*tried, "this machine's caches of hub models", f"the hub ({why_it_broke(error)})"]
        raise NoSuchModelError(f"No model is called {name!r}; tried {listed(places)}.") from error
    if commit is None or _COMMIT.fullmatch(commit) is None:
        raise ModelError(f"What answered for {name} is not a model hub, as it names no commit; look at HF_ENDPOINT and your proxy.")
    return commit


def whole_snapshot(name: str) -> Path | None:
    """The person's Hugging Face snapshot of this model, if it is there with all of its weights. Does not ask the network."""
    folder = _snapshot(name)
    return folder if folder is not None and _holds(folder, all_weights=True) else None


def _at_hand(name: str) -> Path | None:
    # The snapshot comes first: it is what the model itself is loaded from, and the hub may have moved on between the two.
    snapshot = _snapshot(name)
    if snapshot is not None and _holds(snapshot):
        return snapshot
    for home in (_home(cache, name) for cache in cache_folders()):
        commits = [path.name for path in sorted(home.glob("*"), key=_age)]
        with suppress(OSError, ValueError):
            commits.insert(0, (home / "ref").read_text(encoding="ascii"))
        for commit in filter(_COMMIT.fullmatch, commits):  # where the name of the last one is lost, the latest that is there
            if _is_whole(home, commit):
                return home / commit
    return None


def _home(cache: Path, name: str) -> Path:
    return cache / "hub" / name.replace("/", "--")


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:  # gone meanwhile
        return float("inf")


def _is_whole(home: Path, commit: str) -> bool:
    return _files(home / commit).are_whole()


def _files(folder: Path) -> KeptFiles:
    return KeptFiles(folder, f"{folder.parent.name}/{folder.name.removesuffix(INCOMING)}")


def _snapshot(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    try:
        config = try_to_load_from_cache(name, "config.json")
    except (OSError, ValueError):  # a cache that cannot be read, or no hub id after all
        return None
    return Path(config).parent if isinstance(config, str) else None


def _holds(folder: Path, *, all_weights: bool = False) -> bool:
    """Whether a folder has a tokenizer and the file of the input embeddings, or every file of the weights."""
    try:
        if (folder / INDEX).is_file():
            weight_map = _weight_map((folder / INDEX).read_bytes(), INDEX)
        else:
            with (folder / WEIGHTS).open("rb") as file:
                length = _header_length(file.read(8), os.fstat(file.fileno()).st_size, WEIGHTS)
                weight_map = dict.fromkeys(_json_object(file.read(length), WEIGHTS), WEIGHTS)
        files = set(weight_map.values()) if all_weights else {weight_map[embedding_tensor_name(list(weight_map))]}
    except (OSError, ModelError):
        return False
    return any((folder / file).is_file() for file in ("tokenizer.json", *OTHER_TOKENIZERS)) and all(
        (folder / file).is_file() for file in files
    )


@dataclass(frozen=True)
class _Tensor:
    """The input embeddings in their safetensors file; `begin` and `end` count from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, int]
    begin: int
    end: int

    def lone_header(self) -> bytes:
        """The first bytes of a safetensors file that holds this tensor alone."""
        entry = {"dtype": self.dtype, "shape": self.shape, "data_offsets": (0, self.end - self.begin)}
        header = json.dumps({self.name: entry}).encode("ascii")
        header += b" " * (-len(header) % 8)  # the format aligns the data
        return len(header).to_bytes(8, "little") + header


def _json_object(content: bytes, what: str) -> dict:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{what} is not JSON, so the model cannot be read.") from error
    if not isinstance(value, dict):
        raise ModelError(f"{what} is not a JSON object, so the model cannot be read.")
    return value


def _weight_map(content: bytes, what: str) -> dict[str, str]:
    """The index's file name for each tensor. A name with a folder in it is refused: nothing outside the model is ever looked at."""
    weight_map = _json_object(content, what).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ModelError(f"{what} holds no weight_map, so the model cannot be read.")
    for file in weight_map.values():
        if not isinstance(file, str) or re.fullmatch(r"\w[\w.-]*\.safetensors", file, re.ASCII) is None:
            raise ModelError(f"{what} places tensors in {reprlib.repr(file)}, which is not the plain name of a safetensors file.")
    return weight_map


def _header_length(first_bytes: bytes, size: int, what: str) -> int:
    length = int.from_bytes(first_bytes, "little")
    if length > min(_LARGEST_JSON, size - 8):
        raise ModelError(f"{what} is not safetensors: it announces a header of {length:,} bytes in a file of {size:,}.")
    return length


def _checked_tensor(header: dict, name: str, data_begin: int, size: int, what: str) -> _Tensor:
    entry = header.get(name)
    if not isinstance(entry, dict):
        raise ModelError(f"{what} holds no tensor {reprlib.repr(name)}, in which the input embeddings should be.")
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in _BYTES_PER_VALUE:
        raise ModelError(
            f"The input embeddings in {what} have the dtype {reprlib.repr(dtype)}; {listed(list(_BYTES_PER_VALUE))} can be read."
        )
    if not _two_numbers(shape) or min(shape) < 1:
        raise ModelError(f"The input embeddings in {what} have the shape {reprlib.repr(shape)}; two positive numbers were expected.")
    if not _two_numbers(offsets) or not 0 <= offsets[0] < offsets[1] <= size - data_begin:
        raise ModelError(f"The input embeddings in {what} lie at {reprlib.repr(offsets)}, which is not within the file.")
    if offsets[1] - offsets[0] != shape[0] * shape[1] * _BYTES_PER_VALUE[dtype]:
        raise ModelError(f"The input embeddings in {what} take {offsets[1] - offsets[0]:,} bytes, which {shape} in {dtype} does not.")
    return _Tensor(name, dtype, (shape[0], shape[1]), data_begin + offsets[0], data_begin + offsets[1])


def _two_numbers(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and len(value) == 2 and all(type(number) is int and abs(number) < 2**63 for number in value)


def _fetch(name: str, commit: str, folder: Path, report: Report) -> None:
    if folder.exists():
        remove_at_once(folder)
    incoming = folder.with_name(f"{commit}{INCOMING}")
    for old in folder.parent.glob(f"*{INCOMING}"):
        if old != incoming:  # the hub has moved on: nobody will finish it
            shutil.rmtree(old, ignore_errors=True)
    incoming.mkdir(exist_ok=True)

    if not _fetch_file(RemoteFile(name, commit, "config.json"), incoming, _LARGEST_JSON):
        raise ModelError(f"The hub's {name} holds no config.json, so it is not a model that can be read.")
    _json_object((incoming / "config.json").read_bytes(), f"The config.json of the hub's {name}")
    weights, tensor = _find_embeddings(name, commit)
    report(0.0, f"fetching the tokenizer of {name}")
    _fetch_tokenizer(name, commit, incoming)
    _fetch_tensor(weights, tensor, incoming, report)
    _files(incoming).remove_others()
    for path in incoming.iterdir():
        sync(path)
    incoming.rename(folder)
    sync(folder.parent)


def _find_embeddings(name: str, commit: str) -> tuple[RemoteFile, _Tensor]:
    index = RemoteFile(name, commit, INDEX).content(_LARGEST_JSON)
    tensor_name = None
    if index is None:
        weights = RemoteFile(name, commit, WEIGHTS)
    else:
        weight_map = _weight_map(index, f"The index of the hub's {name}")
        tensor_name = embedding_tensor_name(list(weight_map))
        weights = RemoteFile(name, commit, weight_map[tensor_name])
    first_bytes = weights.read(0, 8)
    if first_bytes is None and index is None:
        raise ModelError(
            f"The hub's {name} holds no safetensors, the one format that is read; convert the model with save_pretrained and give its folder."
        )
    missing = ModelError(f"The hub's {name} holds no {weights.filename}, in which its index places the input embeddings.")
    if first_bytes is None or weights.size is None:
        raise missing
    length = _header_length(first_bytes, weights.size, f"The file {weights}")
    written = weights.read(8, 8 + length)
    if written is None:  # taken away since the first bytes came
        raise missing
    header = _json_object(written, f"The header of {weights}")
    if tensor_name is None:
        tensor_name = embedding_tensor_name([key for key in header if key != "__metadata__"])
    return weights, _checked_tensor(header, tensor_name, 8 + length, weights.size, str(weights))


def _fetch_tokenizer(name: str, commit: str, incoming: Path) -> None:
    def fetch(filename: str) -> bool:
        return _fetch_file(RemoteFile(name, commit, filename), incoming, _LARGEST_TOKENIZER)

    if fetch("tokenizer.json"):
        return
    found = [filename for filename in OTHER_TOKENIZERS if fetch(filename)]
    if not found:
        raise ModelError(f"The hub's {name} holds no tokenizer that can be read: neither tokenizer.json nor {listed(OTHER_TOKENIZERS)}.")
    for filename in TOKENIZER_COMPANIONS:
        fetch(filename)


def _fetch_file(remote: RemoteFile, incoming: Path, limit: int) -> bool:
    """Bring a small file whole; False where the repository has no such file."""
    files = _files(incoming)
    if not files.is_whole(remote.filename):  # else an earlier attempt brought it
        content = remote.content(limit)
        if content is None:
            return False
        write_whole(incoming / remote.filename, content)
        files.written(remote.filename, zlib.crc32(content))
    return True


def _fetch_tensor(weights: RemoteFile, tensor: _Tensor, incoming: Path, report: Report) -> None:
    """Write the tensor as a safetensors file of its own, going on from what an earlier attempt left."""
    # The file's name says what its bytes are a part of, so that bytes of two versions are never put together.
    key = hashlib.sha256(repr((weights.filename, weights.etag, weights.size, tensor)).encode()).hexdigest()[:16]
    partial, reached = incoming / f"{key}.partial", incoming / f"{key}.reached"
    for old in [*incoming.glob("*.partial"), *incoming.glob("*.reached")]:
        if old not in (partial, reached):
            old.unlink()
    head, length = tensor.lone_header(), tensor.end - tensor.begin
    size, crc = bytes_arrived(partial, reached)
    if not len(head) <= size <= len(head) + length:
        partial.write_bytes(head)
        size, crc = len(head), zlib.crc32(head)
    reached.touch()
    with partial.open("r+b") as file, reached.open("r+b", buffering=0) as note:
        file.seek(size)
        file.truncate()
        arrived, said = size - len(head), None
        for piece in weights.pieces(tensor.begin + arrived, tensor.end):
            file.write(piece)
            file.flush()
            arrived, crc = arrived + len(piece), zlib.crc32(piece, crc)
            note.seek(0)
            note.write(REACHED.pack(len(head) + arrived, crc))
            doing = f"fetching the input embeddings of {weights.name}: {megabytes(arrived)} of {megabytes(length)} MB"
            if doing != said:  # not at every few kilobytes: whoever draws it takes longer than they do
                report(arrived / length, doing)
                said = doing
    _files(incoming).written(WEIGHTS, crc)
    partial.rename(incoming / WEIGHTS)
    reached.unlink()
