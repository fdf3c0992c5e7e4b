"""Ten thousand damaged files: each loads or is refused with one sentence, within two seconds, and nothing in it is executed."""

import ast
import codecs
import io
import json
import os
import pickle
import socket
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from soft_prompt_explorer.analysis.adapters import AdapterError, LoraAdapter, SoftPrompt, load_adapter
from soft_prompt_explorer.analysis.report.inspection import describe
from tests.support.adapter_files import npy, values
from tests.support.hostile_files import text

MUTATIONS = 1000  # of each file
SECONDS = 2.0  # for one load and all that is read of it
REFUSED, LOADED = 0.2, 0.01  # at least this share of each file's mutations, or the test would show nothing

# --- Ten valid files -------------------------------------------------------------------------------------------------


def torch_saved(content, **options) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def zipped(files: dict[str, bytes], how: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, how)
    return file.getvalue()


def config(peft_type: str, **more) -> bytes:
    return json.dumps({"peft_type": peft_type, "base_model_name_or_path": "nobody/nothing"} | more, indent=2).encode()


def peft_prompt() -> dict[str, bytes]:
    return {
        "adapter_config.json": config("PROMPT_TUNING", num_virtual_tokens=5, token_dim=16, num_transformer_submodules=1),
        "adapter_model.safetensors": save({"prompt_embeddings": values(5, 16)}),
    }


def peft_lora() -> dict[str, bytes]:
    weights = {}
    for layer in range(2):
        for module in ("q_proj", "v_proj"):
            path = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            weights |= {f"{path}.lora_A.weight": values(4, 16), f"{path}.lora_B.weight": values(16, 4)}
            weights[f"{path}.lora_magnitude_vector"] = values(16)
    more = {"rank_pattern": {}, "alpha_pattern": {"layers.1.self_attn.[qv]_proj": 16}, "use_dora": True, "use_rslora": True}
    return {
        "adapter_config.json": config("LORA", r=4, lora_alpha=8, **more),
        "adapter_model.safetensors": save(weights),
    }


def kohya_lora() -> bytes:
    weights = {}
    for module in ("lora_unet_down_blocks_0_attn1_to_q", "lora_te_text_model_encoder_layers_0_mlp_fc1"):
        weights |= {f"{module}.lora_down.weight": values(4, 24).bfloat16(), f"{module}.lora_up.weight": values(24, 4).bfloat16()}
        weights[f"{module}.alpha"] = torch.tensor(2.0, dtype=torch.bfloat16)
    return save(weights, {"ss_network_module": "networks.lora", "ss_base_model_version": "sd_v1"})


def checkpoint() -> bytes:
    step = {"step": torch.tensor(7.0), "exp_avg": values(5, 16)}
    return torch_saved(
        {
            "epoch": 3,
            "model_state_dict": {"prompt_encoder.default.embedding.weight": torch.nn.Parameter(values(5, 16))},
            "optimizer": {"state": {0: step}, "param_groups": [{"lr": 0.3, "betas": (0.9, 0.999), "params": [0]}]},
        }
    )


FILES: dict[str, dict[str, bytes]] = {  # a file alone has no name here
    "a .npy of float16 in Fortran's order": {"": npy(np.asfortranarray(values(5, 16).numpy().astype(np.float16)))},
    "a PEFT prompt's safetensors": {"": peft_prompt()["adapter_model.safetensors"]},
    "a bare tensor of torch.save": {"": torch_saved(values(5, 16))},
    "a dictionary of torch.save's old format": {
        "": torch_saved({"soft_prompt": values(5, 16), "step": 9}, _use_new_zipfile_serialization=False)
    },
    "a training checkpoint": {"": checkpoint()},
    "a PEFT LoRA's folder": peft_lora(),
    "a kohya LoRA of bfloat16": {"": kohya_lora()},
    "textual inversion of the web interface": {
        "": torch_saved({"string_to_token": {"*": 265}, "string_to_param": {"*": values(2, 24)}, "name": "word", "step": 500})
    },
    "KoboldAI's zip": {
        "": zipped(
            {"tensor.npy": npy(values(5, 16).numpy()), "meta.json": json.dumps({"name": "mine", "model": "gpt-neo"}).encode()},
            zipfile.ZIP_DEFLATED,
        )
    },
    "a zip of a PEFT folder": {"": zipped(peft_prompt(), zipfile.ZIP_STORED)},
}
CONTENTS = [content for files in FILES.values() for content in files.values()]

# --- What is done to them --------------------------------------------------------------------------------------------

# What parsers trip over: lengths beyond the file and beyond 32 and 64 bits, signatures, JSON, a literal, opcodes of a pickle.
ODD = [
    b"\0",
    b"\xff",
    b"\x80",
    *(n.to_bytes(size, "little") for size in (2, 4, 8) for n in (0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1)),
    *(n.to_bytes(8, "little") for n in (2**20, 2**31, 2**32, 2**40, 2**62)),
    *(b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x07\x08", b"\x93NUMPY", b"\x80\x02"),
    *(b"-1", b"1e999", b"NaN", b"null", b"true", b'"', b"{}", b'{"a":', b"9" * 400, b"[" * 990, b"(" * 300, b"\\ud800", b"(?:a|a)*"),
    *(b"|O", b"<V2", b"<c8", b"<i4", b"F8_E4M3", b"I64", b"BF16", b"BOOL"),
    *(b".", b"R", b"b", b"}", b"u", b"\x85", b"Q", b"cos\nsystem\nX\x02\0\0\0id\x85R", b"cbuiltins\neval\nX\x03\0\0\0id \x85R"),
]

PLACES = st.integers(0, 400) | st.integers(-400, -1) | st.integers(1, 999).map(lambda thousandth: thousandth / 1000)
LENGTHS = st.integers(1, 16) | st.integers(1, 600)
DONORS = st.integers(0, len(CONTENTS) - 1)


def position(place: float, size: int) -> int:
    """A place in a file of this size: counted from its start, from its end, or as a share of it."""
    at = int(place * size) if isinstance(place, float) else place if place >= 0 else size + place
    return min(max(at, 0), size)


def flip(content: bytes, flips) -> bytes:
    result = bytearray(content)
    for place, bit in flips if content else ():
        result[min(position(place, len(content)), len(content) - 1)] ^= 1 << bit
    return bytes(result)


def overwrite(content: bytes, place, odd: bytes) -> bytes:
    at = position(place, len(content))
    return content[:at] + odd + content[at + len(odd) :]


def insert(content: bytes, place, odd: bytes) -> bytes:
    at = position(place, len(content))
    return content[:at] + odd + content[at:]


def truncate(content: bytes, place) -> bytes:
    return content[: position(place, len(content))]


def extend(content: bytes, odd: bytes, times: int) -> bytes:
    return content + odd * times


def swap_header(content: bytes, donor: int, length: int) -> bytes:
    return CONTENTS[donor][:length] + content[length:]


def splice(content: bytes, place, donor: int, origin, length: int) -> bytes:
    at, start = position(place, len(content)), position(origin, len(CONTENTS[donor]))
    return content[:at] + CONTENTS[donor][start : start + length] + content[at + length :]


def delete(content: bytes, place, length: int) -> bytes:
    at = position(place, len(content))
    return content[:at] + content[at + length :]


def duplicate(content: bytes, place, length: int) -> bytes:
    at = position(place, len(content))
    return content[: at + length] + content[at:]


def swap_blocks(content: bytes, place, other, length: int) -> bytes:
    first, second = sorted((position(place, len(content)), position(other, len(content))))
    length = min(length, second - first)
    a, b = content[first : first + length], content[second : second + length]
    return content[:first] + b + content[first + length : second] + a + content[second + length :]


STEPS = st.one_of(
    st.tuples(st.just(flip), st.lists(st.tuples(PLACES, st.integers(0, 7)), min_size=1, max_size=8)),
    st.tuples(st.just(overwrite), PLACES, st.sampled_from(ODD)),
    st.tuples(st.just(insert), PLACES, st.sampled_from(ODD)),
    st.tuples(st.just(truncate), PLACES),
    st.tuples(st.just(extend), st.sampled_from(ODD), st.integers(1, 64)),
    st.tuples(st.just(swap_header), DONORS, st.sampled_from([2, 8, 9, 16, 64, 128, 256])),
    st.tuples(st.just(splice), PLACES, DONORS, PLACES, LENGTHS),
    st.tuples(st.just(delete), PLACES, LENGTHS),
    st.tuples(st.just(duplicate), PLACES, LENGTHS),
    st.tuples(st.just(swap_blocks), PLACES, PLACES, LENGTHS),
)
MUTATION = st.lists(st.tuples(st.integers(0, 1), STEPS), min_size=1, max_size=4)  # which file of a folder, and what is done to it


def mutated(files: dict[str, bytes], mutation) -> dict[str, bytes]:
    result, names = dict(files), list(files)
    for file, (step, *how) in mutation:
        name = names[file % len(names)]
        result[name] = step(result[name], *how)
    return result


def written(files: dict[str, bytes], path: Path) -> Path:
    """A file, or a folder with files of these names."""
    if "" in files:
        path.write_bytes(files[""])
        return path
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


# --- What is watched -------------------------------------------------------------------------------------------------


class Watch:
    """Python's audit events while armed: what ran, was imported or was opened, that reading numbers from this file has no need of.

    What C++ and Rust do (torch's and safetensors' own reading of the path that they are given) raises no such events.
    """

    NEVER = (
        *("os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile", "subprocess.Popen", "pty.spawn"),
        *("socket.", "urllib.", "ftplib.", "http.", "ctypes.", "pickle.find_class", "marshal.", "code.__new__", "exec", "import"),
        *("os.link", "os.symlink", "os.rename", "os.truncate", "os.chmod", "os.chown", "os.kill", "os.putenv", "shutil.unpack_archive"),
    )

    def __init__(self) -> None:
        self.home: str | None = None
        self.seen: list[str] = []
        self.installed = False

    @contextmanager
    def armed(self, home: Path):
        if not self.installed:
            sys.addaudithook(self.hook)  # for the life of the process, hence only one
            self.installed = True
        self.home = str(home)
        try:
            yield
        finally:
            self.home = None

    def hook(self, event: str, arguments: tuple) -> None:
        if self.home is None:
            return
        if event.startswith(self.NEVER):
            self.seen.append(f"{event} {arguments!r:.200}")
        elif event == "compile":
            # numpy parses the header of a .npy with ast.literal_eval, which makes a syntax tree and no code.
            caller = sys._getframe(1).f_code
            if (caller.co_filename, caller.co_name) != (ast.__file__, "parse"):
                self.seen.append(f"compile {arguments!r:.200}")
        elif event in ("open", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"):
            # Nothing outside the file's own folder, which also holds the temporary ones; within those, some go by a bare name.
            path = arguments[0]
            if isinstance(path, str | bytes) and Path(os.fsdecode(path)).is_absolute() and not os.fsdecode(path).startswith(self.home):
                self.seen.append(f"{event} {arguments!r:.200}")


WATCH = Watch()
for codec in ("unicode_escape", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):  # of our own sentences, and what json guesses
    codecs.lookup(codec)


def outcome(path: Path, home: Path) -> str:
    """Load a file and read all that is in it; `refused` where that ends in an AdapterError, else `loaded`.

    Raises
    ------
    Exception
        Anything else happened, or something was executed.
    """
    WATCH.seen.clear()
    try:
        with WATCH.armed(home):
            adapter = load_adapter(path)
            use(adapter)
    except AdapterError as error:
        assert str(error).isprintable() and str(error).endswith("."), "one sentence"
        result = "refused"
    else:
        result = "loaded"
        describe(adapter)
    assert not WATCH.seen
    return result


def use(adapter: SoftPrompt | LoraAdapter) -> None:
    """Read what the program reads."""
    if isinstance(adapter, SoftPrompt):
        for prompt in (adapter, *adapter.split()):
            assert prompt.embeddings.dtype == np.float32 and prompt.embeddings.shape == (len(prompt), prompt.width)
            assert np.isfinite(prompt.embeddings).all() and len(prompt) and prompt.width
        return
    for factors in adapter.modules.values():
        assert factors.A.shape == (factors.rank, factors.in_features)
        assert factors.B.shape == (factors.out_features, factors.rank)
        assert factors.magnitude is None or factors.magnitude.ndim == 1
        assert isinstance(factors.scaling, float)
    if adapter.textual_inversion is not None:
        use(adapter.textual_inversion)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A folder that also holds every temporary one."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def save_as(home) -> Callable[[dict[str, bytes]], Path]:
    """Write files under a path of their own, away with the last: it may still be mapped."""
    written_so_far = []

    def save_one(files: dict[str, bytes]) -> Path:
        for path in written_so_far:
            for file in list(path.iterdir()) if path.is_dir() else [path]:
                file.unlink()
            if path.is_dir():
                path.rmdir()
        written_so_far[:] = [written(files, home / f"adapter-{len(list(home.iterdir()))}")]
        return written_so_far[0]

    return save_one


@pytest.mark.slow
@pytest.mark.parametrize("valid", FILES)
def test_a_damaged_file_loads_or_is_refused(valid, home, save_as):
    for files in FILES.values():  # what is imported once, is imported here
        load_adapter(save_as(files))
    assert outcome(save_as(FILES[valid]), home) == "loaded"
    outcomes = Counter()

    @settings(
        max_examples=MUTATIONS,
        derandomize=True,
        database=None,
        deadline=SECONDS * 1000,
        suppress_health_check=list(HealthCheck),
    )
    @given(MUTATION)
    def every(mutation) -> None:
        outcomes[outcome(save_as(mutated(FILES[valid], mutation)), home)] += 1

    every()
    shares = {result: count / outcomes.total() for result, count in outcomes.items()}
    print(f"\n{valid}: {outcomes.total()} mutations, " + ", ".join(f"{share:.1%} {result}" for result, share in shares.items()))
    assert outcomes.total() >= MUTATIONS
    assert shares["refused"] > REFUSED
    assert shares["loaded"] > LOADED


@pytest.mark.parametrize(
    "act",
    [
        lambda home: os.system("true"),
        lambda home: pickle.loads(b"cos\ngetcwd\n."),
        lambda home: eval("1 + 1"),
        lambda home: __import__("this_is_no_module"),
        lambda home: socket.socket(),
        lambda home: (home.parent / "outside").write_bytes(b""),
        lambda home: Path(__file__).read_bytes(),
    ],
    ids=["command", "pickle", "eval", "import", "socket", "write", "read"],
)
def test_the_watch_sees_what_a_file_could_do(home, act):
    WATCH.seen.clear()
    with WATCH.armed(home), suppress(ImportError):
        act(home)
    assert WATCH.seen


# --- What mutations found --------------------------------------------------------------------------------------------


def refusal(files: dict[str, bytes], save_as) -> str:
    """The sentence that refuses these files when they are loaded or read, within two seconds."""
    start = time.perf_counter()
    with pytest.raises(AdapterError) as error:
        describe(load_adapter(save_as(files)))
    assert time.perf_counter() - start < SECONDS
    return str(error.value)


def old_torch(described: bytes) -> bytes:
    """A file of torch.save's old format with this description of the tensors, over a storage of 80 numbers called 0."""
    before = (0x1950A86A20F9469CFC6C, 1001, {})
    return b"".join(pickle.dumps(value, 2) for value in before) + described + pickle.dumps(["0"], 2) + bytes([80, *[0] * 7]) + bytes(320)


def described_tensor(storage: str, rows: int, stride: int, *, metadata: bytes = b"") -> bytes:
    """The call that rebuilds a tensor of (rows, 16) over that storage."""
    made = b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + f"ctorch\n{storage}\n".encode() + text("0") + text("cpu")
    sizes = b"KPNtQK\0K" + bytes([rows]) + b"K\x10\x86K" + bytes([stride]) + b"K\1\x86"
    return made + sizes + b"\x89ccollections\nOrderedDict\n)R" + metadata + b"tR"


def test_the_old_format_is_read_as_described_here(save_as):
    saved = old_torch(b"\x80\x02" + described_tensor("FloatStorage", 5, 16) + b".")
    assert load_adapter(save_as({"": saved})).embeddings.shape == (5, 16)


def test_a_tensor_that_ends_the_process_inside_torch_is_refused(save_as):
    # torch 2.13 reads memory that is not its own when it negates quantised numbers; that came from a flipped type of storage.
    indices = described_tensor("QUInt4x2Storage", 5, 0, metadata=b"}" + text("neg") + b"\x88s")
    layout = b"ctorch.serialization\n_get_layout\n(" + text("torch.sparse_coo") + b"tR("
    sparse = layout + indices + described_tensor("IntStorage", 5, 16) + b"K\5K\x10\x86\x88t\x86R."
    assert "save it dense" in refusal({"": old_torch(b"\x80\x02ctorch._utils\n_rebuild_sparse_tensor\n" + sparse)}, save_as)


def test_a_global_of_20_000_letters_is_refused_at_once(save_as):
    # torch looks for advice in its own message with regular expressions that take the square of the name's length.
    assert "GLOBAL" in refusal({"": old_torch(b"\x80\x02ccollecti" + b"(" * 20_000 + b"\nons\n.")}, save_as)


def test_a_size_beyond_its_storage_is_refused(save_as):
    # The old format's storages grow with it, and what is beyond the file's numbers was never written.
    grown = old_torch(b"\x80\x02" + described_tensor("FloatStorage", 6, 16) + b".")
    assert "more values" in refusal({"": grown}, save_as)


def test_an_entry_of_a_zip_without_a_name_is_refused(save_as):
    content = bytearray(zipped({"x": b"1"}, zipfile.ZIP_STORED))
    entry, end = content.find(b"PK\x01\x02"), content.find(b"PK\x05\x06")
    content[end + 12] -= 1  # the directory's length
    content[entry + 28] = 0  # the name's length
    del content[entry + 46]
    assert "zip" in refusal({"": bytes(content)}, save_as)


@pytest.mark.parametrize("shape", [(), (4,), (4, *[1] * 70)], ids=["none", "one", "71"])
def test_lora_factors_of_an_odd_number_of_axes_are_refused(save_as, shape):
    weights = {f"a.lora_{part}.weight": torch.ones(shape) for part in "AB"}
    assert "do not multiply" in refusal({"": save(weights)}, save_as)


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64, torch.float8_e4m3fn])
@pytest.mark.parametrize("saved", [save, torch_saved], ids=["safetensors", "torch"])
def test_lora_factors_of_other_numbers_are_refused(save_as, saved, dtype):
    weights = {f"a.lora_{part}.weight": torch.ones(4, 4).to(dtype) for part in "AB"}
    assert "floating-point numbers" in refusal({"": saved(weights)}, save_as)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e4m3fn])
@pytest.mark.parametrize("saved", [save, torch_saved], ids=["safetensors", "torch"])
def test_an_alpha_of_other_numbers_is_taken_as_absent(save_as, saved, dtype):
    weights = {"a.lora_down.weight": torch.ones(4, 4), "a.lora_up.weight": torch.ones(4, 4), "a.alpha": torch.tensor(2.0).to(dtype)}
    lora = load_adapter(save_as({"": saved(weights)}))
    assert lora.modules["a"].scaling == 1
    assert any("alpha" in note for note in lora.notes)


@pytest.mark.parametrize("key", ["r", "lora_alpha", "rank_pattern", "alpha_pattern"])
def test_a_number_beyond_every_float_in_a_config_is_refused(save_as, key):
    number = 10**400
    files = peft_lora()
    files["adapter_config.json"] = config("LORA", **{key: {"q_proj": number} if "pattern" in key else number})
    assert "no number" in refusal(files, save_as)


def test_a_factor_in_three_parts_that_would_fill_memory_is_refused(save_as):
    down, middle = torch.ones(1, 20_000, 1, 1), torch.ones(1, 1, 20_000, 1)  # their product has 400 million values
    weights = {"a.lora_down.weight": down, "a.lora_mid.weight": middle, "a.lora_up.weight": torch.ones(4, 1, 1, 1)}
    assert "do not multiply" in refusal({"": save(weights)}, save_as)
