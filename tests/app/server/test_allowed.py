"""A path that a person types on a page is opened only where whoever started the dashboard allowed it."""

import numpy as np
import pytest

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.app.server.allowed import VARIABLE, allowed_folders, allowed_path


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Two allowed folders and one that is not."""
    for name in ("first", "second", "secret"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / f"{name}.npy", np.ones((2, 4)))
    monkeypatch.setenv(VARIABLE, f"{tmp_path / 'first'}:{tmp_path / 'second'}:{tmp_path / 'missing'}")
    return tmp_path


def test_no_folder_is_allowed_unless_one_is_named(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert allowed_folders() == []
    monkeypatch.setenv(VARIABLE, "")
    assert allowed_folders() == []


def test_paths_in_the_allowed_folders_are_found_by_their_whole_and_their_relative_names(folders):
    assert allowed_folders() == [folders / "first", folders / "second"]
    for text in (str(folders / "second" / "second.npy"), "second.npy", " second.npy "):
        assert allowed_path(text) == folders / "second" / "second.npy"
    assert allowed_path(str(folders / "first")) == folders / "first"


@pytest.mark.parametrize(
    "text", ["{}/secret/secret.npy", "../secret/secret.npy", "{}/first/../secret/secret.npy", "/etc/passwd", "{}", "/", "a\0b", "x" * 9000]
)
def test_paths_elsewhere_are_refused_as_those_that_do_not_exist(folders, text):
    with pytest.raises(InputError, match="may be opened"):
        allowed_path(text.format(folders))


def test_a_link_that_leads_out_is_refused_and_one_that_stays_in_is_followed(folders):
    (folders / "first" / "out.npy").symlink_to(folders / "secret" / "secret.npy")
    (folders / "first" / "in.npy").symlink_to(folders / "second" / "second.npy")
    assert allowed_path("in.npy") == folders / "second" / "second.npy"
    with pytest.raises(InputError, match="may be opened"):
        allowed_path("out.npy")


def test_a_folder_that_holds_a_link_which_leads_out_is_refused(folders):
    (folders / "first" / "adapter_model.safetensors").symlink_to(folders / "secret" / "secret.npy")
    with pytest.raises(InputError, match="may be opened"):
        allowed_path(str(folders / "first"))
