"""Of a hub model only what its vocabulary needs is fetched, and once."""

import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.support.hub import COMMIT, EMBEDDING, NEXT_COMMIT, Repository, away_from_home, ended, read, rows_of, start_reader
from tests.support.places import names_in
from tests.support.tiny_models import embedding_rows
from tests.support.waiting import PATIENCE


def other_rows_folder(folder: Path, to: Path) -> Path:
    """The same model with other numbers in its input embeddings."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(folder, to)
    tensors = load_file(folder / "model.safetensors")
    tensors[EMBEDDING] = -tensors[EMBEDDING]
    save_file(tensors, to / "model.safetensors", {"format": "pt"})
    return to


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
        deadline = time.monotonic() + PATIENCE
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
