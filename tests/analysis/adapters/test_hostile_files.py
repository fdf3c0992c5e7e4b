"""A file that lies about its size, hides a program or fills memory is refused in one sentence, soon and for little."""

import gc
import json
import os
import pickle
import socket
import subprocess
import sys
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from soft_prompt_explorer.analysis.adapters import AdapterError, load_adapter
from tests.support.hostile_files import DEEP, GIGABYTE, HARMLESS, HOSTILE, torch_zip
from tests.support.places import REPOSITORY
from tests.support.waiting import PATIENCE


class Planted:
    """Runs a command when somebody unpickles it."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@contextmanager
def soon():
    """At most two seconds of this thread's processor time, whatever else the machine does and however much the tests before have left in memory."""
    gc.collect()
    gc.freeze()
    start = time.thread_time()
    try:
        yield
    finally:
        seconds = time.thread_time() - start
        gc.unfreeze()
    assert seconds < 2


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_sentence_and_soon(tmp_path, name):
    make, word = HOSTILE[name]
    path = tmp_path / "hostile"
    make(path)
    with soon(), pytest.raises(AdapterError, match=word) as error:
        load_adapter(path)
    sentence = str(error.value)
    assert sentence.isprintable()
    assert sentence.endswith(".")
    assert [entry.name for entry in tmp_path.iterdir()] == ["hostile"]


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_odd_and_does_no_harm_is_read(tmp_path, name):
    HARMLESS[name](tmp_path / "odd")
    with soon():
        assert len(load_adapter(tmp_path / "odd"))


WATCH = """
import gc, json, os, sys, tempfile, time
import torch, safetensors, numpy  # what any reading imports
from soft_prompt_explorer.analysis.adapters import AdapterError, load_adapter
from tests.support.memory import peak_memory
home, *paths = sys.argv[1:]
tempfile.tempdir = home
events = []
NEVER = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "subprocess.", "socket.", "pickle.find_class", "ctypes.dlopen")
def hook(event, arguments):
    if event.startswith(NEVER):
        events.append(event)
    elif event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and not os.fsdecode(arguments[0]).startswith(home):
        events.append(f"open {arguments[0]}")
def load(path):
    try:
        return load_adapter(path)
    except AdapterError:
        return None
sys.addaudithook(hook)
for path in paths:
    gc.collect()
    with open("/proc/self/clear_refs", "wb", buffering=0) as file:
        file.write(b"5")
    events.clear()
    before, start = peak_memory(), time.process_time()
    adapter = load(path)
    seconds = time.process_time() - start
    print(json.dumps({"path": path, "bytes": peak_memory() - before, "seconds": seconds, "events": list(events)}), flush=True)
"""


def watched(paths, home) -> dict[str, dict]:
    """What loading each of these files took, and what it did, in a process of its own."""
    ended = subprocess.run([sys.executable, "-c", WATCH, home, *paths], cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 0, f"it ended after {ended.stdout.splitlines()[-1:]}: {ended.stderr[-2000:]}"
    return {Path(row["path"]).name: row for row in map(json.loads, ended.stdout.splitlines())}


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of memory is read from /proc")
def test_no_file_takes_more_memory_than_its_own_size_and_a_little_or_runs_anything(tmp_path):
    paths = [tmp_path / name for name in (*HOSTILE, *HARMLESS)]
    for path in paths:
        HOSTILE[path.name][0](path) if path.name in HOSTILE else HARMLESS[path.name](path)
    rows = watched(paths, tmp_path)
    assert len(rows) == len(paths)
    for path in paths:
        row = rows[path.name]
        own = path.stat().st_blocks * 512  # what a sparse file really holds
        assert row["bytes"] <= own + 200 * 2**20, f"{path.name} took {row['bytes'] / 2**20:.0f} MB"
        assert row["seconds"] < 2, path.name
        assert row["events"] == [], path.name


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of memory is read from /proc")
def test_a_large_lora_stays_in_its_file_until_it_is_asked_for(tmp_path):
    save_file({f"unet:{i}:{part}": torch.ones(2_000, 5_000) for i in range(4) for part in ("up", "down")}, tmp_path / "lora")
    assert (tmp_path / "lora").stat().st_size > 300 * 2**20
    assert watched([tmp_path / "lora"], tmp_path)["lora"]["bytes"] < 20 * 2**20


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
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "folder" / "adapter_model.bin")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    for path in (*tmp_path.iterdir(), "/dev/zero", "a\0b", "x" * 5000, tmp_path / "file\n\x1b[31m"):
        with pytest.raises(AdapterError) as error:
            load_adapter(path)
        assert str(error.value).isprintable()
        assert str(error.value).endswith(".")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    np.save(tmp_path / "prompt.npy", np.ones((2, 4)))
    (tmp_path / "prompt.npy").chmod(0)
    with pytest.raises(AdapterError, match="cannot be read: Permission denied"):
        load_adapter(tmp_path / "prompt.npy")


@pytest.mark.parametrize("weights", ["adapter_model.safetensors", "adapter_model.bin"])
def test_a_config_larger_than_any_is_refused_unread(tmp_path, weights):
    (save_file if "safetensors" in weights else torch.save)({"prompt_embeddings": torch.ones(2, 4)}, tmp_path / weights)
    (tmp_path / "adapter_config.json").write_text("{}")
    os.truncate(tmp_path / "adapter_config.json", 50 * GIGABYTE)
    for path in (tmp_path, tmp_path / weights):
        with pytest.raises(AdapterError, match="config has a few hundred"):
            load_adapter(path)
