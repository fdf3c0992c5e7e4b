"""What a file holds apart from when and how it was made: what a page's file and the command line's have in common."""

import io
import json

import pandas as pd
from pyarrow import parquet


def content_of(form: str, content: bytes) -> tuple[object, dict | None]:
    """The rows of a table's file, and its provenance without the date and the command; None where the file cannot hold one."""
    if form == "json":
        read = json.loads(content)
        return read["rows"], lasting(read["provenance"])
    if form == "parquet":
        said = parquet.read_schema(io.BytesIO(content)).metadata[b"provenance"]
        return pd.read_parquet(io.BytesIO(content)).to_csv(), lasting(json.loads(said))
    return content, None


def lasting(told: dict) -> dict:
    """A provenance without the date and the command, both of which it must have."""
    return {key: value for key, value in told.items() if (told["date"], told["command"]) and key not in ("date", "command")}
