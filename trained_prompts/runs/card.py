"""A run told in Markdown: the model card beside it, and the command that makes it again."""

from __future__ import annotations

import re
import shlex
import textwrap

_OPTIONS = {
    "tokens": "tokens", "init": "init", "init_text": "init-text", "readable": "readable", "rank": "rank", "alpha": "alpha", "targets": "targets",
    "steps": "steps", "batch_size": "batch-size", "learning_rate": "learning-rate", "validate_every": "validate-every", "patience": "patience",
    "seed": "seed", "template": "template", "dtype": "dtype", "accumulate": "accumulate",
}  # fmt: skip
_WHAT = {
    "prompt-tuning": "soft prompt of {tokens} virtual tokens",
    "p-tuning": "soft prompt of {tokens} virtual tokens (p-tuning)",
    "prefix-tuning": "prefix of {tokens} virtual tokens",
    "lora": "LoRA of rank {rank}",
    "full": "whole model",
}


def command_of(run: dict) -> str:
    """The command that makes a run again, from its run.json."""
    config = run["config"]
    words = ["--task", config["task"], "--model", config["model"], "--method", config["method"]]
    for key, option in _OPTIONS.items():
        value = config.get(key)
        if value is not None:
            words += [f"--{option}", ",".join(value) if isinstance(value, list) else str(value).replace("\n", "\\n")]
    for frame in config.get("frames", ()):
        words += ["--frame", frame.replace("\n", "\\n")]
    words += [f"--{flag}" for flag in ("rslora", "checkpointing") if config.get(flag)]
    return shlex.join(["python", "-m", "trained_prompts", "train", *words, "--name", run["name"]])


def card_of(run: dict) -> str:
    config = run["config"]
    measure = next((score["measure"] for score in run["scores"].values()), "score")
    lines = [
        f"# {_verbatim(run['name'])}",
        "",
        f"A {_WHAT[config['method']].format(**config)} for {_verbatim(run['model']['name'])}, trained on the task *{_verbatim(config['task'])}*"
        f" for {run['steps_done']} of {config['steps']} steps in {run['seconds_training']:.0f} s on {run['created'][:10]}.",
        "",
        f"| held-out | {_verbatim(measure)} | 95 % interval | loss | n |",
        "|---|---|---|---|---|",
    ]
    for prompt, score in run["scores"].items():
        lines.append(
            f"| {_verbatim(prompt)} | {score['score']:.3f} | {score['low']:.3f} to {score['high']:.3f} | {score['loss']:.3f} | {score['n']} |"
        )
    versions = _verbatim(", ".join(f"{package} {version}" for package, version in (run.get("versions") or {}).items()))
    if run.get("asked"):
        asked = textwrap.indent(run["asked"]["first_example"], "    ", lambda line: True)
        lines += ["", "How the first held-out example is asked:", "", asked]
    command = textwrap.indent(command_of(run), "    ", lambda line: True)
    computed = run.get("computed_in") or {}
    versions += f", in {_verbatim(computed['dtype'])} on {_verbatim(computed['device'])}" if {"dtype", "device"} <= {*computed} else ""
    lines += ["", command, "", f"Made with {versions}; model file sha256 {_verbatim(run['model']['sha256'][:16] + '…', plain='')}.", ""]
    return "\n".join(lines)


def _verbatim(text: str, plain: str = r"[\w/+., ()-]*") -> str:
    """Text in Markdown, where it says nothing but itself: as code, unless it is plain letters and the like."""
    if re.fullmatch(plain, text) and "www." not in text.lower() and "  " not in text:
        return text
    return f"`{text.replace('`', chr(39)).replace('|', '¦')}`"
