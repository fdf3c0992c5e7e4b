"""Whatever happens to what was fetched of a hub model, it is read as it was fetched, fetched again, or refused."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.damage import MUTATIONS, flip_a_bit
from tests.support.hub import COMMIT, Repository, away_from_home, read, rows_of
from tests.support.places import REPOSITORY, names_in
from tests.support.tiny_models import embedding_rows

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
