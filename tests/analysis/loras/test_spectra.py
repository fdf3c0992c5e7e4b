"""A spectrum from two thin factors is that of the update itself."""

import io
import math

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from soft_prompt_explorer.analysis.adapters import load_lora
from soft_prompt_explorer.analysis.core.errors import AdapterError, InputError
from soft_prompt_explorer.analysis.loras.ranks import (
    COLUMNS,
    fewest,
    health,
    place_of,
    rank_pattern,
    singular_vectors,
    spectra,
    summary,
    values_of,
)
from tests.support.lora_files import gaussian, lora_file


def graded(out, inp, rank, rng, smallest):
    """Factors whose product has the singular values 1 … smallest, mixed so that neither factor shows them."""
    q, p = (np.linalg.qr(rng.standard_normal((n, rank)))[0] for n in (out, inp))
    mix = rng.standard_normal((rank, rank))
    return np.linalg.solve(mix, (p * np.geomspace(1, smallest, rank)).T), q @ mix


def agrees(adapter, *, scaling=1.0):
    """Every σ to 1e-6 of the first, and to 1e-3 of itself where it is above 1e-6 of the first."""
    for (_, row), factors in zip(spectra(adapter).iterrows(), adapter.modules.values(), strict=True):
        values = values_of(row)
        a, b = (torch.from_numpy(array.astype(np.float64)) for array in (factors.A, factors.B))
        if max(factors.out_features, factors.in_features) > 20_000:  # the same values of a smaller matrix: Q has orthonormal columns
            b = torch.linalg.qr(b).R
        expected = torch.linalg.svdvals(scaling * b @ a).numpy()[: len(values)]
        assert len(values) == min(factors.rank, factors.out_features, factors.in_features)
        assert np.abs(values - expected).max() <= 1e-6 * expected[0]
        told = expected > 1e-6 * expected[0]
        assert (np.abs(values - expected)[told] <= 1e-3 * expected[told]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("out", "inp", "rank"), [(300, 200, 1), (300, 200, 16), (200, 300, 64), (3, 5, 2), (3, 5, 8), (40, 7, 256)])
def test_the_singular_values_are_those_of_the_formed_update(tmp_path, out, inp, rank, dtype):
    rng = np.random.default_rng(rank)
    agrees(lora_file(tmp_path / "a.safetensors", {"m": gaussian(out, inp, rank, rng, dtype)}))


@pytest.mark.slow
@pytest.mark.parametrize(("out", "inp", "rank"), [(4096, 4096, 16), (14336, 4096, 64), (49152, 576, 256), (4096, 4096, 256)])
def test_the_singular_values_of_large_updates_too(tmp_path, out, inp, rank):
    rng = np.random.default_rng(rank)
    agrees(lora_file(tmp_path / "a.safetensors", {"m": gaussian(out, inp, rank, rng, torch.bfloat16)}))


@pytest.mark.parametrize("smallest", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("rank", [4, 16, 64])
def test_graded_spectra_are_told_to_their_ends(tmp_path, rank, smallest):
    rng = np.random.default_rng(rank)
    agrees(lora_file(tmp_path / "a.safetensors", {"m": graded(400, 300, rank, rng, smallest)}))


def test_ill_conditioned_factors_of_a_well_conditioned_product_and_the_reverse(tmp_path):
    rng = np.random.default_rng(0)
    q, p = (np.linalg.qr(rng.standard_normal((n, 12)))[0] for n in (300, 200))
    steep = np.geomspace(1, 1e-7, 12)
    agrees(lora_file(tmp_path / "a.safetensors", {"m": ((p / steep).T, q * steep)}))
    agrees(lora_file(tmp_path / "b.safetensors", {"m": ((p * steep[::-1]).T, q * steep)}))


def test_a_column_that_stands_twice_adds_no_rank(tmp_path):
    rng = np.random.default_rng(1)
    a, b = gaussian(200, 150, 8, rng, torch.float64)
    b[:, 4:] = b[:, :4]
    adapter = lora_file(tmp_path / "a.safetensors", {"m": (a, b)})
    agrees(adapter)
    assert (values_of(spectra(adapter).iloc[0])[4:] < 1e-9).all()


def test_the_measures_follow_from_their_definitions(tmp_path):
    q, p = (np.linalg.qr(np.random.default_rng(2).standard_normal((n, 4)))[0] for n in (30, 20))
    sigma = np.array([4.0, 2.0, 1.0, 0.5])
    row = spectra(lora_file(tmp_path / "a.safetensors", {"model.layers.3.self_attn.q_proj": (p.T, q * sigma)})).iloc[0]
    energy = sigma**2 / (sigma**2).sum()
    linear = sigma / sigma.sum()
    assert list(row.index) == COLUMNS
    assert (row["module"], row["layer"], row["projection"]) == ("model.layers.3.self_attn.q_proj", 3, "q")
    assert (row["out_features"], row["in_features"], row["rank"]) == (30, 20, 4)
    assert values_of(row) == pytest.approx(sigma, rel=1e-8)
    assert row["frobenius_norm"] == pytest.approx(math.sqrt(21.25))
    assert row["spectral_norm"] == pytest.approx(4)
    assert row["stable_rank"] == pytest.approx(21.25 / 16)
    assert row["effective_rank"] == pytest.approx(math.exp(-sum(x * math.log(x) for x in linear)))
    assert row["entropy"] == pytest.approx(-sum(x * math.log(x) for x in energy) / math.log(4))
    assert (row["rank_90"], row["rank_95"], row["rank_99"]) == (2, 3, 4)  # 16, 20, 21 and 21.25 of 21.25
    assert row["spike"] == pytest.approx(16 / 21.25)


def test_the_scaling_of_the_file_is_in_every_value(tmp_path):
    rng = np.random.default_rng(3)
    pair = gaussian(20, 30, 4, rng)
    plain = spectra(lora_file(tmp_path / "a.safetensors", {"m": pair})).iloc[0]
    save_file({"m.lora_down.weight": pair[0], "m.lora_up.weight": pair[1], "m.alpha": torch.tensor(2.0)}, tmp_path / "b.safetensors")
    halved = spectra(load_lora(tmp_path / "b.safetensors")).iloc[0]
    assert halved["scaling"] == 0.5
    assert halved["frobenius_norm"] == pytest.approx(plain["frobenius_norm"] / 2)
    assert values_of(halved) == pytest.approx(values_of(plain) / 2)
    assert halved["effective_rank"] == pytest.approx(plain["effective_rank"])


def test_singular_vectors_rebuild_the_update_with_signs_that_do_not_change(tmp_path):
    rng = np.random.default_rng(4)
    adapter = lora_file(tmp_path / "a.safetensors", {"m": gaussian(40, 30, 5, rng)})
    factors = adapter.modules["m"]
    u, values, vt = singular_vectors(factors)
    assert np.allclose(u * values @ vt, factors.B.astype(np.float64) @ factors.A, atol=1e-12)
    assert np.allclose(u.T @ u, np.eye(5)) and np.allclose(vt @ vt.T, np.eye(5))
    assert (u[np.abs(u).argmax(axis=0), np.arange(5)] > 0).all()


def test_a_lora_of_no_numbers_that_was_found_among_others_does_not_end_their_table(command, tmp_path):
    rng = np.random.default_rng(6)
    fine, bad = gaussian(20, 30, 4, rng), gaussian(20, 30, 4, rng)
    bad[0][1, 2] = float("inf")
    for name, pair in (("a-bad", bad), ("b-fine", fine), ("c-bad", bad)):
        lora_file(tmp_path / f"{name}.safetensors", {"layers.0.q_proj": pair})
    done = command("spectra", tmp_path, "--format", "csv")
    assert done.status == 2
    assert pd.read_csv(io.StringIO(done.out))["adapter"].tolist() == ["b-fine"]
    assert "a-bad.safetensors holds NaN or infinity" in done.err and "c-bad.safetensors holds NaN or infinity" in done.err
    (tmp_path / "b-fine.safetensors").unlink()
    for asked in (tmp_path, tmp_path / "a-bad.safetensors"):
        done = command("spectra", asked)
        assert (done.status, done.out) == (2, "")


def test_a_share_just_under_all_is_not_told_as_all(tmp_path):
    a, b = torch.eye(2, 20), torch.eye(30, 2) @ torch.diag(torch.tensor([1.0, 0.05]))  # energies 1 and 0.0025
    adapter = lora_file(tmp_path / "a.safetensors", {"m": (a, b)})
    says = health(adapter, spectra(adapter)).set_index("problem")["says"]
    assert says["rank-one spike"] == "One direction holds 99.7% of the energy."


def test_what_is_wrong_with_an_adapter_is_said(tmp_path):
    rng = np.random.default_rng(5)
    a, b = gaussian(30, 20, 4, rng)
    spike = b.clone()
    spike[:, 1:] *= 1e-4
    dead = b.clone()
    dead[:, 2:] = 0
    adapter = lora_file(tmp_path / "a.safetensors", {"fine": (a, b), "zero": (a, 0 * b), "spike": (a, spike), "dead": (a, dead)})
    table = spectra(adapter)
    found = health(adapter, table)
    said = set(zip(found["module"].fillna(""), found["problem"], strict=True))
    assert {("zero", "never trained"), ("spike", "rank-one spike"), ("dead", "dead ranks")} == {pair for pair in said if pair[0]}
    assert "2 of 4" in found.set_index("module").loc["dead", "says"]
    assert ("", "as the file says") in said  # it holds no alpha
    zero = table.set_index("module").loc["zero"]
    assert zero[["frobenius_norm", "stable_rank", "effective_rank", "rank_99", "spike"]].tolist() == [0] * 5
    assert rank_pattern(table, 0.9).keys() == {"fine", "spike", "dead"}
    assert rank_pattern(table, 0.9)["spike"] == 1 and rank_pattern(table, 1.0)["dead"] == 2


def test_nan_is_refused_by_the_factors_name(tmp_path):
    a, b = gaussian(30, 20, 4, np.random.default_rng(6))
    b[3, 1] = math.nan
    with pytest.raises(AdapterError, match=r"lora_B\.weight .*NaN"):
        spectra(lora_file(tmp_path / "a.safetensors", {"m": (a, b)}))


def test_modules_are_summed_up_by_layer_and_projection(tmp_path):
    rng = np.random.default_rng(7)
    names = [f"model.layers.{i}.self_attn.{name}_proj" for i in (0, 10, 2) for name in "qv"]
    table = spectra(lora_file(tmp_path / "a.safetensors", {name: gaussian(20, 20, 4, rng) for name in names}))
    by_layer, by_projection = summary(table, "layer"), summary(table, "projection")
    assert by_layer["layer"].tolist() == [0, 2, 10] and by_layer["modules"].tolist() == [2, 2, 2]
    assert set(by_projection["projection"]) == {"q", "v"}
    assert math.hypot(*by_layer["frobenius_norm"]) == pytest.approx(math.hypot(*table["frobenius_norm"]))
    part = table[table["projection"] == "q"]
    assert by_projection.set_index("projection").loc["q", "stable_rank"] == pytest.approx(part["stable_rank"].median())
    with pytest.raises(InputError, match="layer or by projection"):
        summary(table, "module")


@pytest.mark.parametrize(
    ("module", "place"),
    [
        ("model.layers.11.self_attn.o_proj", (11, "o")),
        ("model.layers.2.mlp.gate_proj", (2, "gate")),
        ("transformer.h.7.attn.c_attn", (7, "qkv")),
        ("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q", (1, "q")),
        ("lora_te_text_model_encoder_layers_9_mlp_fc1", (9, "up")),
        ("unet:130", (130, "unet")),
        ("lm_head", (None, "lm_head")),
        ("encoder.block.3.layer.0.SelfAttention.o", (3, "o")),
        ("encoder.block.3.layer.1.DenseReluDense.wo", (3, "down")),
        ("encoder.block.3.layer.1.DenseReluDense.wi_0", (3, "gate")),
        ("encoder.block.3.layer.1.DenseReluDense.wi_1", (3, "up")),
        ("decoder.block.11.layer.2.DenseReluDense.wi", (11, "up")),
        ("lora_te3_encoder_block_0_layer_1_DenseReluDense_wi_0", (0, "gate")),
    ],
)
def test_the_place_of_a_module_is_read_from_its_path(module, place):
    assert place_of(module) == place


def test_the_fewest_values_that_hold_an_energy():
    assert [fewest(np.array([0.5, 0.9, 1.0]), energy) for energy in (0.1, 0.5, 0.51, 0.9, 0.95, 1.0)] == [1, 1, 2, 2, 3, 3]
    assert fewest(np.array([0.6, 1.0, 1.0]), 1.0) == 2
