"""An adapter that is named owner/name: its files are listed, and fetched after a yes or --fetch, from a hub on this machine."""

import json
import os
import pty
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from soft_prompt_explorer.analysis.adapters import AdapterError
from soft_prompt_explorer.analysis.adapters.hub_adapter import RemoteEntry, _remote
from tests.support.hub import COMMIT, NEXT_COMMIT, Repository, away_from_home, running_hub
from tests.support.places import REPOSITORY, names_in

ROWS = np.random.default_rng(8).standard_normal((3, 16)).astype(np.float32)
CONFIG = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3, "base_model_name_or_path": None}


@pytest.fixture
def hub():
    with running_hub() as hub:
        yield hub


@pytest.fixture
def adapter(tmp_path) -> Path:
    """A repository with an adapter of PEFT, as safetensors and as a pickle, and what no reading needs."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG))
    save_file({"prompt_embeddings": ROWS}, folder / "adapter_model.safetensors")
    for name in ("adapter_model.bin", "training_args.bin", "README.md", "run.json", "modeling.py"):
        (folder / name).write_bytes(b"not needed")
    return folder


def spe(*arguments, environment, folder=REPOSITORY) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "soft_prompt_explorer", *map(str, arguments)],
        cwd=folder, env=environment | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def in_terminal(*arguments, environment, answer: str) -> tuple[int, str]:
    """The same with a terminal for all three streams, where a person answers the one question."""
    mine, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "soft_prompt_explorer", *map(str, arguments)], cwd=REPOSITORY, env=environment, stdin=its, stdout=its, stderr=its,
    )  # fmt: skip
    os.close(its)
    said = ""
    try:
        while True:
            said += os.read(mine, 4096).decode()
            if "[y/N]" in said and answer:
                os.write(mine, f"{answer}\n".encode())
                answer = ""
    except OSError:  # it ended
        pass
    finally:
        os.close(mine)
    return process.wait(), said


def fetched(tmp_path: Path, name: str = "someone/words", commit: str = COMMIT) -> Path:
    return tmp_path / "cache" / "hub-adapters" / name.replace("/", "--") / commit


def files_asked(hub) -> list[str]:
    return [path.rpartition("/")[2] for method, path, _ in hub.asked if method == "GET" and not path.startswith("api/")]


def test_with_fetch_the_files_that_an_adapter_needs_are_listed_and_brought_once(hub, adapter, tmp_path):
    hub.repositories["someone/words"] = Repository(adapter, far=True)
    home = away_from_home(tmp_path, hub)
    done = spe("inspect", "someone/words", "--fetch", "--format", "json", environment=home)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["path"], row["method"], row["virtual_tokens"], row["width"]) == ("someone/words", "PROMPT_TUNING", 3, 16)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert f"{(adapter / name).stat().st_size:,} bytes  {name}" in done.stderr
    assert files_asked(hub) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "adapter_model.safetensors",
    ]  # the weights by a redirection
    assert names_in(fetched(tmp_path)) == ["adapter_config.json", "adapter_model.safetensors", "listing.json"]
    assert set(hub.tokens_seen_far) == {None}
    hub.asked.clear()
    again = spe("inspect", "someone/words", "--format", "json", environment=home)
    assert (again.returncode, again.stdout, hub.asked) == (0, done.stdout, [])  # at hand: nothing is asked any more


def test_without_a_terminal_and_without_fetch_nothing_is_asked(hub, adapter, tmp_path):
    hub.repositories["someone/words"] = Repository(adapter)
    done = spe("readings", "someone/words", environment=away_from_home(tmp_path, hub))
    assert (done.returncode, done.stdout, hub.asked) == (2, "", [])
    assert "There is no file or folder someone/words" in done.stderr and "--fetch" in done.stderr


@pytest.mark.parametrize(("answer", "status", "files"), [("n", 2, []), ("y", 0, ["adapter_config.json", "adapter_model.safetensors"])])
def test_in_a_terminal_a_person_is_asked(hub, adapter, tmp_path, answer, status, files):
    hub.repositories["someone/words"] = Repository(adapter)
    ended, said = in_terminal("inspect", "someone/words", environment=away_from_home(tmp_path, hub), answer=answer)
    assert ended == status, said
    assert said.index("adapter_model.safetensors") < said.index("[y/N]")
    assert files_asked(hub) == files


def test_a_local_path_of_that_name_wins(hub, adapter, tmp_path):
    hub.repositories["someone/words"] = Repository(adapter)
    (tmp_path / "here" / "someone").mkdir(parents=True)
    np.save(tmp_path / "here" / "someone" / "words", ROWS[:2])
    (tmp_path / "here" / "someone" / "words.npy").rename(tmp_path / "here" / "someone" / "words")
    done = spe(
        "inspect", "someone/words", "--fetch", "--format", "json", environment=away_from_home(tmp_path, hub), folder=tmp_path / "here"
    )
    assert json.loads(done.stdout)[0]["virtual_tokens"] == 2
    assert hub.asked == []


def test_a_mistyped_path_of_a_folder_here_is_no_question_to_the_hub(hub, tmp_path):
    (tmp_path / "prompts").mkdir()
    process, said = in_terminal("inspect", "tests/no-such", environment=away_from_home(tmp_path, hub), answer="y")
    assert (process, hub.asked) == (2, [])
    assert "There is no file or folder tests/no-such" in said


@pytest.mark.parametrize(
    ("files", "taken"),
    [
        (["adapter_model.bin", "adapter_config.json"], ["adapter_config.json", "adapter_model.bin"]),
        (["a.safetensors", "a.pt", "model.safetensors"], ["a.safetensors"]),
        (["soft.npy", "README.md", "config.json"], ["soft.npy"]),
        (["adapter_config.json", "adapters.safetensors"], ["adapter_config.json", "adapters.safetensors"]),
        (["initial.safetensors", "adapter_config.json", "adapter_model.safetensors"], ["adapter_config.json", "initial.safetensors", "adapter_model.safetensors"]),
        (["pytorch_adapter.bin", "mine.safetensors"], ["mine.safetensors"]),
        (["learned_embeds.safetensors", "learned_embeds.bin", "unet.safetensors"], ["learned_embeds.safetensors"]),
    ],
)  # fmt: skip
def test_only_what_an_adapter_needs_is_fetched_and_no_pickle_beside_safetensors(files, taken):
    remote = _remote("a/b", COMMIT, None, [RemoteEntry(name, 10, "0" * 64, None) for name in files])
    assert [entry.name for entry in remote.entries] == taken


def test_no_pickle_is_named_beside_safetensors():
    files = [RemoteEntry(name, 10, "0" * 64, None) for name in ("a.safetensors", "a.pt", "b.pt")]
    with pytest.raises(AdapterError, match=r"lies a\.safetensors"):
        _remote("a/b", COMMIT, "a.pt", files)
    assert [entry.name for entry in _remote("a/b", COMMIT, "b.pt", files).entries] == ["b.pt"]


@pytest.mark.slow
def test_of_several_files_one_is_named(hub, tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    for i in (1, 2):
        np.save(folder / f"prompt-{i}.npy", i * ROWS)
    hub.repositories["someone/words"] = Repository(folder)
    home = away_from_home(tmp_path, hub)
    refused = spe("inspect", "someone/words", "--fetch", environment=home)
    assert refused.returncode == 2
    assert "someone/words/prompt-1.npy and someone/words/prompt-2.npy" in refused.stderr
    done = spe("similarity", "someone/words/prompt-1.npy", "someone/words/prompt-2.npy", "--fetch", "--format", "json", environment=home)
    (row,) = json.loads(done.stdout)
    assert (row["prompt_a"], row["prompt_b"], row["path_b"]) == ("prompt-1", "prompt-2", "someone/words/prompt-2.npy")
    assert row["matched_cosine"] == pytest.approx(1)
    assert "holds no file prompt-3.npy" in spe("inspect", "someone/words/prompt-3.npy", "--fetch", environment=home).stderr


@pytest.mark.parametrize("lists", [{"lfs": {"size": 1, "sha256": "0" * 64, "pointerSize": 1}}, {"lfs": None, "blobId": "0" * 40}])
def test_what_is_not_as_the_hub_lists_it_is_not_kept(hub, adapter, tmp_path, lists):
    hub.repositories["someone/words"] = Repository(adapter, lists={"adapter_model.safetensors": lists})
    done = spe("inspect", "someone/words", "--fetch", environment=away_from_home(tmp_path, hub))
    assert done.returncode == 2
    assert "adapter_model.safetensors of the hub's someone/words is not what the hub lists" in done.stderr
    assert "adapter_model.safetensors" not in names_in(fetched(tmp_path))


@pytest.mark.parametrize(
    ("lists", "says"),
    [
        ({"adapter_config.json": {"size": 2 * 2**20}}, "at most 1,048,576 are fetched"),
        ({"adapter_model.safetensors": {"size": 17 * 2**30}}, "at most 17,179,869,184 are fetched"),
        ({"adapter_model.safetensors": {"lfs": None, "blobId": None}}, "lists no digest"),
    ],
)  # fmt: skip
def test_too_much_and_what_cannot_be_checked_is_not_fetched(hub, adapter, tmp_path, lists, says):
    hub.repositories["someone/words"] = Repository(adapter, lists=lists)
    done = spe("inspect", "someone/words", "--fetch", environment=away_from_home(tmp_path, hub))
    assert done.returncode == 2
    assert says in done.stderr
    assert files_asked(hub) == []


@pytest.mark.parametrize("name", ["../../up.safetensors", "/etc/up.safetensors", "a\\up.safetensors", "sub/up.safetensors"])
def test_a_name_that_leads_elsewhere_is_no_file_of_an_adapter(hub, adapter, tmp_path, name):
    for path in adapter.iterdir():
        path.unlink()
    (adapter / "x.json").write_text("{}")
    hub.repositories["someone/words"] = Repository(adapter, lists={"x.json": {"rfilename": name}})
    done = spe("inspect", "someone/words", "--fetch", environment=away_from_home(tmp_path, hub))
    assert done.returncode == 2
    assert "holds no file that an adapter could be in" in done.stderr
    assert not list(tmp_path.rglob("up.safetensors"))


@pytest.mark.slow
def test_a_fetch_that_broke_off_goes_on_where_it_was(hub, adapter, tmp_path):
    save_file({"prompt_embeddings": np.repeat(ROWS, 8_000, axis=1)}, adapter / "adapter_model.safetensors")
    size = (adapter / "adapter_model.safetensors").stat().st_size
    hub.repositories["someone/words"] = Repository(adapter, breaks=[600_000] + [0] * 40)
    home = away_from_home(tmp_path, hub)
    done = spe("inspect", "someone/words", "--fetch", environment=home)
    assert done.returncode == 2
    assert "broke off" in done.stderr and "goes on from there" in done.stderr
    kept = (fetched(tmp_path) / "adapter_model.safetensors.partial").stat().st_size
    assert 0 < kept < size
    hub.repositories["someone/words"].breaks.clear()
    hub.asked.clear()
    assert spe("inspect", "someone/words", "--fetch", environment=home).returncode == 0
    (asked,) = [part for method, path, part in hub.asked if path.endswith("model.safetensors") and method == "GET"]
    assert asked == f"bytes={kept}-{size - 1}"


def test_what_is_damaged_here_is_not_served(hub, adapter, tmp_path):
    hub.repositories["someone/words"] = Repository(adapter)
    home = away_from_home(tmp_path, hub)
    spe("inspect", "someone/words", "--fetch", environment=home)
    weights = fetched(tmp_path) / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    refused = spe("inspect", "someone/words", environment=home)
    assert refused.returncode == 2
    assert spe("inspect", "someone/words", "--fetch", environment=home).returncode == 0
    assert weights.read_bytes() == (adapter / "adapter_model.safetensors").read_bytes()


def test_what_other_programs_fetched_is_read_where_it_lies(hub, adapter, tmp_path):
    home = away_from_home(tmp_path, hub)
    there = tmp_path / "hf" / "hub" / "models--someone--words"
    (there / "refs").mkdir(parents=True)
    (there / "refs" / "main").write_text(NEXT_COMMIT)
    shutil.copytree(adapter, there / "snapshots" / NEXT_COMMIT)
    done = spe("inspect", "someone/words", "--format", "json", environment=home)
    assert json.loads(done.stdout)[0]["path"] == "someone/words"
    assert hub.asked == []


@pytest.mark.parametrize("command", ["inspect", "readings", "effect", "report", "spectra"])
def test_a_repository_that_the_hub_does_not_know_is_refused_in_one_sentence(hub, tmp_path, command):
    options = ("--out", tmp_path / "page.html") if command == "report" else ()
    done = spe(command, "someone/none", "--fetch", *options, environment=away_from_home(tmp_path, hub))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "it knows no such model" in done.stderr


def test_offline_the_sentence_says_that_the_hub_was_not_asked(hub, tmp_path):
    began = time.monotonic()
    done = spe("inspect", "someone/none", "--fetch", environment=away_from_home(tmp_path, hub, offline=True))
    assert done.returncode == 2
    assert "HF_HUB_OFFLINE" in done.stderr
    assert hub.asked == []
    assert time.monotonic() - began < 60


@pytest.mark.slow
def test_a_prompt_of_the_hub_is_read_against_its_vocabulary(hub, adapter, tmp_path, llama_folder, tiny_llama):
    rows = tiny_llama.get_input_embeddings().weight.detach().numpy()[[7, 250]]
    (adapter / "adapter_config.json").write_text(json.dumps(CONFIG | {"num_virtual_tokens": 2, "base_model_name_or_path": "someone/llama"}))
    save_file({"prompt_embeddings": rows.copy()}, adapter / "adapter_model.safetensors")
    hub.repositories |= {"someone/words": Repository(adapter), "someone/llama": Repository(llama_folder)}
    done = spe(
        "neighbours", "someone/words", "--fetch", "--top-k", 1, "--out", tmp_path / "n.json", environment=away_from_home(tmp_path, hub)
    )
    assert done.returncode == 0, done.stderr
    table = pd.DataFrame(json.loads((tmp_path / "n.json").read_text())["rows"])
    assert (table["token_id"].tolist(), set(table["prompt"])) == ([7, 250], {"words"})


@pytest.mark.slow
def test_a_figure_an_export_and_the_scores_are_of_an_adapter_of_the_hub_too(hub, adapter, tmp_path, tiny_lora, tiny_llama, llama_folder):
    rows = tiny_llama.get_input_embeddings().weight.detach().numpy()[[7, 250, 9]] + np.float32(0.01)
    save_file({"prompt_embeddings": rows}, adapter / "adapter_model.safetensors")
    hub.repositories |= {"someone/words": Repository(adapter), "someone/lora": Repository(tiny_lora)}
    home, model = away_from_home(tmp_path, hub), ("--model", llama_folder)
    refused = spe("export", "someone/words", "--to", "npy", "--out", tmp_path / "words.npy", environment=home)
    assert refused.returncode == 2 and "give --fetch if it is an adapter of the hub" in refused.stderr and hub.asked == []
    done = spe("export", "someone/words", "--fetch", "--to", "npy", "--out", tmp_path / "words.npy", environment=home)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "words.npy"), rows)
    for words in (("verdicts", "someone/words", *model), ("spectrum", "someone/lora")):
        path = tmp_path / f"{words[0]}.svg"
        done = spe("figure", *words, "--fetch", "--out", path, environment=home)
        assert done.returncode == 0, done.stderr
        assert path.read_bytes()[:5] == b"<?xml"
    task = tmp_path / "task.csv"
    task.write_text("input,target\n" + "".join(f"the {word},{word}\n" for word in ("mat", "line", "text", "cat") * 6))
    done = spe("evaluate", "someone/words", "--fetch", "--task", task, "--limit", "2", *model, "--format", "csv", environment=home)
    assert done.returncode == 0, done.stderr
    assert [line.partition(",")[0] for line in done.stdout.splitlines()] == ["prompt", "no prompt", "words"]
