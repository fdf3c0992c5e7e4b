"""Files that lie about their size, hide a program or fill memory, each with a word of the sentence that refuses it; and odd ones that do no harm."""

import codecs
import collections
import io
import json
import os
import pickle
import stat
import struct
import zipfile

import numpy as np
import torch
from safetensors.torch import save_file

GIGABYTE = 2**30


class Call:
    """Pickles as a call of an allowed function with arguments of one's choice."""

    def __init__(self, function, *arguments, state=None, items=()):
        self.call, self.state, self.items = (function, arguments), state, items

    def __reduce__(self):
        return (*self.call, self.state, None, iter(self.items))


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


def nested_tuples(depth) -> bytes:
    """Instructions that make a tuple of twice the tuple before, so often, and keep it as number `depth`: 2**depth for whoever walks it."""
    return b")q\0" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(depth))


def colliding_numbers(count) -> bytes:
    """Instructions that make a dictionary whose keys all have Python's one hash."""
    numbers = ((7 + (i + 10) * (2**61 - 1)).to_bytes(11, "little") for i in range(count))
    return b"}(" + b"".join(b"\x8a\x0b" + number + b"N" for number in numbers) + b"u"


def longer_and_longer(path):
    """A text turned into hexadecimal digits, and those again, thirty times over."""
    text = Call(codecs.encode, b"A", "hex")
    for _ in range(30):
        text = Call(codecs.encode, text, "hex")
    torch.save([torch.zeros(2, 4), text], path)


def copied(path):
    """Four stored numbers that become 4 GB where the tensor is converted."""
    convert = torch._utils._rebuild_device_tensor_from_cpu_tensor
    torch.save([torch.zeros(2, 4), Call(convert, torch.zeros(1).expand(5 * 10**8), torch.float64, "cpu", False)], path)


def filled_again_and_again(path):
    attributes = {f"{i}": i for i in range(20_000)}
    torch.save([torch.zeros(2, 4), *(Call(collections.OrderedDict, attributes) for _ in range(10_000))], path)


def shared_by_thousands(path):
    """Five thousand tensors over the same million numbers."""
    numbers = torch.zeros(10**6)
    torch.save({f"unet:{i}:{part}": numbers[i:-5000].reshape(5, -1) for i in range(0, 5000, 5) for part in ("up", "down")}, path)


def long_names(path):
    """One long name over many tensors: every one's place is told from the outermost container."""
    tensor = torch.zeros(2, 4)
    torch.save({"outer": {"k" * 100_000: [tensor[:]] * 20_000}}, path)


def never_written(path):
    """A storage that is announced and not written: its values would be whatever was in memory."""
    torch.save([torch.zeros(2, 4), torch.zeros(3)], path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    at = content.rindex(b"]q\x00(X")  # the storages' names, the last pickle
    stop = content.index(b"e.", at) + 2
    names = pickle.loads(content[at - 2 : stop])
    path.write_bytes(content[: at - 2] + pickle.dumps(names[:1], 2) + content[stop:])


def beyond_its_record(path):
    """Many storages that each claim the whole file, whose bytes are to be swapped once for each."""
    records = {f"archive/data/{i}": b"" for i in range(2_000)} | {"archive/data/2000": bytes(10**6), "archive/byteorder": b"big"}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", tensors_of([(f"{i}", 200_000) for i in range(2_000)]))
        archive.writestr("archive/version", "3\n")
        for name, content in records.items():
            archive.writestr(name, content)


def text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def tensors_of(storages) -> bytes:
    """A list of vectors, each over a storage of this name and this many float32."""
    made = b""
    for key, count in storages:
        storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + b"J" + struct.pack("<i", count) + b"tQ"
        sizes = b"K\0" + b"J" + struct.pack("<i", count) + b"\x85K\1\x85"
        made += b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + sizes + b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02](" + made + b"e."


def two_directories(path):
    """torch is shown another directory than zipfile, in which the description unpacks to 300 MB."""

    def written(file, content, how):
        with zipfile.ZipFile(file, "w", how) as archive:
            archive.writestr("archive/data.pkl", content)
            archive.writestr("archive/version", "3\n")
            archive.writestr("archive/data/0", bytes(16))
        return archive.start_dir

    file = io.BytesIO()
    at = written(file, tensors_of([("0", 4)]), zipfile.ZIP_STORED)
    shown = file.getvalue()[at:-22]
    file.seek(at)
    file.truncate()
    at = written(file, bytes(300 * 2**20), zipfile.ZIP_DEFLATED)
    content = file.getvalue()[:-22]

    def end(directory, start):
        return struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 3, 3, len(directory), start)

    hidden = end(content[at:], at)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(content), 1)
    last = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 3, 3, 2**32 - 1, 2**32 - 1, 0)
    path.write_bytes(content + hidden + shown + end(shown, len(content + hidden)) + locator + last)


def directory_of_one_entry(path, times, *, size=None):
    """A zip whose one packed entry stands in its directory so often, or with another size there than it unpacks to."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tensor.npy", npy_header((1_000, 1_000)) + bytes(30 * 2**20))
    content = path.read_bytes()
    entry = content[archive.start_dir : -22]
    if size is not None:
        entry = entry[:24] + struct.pack("<I", size) + entry[28:]
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, times, times, len(entry) * times, archive.start_dir, 0)
    path.write_bytes(content[: archive.start_dir] + entry * times + end)


def millions_of_entries(path):
    directory = struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    directory *= 2_000_000
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 65_535, 65_535, len(directory), 4, 0)
    path.write_bytes(b"PK\3\4" + directory + end)


def packed_twice(path):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tensor.npy", bytes(200 * 2**20))
    zip_with(path, "adapter_model.bin", inner.getvalue())


def packed_otherwise(path, how):
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr("tensor.npy", bytes(2**20))


def lzma_zip(path, *, dictionary=None, content=bytes(2**20), size=None, literals=None):
    """A zip packed by LZMA, with another size in its directory than it unpacks to, or with other properties."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("tensor.npy", content)
    packed = bytearray(path.read_bytes())
    start = 30 + len("tensor.npy") + 4  # past the local header, the version and the properties' length
    if literals is not None:
        packed[start] = literals
    if dictionary is not None:
        packed[start + 1 : start + 5] = struct.pack("<I", dictionary)
    if size is not None:
        directory = packed.rfind(b"PK\1\2")
        packed[directory + 24 : directory + 28] = struct.pack("<I", size)
    path.write_bytes(packed)


def torch_then(path, size):
    """A whole file of torch.save, and nothing after it up to this size."""
    torch.save(torch.zeros(2, 4), path)
    os.truncate(path, size)


def null_in_a_name(path):
    zip_with(path, "adapter_modelXbin")
    path.write_bytes(path.read_bytes().replace(b"modelXbin", b"model\0bin"))


def two_spellings(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", tensors_of([("0", 4)]))
        archive.writestr("archive/DATA.PKL", pickle.dumps(Call(bytearray, 10**12), 2))
        archive.writestr("archive/data/0", bytes(16))


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
    "100,001-tensors-in-a-pickle": (too_many_tensors, "steps"),
    "a-size-beyond-the-file": (lambda p: safetensors(p, {"a": tensor(0, 4 * 10**9, [10**6, 1000])}, bytes(64)), "not whole"),
    "offsets-that-overlap": (lambda p: safetensors(p, {"a": tensor(0, 8, [2]), "b": tensor(4, 12, [2])}, bytes(12)), "not whole"),
    "a-hole-between-tensors": (lambda p: safetensors(p, {"a": tensor(0, 8, [2]), "b": tensor(16, 24, [2])}, bytes(24)), "not whole"),
    "a-shape-that-overflows": (lambda p: safetensors(p, {"a": tensor(0, 8, [2**63, 2**63])}, bytes(8)), "not whole"),
    "10,000-levels-in-a-header": (lambda p: safetensors(p, b'{"a":' + DEEP.encode() + b"}"), "not whole"),
    "10,000-levels-of-json": (lambda p: p.write_text(DEEP), "JSON"),
    "a-zip-bomb": (bomb, "would unpack to"),
    "a-zip-of-many-names": (many_names, "directory"),
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
    "strides-that-claim-terabytes": (strided_terabytes, "more values than the file holds"),
    "packed-records": (
        lambda p: torch_zip(p, pickle.dumps([1], 2), {"0": bytes(300 * 2**20)}, zipfile.ZIP_DEFLATED),
        "packed or overlapping",
    ),
    "a-bytearray-of-a-terabyte": (lambda p: torch_zip(p, pickle.dumps(Call(bytearray, 10**12), 2)), "refuses"),
    "nested-references": (lambda p: torch_zip(p, pickle.dumps(laughs(), 2)), "nests|tensors"),
    "10,000-levels-of-pickle": (lambda p: torch_zip(p, b"\x80\x02" + b"]" * 10_000 + b"a" * 9_999 + b"."), "nests|refuses"),
    "a-bytearray-of-2-GB": (lambda p: torch.save([torch.zeros(2, 4), Call(bytearray, 2 * 10**9)], p), "refuses"),
    "a-storage-of-a-terabyte": (lambda p: torch.save([torch.zeros(2, 4), Call(torch.UntypedStorage, 10**12)], p), "refuses"),
    "a-text-that-doubles": (longer_and_longer, "refuses"),
    "numbers-copied-into-gigabytes": (copied, "refuses"),
    "dictionaries-filled-from-another": (filled_again_and_again, "refuses"),
    "a-key-of-nested-tuples": (lambda p: torch_zip(p, b"\x80\x02" + nested_tuples(60) + b"}h<Ns."), "a key"),
    "a-key-of-10,000-levels": (lambda p: torch_zip(p, b"\x80\x02})" + b"\x85" * 200_000 + b"Ns."), "a key"),
    "keys-of-one-hash": (lambda p: torch_zip(p, b"\x80\x02" + colliding_numbers(30_000) + b"."), "a key"),
    "a-call-of-nested-tuples": (lambda p: torch_zip(p, b"\x80\x02" + nested_tuples(60) + b")R."), "refuses"),
    "a-storage-named-by-nested-tuples": (
        lambda p: torch_zip(
            p, b"\x80\x02" + nested_tuples(60) + b"(" + text("storage") + b"ctorch\nFloatStorage\nh<" + text("cpu") + b"K\4tQ."
        ),
        "damaged",
    ),
    "a-million-empty-sets": (lambda p: torch_zip(p, b"\x80\x02(" + b"\x8f" * 10**6 + b"t."), "steps"),
    "a-million-empty-dictionaries": (lambda p: torch_zip(p, b"\x80\x02(" + b"}" * 10**6 + b"t."), "steps"),
    "names-of-100,000-letters": (long_names, "characters"),
    "tensors-that-share-their-numbers": (shared_by_thousands, "times what the file holds"),
    "a-storage-that-is-never-written": (never_written, "damaged"),
    "storages-beyond-their-records": (beyond_its_record, "more values than the file holds"),
    "two-directories": (two_directories, "end is damaged"),
    "two-spellings-of-a-name": (two_spellings, "overlapping"),
    "a-packed-description": (lambda p: torch_zip(p, bytes(300 * 2**20), compression=zipfile.ZIP_DEFLATED), "packed or overlapping"),
    "50-GB-of-torch": (lambda p: torch_then(p, 50 * GIGABYTE), "at most"),
    "12-GB-of-torch": (lambda p: torch_then(p, 12 * GIGABYTE), "end is missing"),
    "12-GB-of-safetensors": (
        lambda p: sparse(p, (56).to_bytes(8, "little") + json.dumps({"a": tensor(0, 8, [2])}).encode().ljust(56), 12 * GIGABYTE),
        "not whole",
    ),
    "a-gigabyte-of-the-old-format": (
        lambda p: (torch.save(torch.zeros(2, 4), p, _use_new_zipfile_serialization=False), os.truncate(p, GIGABYTE)),
        "old format",
    ),
    "a-zip-of-millions-of-entries": (millions_of_entries, "directory"),
    "a-zip-of-one-entry-many-times": (lambda p: directory_of_one_entry(p, 100), "would unpack to"),
    "a-zip-that-lies-about-a-size": (lambda p: directory_of_one_entry(p, 1, size=1000), "tensor.npy|cannot be unpacked"),
    "a-zip-bomb-in-a-zip": (packed_twice, "neither"),
    "a-zip-whose-dictionary-fills-memory": (lambda p: lzma_zip(p, dictionary=2**32 - 1), "a dictionary of 4,294,967,295 bytes"),
    "a-zip-that-unpacks-to-more-than-it-says": (lambda p: lzma_zip(p, content=bytes(400 * 2**20), size=1000), "cannot be unpacked"),
    "a-zip-of-lzma-with-damaged-properties": (lambda p: lzma_zip(p, literals=224), "cannot be unpacked"),
    "a-zip-packed-by-bzip2": (lambda p: packed_otherwise(p, zipfile.ZIP_BZIP2), "another way"),
    "a-zip-with-a-null-in-a-name": (null_in_a_name, "a name in it"),
    "no-tensor-in-a-pickle": (lambda p: torch_zip(p, pickle.dumps({"a": 1}, 2)), "no tensor|0 tensors"),
}


def own_names(path):
    """A dictionary and a parameter whose own attributes stand where Python looks for their methods."""
    attributes = dict.fromkeys(["numel", "detach", "element_size", "items", "keys"], 1)
    parameter = Call(torch._utils._rebuild_parameter_with_state, torch.zeros(2, 4), True, collections.OrderedDict(), attributes)
    torch.save(Call(collections.OrderedDict, state=attributes, items=[("soft_prompt", parameter)]), path)


def deep_metadata(path):
    factors = {"unet.a.lora_A.weight": torch.ones(2, 4), "unet.a.lora_B.weight": torch.ones(4, 2)}
    save_file(factors, path, metadata={"lora_adapter_metadata": DEEP})


HARMLESS = {
    "the-largest-prompt": lambda p: np.save(p.open("wb"), np.ones((10_000, 1_600))),
    "references-to-references": lambda p: torch.save([torch.zeros(2, 4), laughs(25)], p),
    "names-of-methods": own_names,
    "10,000-levels-in-metadata": deep_metadata,
    "6,000-tensors": lambda p: torch.save({f"unet:{i}:{part}": torch.ones(1, 1) for i in range(3_000) for part in ("up", "down")}, p),
}
