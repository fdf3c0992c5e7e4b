"""A prompt in two files, a folder or a zip is the prompt that it holds, and what holds several is refused."""

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from soft_prompt_explorer.analysis.adapters import load_adapter
from tests.support.adapter_files import WIDTH, npy, refusal, same, torch_saved, values


def test_an_encoders_and_a_decoders_file_are_one_prompt(tmp_path):
    encoder, decoder = values(4, WIDTH), values(3, WIDTH)
    torch_saved(encoder, tmp_path / "encoder.pt")
    torch_saved(decoder, tmp_path / "decoder.pt")
    prompt = load_adapter(tmp_path)
    assert same(prompt, torch.cat([encoder, decoder]))
    assert prompt.parts == (("encoder", 4), ("decoder", 3))
    first, second = prompt.split()
    assert same(first, encoder) and same(second, decoder)
    digests = [hashlib.sha256((tmp_path / name).read_bytes()).digest() for name in ("encoder.pt", "decoder.pt")]
    assert prompt.source.sha256 == hashlib.sha256(b"".join(digests)).hexdigest()
    assert prompt.source.format == "encoder and decoder, PyTorch in a folder"
    assert same(load_adapter(tmp_path / "decoder.pt"), decoder)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_one_of_the_two_files_alone_is_a_whole_prompt(tmp_path, half):
    rows = values(4, WIDTH)
    torch_saved(rows, tmp_path / f"{half}.pt")
    prompt = load_adapter(tmp_path)
    assert same(prompt, rows)
    assert prompt.parts == ()
    assert prompt.source.sha256 == hashlib.sha256((tmp_path / f"{half}.pt").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "decoder", [values(3, 8), {"a": values(3, WIDTH), "b": values(3, WIDTH)}, torch.arange(3)], ids=["width", "two", "integers"]
)
def test_halves_that_do_not_go_together_are_refused(tmp_path, decoder):
    torch_saved(values(4, WIDTH), tmp_path / "encoder.pt")
    torch_saved(decoder, tmp_path / "decoder.pt")
    refusal(tmp_path)


@pytest.mark.parametrize("name", ["prompt.npy", "prompt.pt", "weights"])
def test_a_folder_with_one_file_of_tensors_is_that_file(tmp_path, vectors, name):
    np.save(tmp_path / "saved.npy", vectors)
    (tmp_path / "saved.npy").rename(tmp_path / name)
    (tmp_path / "README.md").write_text("A prompt.")
    assert same(load_adapter(tmp_path), vectors)


def test_a_folder_with_several_files_of_tensors_is_refused_by_their_names(tmp_path, vectors):
    for name in ("first.npy", "second.npy"):
        np.save(tmp_path / name, vectors)
    assert "first.npy, second.npy" in refusal(tmp_path)


def zipped(folder: Path, path: Path, *, inside: str = "", more: dict[str, bytes] | None = None, how: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip of a folder's files, within a folder of its own where `inside` names one."""
    with zipfile.ZipFile(path, "w", how) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"{inside}{file.name}")
        for name, content in (more or {}).items():
            archive.writestr(name, content)
    return path


LITTER = {
    "__MACOSX/adapter/._adapter_model.safetensors": b"\0\5\26\7",
    "__MACOSX/._adapter": b"\0\5\26\7",
    "adapter/.DS_Store": b"Bud1",
    "adapter/": b"",
}


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "packed"])
@pytest.mark.parametrize("inside", ["", "adapter/", "my adapters/adapter/"])
@pytest.mark.parametrize("litter", [{}, LITTER], ids=["alone", "with litter"])
def test_a_zip_of_a_peft_folder_is_the_folder(peft_folder, tmp_path, inside, litter, how):
    save_file({"initial": values(5, WIDTH)}, peft_folder / "initial.safetensors")
    path = zipped(peft_folder, tmp_path / "download", inside=inside, more=litter, how=how)
    prompt, folder = load_adapter(path), load_adapter(peft_folder)
    assert same(prompt, folder.embeddings)
    assert np.array_equal(prompt.initial, folder.initial)
    assert (prompt.name, prompt.method, prompt.base_model) == ("download", "PROMPT_TUNING", folder.base_model)
    assert prompt.source.format == "PEFT zip, safetensors"
    assert prompt.source.path == path
    assert prompt.source.sha256 == folder.source.sha256, "of the file with the tensors"


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA], ids=["stored", "packed", "lzma"])
def test_a_zip_of_koboldai_is_read(tmp_path, how):
    rows = values(5, WIDTH)
    meta = {"name": "Mine", "author": "me", "supported": "gpt-neo-2.7B", "description": "A style."}
    path = tmp_path / "mine.zip"
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr("tensor.npy", npy(rows.numpy()))
        archive.writestr("meta.json", json.dumps(meta))
    prompt = load_adapter(path)
    assert same(prompt, rows)
    assert meta.items() <= prompt.metadata.items()
    assert prompt.source.format == "NumPy array in a zip"


def test_a_zip_packed_by_lzma_as_koboldai_writes_it_is_read(tmp_path):
    rows = values(7, WIDTH)
    with zipfile.ZipFile(tmp_path / "mine.zip", "w", zipfile.ZIP_LZMA) as archive, archive.open("tensor.npy", "w") as file:
        np.save(file, rows.numpy(), allow_pickle=False)
    with zipfile.ZipFile(tmp_path / "mine.zip", "a", zipfile.ZIP_STORED) as archive:
        archive.writestr("meta.json", json.dumps({"name": "Mine", "supported": ["Generic 6B"]}))
    assert same(load_adapter(tmp_path / "mine.zip"), rows)


def test_a_damaged_zip_of_lzma_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "mine.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("tensor.npy", npy(values(7, WIDTH).numpy()))
    content = bytearray((tmp_path / "mine.zip").read_bytes())
    content[200] ^= 255
    (tmp_path / "mine.zip").write_bytes(content)
    assert "cannot be unpacked" in refusal(tmp_path / "mine.zip")


def test_a_zip_of_two_adapters_is_refused(peft_folder, tmp_path):
    more = {"second/adapter_config.json": b"{}", "second/adapter_model.safetensors": b""}
    assert "several files called adapter_config.json" in refusal(zipped(peft_folder, tmp_path / "two.zip", inside="first/", more=more))


@pytest.mark.parametrize("files", [{}, {"README.md": b"A prompt."}])
def test_a_zip_without_an_adapter_is_refused_by_what_it_holds(tmp_path, files):
    (tmp_path / "folder").mkdir()
    sentence = refusal(zipped(tmp_path / "folder", tmp_path / "nothing.zip", more=files))
    assert f"The zip {tmp_path / 'nothing.zip'} holds {next(iter(files), 'nothing')}" in sentence
