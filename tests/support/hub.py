"""A hub on this machine, and processes that read models from it."""

import functools
import hashlib
import json
import os
import shutil
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

from soft_prompt_explorer.analysis.core.kept import KeptArrays
from soft_prompt_explorer.analysis.models.vocabulary import _VERSION as VOCABULARY_VERSION
from tests.support.places import REPOSITORY

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEXT_COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
EMBEDDING = "model.embed_tokens.weight"


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
    lists : what a file's listing says instead, by its name.
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
    lists: dict[str, dict] = field(default_factory=dict)


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
        repository = self.hub.repositories.get(name)
        self.hub.asked.append((self.command, f"api/{path}", None))
        if repository is None:
            self.reply(404, {"X-Error-Code": "RepoNotFound", "Content-Length": "0"})
            return
        if "/tree/" in path:
            files = [path for path in sorted(repository.folder.iterdir()) if path.is_file()]
            content = [{"type": "file", "path": path.name, "size": path.stat().st_size, "oid": "0" * 40} for path in files]
        else:
            content = {
                "id": name,
                "sha": repository.commit,
                "siblings": [
                    self.listed(file) | repository.lists.get(file.name, {})
                    for file in sorted(repository.folder.iterdir())
                    if file.is_file()
                ],
            }
        body = json.dumps(content).encode()
        self.reply(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        self.wfile.write(body)

    def listed(self, file: Path) -> dict:
        """A file as the hub lists it: with git's name of its content, and of weights, which lie in LFS, with their SHA-256."""
        content = file.read_bytes()
        about = {"rfilename": file.name, "size": len(content), "blobId": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}
        if file.suffix in (".safetensors", ".bin", ".npy"):
            about |= {"lfs": {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 130}}
        return about

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


def write_snapshot(cache: Path, name: str, model: Path) -> Path:
    home = cache / f"models--{name.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(COMMIT)
    return shutil.copytree(model, home / "snapshots" / COMMIT)
