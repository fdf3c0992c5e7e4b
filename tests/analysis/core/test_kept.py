"""What is kept never changes a figure: whatever happens to a cache, the answer is the one from a fresh one."""

import functools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from soft_prompt_explorer.analysis.core import folders, kept
from soft_prompt_explorer.analysis.core.kept import Blocks, KeptArrays, KeptFiles
from soft_prompt_explorer.analysis.loras.base_weights import base_svd
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary, load_vocabulary
from soft_prompt_explorer.analysis.models.weights import is_prepared, load_model, prepare_model
from soft_prompt_explorer.analysis.prompts.null import null_of
from soft_prompt_explorer.analysis.prompts.over_prompts import token_index
from soft_prompt_explorer.analysis.prompts.projection import map_is_made, vocabulary_map
from soft_prompt_explorer.analysis.prompts.search import csls_crowding
from tests.support.damage import MUTATIONS, damage_again_and_again, files_in, flip_a_bit
from tests.support.figures import figures, of_model
from tests.support.full_disk import files_limited_to
from tests.support.lora_files import gaussian, lora_file
from tests.support.made_prompts import prompt_of
from tests.support.places import REPOSITORY, names_in

# --- Kept arrays ---------------------------------------------------------------------------------------------------------------------------


ARRAYS = {
    "numbers": np.arange(12, dtype=np.float64).reshape(3, 4),
    "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "flags": np.array([True, False, True]),
    "one": np.array(2.5),
    "none": np.zeros((0, 7), dtype=np.int64),
    "bytes": np.frombuffer(b"abc\n", dtype=np.uint8),
}


def same(found, expected) -> bool:
    return found is not None and all(
        found[name].dtype == array.dtype and found[name].shape == array.shape and np.array_equal(found[name], array)
        for name, array in expected.items()
    )


@pytest.fixture(params=["read whole", "mapped"])
def large_from(request, monkeypatch):
    """From how many bytes on a file is memory-mapped: both ways of reading answer the same."""
    if request.param == "mapped":
        monkeypatch.setattr(kept, "READ_WHOLE_UP_TO", 0)


def untouchable():
    pytest.fail("it was computed again")


def test_what_was_kept_is_read_and_not_computed_again(tmp_path, large_from):
    place = KeptArrays(tmp_path / "deep" / "folder", "it", 1)
    assert place.read() is None
    assert same(place.get(lambda: ARRAYS), ARRAYS)
    again = KeptArrays(tmp_path / "deep" / "folder", "it", 1).get(untouchable)
    assert same(again, ARRAYS) and all(array.flags.aligned and array.flags.c_contiguous for array in again.values())
    assert names_in(tmp_path / "deep" / "folder") == ["it.kept"]


def test_without_a_folder_nothing_is_kept():
    assert same(KeptArrays(None, "it", 1).get(lambda: ARRAYS), ARRAYS)
    assert KeptArrays(None, "it", 1).read() is None


def test_blocks_are_written_one_by_one_and_mapped(tmp_path, monkeypatch):
    rows = np.random.default_rng(0).standard_normal((1_000, 8)).astype(np.float32)
    blocks = Blocks(rows.dtype, rows.shape, lambda: (rows[i : i + 300] for i in range(0, len(rows), 300)))
    monkeypatch.setattr(kept, "READ_WHOLE_UP_TO", 1_000)
    found = KeptArrays(tmp_path, "rows", 1).get(lambda: {"rows": blocks})["rows"]
    assert isinstance(found, np.memmap) and np.array_equal(found, rows)
    (tmp_path / "a file").touch()
    unkept = KeptArrays(tmp_path / "a file", "rows", 1).get(lambda: {"rows": blocks})["rows"]
    assert not isinstance(unkept, np.memmap) and np.array_equal(unkept, rows)


def test_another_version_name_or_folder_is_not_taken_for_it(tmp_path, large_from):
    KeptArrays(tmp_path / "a", "it", 1).keep(ARRAYS)
    assert KeptArrays(tmp_path / "a", "it", 2).read() is None
    shutil.copy(tmp_path / "a" / "it.kept", tmp_path / "a" / "other.kept")
    assert KeptArrays(tmp_path / "a", "other", 1).read() is None
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert KeptArrays(tmp_path / "b", "it", 1).read() is None
    assert same(KeptArrays(tmp_path / "a", "it", 1).read(), ARRAYS)


def test_arrays_of_other_shapes_are_not_taken_for_it(tmp_path, large_from):
    KeptArrays(tmp_path, "it", 1).keep(ARRAYS)
    for shapes, fits in (
        ({"numbers": (3, 4)}, True),
        ({"numbers": (None, 4), "one": ()}, True),
        ({"numbers": (4, 3)}, False),
        ({"numbers": (None,)}, False),
        ({"more": (None,)}, False),
    ):
        assert (KeptArrays(tmp_path, "it", 1, shapes=shapes).read() is not None) == fits, shapes


def test_every_flipped_bit_is_found(tmp_path, large_from):
    place = KeptArrays(tmp_path, "it", 1)
    place.keep({"a": np.arange(4.0)})
    whole = place.path.read_bytes()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        place.path.write_bytes(damaged)
        assert place.read() is None, f"bit {bit}"


def test_what_compute_raises_is_raised_and_leaves_nothing(tmp_path):
    def broken():
        yield np.ones((1, 2))
        raise OSError("the model's file went away")

    with pytest.raises(ZeroDivisionError):
        KeptArrays(tmp_path, "it", 1).get(lambda: {"a": 1 / 0})
    with pytest.raises(OSError, match="went away"):
        KeptArrays(tmp_path, "it", 1).get(lambda: {"a": Blocks(np.dtype(float), (2, 2), broken)})
    assert names_in(tmp_path) == []


# --- Large files are not read at each call, and a change is found all the same ------------------------------------------------------------


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A kept file that counts as large, a moment old; and how often its checksum was taken."""
    monkeypatch.setattr(kept, "READ_WHOLE_UP_TO", 0)
    monkeypatch.setattr(kept, "_A_MOMENT", 0.1)
    taken = []
    checksum = kept.checksum
    monkeypatch.setattr(kept, "checksum", lambda file, size=None: taken.append(file.name) or checksum(file, size))
    place = KeptArrays(tmp_path, "it", 1)
    place.keep(ARRAYS)
    time.sleep(0.2)
    return place, taken


def test_a_mapped_file_is_checked_once_in_a_process_until_it_changes(large):
    place, taken = large
    for _ in range(5):
        assert same(place.read(), ARRAYS)
    assert len(taken) == 1
    flip_a_bit(place.path)
    assert place.read() is None
    assert same(place.get(lambda: ARRAYS), ARRAYS)


def test_a_file_that_was_just_written_is_checked_each_time_as_its_times_would_not_show_a_change(large):
    place, taken = large
    place.keep(ARRAYS)
    assert same(place.read(), ARRAYS) and same(place.read(), ARRAYS)
    assert len(taken) == 2


def test_a_file_of_gigabytes_is_checked_once_a_day_until_it_changes(large, monkeypatch):
    place, taken = large
    monkeypatch.setattr(kept, "CHECKED_DAILY_ABOVE", 0)

    def another_process_reads() -> bool:
        kept._checked.clear()
        return same(place.read(), ARRAYS)

    assert another_process_reads() and another_process_reads() and another_process_reads()
    assert len(taken) == 1
    note = place.path.with_name("it.kept.checked")
    when, looks = json.loads(note.read_text())
    for content in (json.dumps([when - 25 * 3600, looks]), json.dumps([when + 3600, looks]), "", "[]", "7", "[1, 2]", '[1, "x"]'):
        note.write_text(content)
        taken.clear()
        assert another_process_reads() and len(taken) == 1, content
    taken.clear()
    assert another_process_reads() and taken == []
    flip_a_bit(place.path)
    assert not another_process_reads()


# --- Folders of files ----------------------------------------------------------------------------------------------------------------------


def test_a_folder_is_whole_while_its_files_are_those_that_were_written(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    files = KeptFiles(folder, "model")
    assert not files.are_whole()
    (folder / "a.bin").write_bytes(b"a" * 1_000)
    (folder / "b.json").write_text("{}")
    files.all_written()
    assert files.are_whole() and files.is_whole("a.bin")
    assert not KeptFiles(folder, "another").are_whole()
    (folder / "stray.json").write_text("{}")
    assert not files.are_whole()
    files.remove_others()
    assert files.are_whole()
    (folder / "a.bin").write_bytes(b"a" * 999 + b"b")
    assert not files.are_whole() and not files.is_whole("a.bin") and files.is_whole("b.json")


# --- Every kind of cache, damaged in every way ---------------------------------------------------------------------------------------------


def made(vocabulary: Vocabulary, folder: Path) -> Vocabulary:
    return replace(vocabulary, cache=folder / "vocabularies" / "0123")


def of_vocabulary(model, vocabulary, cache) -> list:
    loaded = load_vocabulary(str(model))
    return [loaded.tokens, *figures(loaded.embeddings, loaded.special, loaded.mean, loaded.norms, loaded.centred_norms)]


def of_null(model, vocabulary, cache) -> list:
    return figures(*vars(null_of(made(vocabulary, cache))).values())


def of_crowding(model, vocabulary, cache) -> list:
    return figures(csls_crowding(made(vocabulary, cache)))


def of_map(model, vocabulary, cache) -> list:
    maps = [vocabulary_map(made(vocabulary, cache), projection="pca", dimensions=dimensions) for dimensions in (2, 3)]
    return [figures(on.ids, on.places, on.trustworthiness, on.centre, on.axes) for on in maps]


def of_index(model, vocabulary, cache) -> list:
    rng = np.random.default_rng(0)
    prompts = [replace(prompt_of(rng.standard_normal((20, vocabulary.width))), name=f"prompt {i}") for i in range(10)]
    index = token_index(prompts, made(vocabulary, cache), exact_up_to=100)
    assert not index.exact
    return [index.nearest(prompt.embeddings[3], top_k=5).to_csv() for prompt in prompts[:3]] + [index.recall]


def of_base_svd(model, vocabulary, cache) -> list:
    return figures(*base_svd(np.random.default_rng(0).standard_normal((20, 12)).astype(np.float32)))


KINDS = {
    "vocabulary": of_vocabulary,
    "null": of_null,
    "crowding": of_crowding,
    "map": of_map,
    "index": of_index,
    "base-svd": of_base_svd,
}


@contextmanager
def fresh_cache(monkeypatch, folder: Path):
    with monkeypatch.context() as patched:
        patched.setenv("SOFT_PROMPT_EXPLORER_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def small_vocabulary(llama_folder):
    rows = np.random.default_rng(0).standard_normal((300, 16)).astype(np.float32) + 1
    return Vocabulary.from_embeddings([f" w{i}" for i in range(300)], rows, model="small")


@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_to_what_is_kept_ever_changes_a_figure(
    kind, large_from, llama_folder, small_vocabulary, own_cache, tmp_path, monkeypatch
):
    monkeypatch.setattr("soft_prompt_explorer.analysis.prompts.null.DRAWS", 40)  # it is drawn hundreds of times here
    others = tmp_path / "others"
    KeptArrays(others / "0123", "null", 2).keep({"u": np.ones((3, 3))})
    KeptArrays(others / "4567", "embeddings", 4).keep({"embeddings": np.ones((3, 3))})
    (others / "page.html").write_text("<html>")
    figure = functools.partial(KINDS[kind], llama_folder, small_vocabulary, own_cache)
    figure()
    shutil.copytree(own_cache, others / "own")
    damage_again_and_again(figure, own_cache, files_in(others), MUTATIONS // 2)


# --- Where nothing can be kept -------------------------------------------------------------------------------------------------------------


@contextmanager
def a_file_in_its_place(cache: Path, model: Path):
    cache.write_text("a file where the folder should be")
    yield
    assert cache.read_text() == "a file where the folder should be"


@contextmanager
def a_full_disk(cache: Path, model: Path):
    with files_limited_to(0):
        yield
    assert not cache.exists() or files_in(cache) == []


@contextmanager
def a_read_only_folder(cache: Path, model: Path):
    """Nobody's process, where root runs the tests: root may write anywhere."""
    cache.mkdir()
    cache.chmod(0o555)
    above = {folder for path in (cache, model / "x") for folder in path.parents if folder.is_relative_to(tempfile.gettempdir())}
    modes = {folder: folder.stat().st_mode for folder in above}
    root = os.geteuid() == 0
    try:
        if root:
            for file in model.iterdir():
                file.chmod(0o644)
            for folder in above:
                folder.chmod(modes[folder] | 0o055)
            os.seteuid(65534)
        with pytest.raises(PermissionError):
            (cache / "x").touch()
        yield
    finally:
        if root:
            os.seteuid(0)
            for folder, mode in modes.items():
                folder.chmod(mode)
        cache.chmod(0o755)
    assert names_in(cache) == []


TROUBLES = [a_file_in_its_place, a_full_disk, a_read_only_folder]


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("kind", KINDS)
def test_where_nothing_can_be_kept_the_figure_is_the_same(
    kind, trouble, llama_folder, small_vocabulary, own_cache, tmp_path, monkeypatch, caplog
):
    with fresh_cache(monkeypatch, tmp_path / "fresh") as fresh:
        expected = KINDS[kind](llama_folder, small_vocabulary, fresh)
    kept._told.clear()
    with trouble(own_cache, llama_folder):
        assert KINDS[kind](llama_folder, small_vocabulary, own_cache) == expected
        assert KINDS[kind](llama_folder, small_vocabulary, own_cache) == expected
    told = [record.getMessage() for record in caplog.records if record.name == "soft_prompt_explorer.analysis.core.kept"]
    assert told and len(told) == len(set(told)) and all("Nothing can be kept in" in sentence for sentence in told)
    assert not any(path.name.startswith(".spe-partial") for path in tmp_path.rglob("*"))


# --- Converted models ----------------------------------------------------------------------------------------------------------------------

LLAMA_TENSORS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@pytest.fixture(scope="module")
def llama_gguf(tiny_llama, byte_level_tokenizer, tmp_path_factory) -> Path:
    """The tiny Llama as a `.gguf` file of float32 tensors, its tokenizer in it."""
    import gguf

    path, config = tmp_path_factory.mktemp("gguf") / "tiny.gguf", tiny_llama.config
    writer = gguf.GGUFWriter(path, "llama")
    by_id = {token_id: token for token, token_id in byte_level_tokenizer.get_vocab().items()}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([by_id.get(i, f"<unused{i}>") for i in range(config.vocab_size)])
    writer.add_token_types([3] + [1] * (config.vocab_size - 1))
    merges = json.loads(byte_level_tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_unk_token_id):
        add(0)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(64)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    for name, tensor in tiny_llama.state_dict().items():
        name = name.removeprefix("model.").removesuffix(".weight")
        if name.startswith("layers."):
            _, layer, part = name.split(".", 2)
            name = f"blk.{layer}.{LLAMA_TENSORS[part]}"
        else:
            name = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}[name]
        writer.add_tensor(f"{name}.weight", tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.slow
def test_no_damage_to_a_converted_model_ever_changes_it(llama_gguf, llama_folder, tiny_llama, own_cache):
    assert np.array_equal(load_model(str(llama_gguf), device="cpu")[0].lm_head.weight.numpy(), tiny_llama.lm_head.weight.detach().numpy())
    damage_again_and_again(functools.partial(of_model, llama_gguf), own_cache, files_in(llama_folder), MUTATIONS)


@pytest.mark.parametrize("trouble", [a_file_in_its_place, a_read_only_folder])
def test_where_it_cannot_be_kept_a_converted_model_is_the_same_and_stands_among_temporary_files(
    trouble, llama_gguf, own_cache, tmp_path, monkeypatch
):
    with fresh_cache(monkeypatch, tmp_path / "fresh"):
        expected = of_model(llama_gguf)
        assert not folders._temporary
    with trouble(own_cache, llama_gguf.parent):
        assert of_model(llama_gguf) == expected
        assert is_prepared(str(llama_gguf)) and prepare_model(str(llama_gguf)).parent.parent == Path(folders._temporary[0].name)


# What comes of a model and of a LoRA beside its weights, in a process of its own: here pytest catches what is printed in a file, which has no room either.
ASKED_ON_A_FULL_DISK = """
import hashlib, resource, sys
from pathlib import Path
from soft_prompt_explorer.analysis.adapters import load_lora
from soft_prompt_explorer.analysis.loras.base_weights import against_base
from soft_prompt_explorer.analysis.core.errors import NoRoomError
from soft_prompt_explorer.analysis.models.weights import prepare_model
from tests.support.figures import of_model

gguf, adapter = Path(sys.argv[1]), load_lora(sys.argv[2])
if sys.argv[3] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
print(hashlib.sha256(repr(of_model(gguf)).encode()).hexdigest())
print(against_base(adapter, str(gguf)).to_csv())
try:
    prepare_model(str(gguf))
except NoRoomError as refusal:
    print(refusal, file=sys.stderr)
"""


@pytest.mark.slow
def test_on_a_full_disk_a_model_is_unpacked_in_memory_and_is_the_same(llama_gguf, tmp_path):
    lora_file(tmp_path / "a.safetensors", {"model.layers.1.mlp.up_proj": gaussian(32, 16, 2, np.random.default_rng(0))})
    free, full = (
        subprocess.run(
            [sys.executable, "-c", ASKED_ON_A_FULL_DISK, llama_gguf, tmp_path / "a.safetensors", disk],
            cwd=REPOSITORY, env=os.environ | {"SOFT_PROMPT_EXPLORER_CACHE": str(tmp_path / disk)}, capture_output=True, text=True, check=False,
        )
        for disk in ("free", "full")
    )  # fmt: skip
    assert free.returncode == full.returncode == 0, full.stderr
    assert full.stdout == free.stdout and free.stdout.count("\n") == 4
    assert "no room in" in full.stderr and "no room in" not in free.stderr
    assert files_in(tmp_path / "free") and not files_in(tmp_path / "full")


# --- The command line ----------------------------------------------------------------------------------------------------------------------


def neighbours_of_two_words(model: Path, cache: Path, folder: Path, **limits) -> subprocess.CompletedProcess:
    np.save(folder / "prompt.npy", load_file(model / "model.safetensors")["model.embed_tokens.weight"][[7, 8]])
    return subprocess.run(
        [sys.executable, "-m", "analysis", "neighbours", folder / "prompt.npy", "--model", model, "--format", "csv"],
        cwd=REPOSITORY, env=os.environ | {"SOFT_PROMPT_EXPLORER_CACHE": str(cache)}, capture_output=True, check=False, **limits,
    )  # fmt: skip


@pytest.mark.slow
def test_the_command_answers_the_same_with_an_emptied_cache_and_on_a_full_disk(llama_folder, tmp_path):
    cache = tmp_path / "cache"
    first = neighbours_of_two_words(llama_folder, cache, tmp_path)
    assert first.returncode == 0 and first.stderr == b"" and b"7" in first.stdout
    for path in files_in(cache):
        path.write_bytes(b"")
    emptied = neighbours_of_two_words(llama_folder, cache, tmp_path)
    assert (emptied.returncode, emptied.stdout, emptied.stderr) == (0, first.stdout, b"")
    full = neighbours_of_two_words(
        llama_folder, tmp_path / "other", tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    )
    assert (full.returncode, full.stdout) == (0, first.stdout)
    (sentence,) = full.stderr.decode().splitlines()
    assert sentence.startswith("Nothing can be kept in ") and "File too large" in sentence and "SOFT_PROMPT_EXPLORER_CACHE" in sentence


def test_a_map_that_is_damaged_is_not_said_to_be_made(small_vocabulary, own_cache):
    on = made(small_vocabulary, own_cache)
    assert not map_is_made(on, projection="pca")
    vocabulary_map(on, projection="pca")
    assert map_is_made(on, projection="pca")
    (own_cache / "vocabularies" / "0123" / "map-pca-2d.kept").write_bytes(b"")
    assert not map_is_made(on, projection="pca")
