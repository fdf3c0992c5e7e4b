"""One file with many prompts is all of them, and a start inside the file is the start."""

import numpy as np
import pytest
import torch

from soft_prompt_explorer.analysis.adapters import load_adapter
from soft_prompt_explorer.analysis.report.inspection import notes_on
from tests.support.adapter_files import WIDTH, refusal, same, torch_saved, values

FIRST, SECOND = values(4, WIDTH), values(6, WIDTH)

MANY = {
    "a dictionary": ({"sst2": FIRST, "mnli": SECOND}, ["sst2", "mnli"]),
    "a list": ([FIRST, SECOND], ["0", "1"]),
    "NeMo's table": (
        {"prompt_table": {f"prompt_table.{task}.prompt_embeddings.weight": rows for task, rows in (("squad", FIRST), ("boolq", SECOND))}},
        ["squad", "boolq"],
    ),
    "an encoder's and a decoder's": ({"encoder.soft_prompt.weight": FIRST, "decoder.soft_prompt.weight": SECOND}, ["encoder", "decoder"]),
    "with a first axis": ({"prompts": {"a": FIRST[None], "b": SECOND[None]}}, ["a", "b"]),
}


@pytest.mark.parametrize(("content", "names"), MANY.values(), ids=MANY)
def test_each_prompt_of_a_file_is_a_part(content, names, tmp_path):
    prompt = load_adapter(torch_saved(content, tmp_path / "many.pt"))
    assert prompt.parts == tuple(zip(names, (4, 6), strict=True))
    first, second = prompt.split()
    assert same(first, FIRST) and same(second, SECOND)
    assert first.name == f"many ({names[0]})"


def test_an_npz_is_its_arrays_by_their_names(tmp_path):
    np.savez_compressed(tmp_path / "many.npz", sst2=FIRST.numpy(), mnli=SECOND.numpy())
    prompt = load_adapter(tmp_path / "many.npz")
    assert sorted(prompt.parts) == [("mnli", 6), ("sst2", 4)]
    assert prompt.source.path == tmp_path / "many.npz"
    assert len(prompt.source.sha256) == 64
    np.savez(tmp_path / "one.npz", FIRST.numpy())
    assert same(load_adapter(tmp_path / "one.npz"), FIRST)


@pytest.mark.parametrize(("name", "part"), [("stack", "prompt"), ("prompt_learner.ctx", "class")])
def test_a_stack_is_a_prompt_for_each_of_its_first_axis(tmp_path, name, part):
    stack = values(3, 4, WIDTH)
    content = {"state_dict": {name: stack}} | ({"epoch": 50} if part == "class" else {})
    if part == "class":
        content["state_dict"] |= {"prompt_learner.token_prefix": values(3, 1, WIDTH), "prompt_learner.token_suffix": values(3, 10, WIDTH)}
    prompt = load_adapter(torch_saved(content, tmp_path / "model.pth.tar-50"))
    assert prompt.parts == tuple((f"{part} {i}", 4) for i in range(3))
    assert all(same(each, rows) for each, rows in zip(prompt.split(), stack, strict=True))


def test_a_bare_stack_is_read(tmp_path):
    np.save(tmp_path / "stack.npy", values(2, 5, WIDTH).numpy())
    assert len(load_adapter(tmp_path / "stack.npy").split()) == 2


@pytest.mark.parametrize(
    "beside",
    [
        {"meta_net.linear1.weight": values(2, WIDTH), "meta_net.linear2.weight": values(WIDTH, 2)},
        {
            "compound_prompts_text.0": values(2, WIDTH),
            "compound_prompt_projections.0.weight": values(24, WIDTH),
            "proj.weight": values(24, WIDTH),
        },
    ],
    ids=["CoCoOp", "MaPLe"],
)
def test_the_context_beside_what_else_was_trained_is_read_and_the_rest_named(tmp_path, beside):
    content = {"state_dict": {f"prompt_learner.{name}": tensor for name, tensor in ({"ctx": FIRST} | beside).items()}}
    prompt = load_adapter(torch_saved(content, tmp_path / "model.pth.tar"))
    assert same(prompt, FIRST)
    assert f"also holds {len(beside)} tensors that are left out" in " ".join(prompt.notes)


@pytest.mark.parametrize("name", ["initial_embeddings", "prompt_init", "initial", "init_prompt.weight"])
def test_a_start_inside_the_file_is_the_start(tmp_path, name):
    start = FIRST + 1
    prompt = load_adapter(torch_saved({"prompt_embeddings": FIRST, name: start, "step": 3}, tmp_path / "p.pt"))
    assert same(prompt, FIRST)
    assert np.array_equal(prompt.start, start.numpy())
    assert prompt.parts == ()


NETWORKS = {
    "two layers": {"a.weight": values(4, WIDTH), "b.weight": values(6, WIDTH)},
    "square matrices": {"first": values(WIDTH, WIDTH), "second": values(WIDTH, WIDTH)},
    "of two widths": {"first": FIRST, "second": values(4, WIDTH + 1)},
    "with a vector": {"first": FIRST, "second": SECOND, "scale": values(WIDTH)},
    "factors": {"A": FIRST, "B": values(4, WIDTH)},
}


@pytest.mark.parametrize("content", NETWORKS.values(), ids=NETWORKS)
def test_what_may_be_a_networks_weights_stays_refused(content, tmp_path):
    assert "it is not clear which is the soft prompt" in refusal(torch_saved(content, tmp_path / "file.pt"))


def test_the_parts_of_a_large_file_are_not_all_told(tmp_path):
    prompt = load_adapter(torch_saved(values(20, 2, WIDTH), tmp_path / "stack.pt"))
    found = notes_on(prompt)
    assert "tokens 14 to 15 are the prompt 7's" in found
    assert "and so on, 20 parts in all" in found
    assert not any("prompt 8" in note for note in found)


def test_a_stack_that_nothing_names_is_told_as_what_it_was_taken_for(tmp_path):
    np.save(tmp_path / "stack.npy", values(3, 2, WIDTH).numpy())
    assert "taken for a stack of 3 prompts of 2 tokens, one after the other, by its three axes alone" in notes_on(
        load_adapter(tmp_path / "stack.npy")
    )
    named = load_adapter(torch_saved({"ctx": values(3, 2, WIDTH)}, tmp_path / "coop.pt"))
    assert not any("alone" in note for note in notes_on(named))


def test_a_stack_beyond_the_limits_is_refused_before_it_is_read(tmp_path):
    np.save(tmp_path / "stack.npy", np.zeros((2_000, 2, 4), dtype=np.float16))
    assert "save fewer" in refusal(tmp_path / "stack.npy")
    torch.save([torch.zeros(1, 4)] * 1_001, tmp_path / "list.pt")
    assert refusal(tmp_path / "list.pt")
