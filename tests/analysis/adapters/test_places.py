"""What a person writes for a path: files, folders of adapters and globs, each adapter under a name that tells it from the others."""

import json
import os

import numpy as np
import pytest

from soft_prompt_explorer.analysis.adapters import AdapterError, load_soft_prompt
from soft_prompt_explorer.analysis.adapters.places import MOST_PLACES, places_of


def no_hub(name, chosen):
    raise AssertionError("nobody named the hub")


def found(*paths, **options):
    return places_of(paths, from_hub=no_hub, **options)


def prompt_at(path, scale=1.0):
    """A prompt as a file, or in PEFT's folder where the path has no ending."""
    from safetensors.numpy import save_file

    rows = scale * np.ones((2, 4), dtype=np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix:
        np.save(path, rows)
        return path
    path.mkdir()
    save_file({"prompt_embeddings": rows}, path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text(json.dumps({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2}))
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("files", "given", "names"),
    [
        (["a/final", "b/final"], ["a/final", "b/final"], ["a/final", "b/final"]),
        (["x/a/p.npy", "y/a/p.npy", "q.npy"], ["x/a/p.npy", "y/a/p.npy", "q.npy"], ["x/a/p", "y/a/p", "q"]),
        (["p.npy"], ["p.npy", "p.npy"], ["p", "p"]),
        (["final"], ["final"], ["final"]),
        (["a/p.npy", "p.npy"], ["a/p.npy", "p.npy"], ["a/p", "p"]),
        (["r/seed-1/final", "r/seed-2/final", "r/seed-3/final"], ["r"], ["seed-1/final", "seed-2/final", "seed-3/final"]),
        (["v1.0", "v1.5"], ["v1.0", "v1.5"], ["v1", "v1"]),
    ],
)  # fmt: skip
def test_a_name_is_the_shortest_end_of_a_path_that_tells_it_from_the_others(here, files, given, names):
    for file in files:
        if file.startswith("v1"):
            (here / file).mkdir()
            np.save(here / file / "prompt.npy", np.ones((2, 4)))
            names = ["v1.0", "v1.5"]  # a folder's name has no ending
        else:
            prompt_at(here / file)
    assert [place.name for place in found(*map(type(here), given))] == names


def test_files_that_differ_in_their_ending_alone_are_told_apart_by_it(here):
    prompt_at(here / "p.npy")
    np.savez(here / "p.npz", soft_prompt=np.ones((2, 4)))
    assert [place.name for place in found(here / "p.npy", here / "p.npz")] == ["p.npy", "p.npz"]


def test_a_folder_of_adapters_stands_for_all_of_them_but_for_what_lies_below_one(here):
    prompts = [prompt_at(here / "runs" / name) for name in ("a/final", "b", "c/loose.npy")]
    prompt_at(here / "runs" / "b" / "checkpoint-10")  # of the run's training
    prompt_at(here / "runs" / ".hidden" / "d")
    (here / "runs" / "notes.txt").write_text("no adapter")
    (here / "runs" / "c" / "training_args.bin").write_bytes(b"no adapter")
    places = found(here / "runs")
    assert [place.path for place in places] == prompts
    assert all(place.found for place in places)
    assert [load_soft_prompt(place.path, name=place.name).name for place in places] == ["final", "b", "loose"]


def test_a_training_that_left_checkpoints_alone_stands_for_these(here):
    for step in (20, 10):
        prompt_at(here / "run" / f"checkpoint-{step}")
    (here / "run" / "initial.safetensors").write_bytes(b"")
    assert [place.name for place in found(here / "run")] == ["checkpoint-10", "checkpoint-20"]


@pytest.mark.parametrize("path", ["b", "one"])
def test_a_folder_that_is_one_adapter_is_that_one(here, path):
    prompt_at(here / "b")
    prompt_at(here / "one" / "prompt.npy")
    (place,) = found(here / path)
    assert (place.path, place.found) == (here / path, False)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("runs/*", ["a", "b", "loose"]),
        ("runs/[ab]", ["a", "b"]),
        ("**/*.npy", ["loose"]),
        ("ru?s", ["a", "b", "loose"]),
    ],
)
def test_a_glob_stands_for_the_adapters_that_it_matches(here, pattern, names):
    for name in ("a", "b", "loose.npy"):
        prompt_at(here / "runs" / name)
    (here / "runs" / "README.md").write_text("no adapter")
    assert [place.name for place in found(type(here)(pattern))] == names


def test_a_path_with_the_letters_of_a_glob_that_is_there_is_that_path(here):
    odd = prompt_at(here / "a[1].npy")
    assert [place.path for place in found(odd)] == [odd]


def test_what_is_not_there_is_left_for_the_reader_to_refuse(here):
    missing = here / "missing.npy"
    assert [place.path for place in found(missing)] == [missing]


@pytest.mark.parametrize("path", ["nobody/*", "x/[0-9]"])
def test_a_glob_that_matches_nothing_is_refused(here, path):
    (here / "nobody").mkdir()
    (here / "nobody" / "README.md").write_text("no adapter")
    with pytest.raises(AdapterError, match="names no file or folder that could be an adapter"):
        found(type(here)(path))


def test_a_damaged_file_among_others_is_found_so_that_it_can_be_told(here):
    prompt_at(here / "a.npy")
    (here / "b.npy").touch()
    assert [place.path.name for place in found(here)] == ["a.npy", "b.npy"]


def test_links_to_folders_are_not_followed_so_that_no_circle_is_walked(here):
    prompt_at(here / "runs" / "a")
    (here / "runs" / "again").symlink_to(here / "runs")
    assert [place.name for place in found(here / "runs")] == ["a"]


def test_more_adapters_than_a_person_can_mean_are_refused(here):
    (here / "many").mkdir()
    for i in range(MOST_PLACES + 2):
        os.mknod(here / "many" / f"{i}.npy")
    with pytest.raises(AdapterError, match="more than 10,000"):
        found(here / "many")


def test_names_that_are_given_are_taken_in_their_order(here):
    for name in ("a.npy", "b.npy"):
        prompt_at(here / name)
    assert [place.name for place in found(here / "a.npy", here / "b.npy", names=["first", "second"])] == ["first", "second"]
    with pytest.raises(AdapterError, match="There are 1 names for 2 adapters"):
        found(here, names=["first"])
    with pytest.raises(AdapterError, match="'first' is given to several"):
        found(here, names=["first", "first"])


@pytest.mark.parametrize(("written", "name"), [("someone/words-v1.5", "words-v1.5"), ("someone/words/far.npy", "far")])
def test_a_name_of_the_hub_is_asked_for_and_stands_in_tables_as_it_was_written(here, written, name):
    asked = []
    kept = prompt_at(here / "cache" / "0123")
    (place,) = places_of([type(here)(written)], from_hub=lambda *parts: asked.append(parts) or kept)
    assert (place.path, place.said, place.name, place.found) == (kept, written, name, False)
    assert [part for part in asked[0] if part] == [written.rpartition("/far")[0] or written, *(["far.npy"] if "far" in written else [])]


@pytest.mark.parametrize("path", ["/someone/words", "words", "./x/../../y/z", "a/b/c/d", "-a/b", "some one/words"])
def test_what_is_no_name_of_the_hub_is_no_question_to_it(here, path):
    (place,) = found(type(here)(path))
    assert not place.path.exists()
