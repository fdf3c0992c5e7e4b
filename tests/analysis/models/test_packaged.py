"""The models from packages: joined from their parts once and whole, refused with what to run, and Gemma read in the space of its first layer."""

import hashlib
import importlib.metadata
import itertools
from dataclasses import replace

import numpy as np
import pytest

from soft_prompt_explorer.analysis.core.errors import ModelError
from soft_prompt_explorer.analysis.models.names import is_at_hand, packaged_here, resolve_model
from soft_prompt_explorer.analysis.models.packaged import GEMMA_MODEL, PACKAGED, QWEN_MODEL, packaged_gguf
from soft_prompt_explorer.analysis.models.size import total_parameters
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.models.weights import load_model, model_sha256, prepared_folder
from tests.support.damage import MUTATIONS, damage_again_and_again, files_in
from tests.support.full_disk import files_limited_to
from tests.support.places import names_in
from tests.support.tiny_models import embedding_rows

PARTS = [b"GGUF", b"one" * 700_000, b"two", b"three"]


def installed(site, contents: dict[tuple[str, str], bytes]) -> None:
    """Packages with a part each, as pip leaves them."""
    for (package, part), content in contents.items():
        module = package.replace("-", "_")
        name = f"{module}/data/{part}"
        (site / name).parent.mkdir(parents=True)
        (site / name).write_bytes(content)
        (site / f"{module}/__init__.py").write_text("raise RuntimeError('a package is never imported')")
        info = site / f"{module}-1.0.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0.0\n")
        (info / "RECORD").write_text(f"{module}/__init__.py,,\n{name},,\n")


@pytest.fixture(params=[GEMMA_MODEL, QWEN_MODEL])
def name(request) -> str:
    return request.param


def make_up(name: str, contents: list[bytes], site, monkeypatch) -> None:
    """In place of a model's packages as many made-up ones as there are contents, whose joined file is the one that is expected."""
    for other in set(PACKAGED) - {name}:  # may be installed on this machine
        monkeypatch.delitem(PACKAGED, other)
    own = PACKAGED[name]
    parts = tuple((f"made-up-{package}", part) for package, part in own.parts[: len(contents)])
    monkeypatch.setitem(PACKAGED, name, replace(own, parts=parts, sha256=hashlib.sha256(b"".join(contents)).hexdigest()))
    monkeypatch.syspath_prepend(str(site))
    installed(site, dict(zip(parts, contents, strict=True)))


@pytest.fixture
def made_up_parts(name, tmp_path, monkeypatch, own_cache):
    make_up(name, PARTS, tmp_path / "site", monkeypatch)
    return tmp_path / "site"


@pytest.fixture(scope="module")
def gemma_model():
    """Gemma and its tokenizer as transformers load them, where they are installed."""
    try:
        importlib.metadata.distribution(PACKAGED[GEMMA_MODEL].parts[0][0])
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("Gemma is installed by `make gemma` alone")
    return load_model(GEMMA_MODEL, device="cpu")


# --- Joining ---------------------------------------------------------------------------------------------------------


def test_the_parts_are_joined_in_order_into_the_cache(name, made_up_parts, own_cache):
    path = packaged_gguf(name)
    assert path.read_bytes() == b"".join(PARTS)
    assert path.is_relative_to(own_cache)
    assert [name for name in names_in(own_cache / "models") if not name.endswith(".lock")] == [path.parent.name]


def test_they_are_joined_once(name, made_up_parts):
    before = packaged_gguf(name).stat()
    assert packaged_gguf(name).stat().st_mtime_ns == before.st_mtime_ns
    for part in made_up_parts.glob("*/data/*"):
        part.unlink()
    assert packaged_gguf(name).stat().st_ino == before.st_ino


def test_no_damage_to_the_joined_file_ever_changes_it(tmp_path, monkeypatch, own_cache):
    make_up(GEMMA_MODEL, [b"GGUF", b"one" * 500, b"two"], tmp_path / "site", monkeypatch)
    others = tmp_path / "others"
    others.mkdir()
    (others / "model.gguf").write_bytes(b"GGUF" + b"one" * 400)
    (others / "checksums.json").write_text("[]")
    damage_again_and_again(lambda: packaged_gguf(GEMMA_MODEL).read_bytes(), own_cache / "models", files_in(others), MUTATIONS)


def test_a_part_that_is_not_the_models_leaves_no_file(name, made_up_parts, own_cache):
    next(made_up_parts.glob("*3/data/*")).write_bytes(b"other")
    with pytest.raises(ModelError, match=rf"where .* was expected; run `make {PACKAGED[name].target}` again"):
        packaged_gguf(name)
    assert [name for name in names_in(own_cache / "models") if not name.endswith(".lock")] == []


@pytest.mark.parametrize("lost", ["*2/data/*", "*4-1.0.0.dist-info/*"])
def test_without_a_part_the_sentence_says_what_to_run(lost, name, made_up_parts, own_cache):
    for path in made_up_parts.glob(lost):
        path.unlink()
    with pytest.raises(ModelError, match=rf"{name} is not installed .*run `make {PACKAGED[name].target}`"):
        resolve_model(name)
    assert not is_at_hand(name) and name not in packaged_here()
    assert not own_cache.exists()


def test_where_the_cache_cannot_be_written_they_are_joined_among_the_temporary_files(name, made_up_parts, own_cache):
    own_cache.write_text("a file where the folder should be")
    path = packaged_gguf(name)
    assert path.read_bytes() == b"".join(PARTS) and not path.is_relative_to(own_cache)
    assert packaged_gguf(name) == path


def test_no_room_anywhere_is_said(name, made_up_parts, own_cache):
    with files_limited_to(100_000), pytest.raises(ModelError, match=r"there is no room in .* nor among the temporary files; make room"):
        packaged_gguf(name)
    assert packaged_gguf(name).is_relative_to(own_cache)  # once there is room again


def test_the_name_resolves_to_the_joined_file_and_its_known_digest(name, made_up_parts):
    model = resolve_model(name)
    assert (model.kind, model.is_gguf, model.path) == ("packaged", True, packaged_gguf(name))
    assert prepared_folder(model).name == f"{model.path.stem}-{PACKAGED[name].sha256[:12]}-v1"


def test_each_package_is_another_ones_part():
    for packaged in PACKAGED.values():
        assert len({*packaged.parts}) == len({package for package, _ in packaged.parts}) == len(packaged.parts)
    assert {name: len(packaged.parts) for name, packaged in PACKAGED.items()} == {GEMMA_MODEL: 4, QWEN_MODEL: 22}


def test_a_small_model_from_packages_is_unpacked_once_to_its_own_numbers(llama_gguf, tmp_path, monkeypatch, own_cache):
    """The tiny Llama in three parts, in the place of Qwen's: the weights are rounded to bfloat16, and nothing else."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    whole = llama_gguf.read_bytes()
    ends = [0, 1000, len(whole) // 2, len(whole)]
    make_up(QWEN_MODEL, [whole[begin:end] for begin, end in itertools.pairwise(ends)], tmp_path / "site", monkeypatch)
    model = load_model(QWEN_MODEL, device="cpu", dtype="float32").model
    kept = load_file(prepared_folder(resolve_model(QWEN_MODEL)) / "model.safetensors")
    assert {weight.dtype for weight in kept.values()} == {torch.bfloat16}
    expected = AutoModelForCausalLM.from_pretrained(llama_gguf.parent, gguf_file=llama_gguf.name, dtype=torch.float32).state_dict()
    found = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key].bfloat16().float()) for key in expected)
    assert total_parameters(QWEN_MODEL) == PACKAGED[QWEN_MODEL].parameters


# --- The model itself, where it is installed -------------------------------------------------------------------------


@pytest.mark.slow
def test_the_installed_file_is_the_one_that_is_recorded(gemma_model):
    with resolve_model(GEMMA_MODEL).path.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == model_sha256(GEMMA_MODEL) == PACKAGED[GEMMA_MODEL].sha256


@pytest.mark.slow
def test_its_vocabulary_is_what_the_first_layer_receives(gemma_model):
    vocabulary = load_vocabulary(GEMMA_MODEL)
    assert vocabulary.embeddings.shape == (262_144, 640)
    rows = embedding_rows(gemma_model[0])
    assert all(np.array_equal(block, rows[start : start + len(block)]) for start, block in vocabulary.blocks())
    stored = gemma_model[0].get_input_embeddings().weight[1000].detach().numpy()
    assert np.allclose(vocabulary.embeddings[1000], stored * 640**0.5)


@pytest.mark.slow
def test_its_vocabulary_and_its_tokenizer_name_the_same_words(gemma_model):
    vocabulary, tokenizer = load_vocabulary(GEMMA_MODEL), gemma_model[1]
    ids = tokenizer("A wonderful, naïve film about cafés 中文.", add_special_tokens=False).input_ids
    assert "".join(vocabulary.tokens[i] for i in ids) == "A wonderful, naïve film about cafés 中文."
    assert tokenizer("a").input_ids[0] == tokenizer.bos_token_id


@pytest.mark.slow
def test_rows_given_as_vectors_do_the_same_as_their_ids(gemma_model):
    import torch

    model, tokenizer = gemma_model
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    rows = torch.from_numpy(np.array(load_vocabulary(GEMMA_MODEL).embeddings[ids[0]]))[None]
    with torch.inference_mode():
        assert torch.equal(model(input_ids=ids).logits, model(inputs_embeds=rows).logits)
