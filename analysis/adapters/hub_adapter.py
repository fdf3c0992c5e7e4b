"""An adapter of the hub, by its name: its files are listed with their sizes, and fetched only where a person said so.

    <cache>/hub-adapters/<owner--name>/ref                        the commit that was fetched last
    <cache>/hub-adapters/<owner--name>/<commit>/listing.json      the files of the repository, their sizes and digests
    <cache>/hub-adapters/<owner--name>/<commit>/FILE              those that the adapter needs, each as the hub lists it
    <cache>/hub-adapters/<owner--name>/<commit>/FILE.partial      one that is coming; an interrupted fetch goes on from there

What this machine holds already, as it came, is served without the network. A repository is a stranger's: no more than the files that an adapter needs is
fetched, no pickle where safetensors lie beside it, and each is refused whose content is not what the hub lists.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from soft_prompt_explorer.analysis.adapters import foreign_config
from soft_prompt_explorer.analysis.adapters.foreign_config import MAX_JSON
from soft_prompt_explorer.analysis.adapters.opening import CONFIG, ENDINGS, HALVES, INITIAL, WEIGHTS
from soft_prompt_explorer.analysis.adapters.tensors import MAX_FILE
from soft_prompt_explorer.analysis.core.errors import AdapterError
from soft_prompt_explorer.analysis.core.folders import cache_folder, cache_folders, locked, temporary_folder, write_whole
from soft_prompt_explorer.analysis.core.kept import not_kept
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.core.words import listed, printable
from soft_prompt_explorer.analysis.models.fetching import FIRST_ANSWER, RemoteFile, megabytes, why_it_broke

LISTING, PARTIAL = "listing.json", ".partial"
MOST_FILES = 10_000  # of a repository that are looked at
_PART = r"[A-Za-z0-9][\w.-]{0,95}"
_ID = re.compile(rf"({_PART}/{_PART})(?:/({_PART}))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# What holds an adapter by a known name, surest first: PEFT's, MLX's, AdapterHub's, diffusers'; then textual inversion's.
_SAFE = (
    WEIGHTS[0],
    "adapters.safetensors",
    "adapters.npz",
    "adapter.safetensors",
    "pytorch_lora_weights.safetensors",
    "learned_embeds.safetensors",
)
_PICKLED = (WEIGHTS[1], "pytorch_adapter.bin", "pytorch_lora_weights.bin", "learned_embeds.bin")
_WHOLE_MODEL = re.compile(r"(?:model|pytorch_model|diffusion_pytorch_model)(?:-\d+-of-\d+)?\.(?:safetensors|bin)")


class RemoteEntry(NamedTuple):
    """A file of a repository: its size in bytes, and the digest that its content has to have, SHA-256 or as git names a blob."""

    name: str
    size: int
    sha256: str | None
    blob: str | None


@dataclass(frozen=True)
class RemoteAdapter:
    """The files of the hub's `name` at a commit that an adapter needs; `chosen` is the one that was named, else None."""

    name: str
    commit: str
    chosen: str | None
    entries: tuple[RemoteEntry, ...]
    every: tuple[RemoteEntry, ...]

    @property
    def size(self) -> int:
        """Bytes of all its files together."""
        return sum(entry.size for entry in self.entries)


def parts_of(path: Path) -> tuple[str, str | None] | None:
    """The hub's `owner/name` and the file of a path `owner/name` or `owner/name/file`; None of any other path, and of one that is on this machine."""
    found = _ID.fullmatch(path.as_posix())
    return None if found is None or path.exists() else (found[1], found[2])


def at_hand(name: str, chosen: str | None = None) -> Path | None:
    """What `load_adapter` is given for an adapter that was fetched before, as it came; None where this machine does not hold it whole."""
    for home in (cache / "hub-adapters" / name.replace("/", "--") for cache in cache_folders()):
        try:
            commit = (home / "ref").read_text(encoding="ascii")
            if _COMMIT.fullmatch(commit) is None:
                continue
            every = [RemoteEntry(*entry) for entry in json.loads((home / commit / LISTING).read_bytes())]
            remote = _remote(name, commit, chosen, every)
            if all(_is_as_listed(home / commit / entry.name, entry) for entry in remote.entries):
                return _place(home / commit, remote)
        except (OSError, ValueError, TypeError):  # nothing there, or damaged; an AdapterError is a ValueError
            continue
    return _snapshot(name) if chosen is None else None


def _snapshot(name: str) -> Path | None:
    """What other programs fetched of an adapter of PEFT into the person's Hugging Face cache."""
    from huggingface_hub import try_to_load_from_cache

    try:
        config = try_to_load_from_cache(name, CONFIG)
    except (OSError, ValueError):  # a cache that cannot be read
        return None
    folder = Path(config).parent if isinstance(config, str) else None
    return folder if folder is not None and any((folder / weights).is_file() for weights in WEIGHTS) else None


def ask_hub(name: str, chosen: str | None = None) -> RemoteAdapter:
    """The files that an adapter of the hub needs, with their sizes. Asks the hub once and briefly, and fetches none of them.

    Parameters
    ----------
    name : `owner/name`.
    chosen : the file to take, where the repository holds several adapters.

    Raises
    ------
    AdapterError
        The hub does not answer or knows no such repository, or it holds no adapter, several, or one that is too large.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError

    try:
        info = HfApi().model_info(name, files_metadata=True, timeout=FIRST_ANSWER)
        commit = info.sha
        every = [
            RemoteEntry(str(each.rfilename), int(each.size or 0), each.lfs.sha256 if each.lfs else None, each.blob_id)
            for each in (info.siblings or [])[:MOST_FILES]
        ]
    except GatedRepoError as error:
        raise AdapterError(
            f"The hub gives {name} only to those who accepted its terms; accept them on its page, then log in with `hf auth login`."
        ) from error
    except Exception as error:  # whatever the network or the hub raises, or that it was told to be offline
        raise AdapterError(
            f"There is no file or folder {name}, and the hub could not be asked for it ({why_it_broke(error)}); check the spelling."
        ) from error
    if commit is None or _COMMIT.fullmatch(commit) is None:
        raise AdapterError(f"What answered for {name} is not the hub, as it names no commit; look at HF_ENDPOINT and your proxy.")
    return _remote(name, commit, chosen, every)


def fetch(remote: RemoteAdapter, *, report: Report = no_report) -> Path:
    """Bring the files of an adapter to this machine, and answer what `load_adapter` is to be given.

    Raises
    ------
    AdapterError
        The connection broke off for good, a file is not what the hub lists, or it cannot be kept.
    """
    from httpx2 import HTTPError

    problem = OSError()
    for root in (cache_folder, temporary_folder):
        home = root() / "hub-adapters" / remote.name.replace("/", "--")
        folder = home / remote.commit
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(home / ".lock"):
                write_whole(folder / LISTING, json.dumps(remote.every).encode())
                _bring(remote, folder, report)
                write_whole(home / "ref", remote.commit.encode("ascii"))
            return _place(folder, remote)
        except HTTPError as error:
            raise AdapterError(
                f"Fetching {remote.name} from the hub broke off ({why_it_broke(error)}); what arrived is kept, and the next attempt goes on from there."
            ) from error
        except FileNotFoundError as error:
            raise AdapterError(f"The hub's {remote.name} lists {error} and does not hold it; ask again later.") from error
        except OSError as error:
            not_kept(cache_folder() / "hub-adapters", error)
            problem = error
    raise AdapterError(
        f"What is fetched of {remote.name} can be kept neither in {cache_folder()} nor among the temporary files ({problem.strerror or type(problem).__name__})."
    ) from problem


def _place(folder: Path, remote: RemoteAdapter) -> Path:
    """The folder, where the files go together; the one file where it stands alone."""
    return folder / remote.entries[0].name if len(remote.entries) == 1 else folder


def _bring(remote: RemoteAdapter, folder: Path, report: Report) -> None:
    arrived, total = 0, max(remote.size, 1)
    for entry in remote.entries:
        path = folder / entry.name
        if not _is_as_listed(path, entry):
            partial = folder / f"{entry.name}{PARTIAL}"
            begin = partial.stat().st_size if partial.is_file() else 0
            if begin > entry.size:
                partial.unlink()
                begin = 0
            with partial.open("ab") as file:
                for piece in RemoteFile(remote.name, remote.commit, entry.name).pieces(begin, entry.size):
                    file.write(piece)
                    begin += len(piece)
                    report((arrived + begin) / total, f"fetching {remote.name}: {megabytes(arrived + begin)} of {megabytes(total)} MB")
            if not _is_as_listed(partial, entry):
                partial.unlink()
                raise AdapterError(f"The file {entry.name} of the hub's {remote.name} is not what the hub lists; ask again.")
            partial.replace(path)
        arrived += entry.size


def _is_as_listed(path: Path, entry: RemoteEntry) -> bool:
    """Whether a file has the size and the digest that the hub lists: of a large file SHA-256, of any other git's own."""
    if not path.is_file() or path.stat().st_size != entry.size:
        return False
    with path.open("rb") as file:
        if entry.sha256 is not None:
            return hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256
        digest = hashlib.sha1(f"blob {entry.size}\0".encode(), usedforsecurity=False)
        return hashlib.file_digest(file, lambda: digest).hexdigest() == entry.blob


def _remote(name: str, commit: str, chosen: str | None, every: Iterable[RemoteEntry]) -> RemoteAdapter:
    known = {entry.name: entry for entry in every if re.fullmatch(_PART, entry.name)}
    needed = _needed(known, name) if chosen is None else [chosen]
    if chosen is not None and chosen not in known:
        raise AdapterError(f"The hub's {name} holds no file {chosen}; it holds {_shown(known)}.")
    if chosen is not None and not chosen.endswith(".safetensors") and (safe := f"{Path(chosen).stem}.safetensors") in known:
        raise AdapterError(f"Beside {chosen} of the hub's {name} lies {safe}, in which nothing could be run; name that.")
    entries = tuple(known[each] for each in needed)
    for entry in entries:
        most = MAX_JSON if entry.name.endswith(".json") else MAX_FILE
        if entry.size > most:
            raise AdapterError(f"The file {entry.name} of the hub's {name} has {entry.size:,} bytes, at most {most:,} are fetched.")
        if entry.sha256 is None and entry.blob is None:
            raise AdapterError(
                f"The hub lists no digest of {entry.name} of {name}, so what arrives could not be checked; download it yourself."
            )
    return RemoteAdapter(name, commit, chosen, entries, tuple(known.values()))


def _needed(files: Collection[str], name: str) -> list[str]:
    """The names of the files that make up the one adapter of a repository.

    Raises
    ------
    AdapterError
        It holds none, or several.
    """
    beside = [each for each in (CONFIG, INITIAL) if each in files]
    may_be = [each for each in files if each.endswith(ENDINGS) and not _WHOLE_MODEL.fullmatch(each) and each != INITIAL]
    safe = [each for each in may_be if each.endswith(".safetensors")]
    for known in _SAFE if safe else (*_SAFE, *_PICKLED):
        if known in files:
            return [*beside, known] if known in (*WEIGHTS, *foreign_config.WEIGHTS) else [known]
    if all(half in files for half in HALVES):
        return list(HALVES)
    found = safe or may_be
    if len(found) == 1:
        return found
    if found:
        raise AdapterError(
            f"The hub's {name} holds {len(found)} files that may be adapters; name one: {_shown([f'{name}/{each}' for each in found])}."
        )
    if any(map(_WHOLE_MODEL.fullmatch, files)):
        raise AdapterError(f"The hub's {name} is a whole model and no adapter; give the adapter that was trained on it.")
    raise AdapterError(f"The hub's {name} holds no file that an adapter could be in; it holds {_shown(files)}.")


def _shown(names: Collection[str]) -> str:
    some = [printable(each)[:100] for each in list(names)[:5]]
    if not some:
        return "nothing"
    return listed(some) if len(names) <= 5 else f"{', '.join(some)} and {len(names) - 5} more"
