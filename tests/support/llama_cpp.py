"""llama.cpp itself, by its C interface (llama.h), as the package xllamacpp carries it; and a tiny random model for it."""

import ctypes
from pathlib import Path

import numpy as np

WORDS, WIDTH, LAYERS, HEADS, KEY_HEADS, INNER = 96, 64, 2, 4, 2, 128
F16, F32 = 1, 0  # of ggml_type


class _Parameters(ctypes.Structure):
    """Any of its structures of parameters: as long as the longest or longer, and passed on as it came."""

    _fields_ = [("bytes", ctypes.c_uint8 * 1024)]


class _Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.POINTER(ctypes.c_float)),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


def write_tiny_gguf(path: Path, rng: np.random.Generator) -> None:
    """A Llama of random float32 weights and without a tokenizer."""
    from gguf import GGUFWriter

    def drawn(*shape: int) -> np.ndarray:
        return (0.2 * rng.standard_normal(shape)).astype(np.float32)

    writer = GGUFWriter(path, "llama")
    writer.add_vocab_size(WORDS)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_tokenizer_model("no_vocab")
    keys = WIDTH // HEADS * KEY_HEADS
    shapes = {
        "attn_q": (WIDTH, WIDTH), "attn_k": (keys, WIDTH), "attn_v": (keys, WIDTH), "attn_output": (WIDTH, WIDTH),
        "ffn_gate": (INNER, WIDTH), "ffn_up": (INNER, WIDTH), "ffn_down": (WIDTH, INNER),
    }  # fmt: skip
    tensors = {"token_embd": drawn(WORDS, WIDTH), "output": drawn(WORDS, WIDTH), "output_norm": 1 + drawn(WIDTH)}
    for layer in range(LAYERS):
        tensors |= {f"blk.{layer}.{name}": drawn(*shape) for name, shape in shapes.items()}
        tensors |= {f"blk.{layer}.{name}": 1 + drawn(WIDTH) for name in ("attn_norm", "ffn_norm")}
    for name, tensor in tensors.items():
        writer.add_tensor(f"{name}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class LlamaCpp:
    """A model in llama.cpp, all of it in float32."""

    def __init__(self, path: Path) -> None:
        import xllamacpp.xllamacpp

        self.library = library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
        pointer = ctypes.c_void_p
        for name, arguments, result in (
            ("llama_model_default_params", [], _Parameters),
            ("llama_context_default_params", [], _Parameters),
            ("llama_model_load_from_file", [ctypes.c_char_p, _Parameters], pointer),
            ("llama_init_from_model", [pointer, _Parameters], pointer),
            ("llama_batch_init", [ctypes.c_int32] * 3, _Batch),
            ("llama_batch_free", [_Batch], None),
            ("llama_decode", [pointer, _Batch], ctypes.c_int32),
            ("llama_get_logits_ith", [pointer, ctypes.c_int32], ctypes.POINTER(ctypes.c_float)),
        ):
            getattr(library, name).argtypes, getattr(library, name).restype = arguments, result
        library.llama_backend_init()
        parameters = library.llama_context_default_params()
        told = np.frombuffer(parameters, dtype=np.int32)
        (flash,) = [
            i + 3 for i in range(20) if told[i : i + 4].tolist() == [-1] * 4
        ]  # of four kinds, "as the model says", the last is flash attention's
        (types,) = [
            i + 4 for i in range(20, 32) if told[i : i + 6].tolist() == [0, 0, 0, 0, F16, F16]
        ]  # behind the two pointers of no callback
        told[flash], told[types : types + 2] = 0, F32  # no flash attention, which rounds to 16 bits
        model = library.llama_model_load_from_file(str(path).encode(), library.llama_model_default_params())
        self.context = library.llama_init_from_model(model, parameters)
        assert model and self.context

    def decode(self, *, rows: np.ndarray | None = None, ids: list[int] | None = None, at: int = 0) -> np.ndarray:
        """Read input embeddings (n, d), or tokens, from this position on: the logits at the last one."""
        count = len(rows) if rows is not None else len(ids)
        batch = self.library.llama_batch_init(count, WIDTH if rows is not None else 0, 1)
        batch.n_tokens = count
        for i in range(count):
            batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = at + i, 1, 0, i == count - 1
            if ids is not None:
                batch.token[i] = ids[i]
        if rows is not None:
            ctypes.memmove(batch.embd, rows.tobytes(), rows.nbytes)
        assert self.library.llama_decode(self.context, batch) == 0
        self.library.llama_batch_free(batch)
        return np.ctypeslib.as_array(self.library.llama_get_logits_ith(self.context, -1), (WORDS,)).copy()
