"""A file that lies about its size, hides a program or fills memory is refused in one sentence, soon and for little."""

import io
import json
import os
import pickle
import stat
import struct
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from analysis.adapters import AdapterError, load_adapter
from tests.conftest import REPOSITORY

GIGABYTE = 2**30


class Planted:
    """Runs a command when somebody unpickles it."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


class Call:
    """Pickles as a call of an allowed function with arguments of one's choice."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def safetensors(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def tensor(start, stop, shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def sparse(path, start: bytes, size: int):
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)


def npy_header(shape, dtype="<f4") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def torch_zip(path, pickled: bytes, records=None, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
        for name, content in (records or {}).items():
            archive.writestr(f"archive/data/{name}", content)


def zip_with(path, name: str, content=b"x", *, mode=None, flags=0):
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("placeholder" if flags else name)
        info.external_attr = (mode or 0o644) << 16
        archive.writestr(info, content)
    if flags:  # zipfile writes no encrypted entries: the flag is set in both of the entry's headers
        raw = bytearray(path.read_bytes())
        for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            at = raw.find(magic) + offset
            raw[at : at + 2] = struct.pack("<H", flags)
        path.write_bytes(raw)


def strided_terabytes(path):
    """Two stored numbers that claim to be a matrix of a million by a million."""
    torch.save(torch.zeros(2).as_strided((10**6, 10**6), (0, 0)), path)


def laughs(depth=64):
    value = []
    for _ in range(depth):
        value = [value, value]
    return value


def many_names(path):
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(120_000):
            archive.writestr(f"{i}", b"")


def bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("tensor.npy", "w", force_zip64=True) as file:
        for _ in range(512):
            file.write(bytes(2**20))
        archive_meta = b"{}"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("meta.json", archive_meta)


def too_many_tensors(path):
    torch.save([torch.zeros(1) for _ in range(100_001)], path, _use_new_zipfile_serialization=False)


DEEP = "[" * 10_000 + "]" * 10_000

HOSTILE = {
    "header-over-1-MB": (lambda p: safetensors(p, {"__metadata__": {"x": "y" * 2**20}, "a": tensor(0, 8, [2, 1])}, bytes(8)), "header"),
    "header-beyond-the-file": (lambda p: p.write_bytes((2**20).to_bytes(8, "little") + b"{"), "neither"),
    "100,001-tensors-in-safetensors": (lambda p: safetensors(p, {f"{i}": tensor(0, 0, [0]) for i in range(100_001)}), "header"),
    "100,001-tensors-in-a-pickle": (too_many_tensors, "100,000"),
    "a-size-beyond-the-file": (lambda p: safetensors(p, {"a": tensor(0, 4 * 10**9, [10**6, 1000])}, bytes(64)), "not whole"),
    "offsets-that-overlap": (lambda p: safetensors(p, {"a": tensor(0, 8, [2]), "b": tensor(4, 12, [2])}, bytes(12)), "not whole"),
    "a-hole-between-tensors": (lambda p: safetensors(p, {"a": tensor(0, 8, [2]), "b": tensor(16, 24, [2])}, bytes(24)), "not whole"),
    "a-shape-that-overflows": (lambda p: safetensors(p, {"a": tensor(0, 8, [2**63, 2**63])}, bytes(8)), "not whole"),
    "10,000-levels-in-a-header": (lambda p: safetensors(p, b'{"a":' + DEEP.encode() + b"}"), "not whole"),
    "10,000-levels-of-json": (lambda p: p.write_text(DEEP), "JSON"),
    "a-zip-bomb": (bomb, "would unpack to"),
    "a-zip-of-many-names": (many_names, "would unpack to"),
    "a-zip-that-climbs": (lambda p: zip_with(p, "../../outside.npy"), "leads out"),
    "a-zip-with-an-absolute-name": (lambda p: zip_with(p, "/outside.npy"), "leads out"),
    "a-zip-with-a-drive": (lambda p: zip_with(p, "C:\\outside.npy"), "leads out"),
    "a-zip-that-climbs-backwards": (lambda p: zip_with(p, "a\\..\\..\\outside.npy"), "leads out"),
    "a-zip-with-a-link": (lambda p: zip_with(p, "adapter_model.bin", b"/etc/passwd", mode=stat.S_IFLNK | 0o777), "a link"),
    "an-encrypted-zip": (lambda p: zip_with(p, "adapter_model.bin", flags=1), "encrypted"),
    "50-GB-of-npy": (lambda p: sparse(p, npy_header((10_000, 1_250_000)), 50 * GIGABYTE), "at most"),
    "12-GB-of-npy": (lambda p: sparse(p, npy_header((3_000, 1_000_000)), 12 * GIGABYTE), "at most"),
    "50-GB-of-safetensors": (
        lambda p: sparse(p, (56).to_bytes(8, "little") + json.dumps({"a": tensor(0, 8, [2])}).encode().ljust(56), 50 * GIGABYTE),
        "at most",
    ),
    "50-GB-of-pickle": (lambda p: sparse(p, b"\x80\x02", 50 * GIGABYTE), "at most"),
    "50-GB-of-zip": (lambda p: sparse(p, b"PK\x03\x04", 50 * GIGABYTE), "at most|zip"),
    "a-npy-beyond-the-file": (lambda p: p.write_bytes(npy_header((10**9, 10**9)) + bytes(64)), "cannot be read"),
    "strides-that-claim-terabytes": (strided_terabytes, "claims the shape"),
    "packed-records": (
        lambda p: torch_zip(p, pickle.dumps([1], 2), {"0": bytes(300 * 2**20)}, zipfile.ZIP_DEFLATED),
        "packed or overlapping",
    ),
    "a-bytearray-of-a-terabyte": (lambda p: torch_zip(p, pickle.dumps(Call(bytearray, 10**12), 2)), "refuses"),
    "nested-references": (lambda p: torch_zip(p, pickle.dumps(laughs(), 2)), "nests|tensors"),
    "10,000-levels-of-pickle": (lambda p: torch_zip(p, b"\x80\x02" + b"]" * 10_000 + b"a" * 9_999 + b"."), "nests|refuses"),
    "no-tensor-in-a-pickle": (lambda p: torch_zip(p, pickle.dumps({"a": 1}, 2)), "no tensor|0 tensors"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_sentence_and_soon(tmp_path, name):
    make, word = HOSTILE[name]
    path = tmp_path / "hostile"
    make(path)
    start = time.monotonic()
    with pytest.raises(AdapterError, match=word) as error:
        load_adapter(path)
    assert time.monotonic() - start < 2
    sentence = str(error.value)
    assert sentence.isprintable()
    assert sentence.endswith(".")
    assert [entry.name for entry in tmp_path.iterdir()] == ["hostile"]


MEASURE = """
import sys
import torch, safetensors, numpy  # what any reading imports
from analysis.adapters import AdapterError, load_adapter
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) // 1024
for path in sys.argv[1:]:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = peak()
    try:
        load_adapter(path)
    except AdapterError:
        pass
    print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of memory is read from /proc")
def test_no_hostile_file_takes_more_memory_than_its_own_size_and_a_little(tmp_path):
    paths = [tmp_path / name for name in HOSTILE]
    for path in paths:
        HOSTILE[path.name][0](path)
    np.save(tmp_path / "whole.npy", np.ones((10_000, 1_600), dtype=np.float64))  # the largest prompt that is read
    paths.append(tmp_path / "whole.npy")
    ended = subprocess.run([sys.executable, "-c", MEASURE, *paths], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for path, grown in zip(paths, ended.stdout.split(), strict=True):
        own = path.stat().st_blocks * 512 / 2**20  # what a sparse file really holds
        assert int(grown) <= own + 200, f"{path.name} took {grown} MB"


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of memory is read from /proc")
def test_a_large_lora_stays_in_its_file_until_it_is_asked_for(tmp_path):
    save_file({f"unet:{i}:{part}": torch.ones(2_000, 5_000) for i in range(4) for part in ("up", "down")}, tmp_path / "lora")
    code = MEASURE.replace("    before = peak()", "    from analysis.adapters import lora; before = peak()")
    grown = int(
        subprocess.run([sys.executable, "-c", code, tmp_path / "lora"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    )
    assert (tmp_path / "lora").stat().st_size > 300 * 2**20
    assert grown < 100


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_in_a_prompt_are_refused_in_every_container(tmp_path, value):
    rows = torch.zeros(3, 4)
    rows[1, 2] = value
    np.save(tmp_path / "a.npy", rows.numpy())
    torch.save(rows, tmp_path / "a.pt")
    save_file({"prompt_embeddings": rows}, tmp_path / "a.safetensors")
    for path in tmp_path.iterdir():
        with pytest.raises(AdapterError, match="row 1, column 2"):
            load_adapter(path)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("container", ["torch-zip", "torch-old", "bare-pickle", "mkultra", "zip-of-a-folder"])
def test_a_pickle_that_would_run_something_runs_nothing(tmp_path, container, protocol):
    import base64

    mark, path = tmp_path / "executed", tmp_path / "planted"
    content = pickle.dumps(Planted(mark), protocol)
    if container == "torch-zip":
        torch_zip(path, content)
    elif container == "torch-old":
        torch.save(Planted(mark), path, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
    elif container == "bare-pickle":
        path.write_bytes(content)
    elif container == "mkultra":
        path.write_text(json.dumps({"metadata": {"name": "x"}, "tensor": base64.b64encode(content).decode()}))
    else:
        torch_zip(tmp_path / "inner", content)
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(tmp_path / "inner", "adapter_model.bin")
        (tmp_path / "inner").unlink()
    with pytest.raises(AdapterError, match="pickle"):
        load_adapter(path)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["adapter_config.json", "meta.json"])
def test_a_config_of_10_000_levels_is_refused(tmp_path, name):
    save_file(
        {"prompt_embeddings": torch.ones(2, 4)}, tmp_path / ("adapter_model.safetensors" if "config" in name else "tensor.safetensors")
    )
    np.save(tmp_path / "tensor.npy", np.ones((2, 4))) if "meta" in name else None
    (tmp_path / name).write_text('{"a":' + DEEP + "}")
    with pytest.raises(AdapterError, match="JSON"):
        load_adapter(tmp_path)


def test_what_is_no_file_at_all_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", "a\0b", "x" * 5000):
        with pytest.raises(AdapterError):
            load_adapter(path)
