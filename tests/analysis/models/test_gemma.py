"""The optional model: joined from its parts once and whole, refused with what to run, and read in the space of its first layer."""

import hashlib
import importlib.metadata

import numpy as np
import pytest

from soft_prompt_explorer.analysis.core.errors import ModelError
from soft_prompt_explorer.analysis.models import gemma
from soft_prompt_explorer.analysis.models.gemma import GEMMA_MODEL, GEMMA_PACKAGE, gemma_gguf
from soft_prompt_explorer.analysis.models.names import is_at_hand, resolve_model
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.models.weights import load_model, model_sha256, prepared_folder
from tests.support.full_disk import files_limited_to
from tests.support.places import names_in
from tests.support.tiny_models import embedding_rows

PARTS = [b"GGUF", b"one" * 700_000, b"two", b"three"]


@pytest.fixture
def made_up_parts(tmp_path, monkeypatch, own_cache):
    """Four installed packages with a part each, whose joined file is the one that is expected."""
    monkeypatch.setattr(gemma, "GEMMA_PACKAGE", "made-up-gguf")
    monkeypatch.setattr(gemma, "GEMMA_SHA256", hashlib.sha256(b"".join(PARTS)).hexdigest())
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(str(site))
    for number, content in enumerate(PARTS):
        module = f"made_up_gguf_part{number + 1}"
        name = f"{module}/data/gemma-3-270m-q4_k_m.gguf.part{number:02}"
        (site / name).parent.mkdir(parents=True)
        (site / name).write_bytes(content)
        (site / f"{module}/__init__.py").write_text("raise RuntimeError('a package is never imported')")
        info = site / f"{module}-1.0.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1.0.0\n")
        (info / "RECORD").write_text(f"{module}/__init__.py,,\n{name},,\n")
    return site


@pytest.fixture(scope="module")
def gemma_model():
    """Gemma and its tokenizer as transformers load them, where they are installed."""
    try:
        importlib.metadata.distribution(GEMMA_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("Gemma is installed by `make gemma` alone")
    return load_model(GEMMA_MODEL, device="cpu")


# --- Joining ---------------------------------------------------------------------------------------------------------


def test_the_parts_are_joined_in_order_into_the_cache(made_up_parts, own_cache):
    path = gemma_gguf()
    assert path.read_bytes() == b"".join(PARTS)
    assert path.is_relative_to(own_cache)
    assert [name for name in names_in(own_cache / "models") if not name.endswith(".lock")] == [path.parent.name]


def test_they_are_joined_once(made_up_parts):
    before = gemma_gguf().stat()
    assert gemma_gguf().stat().st_mtime_ns == before.st_mtime_ns
    for part in made_up_parts.glob("*/data/*"):
        part.unlink()
    assert gemma_gguf().stat().st_ino == before.st_ino


def test_a_part_that_is_not_the_models_leaves_no_file(made_up_parts, own_cache):
    next(made_up_parts.glob("*part3/data/*")).write_bytes(b"other")
    with pytest.raises(ModelError, match=r"where .* was expected; run `make gemma` again"):
        gemma_gguf()
    assert [name for name in names_in(own_cache / "models") if not name.endswith(".lock")] == []


@pytest.mark.parametrize("lost", ["*part2/data/*", "*part4-1.0.0.dist-info/*"])
def test_without_a_part_the_sentence_says_what_to_run(lost, made_up_parts, own_cache):
    for path in made_up_parts.glob(lost):
        path.unlink()
    with pytest.raises(ModelError, match=rf"{GEMMA_MODEL} is not installed .*run `make gemma`"):
        resolve_model(GEMMA_MODEL)
    assert not is_at_hand(GEMMA_MODEL)
    assert not own_cache.exists()


def test_where_the_cache_cannot_be_written_they_are_joined_among_the_temporary_files(made_up_parts, own_cache):
    own_cache.write_text("a file where the folder should be")
    path = gemma_gguf()
    assert path.read_bytes() == b"".join(PARTS) and not path.is_relative_to(own_cache)
    assert gemma_gguf() == path


def test_no_room_anywhere_is_said(made_up_parts, own_cache):
    with files_limited_to(100_000), pytest.raises(ModelError, match=r"there is no room in .* nor among the temporary files; make room"):
        gemma_gguf()
    assert gemma_gguf().is_relative_to(own_cache)  # once there is room again


def test_the_name_resolves_to_the_joined_file_and_its_known_digest(made_up_parts):
    model = resolve_model(GEMMA_MODEL)
    assert (model.kind, model.is_gguf, model.path) == ("optional", True, gemma_gguf())
    assert prepared_folder(model).name.startswith("gemma-3-270m-q4_k_m-")


# --- The model itself, where it is installed -------------------------------------------------------------------------


@pytest.mark.slow
def test_the_installed_file_is_the_one_that_is_recorded(gemma_model):
    with resolve_model(GEMMA_MODEL).path.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == model_sha256(GEMMA_MODEL) == gemma.GEMMA_SHA256


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
