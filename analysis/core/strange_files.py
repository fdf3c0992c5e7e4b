"""Small files in folders that anybody may have written to, such as those beside an adapter: never waited for, and never more than memory has room for."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

MOST_BYTES, MOST_ROWS = 2_000_000, 20_000  # of a table that a run keeps beside its adapter; the longest has 36 kB
MAX_HEADER = 1_000  # letters: millions of columns would fill the memory
# What damage makes of reading, parsing and casting.
DAMAGED = (OSError, ValueError, TypeError, OverflowError, AttributeError, KeyError, RecursionError)


def read_file(path: Path, most: int) -> bytes:
    """What is in a file, which may be reached by a link.

    Raises
    ------
    OSError
        It cannot be opened or read.
    ValueError
        It is no file (a pipe or a device would be read for ever), or larger than `most` bytes: the message says which.
    """
    with open(path, "rb", opener=_at_once) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is no file")
        content = file.read(min(found.st_size, most) + 1)
    if len(content) > most:
        raise ValueError(f"it is larger than {most:,} bytes")
    return content


def read_table(path: Path, *, most: int = MOST_BYTES, rows: int = MOST_ROWS, **reading) -> pd.DataFrame:
    """The table in a CSV file of at most so many bytes and rows.

    Parameters
    ----------
    reading : of `pandas.read_csv`.

    Raises
    ------
    OSError, ValueError
        As `read_file`; or it is no such table.
    """
    content = read_file(path, most)
    # pandas skips an empty line before the header, reads on where a name is quoted, and makes an index of what is beyond it.
    header = content.partition(b"\n")[0]
    if len(header) > MAX_HEADER or not header.strip() or b'"' in header:
        raise ValueError("it has no header of plain names, or too many columns")
    import pandas as pd

    table = pd.read_csv(io.BytesIO(content), nrows=rows + 1, index_col=False, **reading)
    if len(table) > rows:
        raise ValueError(f"it has more than {rows:,} rows")
    return table


def _at_once(path: str, flags: int) -> int:
    """Open without waiting for whoever would write into a pipe; Windows has none among its files."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
