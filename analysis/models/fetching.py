"""A file of the hub, read by byte ranges over a connection that may break."""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from soft_prompt_explorer.analysis.core.errors import ModelError
from soft_prompt_explorer.analysis.core.kept import checksum

FIRST_ANSWER = 5  # seconds: whoever is without a network should know soon
_PATIENCE = 20  # seconds without a byte, once the hub has answered
_RETRIES = 3  # in a row that bring less than a megabyte each, after half a second, one and two
INCOMING = ".incoming"
REACHED = struct.Struct("<QI")  # how many bytes arrived, and their CRC-32


def bytes_arrived(partial: Path, reached: Path) -> tuple[int, int]:
    """How many bytes of a file an earlier attempt wrote, and their CRC-32; 0 of what is not as it was written."""
    try:
        size, crc = REACHED.unpack(reached.read_bytes())
        with partial.open("rb") as file:
            return (size, crc) if checksum(file, size) == crc else (0, 0)
    except (OSError, struct.error):
        return 0, 0


def megabytes(size: int) -> str:
    return f"{-(-size // 10**6):,}"


class RemoteFile:
    """A file of a repository at a commit. What it answers first, its size and its etag, every later answer has to repeat."""

    def __init__(self, name: str, commit: str, filename: str) -> None:
        self.name, self.commit, self.filename = name, commit, filename
        self.size: int | None = None
        self.etag: str | None = None

    def __str__(self) -> str:
        return f"{self.filename} of the hub's {self.name}"

    def content(self, limit: int) -> bytes | None:
        """The whole file, or None where there is none. A dropped connection is tried again from the start.

        Raises
        ------
        ModelError
            The file is larger than `limit`, or the hub refuses it.
        """
        from httpx2 import TransportError

        for failures in range(_RETRIES + 1):
            try:
                with self._answer({}) as response:
                    if response is None:
                        return None
                    too_large = ModelError(f"The file {self} is larger than {limit // 2**20} MB, which no such file is; it was not read.")
                    if int(response.headers.get("Content-Length", 0)) > limit:
                        raise too_large
                    content = bytearray()
                    for piece in response.iter_bytes():
                        content += piece
                        if len(content) > limit:
                            raise too_large
                    return bytes(content)
            except TransportError:
                if failures == _RETRIES:
                    raise
                time.sleep(2.0 ** (failures - 1))
        raise AssertionError("the last attempt returns or raises")

    def read(self, begin: int, end: int) -> bytes | None:
        """A few bytes of the file, or None where there is no such file."""
        try:
            return b"".join(self.pieces(begin, end))
        except FileNotFoundError:
            return None

    def pieces(self, begin: int, end: int) -> Iterator[bytes]:
        """The bytes from `begin` to before `end` as they come; after a dropped connection from the byte that was reached.

        Raises
        ------
        FileNotFoundError
            The repository has no such file.
        ModelError
            The answer is not the part that was asked for, or not of the file that answered before.
        """
        from httpx2 import RemoteProtocolError, TransportError

        failures = 0
        while begin < end:
            start = begin
            try:
                with self._answer({"Range": f"bytes={begin}-{end - 1}"}) as response:
                    self._check_part(response, begin, end)
                    for piece in response.iter_raw():
                        if len(piece) > end - begin:
                            raise ModelError(f"The hub sent more of {self} than was asked for; nothing beyond was read.")
                        begin += len(piece)
                        yield piece
                    if begin < end:
                        raise RemoteProtocolError("the answer ended early")
            except TransportError:
                failures = 0 if begin - start >= 10**6 else failures + 1
                if failures > _RETRIES:
                    raise
                time.sleep(2.0 ** (failures - 2))

    @contextmanager
    def _answer(self, headers: dict[str, str]):
        """The hub's answer, its content not read yet; None where the repository has no such file."""
        from httpx2 import RemoteProtocolError
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session

        url = hf_hub_url(self.name, self.filename, revision=self.commit)
        headers = build_hf_headers() | {"Accept-Encoding": "identity"} | headers
        with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=_PATIENCE) as response:
            status = response.status_code
            if status == 404 and response.headers.get("X-Error-Code") == "EntryNotFound":
                yield None
                return
            if status in (408, 429) or status >= 500:  # passing troubles: treated like a dropped connection
                raise RemoteProtocolError(f"HTTP {status}")
            if status not in (200, 206):
                raise ModelError(f"The hub refuses {self} (HTTP {status}), so it cannot be read.")
            # The repository is asked by its commit. The header is on the hub's own answer, not on that of the host it redirects to.
            if any(part.headers.get("X-Repo-Commit", self.commit) != self.commit for part in (*response.history, response)):
                raise ModelError(f"The hub's {self.name} changed while it was fetched; ask again.")
            yield response

    def _check_part(self, response, begin: int, end: int) -> None:
        if response is None and self.size is None:
            raise FileNotFoundError(self.filename)
        changed = ModelError(f"The file {self} changed while it was fetched; ask again.")
        if response is None:
            raise changed
        if response.status_code != 206:
            raise ModelError(
                f"The hub answers the request for a part of {self} with the whole file, which was not read; download it, and give its path instead."
            )
        part = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", response.headers.get("Content-Range", ""))
        if (
            part is None
            or (int(part[1]), int(part[2])) != (begin, end - 1)
            or response.headers.get("Content-Encoding", "identity") != "identity"
        ):
            raise ModelError(f"The hub answers with another part of {self} than was asked for; it was not read.")
        linked = [answer.headers["X-Linked-ETag"] for answer in response.history if "X-Linked-ETag" in answer.headers]
        etag = linked[0] if linked else response.headers.get("ETag")
        if self.size is None:
            self.size, self.etag = int(part[3]), etag
        elif (self.size, self.etag) != (int(part[3]), etag):
            raise changed


def why_it_broke(error: Exception) -> str:
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    if isinstance(error, OfflineModeIsEnabled):
        return "not asked: HF_HUB_OFFLINE is set"
    if isinstance(error, RepositoryNotFoundError):
        return "it knows no such model"
    if isinstance(error, HfHubHTTPError):
        return f"HTTP {error.response.status_code}"
    return f"no answer: {str(error)[:100] or type(error).__name__}"
