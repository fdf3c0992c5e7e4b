"""Of a hub model only what its vocabulary needs is fetched, once; and nothing that a repository says is taken on trust."""

import functools
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from soft_prompt_explorer.analysis.core.kept import KeptArrays
from soft_prompt_explorer.analysis.models import hub as hub_models
from soft_prompt_explorer.analysis.models.vocabulary import _VERSION as VOCABULARY_VERSION
from tests.support.damage import MUTATIONS, flip_a_bit
from tests.support.lora_files import gaussian, lora_file
from tests.support.places import REPOSITORY, names_in
from tests.support.tiny_models import embedding_rows, random_llama, saved

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEXT_COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
EMBEDDING = "model.embed_tokens.weight"


# --- A hub on this machine -------------------------------------------------------------------------------------------


@dataclass
class Repository:
    """What a repository of the hub below holds, and how it misbehaves.

    Attributes
    ----------
    breaks : after how many bytes the next long answers to a Range request break off, one after the other.
    at_break : called when one does.
    ranges : how Range requests are answered: `part`, `whole` (with 200), `another` part, `more` than was asked for.
    far : weights are redirected to another host, as the hub does.
    says_length : whether files come with a Content-Length.
    commit_of_files : what files come with, where it is not the commit that was announced.
    busy : how many requests are answered with 503 first.
    """

    folder: Path
    commit: str = COMMIT
    breaks: list[int] = field(default_factory=list)
    at_break: Callable[[], None] = lambda: None
    ranges: str = "part"
    far: bool = False
    says_length: bool = True
    commit_of_files: str | None = None
    busy: int = 0


class Hub:
    """Answers as the hub does for files and keeps a log: `asked` (method, path, range), and the bytes `sent` of each path."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.sent: Counter[str] = Counter()
        self.tokens_seen_far: list[str | None] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, self))
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def sent_without_tokenizers(self, name: str) -> int:
        return sum(size for path, size in self.sent.items() if path.startswith(name + "/") and "token" not in path)


class Handler(BaseHTTPRequestHandler):
    def __init__(self, hub: Hub, *arguments) -> None:
        self.hub = hub
        super().__init__(*arguments)

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self) -> None:
        path, _, _ = self.path.partition("?")
        if path.startswith("/api/models/"):
            self.answer_listing(path.removeprefix("/api/models/"))
            return
        far = path.startswith("/far/")
        name, _, rest = path.removeprefix("/far").lstrip("/").partition("/resolve/")
        filename = rest.partition("/")[2]
        repository = self.hub.repositories.get(name)
        file = repository.folder / filename if repository else None
        self.hub.asked.append((self.command, f"{name}/{filename}", self.headers["Range"]))
        if file is None or not file.is_file():
            self.reply(404, {"X-Error-Code": "EntryNotFound" if repository else "RepoNotFound", "Content-Length": "0"})
            return
        if self.command == "GET" and repository.busy:
            repository.busy -= 1
            self.reply(503, {"Content-Length": "0"})
            return
        about = {"X-Repo-Commit": (self.command == "GET" and repository.commit_of_files) or repository.commit}
        etag = f'"{hashlib.sha256(file.read_bytes()).hexdigest()}"'
        if far:
            self.hub.tokens_seen_far.append(self.headers["Authorization"])
            about = {"ETag": f'"{time.monotonic()}"'}  # the far host's own: nothing can be made of it
        elif repository.far and filename.endswith(".safetensors"):
            about |= {"X-Linked-ETag": etag, "X-Linked-Size": str(file.stat().st_size), "Content-Length": "0"}
            self.reply(302, about | {"Location": f"http://localhost:{self.hub.port}/far{path}?signature=1"})
            return
        else:
            about["ETag"] = etag
        self.answer_file(repository, f"{name}/{filename}", file.read_bytes(), about)

    def answer_file(self, repository: Repository, path: str, content: bytes, about: dict[str, str]) -> None:
        status, size = 200, len(content)
        asked = self.headers["Range"]
        if asked is not None and repository.ranges != "whole":
            begin, end = (int(number) for number in asked.removeprefix("bytes=").split("-"))
            if begin >= size:
                self.reply(416, about | {"Content-Range": f"bytes */{size}", "Content-Length": "0"})
                return
            status, end = 206, min(end, size - 1) + 1
            if repository.ranges == "another":
                begin, end = begin + 1, end + 1
            about["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
            content = content[begin : end + 5 if repository.ranges == "more" else end]
        if repository.says_length:
            about["Content-Length"] = str(len(content))
        self.reply(status, about)
        if self.command == "HEAD":
            return
        breaks = status == 206 and len(content) > 100_000 and bool(repository.breaks)
        if breaks:
            content = content[: repository.breaks.pop(0)]
        try:
            for begin in range(0, len(content), 65536):
                piece = content[begin : begin + 65536]
                self.wfile.write(piece)
                self.hub.sent[path] += len(piece)
        except OSError:  # the other side has heard enough
            return
        if breaks:
            repository.at_break()

    def answer_listing(self, path: str) -> None:
        """What `snapshot_download` asks: the commit of a revision, and the files of a commit."""
        name = "/".join(path.split("/")[:2])
        repository = self.hub.repositories[name]
        self.hub.asked.append((self.command, f"api/{path}", None))
        if "/tree/" in path:
            files = [path for path in sorted(repository.folder.iterdir()) if path.is_file()]
            content = [{"type": "file", "path": path.name, "size": path.stat().st_size, "oid": "0" * 40} for path in files]
        else:
            content = {"id": name, "sha": repository.commit}
        body = json.dumps(content).encode()
        self.reply(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        self.wfile.write(body)

    def reply(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@contextmanager
def running_hub():
    hub = Hub()
    yield hub
    hub.stop()


@pytest.fixture
def hub():
    with running_hub() as hub:
        yield hub


def away_from_home(folder: Path, hub: Hub, *, offline: bool = False) -> dict[str, str]:
    """The environment of a process whose hub is a port of this machine, with caches of its own."""
    return os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.port}",
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_OFFLINE": str(int(offline)),
        "HF_TOKEN": "hf_secret",
        "SOFT_PROMPT_EXPLORER_CACHE": str(folder / "cache"),
    }


# Reads vocabularies in a process of its own, as huggingface_hub reads its environment once, and says how each went.
READER = """
import json, sys
from soft_prompt_explorer.analysis.core.errors import ModelError
from soft_prompt_explorer.analysis.models.names import is_at_hand, resolve_model
from soft_prompt_explorer.analysis.models.weights import model_sha256, prepare_model
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary

for name in sys.argv[2:]:
    said = []
    went = {"at_hand_before": is_at_hand(name), "said": said}
    try:
        if sys.argv[1] == "whole":
            went["whole"] = str(prepare_model(name))
            went["sha256"] = model_sha256(name)
        vocabulary = load_vocabulary(name, report=lambda share, doing: said.append([share, doing]))
        went |= {"rows": str(vocabulary.cache), "tokens": vocabulary.tokens, "folder": str(resolve_model(name).path)}
    except ModelError as refusal:
        went["refusal"] = str(refusal)
    print(json.dumps(went | {"at_hand": is_at_hand(name)}), flush=True)
"""


def start_reader(names: list[str], environment: dict[str, str], *, what: str = "vocabulary") -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", READER, what, *names],
        cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(reader: subprocess.Popen) -> list[dict]:
    out, err = reader.communicate(timeout=600)
    assert reader.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()]


def read(names: list[str], environment: dict[str, str], *, what: str = "vocabulary") -> list[dict]:
    went = ended(start_reader(names, environment, what=what))
    assert len(went) == len(names)
    return went


def rows_of(went: dict) -> np.ndarray:
    assert "refusal" not in went, went["refusal"]
    return KeptArrays(Path(went["rows"]), "embeddings", VOCABULARY_VERSION).read()["embeddings"]


# --- Models to serve -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide_llama(byte_level_tokenizer):
    """A Llama of 33 MB, 5 MB of them input embeddings, so that two percent of those are more than a header."""
    return random_llama(byte_level_tokenizer, hidden_size=4096, intermediate_size=512, num_hidden_layers=1, head_dim=8)


@pytest.fixture(scope="module")
def wide_folder(wide_llama, byte_level_tokenizer, tmp_path_factory) -> Path:
    folder = saved(wide_llama, byte_level_tokenizer, tmp_path_factory.mktemp("models") / "wide")
    assert "model.safetensors" in names_in(folder)
    return folder


@pytest.fixture(scope="module")
def wide_sharded_folder(wide_llama, byte_level_tokenizer, tmp_path_factory) -> Path:
    folder = saved(wide_llama, byte_level_tokenizer, tmp_path_factory.mktemp("models") / "wide-sharded", max_shard_size="16MB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


@pytest.fixture(scope="module")
def wide_rows(wide_llama) -> np.ndarray:
    """What the model's own embedding layer answers: the reference for everything that is read here."""
    return embedding_rows(wide_llama)


def other_rows_folder(folder: Path, to: Path) -> Path:
    """The same model with other numbers in its input embeddings."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(folder, to)
    tensors = load_file(folder / "model.safetensors")
    tensors[EMBEDDING] = -tensors[EMBEDDING]
    save_file(tensors, to / "model.safetensors", {"format": "pt"})
    return to


# --- What is fetched -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_only_the_input_embeddings_cross_the_network_and_are_then_served_without_it(
    hub, wide_folder, wide_sharded_folder, wide_rows, byte_level_tokenizer, tmp_path
):
    names = ["someone/wide", "someone/wide-sharded"]
    hub.repositories = {names[0]: Repository(wide_folder), names[1]: Repository(wide_sharded_folder, far=True)}
    online = read(names, away_from_home(tmp_path, hub))
    for name, went in zip(names, online, strict=True):
        assert np.array_equal(rows_of(went), wide_rows)
        assert len(went["tokens"]) == len(byte_level_tokenizer) + 5
        assert " the" in went["tokens"]
        assert (went["at_hand_before"], went["at_hand"]) == (False, True)
        assert went["folder"] == str(tmp_path / "cache" / "hub" / name.replace("/", "--") / COMMIT)
        assert names_in(Path(went["folder"])) == ["checksums.json", "config.json", "model.safetensors", "tokenizer.json"]
        fetching = [doing for _, doing in went["said"] if "input embeddings" in doing]
        assert fetching == [f"fetching the input embeddings of {name}: {megabytes} of 5 MB" for megabytes in range(1, 6)]
        overhead = hub.sent_without_tokenizers(name) / wide_rows.nbytes - 1
        print(f"{name}: {100 * overhead:.3f} % more than the {wide_rows.nbytes:,} bytes of the tensor")
        assert 0 < overhead < 0.02

    weight_map = json.loads((wide_sharded_folder / "model.safetensors.index.json").read_text())["weight_map"]
    weights = {path for _, path, _ in hub.asked if path.endswith(".safetensors")}
    assert weights == {"someone/wide/model.safetensors", f"someone/wide-sharded/{weight_map[EMBEDDING]}"}
    assert all(asked is not None for method, path, asked in hub.asked if path.endswith(".safetensors"))
    assert set(hub.tokens_seen_far) == {None}  # a token stays with the hub

    hub.asked.clear()
    shutil.rmtree(tmp_path / "cache" / "vocabularies")
    assert [went["tokens"] for went in read(names, away_from_home(tmp_path, hub))] == [went["tokens"] for went in online]
    assert hub.asked == []
    hub.stop()
    shutil.rmtree(tmp_path / "cache" / "vocabularies")
    for went in read(names, away_from_home(tmp_path, hub, offline=True)):
        assert np.array_equal(rows_of(went), wide_rows)


@pytest.mark.slow
def test_what_an_interrupted_fetch_brought_is_not_fetched_again(hub, wide_folder, wide_sharded_folder, wide_rows, tmp_path):
    names = ["someone/dropped-once", "someone/dropped-always"]
    hub.repositories = {
        names[0]: Repository(wide_folder, breaks=[1_500_000], busy=1),
        names[1]: Repository(wide_sharded_folder, breaks=[400_000] * 4, far=True),
    }
    once, always = read(names, away_from_home(tmp_path, hub))
    assert np.array_equal(rows_of(once), wide_rows)
    assert "broke off" in always["refusal"]
    assert not always["at_hand"]
    assert hub.sent_without_tokenizers(names[1]) > 1_600_000

    (again,) = read(names[1:], away_from_home(tmp_path, hub))
    assert np.array_equal(rows_of(again), wide_rows)
    for name in names:
        overhead = hub.sent_without_tokenizers(name) / wide_rows.nbytes - 1
        print(f"{name}: {100 * overhead:.3f} % more than the tensor over all attempts")
        assert overhead < 0.02
        assert hub.sent[f"{name}/tokenizer.json"] == (wide_folder / "tokenizer.json").stat().st_size
        assert names_in(tmp_path / "cache" / "hub" / name.replace("/", "--")) == [".lock", COMMIT, "ref"]


@pytest.mark.slow
def test_what_a_killed_process_fetched_is_not_fetched_again(hub, wide_folder, wide_rows, tmp_path):
    name = "someone/killed"
    home = tmp_path / "cache" / "hub" / "someone--killed"
    readers = []

    def kill() -> None:
        deadline = time.monotonic() + 20
        while sum(path.stat().st_size for path in home.glob("*.incoming/*.partial")) < 2_000_000 and time.monotonic() < deadline:
            time.sleep(0.01)
        readers[0].send_signal(signal.SIGKILL)
        readers[0].wait()

    hub.repositories[name] = Repository(wide_folder, breaks=[2_000_000], at_break=kill)
    readers.append(start_reader([name], away_from_home(tmp_path, hub)))
    readers[0].communicate(timeout=600)
    assert readers[0].returncode == -signal.SIGKILL
    assert not (home / COMMIT).exists()
    (again,) = read([name], away_from_home(tmp_path, hub))
    assert np.array_equal(rows_of(again), wide_rows)
    assert hub.sent_without_tokenizers(name) < 1.02 * wide_rows.nbytes


@pytest.mark.slow
def test_two_processes_that_start_together_fetch_once(hub, wide_folder, wide_rows, tmp_path):
    name = "someone/wide"
    hub.repositories[name] = Repository(wide_folder, breaks=[1_000_000], at_break=lambda: time.sleep(1))
    readers = [start_reader([name], away_from_home(tmp_path, hub)) for _ in range(2)]
    for reader in readers:
        (went,) = ended(reader)
        assert np.array_equal(rows_of(went), wide_rows)
    assert hub.sent_without_tokenizers(name) < 1.02 * wide_rows.nbytes


@pytest.mark.slow
def test_two_versions_are_never_mixed(hub, wide_folder, wide_rows, tmp_path):
    other = other_rows_folder(wide_folder, tmp_path / "other")
    within, rewritten = names = ["someone/next-commit", "someone/same-commit"]

    def move_on(name: str, commit: str):
        def change() -> None:
            hub.repositories[name] = Repository(other, commit)

        return change

    hub.repositories = {
        within: Repository(wide_folder, breaks=[2_000_000], at_break=move_on(within, NEXT_COMMIT)),
        rewritten: Repository(wide_folder, breaks=[2_000_000], at_break=move_on(rewritten, COMMIT)),
    }
    for went in read(names, away_from_home(tmp_path, hub)):
        assert "changed while it was fetched" in went["refusal"]
        assert not went["at_hand"]
    assert len(list(tmp_path.glob("cache/hub/*/*.incoming/*.partial"))) == 2  # what the second attempt must not take up
    for name, again in zip(names, read(names, away_from_home(tmp_path, hub)), strict=True):
        assert np.array_equal(rows_of(again), -wide_rows), name
        assert names_in(tmp_path / "cache" / "hub" / name.replace("/", "--"))[-1] == "ref"


@pytest.mark.slow
def test_a_repository_without_a_tokenizer_json_is_read_by_its_other_tokenizer_files(hub, tmp_path):
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    model = BertModel(BertConfig(vocab_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16))
    model.save_pretrained(tmp_path / "bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "##s", "sat"]
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(words) + "\n")
    hub.repositories["someone/bert"] = Repository(tmp_path / "bert")
    (went,) = read(["someone/bert"], away_from_home(tmp_path, hub))
    assert np.array_equal(rows_of(went), embedding_rows(model))
    assert went["tokens"] == words
    assert names_in(Path(went["folder"])) == ["checksums.json", "config.json", "model.safetensors", "vocab.txt"]


# --- What was kept is damaged ----------------------------------------------------------------------------------------


# Damages what is kept of a hub model again and again, and compares each time what is read of it.
DAMAGER = """
import sys
from pathlib import Path
from soft_prompt_explorer.analysis.core.kept import KeptFiles
from soft_prompt_explorer.analysis.models.names import is_at_hand, resolve_model
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from tests.support.damage import damage_again_and_again, files_in

name, cache, others, count = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])

def figure():
    folder = resolve_model(name).path
    assert is_at_hand(name)
    vocabulary = load_vocabulary(name)
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "checksums.json"}
    return files, vocabulary.tokens, vocabulary.embeddings.tobytes(), vocabulary.special.tobytes()

damage_again_and_again(figure, cache / "hub", files_in(others), count)
print("done")
"""


@pytest.mark.slow
def test_no_damage_to_what_was_fetched_ever_changes_what_is_read(hub, llama_folder, sharded_llama_folder, tmp_path):
    name = "someone/damaged"
    hub.repositories[name] = Repository(llama_folder)
    ended = subprocess.run(
        [sys.executable, "-c", DAMAGER, name, tmp_path / "cache", sharded_llama_folder, str(MUTATIONS)],
        cwd=REPOSITORY, env=away_from_home(tmp_path, hub), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "done\n"


@pytest.mark.slow
def test_what_is_damaged_is_fetched_again_and_without_a_network_refused_by_name(hub, llama_folder, tiny_llama, tmp_path):
    name = "someone/llama"
    hub.repositories[name] = Repository(llama_folder)
    read([name], away_from_home(tmp_path, hub))
    home = tmp_path / "cache" / "hub" / "someone--llama"
    (home / "ref").write_text("no commit")  # what it named is there all the same
    hub.asked.clear()
    (went,) = read([name], away_from_home(tmp_path, hub))
    assert went["at_hand_before"] and hub.asked == []
    flip_a_bit(home / COMMIT / "model.safetensors")
    (went,) = read([name], away_from_home(tmp_path, hub, offline=True))
    assert not went["at_hand"]
    assert f"what is kept of it in {home}, which is damaged" in went["refusal"]
    (went,) = read([name], away_from_home(tmp_path, hub))
    assert np.array_equal(rows_of(went), embedding_rows(tiny_llama))
    assert names_in(home) == [".lock", COMMIT, "ref"]


@pytest.mark.slow
@pytest.mark.parametrize("part", ["*.partial", "*.reached", "config.json", "tokenizer.json", "checksums.json"])
def test_what_an_interrupted_fetch_brought_and_was_damaged_since_is_fetched_again(part, hub, wide_folder, wide_rows, tmp_path):
    name = "someone/dropped"
    hub.repositories[name] = Repository(wide_folder, breaks=[900_000] * 4)
    (went,) = read([name], away_from_home(tmp_path, hub))
    assert "broke off" in went["refusal"]
    (path,) = tmp_path.glob(f"cache/hub/someone--dropped/{COMMIT}.incoming/{part}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    (again,) = read([name], away_from_home(tmp_path, hub))
    assert np.array_equal(rows_of(again), wide_rows)
    for file in ("config.json", "tokenizer.json"):
        assert (Path(again["folder"]) / file).read_bytes() == (wide_folder / file).read_bytes()


@pytest.mark.slow
def test_where_the_cache_cannot_be_written_what_is_fetched_serves_until_the_process_ends(hub, llama_folder, tiny_llama, tmp_path):
    name = "someone/llama"
    hub.repositories[name] = Repository(llama_folder)
    (tmp_path / "cache").write_text("a file where the folder should be")
    np.save(tmp_path / "prompt.npy", embedding_rows(tiny_llama)[[7, 8]])
    ended = subprocess.run(
        [sys.executable, "-m", "analysis", "neighbours", tmp_path / "prompt.npy", "--model", name, "--top-k", "1", "--format", "csv"],
        cwd=REPOSITORY, env=away_from_home(tmp_path, hub) | {"TMPDIR": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert [line.split(",")[3] for line in ended.stdout.splitlines()[1:]] == ["7", "8"]
    assert "Nothing can be kept in" in ended.stderr
    assert not list(tmp_path.glob("soft-prompt-explorer-*"))


# --- The whole model -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_whole_model_is_fetched_when_it_is_to_run_and_then_serves_its_vocabulary_too(hub, sharded_llama_folder, tiny_llama, tmp_path):
    name = "someone/llama"
    hub.repositories[name] = Repository(sharded_llama_folder)
    shards = sorted(sharded_llama_folder.glob("*.safetensors"))
    digest = hashlib.sha256(b"".join(hashlib.sha256(shard.read_bytes()).digest() for shard in shards)).hexdigest()

    vocabulary_first = tmp_path / "vocabulary-first"
    read([name], away_from_home(vocabulary_first, hub))
    (went,) = read([name], away_from_home(vocabulary_first, hub), what="whole")
    assert went["sha256"] == digest  # of all the weights, not of the one tensor that the vocabulary needed
    assert names_in(Path(went["whole"])) == names_in(sharded_llama_folder)

    hub.asked.clear()
    shutil.rmtree(vocabulary_first / "cache")  # the person's Hugging Face cache is left
    for told in (False, True):
        (went,) = read([name], away_from_home(vocabulary_first, hub, offline=told), what="whole")
        assert went["at_hand_before"]
        assert went["sha256"] == digest
        assert went["folder"] == went["whole"]
        assert np.array_equal(rows_of(went), embedding_rows(tiny_llama))
        assert hub.asked == []
        if not told:
            hub.stop()


@pytest.mark.slow
def test_a_part_of_the_weights_is_never_taken_for_the_whole(hub, sharded_llama_folder, tmp_path):
    name = "someone/llama"
    snapshot = write_snapshot(tmp_path / "hf" / "hub", name, sharded_llama_folder)
    weight_map = json.loads((sharded_llama_folder / "model.safetensors.index.json").read_text())["weight_map"]
    for shard in set(weight_map.values()) - {weight_map[EMBEDDING]}:
        (snapshot / shard).unlink()
    (vocabulary,) = read([name], away_from_home(tmp_path, hub, offline=True))
    assert vocabulary["folder"] == str(snapshot)
    (whole,) = read([name], away_from_home(tmp_path, hub, offline=True), what="whole")
    assert "HF_HUB_OFFLINE" in whole["refusal"]


# Measures a LoRA beside a hub model's weights, and says whether each weight was gone before the next one was read.
MEASURER = """
import sys, weakref
from soft_prompt_explorer.analysis.loras import base_weights
from soft_prompt_explorer.analysis.adapters import load_lora

read, seen = base_weights._read, []

def watched(path, name):
    assert not any(weight() is not None for weight in seen), f"another weight is still in memory when {name} is read"
    weight = read(path, name)
    seen.append(weakref.ref(weight))
    return weight

base_weights._read = watched
table = base_weights.against_base(load_lora(sys.argv[1]), sys.argv[2])
assert len(seen) == len(table)
table.to_csv(sys.stdout, index=False, float_format="%.17g")
"""


@pytest.mark.slow
def test_a_lora_is_measured_beside_the_weights_of_a_hub_model_as_beside_those_of_a_folder(hub, sharded_llama_folder, tmp_path):
    hub.repositories["someone/llama"] = Repository(sharded_llama_folder)
    rng = np.random.default_rng(0)
    sizes = {"self_attn.q_proj": (16, 16), "mlp.up_proj": (32, 16), "mlp.down_proj": (16, 32)}
    updates = {f"model.layers.{layer}.{part}": gaussian(*size, 2, rng) for layer in range(2) for part, size in sizes.items()}
    lora_file(tmp_path / "lora.safetensors", updates)

    def measured(model: str | Path) -> str:
        done = subprocess.run(
            [sys.executable, "-c", MEASURER, tmp_path / "lora.safetensors", model],
            cwd=REPOSITORY, env=away_from_home(tmp_path, hub), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    beside_the_hubs = measured("someone/llama")
    assert beside_the_hubs.count("\n") == 1 + len(updates)
    assert beside_the_hubs == measured(sharded_llama_folder)
    hub.asked.clear()
    assert beside_the_hubs == measured("someone/llama")
    assert hub.asked == []


# --- What this machine holds -----------------------------------------------------------------------------------------


def write_snapshot(cache: Path, name: str, model: Path) -> Path:
    home = cache / f"models--{name.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(COMMIT)
    return shutil.copytree(model, home / "snapshots" / COMMIT)


@pytest.mark.parametrize("lacking", [None, "config.json", "tokenizer.json", "the embeddings", "another shard"])
def test_a_snapshot_in_the_hugging_face_cache_serves_if_it_has_all_that_a_vocabulary_needs(
    lacking, sharded_llama_folder, own_cache, tmp_path, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = write_snapshot(tmp_path, "someone/llama", sharded_llama_folder)
    weight_map = json.loads((sharded_llama_folder / "model.safetensors.index.json").read_text())["weight_map"]
    others = set(weight_map.values()) - {weight_map[EMBEDDING]}
    if lacking is not None:
        (snapshot / {"the embeddings": weight_map[EMBEDDING], "another shard": min(others)}.get(lacking, lacking)).unlink()
    served = lacking in (None, "another shard")
    assert hub_models.is_at_hand("someone/llama") == served
    assert hub_models.whole_snapshot("someone/llama") == (snapshot if lacking is None else None)
    if served:
        assert hub_models.vocabulary_folder("someone/llama") == snapshot
    assert not own_cache.exists()


@pytest.mark.parametrize("name", ["someone/none", "a--b", "x" * 200, "a..b", "..", "../x"])
def test_what_is_nowhere_is_not_at_hand(name, own_cache):
    assert not hub_models.is_at_hand(name)
    with pytest.raises(hub_models.NoSuchModelError, match=r"No model is called .* tried this machine's caches of hub models and the hub"):
        hub_models.vocabulary_folder(name)
    assert not own_cache.exists()


@pytest.mark.slow
@pytest.mark.parametrize("answers", [True, False], ids=["not-on-the-hub", "no-hub"])
def test_a_hub_id_that_cannot_be_had_is_refused_in_one_sentence_before_long(answers, hub, tmp_path):
    if not answers:
        hub.stop()
    np.save(tmp_path / "prompt.npy", np.ones((2, 16)))
    start = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "analysis", "neighbours", tmp_path / "prompt.npy", "--model", "someone/missing"],
        cwd=REPOSITORY, env=away_from_home(tmp_path, hub), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert time.monotonic() - start < 120  # not the minutes of retries that the hub client would take
    assert ended.returncode == 2
    assert ended.stdout == ""
    (sentence,) = ended.stderr.splitlines()
    assert sentence.isprintable()
    for tried in ("someone/missing", "smollm2-135m", "path", "caches", "hub"):
        assert tried in sentence


# --- What a stranger's repository says -------------------------------------------------------------------------------


def set_index(folder: Path, content: object) -> None:
    (folder / "model.safetensors.index.json").write_text(content if isinstance(content, str) else json.dumps(content))


def set_header(folder: Path, header: object, data: bytes = bytes(64)) -> None:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)


def set_entry(**changed) -> Callable[[Path], None]:
    return lambda folder: set_header(folder, {EMBEDDING: {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]} | changed})


DEEP = "[" * 100_000 + "]" * 100_000
HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no-config": (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
    "deep-config": (lambda folder: (folder / "config.json").write_text(DEEP), "config.json .* is not JSON"),
    "list-config": (lambda folder: (folder / "config.json").write_text("[]"), "config.json .* is not a JSON object"),
    "large-config": (lambda folder: os.truncate(folder / "config.json", 65 * 2**20), "larger than 64 MB"),
    "large-index": (lambda folder: (set_index(folder, {}), os.truncate(folder / "model.safetensors.index.json", 65 * 2**20)), "than 64 MB"),
    "no-tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "holds no tokenizer"),
    "no-safetensors": (lambda folder: (folder / "model.safetensors").unlink(), "holds no safetensors, the one format"),
    "deep-index": (lambda folder: set_index(folder, DEEP), "index .* is not JSON"),
    "list-index": (lambda folder: set_index(folder, []), "index .* is not a JSON object"),
    "list-weight-map": (lambda folder: set_index(folder, {"weight_map": []}), "holds no weight_map"),
    "weight-map-up": (lambda folder: set_index(folder, {"weight_map": {EMBEDDING: "../../x.safetensors"}}), "not the plain name"),
    "weight-map-away": (lambda folder: set_index(folder, {"weight_map": {EMBEDDING: "/etc/passwd"}}), "not the plain name"),
    "weight-map-within": (lambda folder: set_index(folder, {"weight_map": {EMBEDDING: "a/b.safetensors"}}), "not the plain name"),
    "weight-map-number": (lambda folder: set_index(folder, {"weight_map": {EMBEDDING: 7}}), "not the plain name"),
    "weight-map-other": (lambda folder: set_index(folder, {"weight_map": {EMBEDDING: "m.safetensors", "x": ".."}}), "not the plain name"),
    "weight-map-lost": (lambda folder: set_index(folder, {"weight_map": {EMBEDDING: "m.safetensors"}}), r"holds no m\.safetensors"),
    "weight-map-wrong": (lambda folder: set_index(folder, {"weight_map": {"wte.weight": "model.safetensors"}}), "no tensor 'wte.weight'"),
    "weight-map-empty": (lambda folder: set_index(folder, {"weight_map": {}}), "No input embeddings among"),
    "empty-file": (lambda folder: (folder / "model.safetensors").write_bytes(b""), r"HTTP 416"),
    "short-file": (lambda folder: (folder / "model.safetensors").write_bytes(b"\4\0"), "another part"),
    "long-header": (lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 16), "announces a header of"),
    "header-past-end": (lambda folder: (folder / "model.safetensors").write_bytes(b"\x09" + bytes(15)), "announces a header of 9 bytes"),
    "header-over-64-mb": (
        lambda folder: (set_header(folder, {}), os.truncate(folder / "model.safetensors", 70 * 2**20), set_length(folder, 65 * 2**20)),
        "announces a header of",
    ),
    "deep-header": (lambda folder: set_header(folder, DEEP), "header .* is not JSON"),
    "list-header": (lambda folder: set_header(folder, [1]), "header .* is not a JSON object"),
    "no-embeddings": (lambda folder: set_header(folder, {"__metadata__": {}, "x": {}}), "No input embeddings among the checkpoint's 1"),
    "entry-list": (lambda folder: set_header(folder, {EMBEDDING: []}), "holds no tensor"),
    "dtype": (set_entry(dtype="I64"), "dtype 'I64'"),
    "dtype-list": (set_entry(dtype=["F32"]), "dtype"),
    "one-dimension": (set_entry(shape=[16]), "shape"),
    "no-rows": (set_entry(shape=[0, 4], data_offsets=[0, 0]), "shape"),
    "negative-shape": (set_entry(shape=[-4, -4]), "shape"),
    "boolean-shape": (set_entry(shape=[True, 16]), "shape"),
    "text-shape": (set_entry(shape="44"), "shape"),
    "huge-shape": (set_entry(shape=[10**30, 4]), "shape"),
    "deep-shape": (set_entry(shape=json.loads("[" * 400 + "]" * 400)), "shape"),
    "offsets-past-end": (set_entry(data_offsets=[16, 80]), "not within the file"),
    "offsets-before": (set_entry(data_offsets=[-8, 56]), "not within the file"),
    "offsets-turned": (set_entry(data_offsets=[64, 0]), "not within the file"),
    "offsets-text": (set_entry(data_offsets=["0", "64"]), "not within the file"),
    "offsets-too-few": (set_entry(data_offsets=[0, 60]), "take 60 bytes"),
}  # fmt: skip


def set_length(folder: Path, length: int) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.write(length.to_bytes(8, "little"))


MANNERS = {
    "whole": (Repository(Path(), ranges="whole"), "with the whole file, which was not read"),
    "another": (Repository(Path(), ranges="another"), "another part"),
    "more": (Repository(Path(), ranges="more"), "more of model.safetensors .* than was asked for"),
    "endless-config": (Repository(Path(), says_length=False), "larger than 64 MB"),
    "another-commit": (Repository(Path(), commit_of_files=NEXT_COMMIT), "changed while it was fetched"),
    "commit-that-is-a-path": (Repository(Path(), commit="../../../x"), "is not a model hub"),
}


@pytest.fixture(scope="module")
def refusals(llama_folder, wide_folder, tmp_path_factory) -> tuple[dict[str, dict], Hub]:
    """All hostile repositories, asked for in one process."""
    folder = tmp_path_factory.mktemp("hostile")
    with running_hub() as hub:
        for case, (spoil, _) in HOSTILE.items():
            shutil.copytree(llama_folder, folder / case)
            spoil(folder / case)
            hub.repositories[f"hostile/{case}"] = Repository(folder / case)
        for case, (repository, _) in MANNERS.items():
            shutil.copytree(wide_folder if case == "whole" else llama_folder, folder / case)
            repository.folder = folder / case
            hub.repositories[f"hostile/{case}"] = repository
        os.truncate(folder / "endless-config" / "config.json", 100 * 2**20)
        went = read(list(hub.repositories), away_from_home(folder, hub))
        yield dict(zip([name.removeprefix("hostile/") for name in hub.repositories], went, strict=True)), hub
        homes = folder / "cache" / "hub"
        assert not [path for path in homes.rglob("*") if path.name in (COMMIT, "ref")], "a refused repository left a finished folder"
        assert all(home.name.startswith("hostile--") for home in homes.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("case", [*HOSTILE, *MANNERS])
def test_a_repository_that_does_not_hold_together_is_refused_in_a_sentence(case, refusals):
    _, sentence = (HOSTILE | MANNERS)[case]
    went = refusals[0][case]
    assert re.search(sentence, went["refusal"]), went["refusal"]
    assert went["refusal"].isprintable()
    assert len(went["refusal"]) < 400
    assert not went["at_hand"]


@pytest.mark.slow
def test_what_is_refused_is_not_read_to_the_end(refusals, wide_folder):
    _, hub = refusals
    asked = [path for _, path, _ in hub.asked if path == "hostile/whole/model.safetensors"]
    assert len(asked) == 1
    # What lay in the sockets' buffers was sent, but no more.
    assert hub.sent["hostile/whole/model.safetensors"] < 10 * 2**20 < (wide_folder / "model.safetensors").stat().st_size
    assert hub.sent["hostile/large-config/config.json"] < 10 * 2**20
    assert hub.sent["hostile/endless-config/config.json"] < 74 * 2**20
