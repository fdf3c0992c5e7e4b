"""A model's vocabulary: what each token is, and the vector that the first layer receives for it.

Only the embedding tensor and the tokenizer's own file are read, never the model. The result is kept in the cache as plain
arrays (see `kept.py`) and memory-mapped from there, so the second call reads the model no more, whatever its size.

The rows are those that do the same as their ids when a model gets them as `inputs_embeds`. What a model does to `inputs_embeds`
itself is not in them: the projection of OPT and ALBERT, whose rows are narrower than their layers, or Granite's multiplier.
"""

from __future__ import annotations

import functools
import hashlib
import json
import mmap
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from soft_prompt_explorer.analysis.core.errors import ModelError, panics_caught, reason
from soft_prompt_explorer.analysis.core.folders import cache_folder, file_state, read_json_object, remove_at_once
from soft_prompt_explorer.analysis.core.kept import Blocks, KeptArrays
from soft_prompt_explorer.analysis.core.late import one_at_a_time
from soft_prompt_explorer.analysis.core.notebook import Shown
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.core.words import printable
from soft_prompt_explorer.analysis.models.digests import note
from soft_prompt_explorer.analysis.models.gguf_file import MAX_ROWS, GgufFile
from soft_prompt_explorer.analysis.models.names import ModelFiles, resolve_model
from soft_prompt_explorer.analysis.models.tensor_names import embedding_tensor_name
from soft_prompt_explorer.analysis.models.tokenizer_file import RawTokens, raw_tokens, read_tokenizer, style_of, without_word_ends

ROWS_AT_A_TIME = 8192
MAX_JSON = 16 * 2**20  # bytes of a config or an index; that of 160,000 tensors has 9 million
RELEASED_ABOVE = 1 << 30  # bytes; blocks of a larger memory-mapped array leave the memory when they have been used
_VERSION = 4  # raise it when the content of a kept vocabulary changes
_WORDS_VERSION = 5  # and this one when only its tokens do
# Families that multiply the stored rows when they look up an id, and not when they are given `inputs_embeds`: by the square root of
# the width (by the start of model_type; for Gemma 1 and 2, older transformers multiplied both), or by a number in their config.
SCALED_BY_SQRT_WIDTH = ("gemma", "vaultgemma", "diffusion_gemma", "embedding_gemma", "t5gemma2")
SCALED_BY_CONFIG = {"minicpm": "scale_emb", "falcon_h1": "embedding_multiplier"}
# BART and its kin say scale_embedding when they do; these say so too, but multiply `inputs_embeds` as well.
SCALED_EITHER_WAY = ("fsmt", "kosmos")
_UNUSED = re.compile(r"\[unused\d+\]|<unused\d+>|<\|reserved_\w*\|>|<unused_row_\d+>")


@dataclass(frozen=True, eq=False)
class Vocabulary(Shown):
    """A model's tokens and their input embeddings, in the space where soft prompts live.

    Attributes
    ----------
    model : the model's name.
    tokens : V printable strings. A token that is not valid text by itself is shown by its bytes, `<0xE4>`; other characters that
        cannot be printed, and the backslash, are escaped as in a Python string.
    embeddings : (V, d) float32, memory-mapped when it comes from the cache.
    special : (V,) bool, control tokens and rows that no text uses.
    mean : (d,) float64, the mean row.
    norms, centred_norms : (V,) float64, the rows' Euclidean norms before and after the mean is taken off.
    cache : the folder where what is derived from this vocabulary is kept if it can be, or None.
    """

    model: str
    tokens: list[str]
    embeddings: np.ndarray
    special: np.ndarray
    mean: np.ndarray
    norms: np.ndarray
    centred_norms: np.ndarray
    cache: Path | None = None

    @classmethod
    def from_embeddings(
        cls, tokens: list[str], embeddings: np.ndarray, *, special: np.ndarray | None = None, model: str = "unnamed"
    ) -> Vocabulary:
        """Measure the rows and build the vocabulary.

        Raises
        ------
        ModelError
            Tokens and rows differ in number, or a row holds NaN or infinity.
        """
        if embeddings.ndim != 2 or len(tokens) != len(embeddings):
            raise ModelError(f"{model}: {len(tokens)} tokens do not go with embeddings of shape {tuple(embeddings.shape)}.")
        mean = np.zeros(embeddings.shape[1])
        for _, block in _row_blocks(embeddings):
            mean += block.sum(axis=0, dtype=np.float64)
        mean /= max(len(embeddings), 1)
        if not np.isfinite(mean).all():
            raise _not_finite(model)
        norms, centred_norms = np.empty(len(embeddings)), np.empty(len(embeddings))
        for start, block in _row_blocks(embeddings):
            rows = block.astype(np.float64)
            norms[start : start + len(rows)] = np.sqrt(np.einsum("vd,vd->v", rows, rows))
            rows -= mean
            centred_norms[start : start + len(rows)] = np.sqrt(np.einsum("vd,vd->v", rows, rows))
        if special is None:
            special = np.zeros(len(tokens), dtype=bool)
        return cls(model, tokens, embeddings, special, mean, norms, centred_norms)

    def __len__(self) -> int:
        return len(self.tokens)

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """The rows in order, `ROWS_AT_A_TIME` at a time: the first one's id, and a (≤ ROWS_AT_A_TIME, d) view of the embeddings."""
        return _row_blocks(self.embeddings)

    @property
    def width(self) -> int:
        return self.embeddings.shape[1]

    @functools.cached_property
    def places(self) -> dict[str, int]:
        """The first id of each token."""
        return {token: i for i, token in reversed(list(enumerate(self.tokens)))}

    @functools.cached_property
    def digest(self) -> str:
        """What tells this vocabulary from any other, wherever it was read from: a sha256 over all its tokens and every sixty-fourth row."""
        digest = hashlib.sha256("\0".join(self.tokens).encode("utf-8", "surrogatepass"))
        digest.update(np.ascontiguousarray(self.embeddings[::64], dtype="<f4").tobytes())
        return digest.hexdigest()

    @property
    def median_norm(self) -> float:
        return float(np.median(self.norms))


def load_vocabulary(name: str, *, report: Report = no_report) -> Vocabulary:
    """The vocabulary of a model by its name (see `models.resolve_model`), from the cache when the files have not changed.

    Raises
    ------
    ModelError
        The name resolves to nothing, or its files hold no input embeddings or tokenizer that can be read.

    Examples
    --------
    >>> import soft_prompt_explorer as spe
    >>> spe.load_vocabulary("smollm2-135m").embeddings.shape
    (49152, 576)
    """
    model = resolve_model(name, report=report)
    note(model)
    folder = _folder_of(model)
    opened = functools.cache(lambda: _open(model, report))
    kept = KeptArrays(folder, "embeddings", _VERSION, shapes={"embeddings": (None, None)})
    rows = kept.get(lambda: {"embeddings": opened()[2]})["embeddings"]
    count, width = rows.shape
    shapes = {"tokens": (None,), "special": (count,), "mean": (width,), "norms": (count,), "centred_norms": (count,)}
    kept = KeptArrays(folder, "words", _WORDS_VERSION, shapes=shapes)
    words = kept.get(lambda: _measured(*opened()[:2], rows, model, report))
    if opened.cache_info().currsize:
        _remove_older(folder.parent)
    tokens = json.loads(words.pop("tokens").tobytes())
    return Vocabulary(model.name, tokens, rows, **words, cache=folder)


def vocabulary_state(name: str, *, report: Report = no_report) -> tuple:
    """What tells one state of a model's vocabulary from another, by a look at its files and at what is kept of them: while it stays, nothing need be loaded again.

    Raises
    ------
    ModelError
        As `load_vocabulary`.
    """
    folder = _folder_of(resolve_model(name, report=report))
    return str(folder), *(file_state(folder / f"{part}.kept") for part in ("embeddings", "words"))


def _folder_of(model: ModelFiles) -> Path:
    """Where what is kept of a model's vocabulary is."""
    return cache_folder() / "vocabularies" / _key(model)


def _row_blocks(embeddings: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    # Mapped pages count as this process's memory once they have been read; given back, they stay in the system's file cache. Only
    # of a read-only map: a private writable one would lose what was written.
    base: object = embeddings.base
    release = (
        isinstance(embeddings, np.memmap)
        and embeddings.mode == "r"
        and embeddings.nbytes > RELEASED_ABOVE
        and hasattr(mmap, "MADV_DONTNEED")
    )
    for start in range(0, len(embeddings), ROWS_AT_A_TIME):
        yield start, embeddings[start : start + ROWS_AT_A_TIME]
        if release and isinstance(base, mmap.mmap):
            base.madvise(mmap.MADV_DONTNEED)


def _key(model: ModelFiles) -> str:
    """Names the content without reading it: any change of a file changes its size or one of its times."""
    files = (
        [model.path]
        if model.is_gguf
        else sorted(p for p in model.path.iterdir() if p.suffix in (".safetensors", ".json", ".model", ".txt"))
    )
    stamps = []
    for path in files:
        stat = path.stat()
        stamps.append((str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino))
    return hashlib.sha256(repr(stamps).encode()).hexdigest()[:24]


def _remove_older(vocabularies: Path) -> None:
    """Remove what versions before 4 kept: it bore no checksum, and all prompts that were ever searched lay beside it, uploaded ones too."""
    for old in vocabularies.glob("*/embeddings.npy"):
        with suppress(OSError):
            remove_at_once(old.parent)


def _open(model: ModelFiles, report: Report) -> tuple[list[str], np.ndarray, Blocks]:
    """A model's tokens, one a row, which of them are special, and its rows, which are read when they are asked for."""
    report(0.0, f"reading the tokens of {model.name}")
    tokens, special, shape, blocks = _open_gguf(model.path) if model.is_gguf else _open_folder(model.path)
    rows = shape[0]
    tokens, special = tokens[:rows], special[:rows]
    unused = [f"<unused_row_{i}>" for i in range(len(tokens), rows)]
    special = np.concatenate([special, np.ones(len(unused), dtype=bool)])

    def reported() -> Iterator[np.ndarray]:
        done = 0
        for block in blocks():
            if not np.isfinite(block.sum(dtype=np.float64)):
                raise _not_finite(model.name)
            yield block
            done += len(block)
            report(0.1 + 0.8 * done / rows, f"reading the embeddings of {model.name}")

    return tokens + unused, special, Blocks(np.dtype("<f4"), shape, reported)


def _not_finite(model: str) -> ModelError:
    return ModelError(f"{model}: the input embeddings hold NaN or infinity.")


def _measured(tokens: list[str], special: np.ndarray, embeddings: np.ndarray, model: ModelFiles, report: Report) -> dict[str, np.ndarray]:
    """What a vocabulary holds beside its rows, the tokens as the bytes of JSON."""
    vocabulary = Vocabulary.from_embeddings(tokens, embeddings, special=special, model=model.name)
    report(1.0, "ready")
    return {
        "tokens": np.frombuffer(json.dumps(vocabulary.tokens).encode("ascii"), dtype=np.uint8),
        "special": vocabulary.special,
        "mean": vocabulary.mean,
        "norms": vocabulary.norms,
        "centred_norms": vocabulary.centred_norms,
    }


_GGUF_SPECIAL_TYPES = (2, 3, 5)  # unknown, control, unused
_GGUF_TOKENIZERS = {"gpt2": "byte-level", "llama": "sentencepiece", "t5": "sentencepiece", "bert": "gguf-wordpiece"}


def _open_gguf(path: Path):
    file = GgufFile(path)
    if "token_embd.weight" not in file.tensors or "tokenizer.ggml.tokens" not in file:
        raise ModelError(f"The file {path.name} holds no token_embd.weight or no tokens; it is not a language model.")
    shape = file.rows_shape("token_embd.weight")
    raw_tokens = file.strings("tokenizer.ggml.tokens", shape[0])  # a token without a row is never read
    kinds = file.numbers("tokenizer.ggml.token_type", shape[0]) if "tokenizer.ggml.token_type" in file else None
    style, architecture = file.text("tokenizer.ggml.model"), file.text("general.architecture")
    if raw_tokens is None or style is None or architecture is None or (kinds is not None and len(kinds) != len(raw_tokens)):
        raise ModelError(f"The file {path.name} does not say which tokenizer and architecture it holds; convert the model again.")
    kinds = np.ones(len(raw_tokens)) if kinds is None else kinds
    special = np.isin(kinds, _GGUF_SPECIAL_TYPES)
    literal = {token for token, kind in zip(raw_tokens, kinds.tolist(), strict=True) if kind in (2, 3, 4)}
    tokens, special = _printable_tokens(raw_tokens, special, _GGUF_TOKENIZERS.get(style, "byte-level"), literal)
    scale = _scale({"model_type": architecture}, shape[1])
    return tokens, special, shape, lambda: (rows * scale for rows in file.rows("token_embd.weight", ROWS_AT_A_TIME))


def _open_folder(folder: Path):
    from safetensors import SafetensorError, safe_open

    config = _small_json(folder / "config.json")
    path, name = _embedding_file(folder)
    try:
        with safe_open(path, framework="pt") as file:
            shape = tuple(file.get_slice(name).get_shape())
    except (SafetensorError, OSError) as error:
        raise ModelError(f"The file {path.name} cannot be read as safetensors ({reason(error)}).") from error
    if len(shape) != 2 or 0 in shape or shape[0] > MAX_ROWS:
        raise ModelError(
            f"The tensor {printable(name)[:60]} in {path.name} has the shape {shape}; input embeddings have two dimensions, at most {MAX_ROWS:,} rows."
        )
    tokens, special = _printable_tokens(*_folder_tokens(folder, shape[0]))
    scale = _scale(config, shape[1])

    def blocks():
        for start in range(0, shape[0], ROWS_AT_A_TIME):
            with safe_open(path, framework="pt") as file:  # opened for each block: the file's pages are in memory while it is open
                rows = file.get_slice(name)[start : start + ROWS_AT_A_TIME]
            if not rows.is_floating_point():
                raise ModelError(
                    f"The tensor {printable(name)[:60]} in {path.name} holds {rows.dtype}; input embeddings are floating-point numbers."
                )
            yield rows.float().numpy() * scale

    return tokens, special, shape, blocks


def _embedding_file(folder: Path) -> tuple[Path, str]:
    from safetensors import SafetensorError, safe_open

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weight_map = _small_json(index).get("weight_map")
        if not isinstance(weight_map, dict):
            raise ModelError(f"The file {index} places no tensors; copy or download it again.")
        name = embedding_tensor_name(list(weight_map))
        path = folder / Path(str(weight_map[name])[:255]).name
        if not path.is_file():
            raise ModelError(f"The folder {folder} holds no {path.name}, in which {index.name} places the input embeddings; copy it there.")
        return path, name
    candidates = sorted(folder.glob("*.safetensors"), key=lambda path: (path.name != "model.safetensors", path.name))
    if not candidates:
        raise ModelError(f"The folder {folder} holds no .safetensors file; save the model with save_pretrained.")
    try:
        with safe_open(candidates[0], framework="pt") as file:
            return candidates[0], embedding_tensor_name(list(file.keys()))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"The file {candidates[0].name} cannot be read as safetensors ({reason(error)}).") from error


def _small_json(path: Path) -> dict:
    if path.stat().st_size > MAX_JSON:
        raise ModelError(f"The file {path} has {path.stat().st_size:,} bytes, at most {MAX_JSON:,} are read; download it again.")
    return read_json_object(path, ModelError)


def _folder_tokens(folder: Path, rows: int) -> RawTokens:
    path = folder / "tokenizer.json"
    if path.is_file():
        return read_tokenizer(path, rows)
    with one_at_a_time():
        from transformers import AutoTokenizer

    try:
        with panics_caught():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True).backend_tokenizer
            added = tokenizer.get_added_tokens_decoder()
            by_id = {token_id: token for token, token_id in tokenizer.get_vocab(with_added_tokens=True).items()}
            spec = json.loads(tokenizer.to_str())
            style = style_of(spec, by_id.values())
    except Exception as error:  # whatever the readers of six formats raise
        raise ModelError(
            f"The folder {folder} holds no tokenizer that can be read ({reason(error)}); copy the model's tokenizer.json beside its config.json."
        ) from error
    special = {i for i, token in added.items() if token.special}
    literal = {token.content for token in added.values()}
    return raw_tokens(without_word_ends(by_id, spec, literal), special, literal, style, rows, folder)


def _scale(config: dict, width: int) -> np.float32:
    """What the stored rows are multiplied by before the first layer, by the model's config."""
    if isinstance(config.get("text_config"), dict):  # a model of text and images
        config = config | config["text_config"]
    family = str(config.get("model_type", ""))
    if family.startswith(SCALED_BY_SQRT_WIDTH) or (config.get("scale_embedding") and not family.startswith(SCALED_EITHER_WAY)):
        return np.float32(np.sqrt(width))
    for start, key in SCALED_BY_CONFIG.items():
        if family.startswith(start) and isinstance(config.get(key), int | float):
            return np.float32(config[key])
    return np.float32(1.0)


def _byte_of_character() -> dict[str, int]:
    """The byte behind each character of a byte-level tokenizer: printable bytes stand for themselves, the others follow from U+0100."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    shifted = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(shifted)}


def _printable_tokens(raw_tokens: list[str], special: np.ndarray, style: str, literal: set[str]) -> tuple[list[str], np.ndarray]:
    byte_of = _byte_of_character()

    def decode(token: str) -> str | bytes:
        if token in literal:
            return token
        if style == "byte-level":
            return bytes(byte_of[c] for c in token) if all(c in byte_of for c in token) else token
        if style == "sentencepiece":
            if re.fullmatch(r"<0x[0-9A-F]{2}>", token):
                return bytes([int(token[3:5], 16)])
            return token.replace("▁", " ")
        if style == "gguf-wordpiece":  # llama.cpp marks the start of a word; everybody else marks its continuation
            return token[1:] if token.startswith("▁") else "##" + token
        return token

    tokens = [printable(decode(token)) for token in raw_tokens]
    unused = np.array([_UNUSED.fullmatch(token) is not None for token in tokens], dtype=bool)
    return tokens, special | unused
