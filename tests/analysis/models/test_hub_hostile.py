"""Nothing that a repository says is taken on trust: what does not hold together is refused in a sentence, and not read to the end."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.hub import COMMIT, EMBEDDING, NEXT_COMMIT, Hub, Repository, away_from_home, read, running_hub


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
