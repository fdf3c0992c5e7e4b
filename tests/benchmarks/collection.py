"""Thousands of adapters: `python -m tests.benchmarks.collection [--peers PYTHON] [--adapters 10000] [--prompts 2000] [--into FOLDER]`.

Beside peers: each reads the same LoRA files in turn, file after file, in a process of its own that stays, on one thread. Ours does all that `spe batch` does of
a file, its sha256 and its Parquet among it; a peer what its own command does of one. PYTHON is that of an environment with gradience==0.11.0 and
adaptersentry==2.0.2; without it ours stands alone.

A collection: so many adapters, of which at most 200 are different and the rest near-copies; a twentieth are prompts of the embedded model, the others LoRAs. `spe batch`
reads them, is killed with signal 9 in the middle, and goes on. Then every engine reads a tenth as many, and the tables are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pyarrow.dataset
from safetensors.numpy import save_file

from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_WIDTH
from tests.benchmarks.measure import text_table
from tests.support.places import REPOSITORY

FILES, ROUNDS = 10, 2  # large LoRAs, and how often each is read
SIDES, RANK, LAYERS = {"q_proj": (4096, 4096), "v_proj": (1024, 4096)}, 16, 32
DIFFERENT = 200
OURS = "ours, spe batch"
READERS = {
    OURS: "from soft_prompt_explorer.analysis.report.batches import Found, read as whole\ndef read(path): assert whole(Found(path, (), 0, ''), None, False).tables",
    "gradience 0.11": "from gradience.vnext.audit import audit_lora_peft_dir\n"
    "def read(path): assert audit_lora_peft_dir(path, rank_policies=None).n_layers",
    "adaptersentry 2.0.2": "from pathlib import Path\nfrom adaptersentry.scanner import scan\n"
    "def read(path): assert scan(Path(path) / 'adapter_model.safetensors').status == 'ok'",
}
_LOOP = """
import os, sys, time
told = os.fdopen(os.dup(1), 'w')  # what a peer prints goes elsewhere
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
{reader}
for line in sys.stdin:
    began = time.process_time()
    read(line.strip())
    print(time.process_time() - began, file=told, flush=True)
"""


class Reader:
    """A process that reads the file it is told of, and answers with the processor seconds that it took."""

    def __init__(self, python: str, code: str) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        if python == sys.executable:
            environment |= {"PYTHONPATH": str(REPOSITORY)}
        else:
            environment.pop("PYTHONPATH", None)
        self._process = subprocess.Popen(
            [python, "-c", _LOOP.format(reader=code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=environment,
        )  # fmt: skip

    def seconds(self, path: Path) -> float:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(path, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def end(self) -> None:
        self._process.communicate()


def beside_peers(folder: Path, peers: str | None, dtype: type) -> str:
    """Adapters a second a core, file after file in turn."""
    files = [large_lora(folder / f"{np.dtype(dtype).name}-{i}", i, dtype) for i in range(FILES)]
    size = (files[0] / "adapter_model.safetensors").stat().st_size
    readers = {
        name: Reader(sys.executable if name == OURS else peers, code) for name, code in READERS.items() if name == OURS or peers is not None
    }
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    try:
        for reader in readers.values():
            reader.seconds(files[0])  # what is loaded or begun once
        for path in files * ROUNDS:
            for name, reader in readers.items():
                seconds[name].append(reader.seconds(path))
    finally:
        for reader in readers.values():
            reader.end()
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    rows = [
        [
            name,
            f"{1000 * median:.0f} ms",
            f"{1 / median:.1f}",
            f"{median / medians[OURS]:.2f} ×",
            f"{min(seconds[name]) / min(seconds[OURS]):.2f} ×",
        ]
        for name, median in medians.items()
    ]
    return text_table(
        f"{FILES} LoRAs of {LAYERS * len(SIDES)} modules, 4096 × {{4096, 1024}}, rank {RANK}, {np.dtype(dtype).name} ({size / 1e6:.1f} MB)",
        ["", "processor time, median", "adapters a second a core", "against ours", "of the quickest"],
        rows,
    )


def large_lora(folder: Path, seed: int, dtype: type) -> Path:
    """A LoRA of PEFT of random factors, of the size of a language model of eight billion parameters."""
    rng, tensors = np.random.default_rng(seed), {}
    for layer in range(LAYERS):
        for module, (outputs, inputs) in SIDES.items():
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{name}.lora_A.weight"] = (rng.standard_normal((RANK, inputs)) / 64).astype(dtype)
            tensors[f"{name}.lora_B.weight"] = (rng.standard_normal((outputs, RANK)) / 100).astype(dtype)
    write_lora(folder, tensors, RANK, list(SIDES), "somebody/eight-billion")
    return folder


def write_lora(folder: Path, tensors: dict[str, np.ndarray], rank: int, modules: list[str], base: str) -> None:
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank, "target_modules": modules}
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": base}))


def collection(folder: Path, count: int, *, prompts: float = 0.05) -> None:
    """So many adapters, `DIFFERENT` of them different; each of the others is one of those with a thousandth of noise added.

    Parameters
    ----------
    prompts : the share of them that are soft prompts, ten virtual tokens each; the others are LoRAs of rank 4 on eight modules.
    """
    for i in range(count):
        rng, own = np.random.default_rng([i % DIFFERENT, 0]), np.random.default_rng([i, 1])
        noise = 0.001 if i >= DIFFERENT else 0.0

        def drawn(*shape: int, rng=rng, own=own, noise=noise) -> np.ndarray:
            return (rng.standard_normal(shape) + noise * own.standard_normal(shape)).astype(np.float32)

        if i % DIFFERENT < prompts * DIFFERENT:
            path = folder / f"{i:05}.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({"prompt_embeddings": drawn(10, EMBEDDED_WIDTH) / np.float32(8)}, path)
        else:
            tensors = {}
            for layer in range(4):
                for module in ("q_proj", "v_proj"):
                    name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
                    tensors |= {f"{name}.lora_A.weight": drawn(4, 64), f"{name}.lora_B.weight": drawn(64, 4)}
            write_lora(folder / f"{i:05}", tensors, 4, ["q_proj", "v_proj"], "somebody/small")


def batch_command(folder: Path, out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "soft_prompt_explorer", "batch", str(folder), "--out", str(out), *options]


def lines_of(out: Path) -> list[list[str]]:
    log = out / "batch.log"
    return [line.split("\t") for line in log.read_text().splitlines()] if log.is_file() else []


def killed_and_resumed(folder: Path, out: Path, count: int) -> str:
    """One worker, killed with signal 9 when half is done, and begun again: how fast, how much memory, how often a file was read twice."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    memory: list[tuple[int, int]] = []  # files done, and bytes in use then
    seconds = 0.0
    for stop in (count // 2, None):
        process = psutil.Popen(batch_command(folder, out), env=environment, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            time.sleep(0.2)
            done = len(lines_of(out))
            try:
                memory.append((done, process.memory_info().rss))
                used = process.cpu_times()
            except psutil.Error:
                break
            if stop is not None and done >= stop:
                process.send_signal(signal.SIGKILL)
                break
        status = process.wait()
        assert status == (0 if stop is None else -signal.SIGKILL), status
        seconds += used.user + used.system
    read = [line[-1] for line in lines_of(out)]
    thousand = min(1000, count // 4)
    half = max(done for done, _ in memory if done <= count // 2 + thousand)
    first = max(used for done, used in memory if 0 < done <= thousand)
    before_stop = max(used for done, used in memory if half - thousand <= done <= half)
    last = max(used for done, used in memory if count - thousand <= done < count)
    return text_table(
        f"{count:,} adapters, {min(count, DIFFERENT)} of them different, one worker, killed in the middle and begun again",
        ["what", "measured"],
        [
            ["adapters a second a core, start and writing included", f"{count / seconds:.1f}"],
            ["memory at most: first thousand", f"{first / 1e6:.0f} MB"],
            ["memory at most: the thousand before it was killed", f"{before_stop / 1e6:.0f} MB"],
            ["memory at most: last thousand, in the second process", f"{last / 1e6:.0f} MB"],
            ["files done twice", str(len(read) - len(set(read)))],
            ["files never done", str(count - len(set(read)))],
        ],
    )


def tables_of(out: Path) -> dict[str, pd.DataFrame]:
    """All tables that a batch wrote, as any tool reads them."""
    found = {name: pd.read_parquet(out / f"{name}.parquet") for name in ("manifest", "refused")}
    for name in ("tokens", "modules", "health"):
        if (out / name).is_dir():
            found[name] = pyarrow.dataset.dataset(out / name, partitioning="hive").to_table().to_pandas()
    return found


def differing(one: Path, other: Path) -> list[str]:
    """The tables of two batches that are not equal to the last bit."""
    first, second = tables_of(one), tables_of(other)
    return [
        name for name in first.keys() | second.keys() if name not in first or name not in second or not first[name].equals(second[name])
    ]


def same_from_every_engine(folder: Path, into: Path, count: int) -> str:
    """The same adapters by every engine: how long, from how many processes, and whether the tables are the same."""
    rows = []
    os.environ["OMP_NUM_THREADS"] = "1"
    for engine, workers in (("loky", 1), ("loky", 2), ("dask", 2), ("dask", 1), ("ray", 2)):
        out = into / f"{engine}-{workers}"
        began = time.perf_counter()
        ended = subprocess.run(
            batch_command(folder, out, "--engine", engine, "--workers", str(workers)), stderr=subprocess.PIPE, text=True, check=False
        )
        if ended.returncode == 2:
            rows.append([f"{engine}, {workers}", "-", "-", ended.stderr.splitlines()[-1]])
            continue
        assert ended.returncode == 0, ended.stderr
        took, processes = time.perf_counter() - began, {line[1] for line in lines_of(out)}
        different = differing(into / "loky-1", out)
        rows.append([f"{engine}, {workers}", f"{took:.0f} s", str(len(processes)), ", ".join(different) or "none"])
    return text_table(
        f"the same {count:,} adapters by every engine",
        ["engine, workers", "took", "processes", "tables that differ from the first"],
        rows,
    )


def readings_in_minutes(folder: Path, out: Path, count: int) -> str:
    """So many prompts on two workers."""
    began = time.perf_counter()
    subprocess.run(
        batch_command(folder, out, "--workers", "2"), check=True, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    took, lines = time.perf_counter() - began, lines_of(out)
    each = statistics.median(float(line[2]) for line in lines)
    return text_table(
        f"the readings of {count:,} prompts of ten virtual tokens on two workers",
        ["what", "measured"],
        [["in all", f"{took:.0f} s"], ["of one, median", f"{1000 * each:.0f} ms"], ["tokens read", f"{len(tables_of(out)['tokens']):,}"]],
        f"Load average {os.getloadavg()[0]:.1f} at the end.",
    )


def tables(folder: Path, *, peers: str | None, adapters: int, prompts: int) -> Iterator[str]:
    for dtype in (np.float16, np.float32):
        yield beside_peers(folder / "large", peers, dtype)
    if adapters:
        collection(folder / "collection", adapters)
        yield killed_and_resumed(folder / "collection", folder / "resumed", adapters)
        collection(folder / "fewer", adapters // 10)
        yield same_from_every_engine(folder / "fewer", folder, adapters // 10)
    if prompts:
        collection(folder / "of-prompts", prompts, prompts=1.0)
        yield readings_in_minutes(folder / "of-prompts", folder / "readings", prompts)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", help="the python of an environment with gradience and adaptersentry")
    parser.add_argument("--adapters", type=int, default=10_000)
    parser.add_argument("--prompts", type=int, default=2_000)
    parser.add_argument("--into", type=Path, help="an empty folder, kept afterwards")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for table in tables(given.into or Path(folder), peers=given.peers, adapters=given.adapters, prompts=given.prompts):
            print(f"{table}\n", flush=True)


if __name__ == "__main__":
    main()
