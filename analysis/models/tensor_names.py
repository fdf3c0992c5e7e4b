"""What the tensor of a model's input embeddings is called."""

from __future__ import annotations

from soft_prompt_explorer.analysis.core.errors import ModelError

# Where families keep the input embeddings, by the end of the tensor's name, in the order of preference.
EMBEDDING_NAMES = (
    "encoder.embed_tokens.weight",
    "shared.weight",
    "embed_tokens.weight",
    "wte.weight",
    "embed_in.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
    "tokens_embed.weight",
    "token_embd.weight",
    "embeddings.weight",
    "emb.weight",
    "token_embedding.weight",  # CLIP and its kin: the text encoder's
)
# Parts that may hold embeddings of their own (of the target language, of speech, of a tokenizer) beside the input's.
OTHER_PARTS = frozenset({"decoder", "talker", "patcher"})


def embedding_tensor_name(names: list[str]) -> str:
    """The input embeddings' tensor among a checkpoint's tensor names.

    Raises
    ------
    ModelError
        None of the known names is there.
    """
    for ending in EMBEDDING_NAMES:
        matches = [name for name in names if name == ending or name.endswith("." + ending)]
        if matches:
            return min(matches, key=lambda name: (not OTHER_PARTS.isdisjoint(name.split(".")), len(name)))
    raise ModelError(
        f"No input embeddings among the checkpoint's {len(names)} tensors; looked for names that end in {', '.join(EMBEDDING_NAMES)}."
    )
