"""A `tokenizer.json` read as data: which token has which id. Nothing of it is run.

The library that writes these files panics on some, and gives memory for what others only announce. For a vocabulary no more is needed than the
model's table and the added tokens, so they are taken from the JSON itself, after its parts were counted, and ids are compared with the rows of the model.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from soft_prompt_explorer.analysis.core.errors import ModelError
from soft_prompt_explorer.analysis.core.words import printable

MAX_BYTES = 256 * 2**20  # as much as is fetched from the hub
MAX_PARTS = 4_000_000  # commas and brackets: 262,144 tokens and their merges have 1.8 million, and each part costs some hundred bytes
MAX_BEYOND = 1_024  # ids without a row: some tokenizers add a few tokens that their model has no row for
MAX_PADDING = 2**20


class RawTokens(NamedTuple):
    """Tokens by id as the tokenizer spells them, which of them are control tokens or no token, how they are spelt, and which stand for themselves."""

    tokens: list[str]
    special: np.ndarray
    style: str
    literal: set[str]


def read_tokenizer(path: Path, rows: int) -> RawTokens:
    """The tokens of a `tokenizer.json` for a model of so many rows; ids a little beyond the rows are left out.

    Raises
    ------
    ModelError
        It is no tokenizer, damaged, or its ids are of another model.
    """
    spec = checked_spec(path)
    by_id, special, literal = _by_id(spec, path)
    style = style_of(spec, by_id.values())
    return raw_tokens(without_word_ends(by_id, spec, literal), special, literal, style, rows, path)


def raw_tokens(by_id: dict[int, str], special: set[int], literal: set[str], style: str, rows: int, path: Path) -> RawTokens:
    """Tokens by id put in a row, once their ids were compared with the model's rows.

    Raises
    ------
    ModelError
        An id is far beyond the rows.
    """
    last = max(by_id, default=-1)
    if last >= rows + MAX_BEYOND:
        raise ModelError(
            f"The tokenizer {path} gives {printable(by_id[last])[:40]!r} the id {last:,} and the model has {rows:,} rows; it belongs to another model."
        )
    size = min(last + 1, rows)
    tokens = [by_id.get(i, f"<unused_row_{i}>") for i in range(size)]
    marked = np.array([i not in by_id or i in special for i in range(size)], dtype=bool)
    return RawTokens(tokens, marked, style, literal)


def checked_spec(path: Path) -> dict:
    """The content of a `tokenizer.json`, refused where the library that it is for would panic, hang or take all memory.

    Raises
    ------
    ModelError
    """
    content = path.read_bytes() if path.stat().st_size <= MAX_BYTES else b""
    parts = sum(content.count(mark) for mark in (b",", b"[", b"{"))
    if not content or parts > MAX_PARTS:
        raise ModelError(
            f"The file {path} has {path.stat().st_size:,} bytes and {parts:,} parts, which no tokenizer has; download it again."
        )
    try:
        spec = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _no_tokenizer(path, "it is not JSON") from error
    if not isinstance(spec, dict) or not isinstance(spec.get("model"), dict):
        raise _no_tokenizer(path, "it holds no model")
    padding = spec.get("padding") or {}
    lengths = [padding.get("pad_to_multiple_of"), *_numbers(padding.get("strategy"))] if isinstance(padding, dict) else []
    if any(isinstance(length, int) and length > MAX_PADDING for length in lengths):
        raise _no_tokenizer(path, f"it pads every text to {max(filter(None, lengths)):,} tokens")
    for charsmap in re.findall(rb'"precompiled_charsmap"\s*:\s*"([^"]*)"', content):
        if not _is_charsmap(charsmap):
            raise _no_tokenizer(path, "the table of its normaliser is damaged")
    return spec


def style_of(spec: dict, tokens) -> str:
    """How the tokens are spelt: `byte-level`, `wordpiece`, `sentencepiece` or `plain`."""
    kinds = re.findall(r'"type":\s*"(\w+)"', json.dumps({key: spec.get(key) for key in ("decoder", "pre_tokenizer", "normalizer")}))
    if "ByteLevel" in kinds:
        return "byte-level"
    if "WordPiece" in kinds or (spec.get("model") or {}).get("type") == "WordPiece":
        return "wordpiece"
    return "sentencepiece" if any("▁" in token for token in tokens) else "plain"


def without_word_ends(by_id: dict[int, str], spec: dict, literal: set[str]) -> dict[int, str]:
    """The tokens without what marks the end of a word, the `</w>` of CLIP and GPT-1; a piece inside a word has no such mark, so that two may read the same."""
    model = spec.get("model")
    suffix = model.get("end_of_word_suffix") if isinstance(model, dict) else None
    if not isinstance(suffix, str) or not suffix:
        return by_id
    return {i: token if token in literal else token.removesuffix(suffix) or token for i, token in by_id.items()}


def _by_id(spec: dict, path: Path) -> tuple[dict[int, str], set[int], set[str]]:
    """Token by id, the ids of control tokens, and the tokens that stand for themselves, as the library gives them out: an added token that the model's
    table has keeps the table's id, and any other gets the next free one after it."""
    table = spec["model"].get("vocab")
    if isinstance(table, list):  # Unigram: pairs of a token and its score
        pairs = [(item[0], i) for i, item in enumerate(table) if isinstance(item, list) and item]
        if len(pairs) != len(table):
            raise _no_tokenizer(path, "its table is damaged")
    elif isinstance(table, dict):
        pairs = list(table.items())
    else:
        raise _no_tokenizer(path, "it holds no table of tokens")
    if not all(isinstance(token, str) and type(i) is int and 0 <= i < 2**32 for token, i in pairs):
        raise _no_tokenizer(path, "its table is damaged")
    by_id = {i: token for token, i in pairs}
    ids, size = dict(pairs), len(pairs)
    added = spec.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(token, dict) and isinstance(token.get("content"), str) for token in added):
        raise _no_tokenizer(path, "its added tokens are damaged")
    special, literal, last = set(), set(), -1
    for token in added:
        content = token["content"]
        if not content:
            continue
        if content not in ids:
            ids[content] = max(last + 1, size)
        i = ids[content]
        last = max(last, i)
        by_id[i] = content
        literal.add(content)
        if token.get("special") is True:
            special.add(i)
    return by_id, special, literal


def _numbers(value) -> list[int]:
    return [each for each in value.values() if isinstance(each, int)] if isinstance(value, dict) else []


def _is_charsmap(encoded: bytes) -> bool:
    """Whether a precompiled table of SentencePiece has the parts that its first number announces."""
    if not encoded:
        return True
    try:
        table = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return False
    size = int.from_bytes(table[:4], "little")
    if len(table) < 4 or size % 4 or size > len(table) - 4:
        return False
    try:
        table[4 + size :].decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _no_tokenizer(path: Path, why: str) -> ModelError:
    return ModelError(f"The file {path} is not a tokenizer that can be read: {why}; copy or download it again.")
