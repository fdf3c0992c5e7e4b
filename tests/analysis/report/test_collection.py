"""The benchmark of collections runs, small: what it tells is checked here, how fast it is not."""

import re

import pytest

from tests.benchmarks import collection


@pytest.mark.slow
def test_a_small_collection_is_killed_and_resumed_with_flat_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(collection, "DIFFERENT", 20)
    collection.collection(tmp_path / "adapters", 120)
    told = collection.killed_and_resumed(tmp_path / "adapters", tmp_path / "resumed", 120)
    assert re.search(r"files done twice +[01]\n", told) and re.search(r"files never done +0$", told)
    first, last = (float(re.search(rf"memory at most: {when}.* (\d+) MB", told)[1]) for when in ("first thousand", "last thousand"))
    assert last < 1.2 * first
    found = collection.tables_of(tmp_path / "resumed")
    assert len(found["manifest"]) == 120 and found["manifest"]["sha256"].nunique() == 120
    assert found["tokens"]["path"].nunique() == 6 and len(found["modules"]) == 114 * 8


@pytest.mark.slow
def test_a_table_that_differs_is_named(tmp_path):
    collection.collection(tmp_path / "adapters", 20)
    made = [tmp_path / "one", tmp_path / "other"]
    for out in made:
        collection.subprocess.run(collection.batch_command(tmp_path / "adapters", out), check=True, capture_output=True)
    assert collection.differing(*made) == []
    path = made[1] / "manifest.parquet"
    collection.pd.read_parquet(path).assign(notes="other").to_parquet(path)
    assert collection.differing(*made) == ["manifest"]
