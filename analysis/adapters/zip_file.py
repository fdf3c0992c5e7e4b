"""What is inside a zip, from its directory alone, and unpacking the adapter that one holds.

A zip's own names are never used as paths: only the last part of a known name is, and nothing is written outside the folder given.
"""

from __future__ import annotations

import copy
import lzma
import re
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from soft_prompt_explorer.analysis.adapters.tensors import check_file, starts_with
from soft_prompt_explorer.analysis.core.errors import AdapterError

MAX_UNPACKED = 128 * 2**20  # all the files of a zip together
MAX_FILES = 1_000
MAX_DICTIONARY = 64 * 2**20  # bytes of what LZMA looks back on; the strongest of its own settings takes as many
MAX_DIRECTORY = 2**20  # bytes; about 46 and a name for each file, so some 15,000 files
_END, _END_64, _LOCATOR_64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"


def reads(path: Path) -> bool:
    return starts_with(path, b"PK\x03\x04") or starts_with(path, _END)


def archive_names(path: Path) -> list[str]:
    """The names in a zip, none where it cannot be read as one."""
    try:
        with open_archive(path) as archive:
            return archive.namelist()
    except AdapterError:
        return []


def open_archive(path: Path) -> zipfile.ZipFile:
    """A zip, opened; its directory was checked before it was read.

    Raises
    ------
    AdapterError
        The directory at the file's end is damaged, or so long that reading it would fill memory.
    """
    check_file(path)
    _check_directory(path)
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, UnicodeError, EOFError) as error:
        raise AdapterError(f"The file {path} starts like a zip but cannot be read as one ({error}); download it again.") from error
    if any("\0" in record.orig_filename for record in archive.infolist()):  # zipfile cuts a name there, and torch does not
        archive.close()
        raise AdapterError(f"The file {path} starts like a zip but a name in it is damaged; download it again.")
    return archive


def unpack(path: Path, folder: Path) -> None:
    """Write the files of a zip into `folder`, each under the last part of its name, or under a number where that is no plain name.

    Raises
    ------
    AdapterError
        A name is absolute or leaves the folder, an entry is a link, encrypted or packed in an unusual way, two have the same name, or
        there is more than an adapter needs.
    """
    with open_archive(path) as archive:
        records = [record for record in archive.infolist() if not record.filename.endswith("/")]  # is_dir asks for a last letter
        for record in records:
            _check_name(record, path)
        records = [record for record in records if not _is_litter(record.filename)]
        unpacked = sum(record.file_size for record in records)
        if len(records) > MAX_FILES or unpacked > MAX_UNPACKED:
            raise AdapterError(
                f"The zip {path} would unpack to {len(records):,} files of {unpacked:,} bytes together, at most {MAX_FILES:,} and {MAX_UNPACKED:,} are; "
                "unpack it yourself if you trust it, and give the folder."
            )
        try:
            for i, record in enumerate(records):
                name = PurePosixPath(record.filename).name
                target = folder / (name if re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", name) else f"file-{i}")
                if target.exists():
                    raise AdapterError(f"The zip {path} holds several files called {target.name}; give one adapter at a time.")
                if record.compress_type == zipfile.ZIP_LZMA:
                    _unpack_lzma(archive, record, target)
                    continue
                with archive.open(record) as packed, target.open("wb") as file:
                    shutil.copyfileobj(_Bounded(packed, record.file_size), file, 2**20)
        except AdapterError:
            raise
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
            raise AdapterError(f"The zip {path} cannot be unpacked ({error}); download it again.") from error


def _unpack_lzma(archive: zipfile.ZipFile, record: zipfile.ZipInfo, target: Path) -> None:
    """Write one file that LZMA packed: zipfile itself would give the dictionary, and what comes of a chunk, all the memory that they ask for.

    The data start with a version, the length of the properties, and those: how literals are coded, and the size of the dictionary (APPNOTE.TXT, section 5.8).

    Raises
    ------
    AdapterError
        The dictionary is larger than `MAX_DICTIONARY`.
    zipfile.BadZipFile
        The data are not those that the directory tells of.
    """
    raw = copy.copy(record)
    raw.compress_type, raw.file_size, raw.CRC = zipfile.ZIP_STORED, record.compress_size, None  # type: ignore[assignment]
    with archive.open(raw) as packed, target.open("wb") as file:
        head = packed.read(9)
        if len(head) < 9 or int.from_bytes(head[2:4], "little") != 5:
            raise zipfile.BadZipFile("the properties of LZMA are damaged")
        literals, dictionary = head[4], int.from_bytes(head[5:9], "little")
        if dictionary > MAX_DICTIONARY:
            raise AdapterError(
                f"The zip {archive.filename} is packed with a dictionary of {dictionary:,} bytes, at most {MAX_DICTIONARY:,} are; pack it again in the usual way."
            )
        way = {"id": lzma.FILTER_LZMA1, "dict_size": max(dictionary, 4096)} | {
            "lc": literals % 9, "lp": literals // 9 % 5, "pb": literals // 45
        }  # fmt: skip
        decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[way])
        left, check = record.file_size, 0
        while left and not decoder.eof:
            chunk = packed.read(2**16) if decoder.needs_input else b""
            if decoder.needs_input and not chunk:
                break
            content = decoder.decompress(chunk, min(left, 2**20))
            file.write(content)
            left, check = left - len(content), zlib.crc32(content, check)
        if left or check != record.CRC:
            raise zipfile.BadZipFile(f"{record.filename[:100]!r} is damaged")


class _Bounded:
    """A file that ends where its zip's directory said, whatever its content unpacks to."""

    def __init__(self, file, size: int) -> None:
        self.file, self.left = file, size

    def read(self, size: int = 2**20, /) -> bytes:
        chunk = self.file.read(min(size, self.left))
        self.left -= len(chunk)
        return chunk


def _check_name(record: zipfile.ZipInfo, path: Path) -> None:
    name = record.filename.replace("\\", "/")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
        raise AdapterError(f"The zip {path} holds the name {record.filename!r}, which leads out of its folder; it is not opened.")
    if stat.S_ISLNK(record.external_attr >> 16):
        raise AdapterError(f"The zip {path} holds a link, {record.filename!r}; it is not opened.")
    if record.flag_bits & 1:
        raise AdapterError(f"The zip {path} is encrypted; unpack it, and give the folder.")
    if record.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA):
        raise AdapterError(f"The zip {path} is packed in another way than most zips; unpack it, and give the folder.")


def _is_litter(name: str) -> bool:
    """What file managers leave in a zip."""
    return name.startswith("__MACOSX/") or PurePosixPath(name).name.startswith(".")


def _check_directory(path: Path) -> None:
    """Before zipfile reads the directory whole: each of its entries, 46 bytes at least, becomes an object of some hundred.

    zipfile finds the directory by counting back from the end of the file, torch by the place that is written there. A file may not show them two.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 65_557))  # the end record and the longest comment
        tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or at + 22 > len(tail):
        raise AdapterError(f"The file {path} starts like a zip but its end is missing; download it again.")
    length, start = (int.from_bytes(tail[at + i : at + i + 4], "little") for i in (12, 16))
    ends = size - len(tail) + at
    if at >= 20 and tail[at - 20 : at - 16] == _LOCATOR_64:
        ends -= 76  # the large record stands right before its locator, where zipfile looks for it
        if at < 76 or tail[at - 76 : at - 72] != _END_64 or int.from_bytes(tail[at - 12 : at - 4], "little") != ends:
            raise AdapterError(f"The file {path} starts like a zip but its end is damaged; download it again.")
        length, start = (int.from_bytes(tail[at + i : at + i + 8], "little") for i in (-36, -28))
    if length > MAX_DIRECTORY:
        raise AdapterError(
            f"The directory of the zip {path} has {length:,} bytes, at most {MAX_DIRECTORY:,} are read; unpack it, and give the folder."
        )
    if start + length != ends:
        raise AdapterError(f"The directory of the zip {path} is not where its end says; download it again.")
