"""A model's name resolves to one set of files, or to a sentence that lists what was tried."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from analysis.models import (
    EMBEDDED_SHA256,
    EMBEDDED_WIDTH,
    ModelError,
    default_model,
    is_prepared,
    load_model,
    model_sha256,
    prepare_model,
    resolve_model,
)
from tests.conftest import EMBEDDED, REPOSITORY, embedding_rows

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- Names -----------------------------------------------------------------------------------------------------------


def test_the_embedded_model_is_the_file_that_the_design_names():
    model = resolve_model(EMBEDDED)
    assert (model.kind, model.is_gguf) == ("embedded", True)
    assert sha256(model.path) == EMBEDDED_SHA256 == model_sha256(EMBEDDED)


def test_a_folder_and_a_gguf_file_resolve_to_themselves(llama_folder, tmp_path):
    (tmp_path / "model.GGUF").touch()
    folder, file = resolve_model(str(llama_folder)), resolve_model(str(tmp_path / "model.GGUF"))
    assert (folder.kind, folder.path, folder.is_gguf) == ("folder", llama_folder, False)
    assert (file.kind, file.path, file.is_gguf) == ("gguf", tmp_path / "model.GGUF", True)


@pytest.mark.parametrize(
    "name", ["no-such/model", "nosuchmodel", "no/such/model", "../missing", "", "a b", "smollm2-135M\n", "missing.gguf"]
)
def test_a_name_that_resolves_to_nothing_gets_a_sentence_that_lists_what_was_tried(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as refusal:
        resolve_model(name)
    sentence = str(refusal.value)
    assert sentence.isprintable()
    if name:
        assert EMBEDDED in sentence
        assert "path" in sentence
        assert "hub" in sentence


def test_a_folder_without_a_config_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        resolve_model(str(tmp_path))


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "weights.bin").touch()
    with pytest.raises(ModelError, match=r"is not a \.gguf"):
        resolve_model(str(tmp_path / "weights.bin"))


# --- Which model an adapter is read against --------------------------------------------------------------------------


@pytest.mark.parametrize("base", [None, EMBEDDED, "HuggingFaceTB/SmolLM2-135M-Instruct"])
def test_a_prompt_of_the_embedded_models_width_is_read_against_it_unless_it_names_another(base):
    assert default_model(base, EMBEDDED_WIDTH) == EMBEDDED


def test_a_prompt_of_another_width_that_names_no_model_is_refused():
    with pytest.raises(ModelError, match=r"768 wide .* 576 wide.*--model"):
        default_model(None, 768)


@pytest.mark.parametrize("base", ["no-such/model", "gpt2", "https://example.org/model", "C:\\models\\llama"])
def test_a_prompt_of_a_model_that_is_not_at_hand_is_never_read_against_another(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="--model"):
        default_model(base, EMBEDDED_WIDTH)


@pytest.mark.parametrize("written", ["{folder}", "model", "./model", "owner/model"])
def test_a_path_in_an_adapter_is_never_followed(written, llama_folder, tmp_path, monkeypatch, own_cache):
    shutil.copytree(llama_folder, tmp_path / "model")
    shutil.copytree(llama_folder, tmp_path / "owner" / "model")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="not followed"):
        default_model(written.format(folder=llama_folder), 16)
    assert not own_cache.exists()


# --- Making ready ----------------------------------------------------------------------------------------------------


def test_a_folder_is_loaded_as_it_stands(llama_folder, own_cache, tiny_llama):
    assert is_prepared(str(llama_folder))
    assert prepare_model(str(llama_folder)) == llama_folder
    model, tokenizer = load_model(str(llama_folder), device="cpu")
    assert np.array_equal(embedding_rows(model), embedding_rows(tiny_llama))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert tokenizer.decode(tokenizer("the cat")["input_ids"]) == "the cat"


def test_the_prepared_embedded_model_continues_a_sentence(embedded_model):
    model, tokenizer = embedded_model
    ids = tokenizer("The capital of France is", return_tensors="pt")
    answer = model.generate(**ids, max_new_tokens=1, do_sample=False)
    assert tokenizer.decode(answer[0, -1]) == " Paris"


def test_the_sha256_of_a_sharded_folder_depends_on_every_shard(sharded_llama_folder, tmp_path):
    folder = shutil.copytree(sharded_llama_folder, tmp_path / "model")
    before = model_sha256(str(folder))
    assert before == model_sha256(str(sharded_llama_folder))
    last = max(folder.glob("*.safetensors"))
    last.write_bytes(last.read_bytes()[:-1] + b"\x01")
    assert model_sha256(str(folder)) != before


# --- The hub ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path):
    """A server on this machine that answers as the hub does for files, and the names of those that were fetched."""
    repositories: dict[str, Path] = {}
    fetched: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(with_content=False)

        def do_GET(self):
            self.answer(with_content=True)

        def answer(self, *, with_content: bool):
            repository, _, filename = self.path.lstrip("/").partition("/resolve/")
            folder, path = repositories.get(repository), filename.partition("/")[2]
            there = folder is not None and (folder / path).is_file()
            content = (folder / path).read_bytes() if there else b""
            self.send_response(200 if there else 404)
            self.send_header("X-Repo-Commit", COMMIT)
            if there:
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            else:
                self.send_header("X-Error-Code", "EntryNotFound" if folder else "RepoNotFound")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if with_content:
                fetched.append(path)
                self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server, repositories, fetched
    server.shutdown()
    server.server_close()


def away_from_home(tmp_path: Path, port: int, *, offline: bool = False) -> dict[str, str]:
    """The environment of a process whose hub is a port of this machine, with caches of its own."""
    return os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{port}",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": str(int(offline)),
        "SOFT_PROMPT_EXPLORER_CACHE": str(tmp_path / "cache"),
    }


READ_VOCABULARIES = (
    "import json, sys\n"
    "from analysis.vocabulary import load_vocabulary\n"
    "read = [load_vocabulary(name) for name in sys.argv[1:]]\n"
    "print(json.dumps([[v.model, v.tokens, v.embeddings.tolist()] for v in read]))\n"
)


def read_vocabularies(names: list[str], environment: dict[str, str]) -> list:
    ended = subprocess.run(
        [sys.executable, "-c", READ_VOCABULARIES, *names],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.slow
def test_a_hub_models_vocabulary_is_fetched_without_its_other_shards_and_read_again_offline(
    hub, llama_folder, sharded_llama_folder, tiny_llama, byte_level_tokenizer, tmp_path
):
    server, repositories, fetched = hub
    names = ["someone/whole-llama", "someone/sharded-llama"]
    repositories.update(zip(names, [llama_folder, sharded_llama_folder], strict=True))
    online = read_vocabularies(names, away_from_home(tmp_path, server.server_port))
    assert [name for name, _, _ in online] == names
    for _, tokens, rows in online:
        assert np.array_equal(np.array(rows, dtype=np.float32), embedding_rows(tiny_llama))
        assert len(tokens) == len(byte_level_tokenizer) + 5
        assert " the" in tokens

    weight_map = json.loads((sharded_llama_folder / "model.safetensors.index.json").read_text())["weight_map"]
    weights = [path for path in fetched if path.endswith(".safetensors")]
    assert weights == ["model.safetensors", weight_map["model.embed_tokens.weight"]]

    server.shutdown()
    server.server_close()
    for told_to_be_offline in (True, False):
        shutil.rmtree(tmp_path / "cache")
        assert read_vocabularies(names, away_from_home(tmp_path, server.server_port, offline=told_to_be_offline)) == online


@pytest.mark.slow
@pytest.mark.parametrize("answers", [True, False], ids=["not-on-the-hub", "no-hub"])
def test_a_hub_id_that_cannot_be_had_is_refused_in_one_sentence_before_long(answers, hub, tmp_path):
    server, _, _ = hub
    if not answers:
        server.shutdown()
        server.server_close()
    np.save(tmp_path / "prompt.npy", np.ones((2, 16)))
    start = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "analysis", "neighbours", tmp_path / "prompt.npy", "--model", "someone/missing"],
        cwd=REPOSITORY, env=away_from_home(tmp_path, server.server_port), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert time.monotonic() - start < 15
    assert ended.returncode == 2
    assert ended.stdout == ""
    (sentence,) = ended.stderr.splitlines()
    assert sentence.isprintable()
    assert "someone/missing" in sentence
    assert "hub" in sentence
