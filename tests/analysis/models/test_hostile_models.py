"""Models from a stranger: 300 GGUF files and 300 folders, hostile or damaged; each is read or refused in a sentence, at once and in little memory."""

import json
import random
import resource
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from soft_prompt_explorer.analysis.core.errors import ModelError
from soft_prompt_explorer.analysis.models.gguf_file import GgufFile
from soft_prompt_explorer.analysis.models.tokenizer_file import read_tokenizer
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.models.weights import load_model, load_tokenizer
from tests.support.places import REPOSITORY
from tests.support.waiting import PATIENCE

MANY = 300
SECONDS, BYTES = 5, 500 * 10**6
WALL_OF_MODELS = 30  # seconds: much of a first loading is reading code from the disk, which waits where the machine is busy
SAMPLED = 10  # of so many one is loaded as a model too
LONGEST = 500  # characters of a refusal
NUMBERS = (0, 1, 3, 2**16, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)

WATCH = """
import gc, json, sys, time
import torch, safetensors, numpy, gguf, transformers  # what any reading imports
if sys.argv[1] == "model":  # and any loading of these families, whose code is not the file's doing
    import transformers.models.bart.modeling_bart, transformers.models.llama.modeling_llama
    transformers.AutoModelForCausalLM
from soft_prompt_explorer.analysis.core.errors import ModelError
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.models.weights import load_model
from tests.support.memory import peak_memory
def vocabulary(path):
    read = load_vocabulary(path)
    return f"read {len(read)} x {read.width}"
def model(path):
    return f"read {load_model(path, device='cpu').model.num_parameters()}"
load = {"vocabulary": vocabulary, "model": model}[sys.argv[1]]
for path in sys.argv[2:]:
    gc.collect()
    with open("/proc/self/clear_refs", "wb", buffering=0) as file:
        file.write(b"5")
    before, start, begun = peak_memory(), time.process_time(), time.monotonic()
    try:
        said = load(path)
    except ModelError as error:
        said = str(error)
    took = {"seconds": time.process_time() - start, "wall": time.monotonic() - begun}
    print(json.dumps({"path": path, "bytes": peak_memory() - before, **took, "said": said}), flush=True)
"""


def outcomes(paths: list[Path], load: Literal["vocabulary", "model"] = "vocabulary") -> list[dict]:
    """What came of each model, in a process of their own."""
    ended = subprocess.run(
        [sys.executable, "-c", WATCH, load, *map(str, paths)], cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE
    )
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    assert ended.returncode == 0, f"it ended after {rows[-1:]}: {ended.stderr[-2000:]}"
    assert "panicked" not in ended.stderr
    return rows


def _bounded() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (16 * 2**30,) * 2)  # what takes all memory fails alone, and not the machine


def check(rows: list[dict], *, wall: float = SECONDS) -> None:
    """Each was read or refused in a sentence, within the seconds of a processor and of a clock."""
    for row in rows:
        name = Path(row["path"]).name
        assert row["seconds"] < SECONDS and row["wall"] < wall, row
        assert row["bytes"] < BYTES, row
        said = row["said"].replace(str(Path(row["path"])), name)
        assert said.startswith("read ") or (said.endswith(".") and said.isprintable() and len(said) < LONGEST), row


# --- GGUF ------------------------------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def array(kind: int, count: int, content: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + content


def tensor(name: str, shape, kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def gguf_bytes(keys: list[bytes], tensors: list[bytes], data: bytes = b"", *, counts=None) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", 3, *(counts or (len(tensors), len(keys)))) + b"".join(keys) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + data


def whole_keys(tokens: int = 40) -> list[bytes]:
    return [
        key("general.architecture", 8, text("llama")),
        key("tokenizer.ggml.model", 8, text("gpt2")),
        key("tokenizer.ggml.tokens", 9, array(8, tokens, b"".join(text(f"t{i}") for i in range(tokens)))),
        key("tokenizer.ggml.token_type", 9, array(5, tokens, struct.pack(f"<{tokens}i", *[1] * tokens))),
    ]


ROWS = np.arange(40 * 32, dtype="<f4").reshape(40, 32)
WHOLE = gguf_bytes(whole_keys(), [tensor("token_embd.weight", (32, 40))], ROWS.tobytes())
HOSTILE = {
    "array-of-2-to-40-numbers": gguf_bytes([key("x", 9, array(5, 2**40, b"\0" * 64))], []),
    "array-of-2-to-60-strings": gguf_bytes([key("x", 9, array(8, 2**60, b"\0" * 64))], []),
    "a-million-empty-strings": gguf_bytes([key("x", 9, array(8, 10**6, b"\0" * 8 * 10**6)), *whole_keys()], []),
    "three-million-empty-strings": gguf_bytes([key("x", 9, array(8, 3 * 10**6, b"\0" * 8 * 3 * 10**6))], []),
    "arrays-in-arrays": gguf_bytes([key("x", 9, array(9, 1) * 30_000 + array(0, 0))], []),
    "wide-arrays-in-arrays": gguf_bytes([key("x", 9, array(9, 100_000, array(0, 0) * 100_000))], []),
    "2-to-64-keys": gguf_bytes([], [], counts=(0, 2**64 - 1)),
    "2-to-40-tensors": gguf_bytes([], [], counts=(2**40, 0)),
    "a-name-of-2-to-63": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**63) + b"x" * 50,
    "a-text-of-2-to-50": gguf_bytes([key("general.architecture", 8, struct.pack("<Q", 2**50))], []),
    "2-to-31-axes": gguf_bytes(whole_keys(), [text("token_embd.weight") + struct.pack("<I", 2**31 - 1)]),
    "2-to-40-rows": gguf_bytes(whole_keys(), [tensor("token_embd.weight", (32, 2**40))], ROWS.tobytes()),
    "rows-that-overflow": gguf_bytes(whole_keys(), [tensor("token_embd.weight", (2**32, 2**32))], ROWS.tobytes()),
    "a-place-beyond-the-end": gguf_bytes(whole_keys(), [tensor("token_embd.weight", (32, 40), offset=2**63)], ROWS.tobytes()),
    "no-rows": gguf_bytes(whole_keys(), [tensor("token_embd.weight", (32, 0))], ROWS.tobytes()),
    "an-unknown-type": gguf_bytes(whole_keys(), [tensor("token_embd.weight", (32, 40), kind=999)], ROWS.tobytes()),
    "whole-numbers": gguf_bytes(whole_keys(), [tensor("token_embd.weight", (32, 40), kind=24)], ROWS.tobytes()),
    "alignment-0": gguf_bytes([*whole_keys(), key("general.alignment", 4, struct.pack("<I", 0))], [tensor("token_embd.weight", (32, 40))], ROWS.tobytes()),
    "tokens-are-numbers": gguf_bytes([key("tokenizer.ggml.tokens", 9, array(5, 4, b"\0" * 16))], [tensor("token_embd.weight", (32, 40))], ROWS.tobytes()),
    "nothing-but-its-name": b"GGUF",
    "nothing": b"",
    "an-unknown-version": b"GGUF" + struct.pack("<IQQ", 7, 0, 0),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
}  # fmt: skip


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A file with one to three things wrong: bits flipped, a number replaced by another, a piece cut out, doubled or moved, its end gone."""
    damaged = bytearray(content)
    head = content.index(b"token_embd") + 80
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(4, head)
        match rng.randrange(5):
            case 0:
                damaged[at % len(damaged)] ^= 1 << rng.randrange(8)
            case 1:
                size = rng.choice((4, 8))
                number = min(rng.choice(NUMBERS), 2 ** (8 * size) - 1)
                damaged[at : at + size] = number.to_bytes(size, "little")
            case 2:
                del damaged[at : at + rng.randrange(1, 40)]
            case 3:
                piece = bytes(damaged[at : at + rng.randrange(1, 200)])
                damaged[at:at] = piece * rng.randint(1, 50)
            case 4:
                del damaged[rng.randrange(len(damaged)) :]
        if len(damaged) < 8:
            break
    return bytes(damaged)


@pytest.mark.slow
def test_300_gguf_files_are_read_or_refused_in_a_sentence_at_once(tmp_path, own_cache):
    rng = random.Random(0)
    contents = HOSTILE | {f"mutated-{i}": mutated(WHOLE, rng) for i in range(MANY - len(HOSTILE) - 1)} | {"whole": WHOLE}
    paths = []
    for name, content in contents.items():
        paths.append(tmp_path / f"{name}.gguf")
        paths[-1].write_bytes(content)
    assert len(paths) == MANY
    rows = outcomes(paths)
    check(rows)
    assert rows[-1]["said"] == "read 40 x 32"
    refused = {Path(row["path"]).stem for row in rows if not row["said"].startswith("read ")}
    assert set(HOSTILE) <= refused
    assert len(refused) < MANY - 20  # what is damaged beside the vocabulary's parts is read
    check(outcomes(paths[::SAMPLED], "model"), wall=WALL_OF_MODELS)


def test_a_gguf_files_parts_are_those_that_its_own_library_reads(tmp_path):
    """Against gguf.GGUFReader, on a file with every kind of value and two quantised tensors."""
    import gguf

    path, rng = tmp_path / "all.gguf", np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    for kind in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64", "bool"):
        getattr(writer, f"add_{kind}")(f"a.{kind}", 1)
    writer.add_custom_alignment(64)
    writer.add_array("a.numbers", [3, 1, 2])
    writer.add_token_list(["a", "Ġb", "naïve"])
    writer.add_string("general.name", "naïve")
    rows = rng.normal(size=(30, 64)).astype(np.float32)
    writer.add_tensor("plain", rows)
    writer.add_tensor("half", rows.astype(np.float16))
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor("eight", gguf.quants.quantize(rows, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file, reader = GgufFile(path), gguf.GGUFReader(path)
    assert file.strings("tokenizer.ggml.tokens", 10) == reader.fields["tokenizer.ggml.tokens"].contents()
    assert file.numbers("a.numbers", 10).tolist() == [3, 1, 2]
    assert (file.text("general.name"), file.number("a.int64", 0), file.number("a.missing", 5)) == ("naïve", 1, 5)
    for known in reader.tensors:
        expected = gguf.quants.dequantize(known.data, known.tensor_type)
        assert file.rows_shape(known.name) == (30, 64)
        assert np.array_equal(np.concatenate(list(file.rows(known.name, 7))), expected)


def test_a_gguf_that_transformers_does_not_unpack_is_refused_in_a_sentence(tmp_path, own_cache):
    (tmp_path / "model.gguf").write_bytes(WHOLE.replace(text("llama"), text("lemma")))
    assert len(load_vocabulary(str(tmp_path / "model.gguf"))) == 40
    with pytest.raises(ModelError, match="cannot be unpacked as a causal language model") as refused:
        load_model(str(tmp_path / "model.gguf"))
    assert len(str(refused.value)) < LONGEST


# --- Tokenizers ------------------------------------------------------------------------------------------------------

PLAIN = {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None,
    "decoder": None, "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "c": 2}, "unk_token": "a"},
}  # fmt: skip


def token(i: int, content: str) -> dict:
    return {"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def table(vocab) -> dict:
    return PLAIN | {"model": {"type": "WordLevel", "vocab": vocab, "unk_token": "a"}}


def charsmap(content: str) -> dict:
    return PLAIN | {"normalizer": {"type": "Precompiled", "precompiled_charsmap": content}}


HOSTILE_TOKENIZERS = {
    "an-id-of-4-billion": table({"a": 0, "b": 2**32 - 1}),
    "an-id-of-a-million": table({"a": 0, "b": 10**6}),
    "an-id-beyond-64-bits": table({"a": 0, "b": 2**70}),
    "a-negative-id": table({"a": 0, "b": -1}),
    "an-id-in-words": table({"a": 0, "b": "1"}),
    "a-fraction": table({"a": 0, "b": 1.5}),
    "no-table": PLAIN | {"model": {"type": "WordLevel"}},
    "no-model": {"version": "1.0"},
    "a-list": [1, 2],
    "a-charsmap-that-panics": charsmap("AAAA"),
    "a-charsmap-too-long": charsmap("/////w=="),
    "a-charsmap-that-is-none": charsmap("?!"),
    "padding-to-a-trillion": PLAIN | {"padding": {"strategy": {"Fixed": 10**12}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "a"}},
    "padding-to-multiples": PLAIN | {"padding": {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": 2**60, "pad_id": 0, "pad_type_id": 0, "pad_token": "a"}},
    "added-tokens-are-numbers": PLAIN | {"added_tokens": [1, 2]},
    "many-tokens-beyond-the-rows": table({f"t{i}": i for i in range(200_000)}),
    "unigram-of-numbers": PLAIN | {"model": {"type": "Unigram", "unk_id": 0, "vocab": [1, 2, 3]}},
    "parts-without-end": '{"model": {"vocab": {}}, "x": [' + "[]," * 5_000_000 + "[]]}",
    "nested-without-end": '{"model":' * 100_000,
    "deep-lists": "[" * 1_000_000,
    "not-text": b"\xff\xfe" * 1000,
    "empty": b"",
}  # fmt: skip


def model_folder(folder: Path, spec, *, config=None, rows: int = 8) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} if config is None else config))
    save_file({"model.embed_tokens.weight": np.ones((rows, 4), dtype=np.float32)}, folder / "model.safetensors")
    content = spec if isinstance(spec, bytes) else (spec if isinstance(spec, str) else json.dumps(spec)).encode()
    (folder / "tokenizer.json").write_bytes(content)
    return folder


def mutated_json(value, rng: random.Random):
    """A JSON value with one of its parts replaced."""
    if rng.random() < 0.15 or not isinstance(value, dict | list) or not value:
        return rng.choice(
            [None, True, -1, 2**63, 10**30, 1e308, "", "x" * 1000, "\\ud800", [], {}, [value, value], {"type": "Sequence", "x": value}]
        )
    if isinstance(value, dict):
        name = rng.choice(sorted(value))
        return value | {name: mutated_json(value[name], rng)}
    i = rng.randrange(len(value))
    return [*value[:i], mutated_json(value[i], rng), *value[i + 1 :]]


@pytest.mark.slow
def test_300_folders_are_read_or_refused_in_a_sentence_at_once(tmp_path, own_cache, byte_level_tokenizer, llama_folder):
    rng = random.Random(1)
    folders = [model_folder(tmp_path / name, spec) for name, spec in HOSTILE_TOKENIZERS.items()]
    for i, config in enumerate([[], {"model_type": 5}, {"model_type": "gemma", "text_config": [1]}, {"scale_embedding": "yes"}]):
        folders.append(model_folder(tmp_path / f"config-{i}", PLAIN, config=config))
    whole = json.loads((llama_folder / "tokenizer.json").read_text())
    safetensors = (llama_folder / "model.safetensors").read_bytes()
    while len(folders) < MANY - 1:
        folder = tmp_path / f"mutated-{len(folders)}"
        shutil.copytree(llama_folder, folder)
        match rng.randrange(4):
            case 0:
                (folder / "tokenizer.json").write_text(json.dumps(mutated_json(whole, rng)))
            case 1:
                content = bytearray((folder / "tokenizer.json").read_bytes())
                for _ in range(rng.randint(1, 5)):
                    content[rng.randrange(len(content))] = rng.randrange(256)
                (folder / "tokenizer.json").write_bytes(
                    bytes(content[: rng.choice([len(content), len(content), rng.randrange(len(content))])])
                )
            case 2:
                content = bytearray(safetensors)
                content[rng.randrange(600)] = rng.randrange(256)
                (folder / "model.safetensors").write_bytes(bytes(content[: rng.choice([len(content), rng.randrange(len(content))])]))
            case 3:
                (folder / "config.json").write_text(json.dumps(mutated_json(json.loads((folder / "config.json").read_text()), rng)))
        folders.append(folder)
    folders.append(llama_folder)
    rows = outcomes(folders)
    check(rows)
    assert rows[-1]["said"].startswith("read ")
    refused = {Path(row["path"]).name for row in rows if not row["said"].startswith("read ")}
    assert set(HOSTILE_TOKENIZERS) <= refused
    assert len(refused) < MANY - 50
    sample = [*folders[::SAMPLED], llama_folder]
    rows = outcomes(sample, "model")
    check(rows, wall=WALL_OF_MODELS)
    assert rows[-1]["said"].startswith("read ")


@pytest.mark.parametrize("added", [[], ["x"], ["b", "x", "y"], ["y", "c", "z"]])
@pytest.mark.parametrize("vocab", [{"a": 0, "b": 1, "c": 7}, {"a": 0, "b": 1, "c": 2}, {}])
def test_a_tokenizers_ids_are_those_that_its_own_library_gives_out(vocab, added, tmp_path):
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="a"))
    tokenizer.add_special_tokens([AddedToken(each) for each in added[:1]])
    tokenizer.add_tokens(added[1:])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    expected = {i: each for each, i in tokenizer.get_vocab(with_added_tokens=True).items()}
    found = read_tokenizer(tmp_path / "tokenizer.json", 100)
    assert {i: each for i, each in enumerate(found.tokens) if not each.startswith("<unused_row_")} == expected
    decoder = tokenizer.get_added_tokens_decoder()
    assert found.literal == {each.content for each in decoder.values()}
    controls = {i for i, each in decoder.items() if each.special}
    assert found.special.tolist() == [i in controls or i not in expected for i in range(len(found.tokens))]


def test_a_unigram_tokenizer_and_a_charsmap_are_read(tmp_path):
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁a", -1.0), ("b", -2.0)], 0, False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    spec = json.loads((tmp_path / "tokenizer.json").read_text())
    spec["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAAAAA"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    found = read_tokenizer(tmp_path / "tokenizer.json", 3)
    assert (found.tokens, found.style) == (["<unk>", "▁a", "b"], "sentencepiece")


def test_a_few_ids_without_a_row_are_left_out_and_many_are_refused(tmp_path, own_cache):
    few = model_folder(tmp_path / "few", table({"a": 0, "b": 7} | {f"t{i}": i for i in range(8, 12)}))
    assert len(load_vocabulary(str(few))) == 8
    with pytest.raises(ModelError, match=r"'b' the id 4,294,967,295 and the model has 8 rows"):
        load_vocabulary(str(model_folder(tmp_path / "far", table({"a": 0, "b": 2**32 - 1}))))


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama"},
        {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 10**9},
        {
            "model_type": "bart",
            "is_encoder_decoder": False,
            "architectures": ["BartForCausalLM"],
            "encoder_layers": 1,
            "decoder_layers": 10**7,
        },
    ],
)
def test_a_config_of_billions_of_weights_beside_a_few_is_refused_before_memory_is_taken(config, tmp_path, own_cache):
    folder = model_folder(tmp_path / "large", PLAIN, config=config)
    (row,) = outcomes([folder], "model")
    check([row], wall=WALL_OF_MODELS)
    assert "its config.json" in row["said"] and "its files hold" in row["said"]


@pytest.mark.parametrize("name", ["a-charsmap-that-panics", "padding-to-a-trillion"])
def test_a_tokenizer_is_looked_at_before_it_is_used(name, tmp_path, own_cache):
    folder = model_folder(tmp_path / name, HOSTILE_TOKENIZERS[name])
    with pytest.raises(ModelError, match="is not a tokenizer that can be read"):
        load_tokenizer(str(folder))


def test_a_panic_is_an_error_like_any_other():
    from soft_prompt_explorer.analysis.core.errors import panics_caught

    with pytest.raises(RuntimeError, match="Precompiled"), panics_caught():
        Tokenizer.from_str(json.dumps(charsmap("AAAA")))
    with pytest.raises(KeyboardInterrupt), panics_caught():
        raise KeyboardInterrupt
