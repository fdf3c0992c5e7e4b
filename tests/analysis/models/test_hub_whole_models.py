"""A hub model that is to run is fetched whole, and what this machine holds of one serves as far as it goes."""

import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from soft_prompt_explorer.analysis.models import hub as hub_models
from tests.support.hub import EMBEDDING, Repository, away_from_home, read, rows_of, write_snapshot
from tests.support.lora_files import gaussian, lora_file
from tests.support.places import REPOSITORY, names_in
from tests.support.tiny_models import embedding_rows

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
from soft_prompt_explorer.analysis.loras import base_weights, weights
from soft_prompt_explorer.analysis.adapters import load_lora

read, seen = weights._read, []

def watched(path, name):
    assert not any(weight() is not None for weight in seen), f"another weight is still in memory when {name} is read"
    weight = read(path, name)
    seen.append(weakref.ref(weight))
    return weight

weights._read = watched
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
