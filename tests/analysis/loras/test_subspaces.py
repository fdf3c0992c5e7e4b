"""Two LoRAs share what dense decompositions of their formed updates say, and random ones what chance says."""

import numpy as np
import pytest
from scipy.linalg import subspace_angles

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.loras.subspaces import COLUMNS, against, subspace_similarity
from tests.support.lora_files import gaussian, lora_file


def formed(adapter, module="m"):
    factors = adapter.modules[module]
    return factors.scaling * factors.B.astype(np.float64) @ factors.A


@pytest.fixture
def pair(tmp_path):
    rng = np.random.default_rng(0)
    return (
        lora_file(tmp_path / "a.safetensors", {"m": gaussian(60, 40, 5, rng), "only.a": gaussian(8, 8, 2, rng)}),
        lora_file(tmp_path / "b.safetensors", {"m": gaussian(60, 40, 8, rng), "only.b": gaussian(8, 8, 2, rng)}),
    )


@pytest.mark.parametrize("side", ["out", "in"])
def test_phi_is_that_of_dense_singular_vectors(pair, side):
    a, b = pair
    table = subspace_similarity(a.modules["m"], b.modules["m"], side=side)
    u, _, v = np.linalg.svd(formed(a))
    u_2, _, v_2 = np.linalg.svd(formed(b))
    first, second = (u[:, :5], u_2[:, :8]) if side == "out" else (v[:5].T, v_2[:8].T)
    assert len(table) == 40
    for row in table.itertuples():
        expected = np.linalg.norm(first[:, : row.i].T @ second[:, : row.j]) ** 2 / min(row.i, row.j)
        assert row.phi == pytest.approx(expected, abs=1e-6)


def test_phi_of_an_update_with_itself_is_one_on_the_diagonal_and_of_random_ones_what_dimension_counting_says(pair):
    factors = pair[0].modules["m"]
    table = subspace_similarity(factors, factors)
    assert table.loc[table["i"] == table["j"], "phi"].to_numpy() == pytest.approx(np.ones(5))
    last = table.iloc[-1]
    assert last["phi_random"] == pytest.approx(5 / 60, abs=0.08)  # of random spaces of 5 dimensions in 60


def test_modules_are_compared_by_cosine_and_principal_angles(pair):
    a, b = pair
    table = against(a, b).set_index("module")
    assert ["module", *table.columns] == COLUMNS
    assert table["in"].to_dict() == {"m": "both", "only.a": "a", "only.b": "b"}
    row = table.loc["m"]
    x, y = formed(a), formed(b)
    assert row["cosine"] == pytest.approx((x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y), abs=1e-6)
    assert row["angle_out"] == pytest.approx(np.cos(subspace_angles(x @ np.eye(40)[:, :5], np.linalg.svd(y)[0][:, :8])).mean(), abs=1e-6)
    assert row["angle_in"] == pytest.approx(np.cos(subspace_angles(np.linalg.svd(x)[2][:5].T, np.linalg.svd(y)[2][:8].T)).mean(), abs=1e-6)
    assert abs(row["angle_out"] - row["angle_out_random"]) < 0.2  # nothing in common
    assert table.loc["only.a", COLUMNS[4:]].isna().all()


def test_the_same_adapter_shares_everything_also_where_a_module_is_scaled_or_untrained(tmp_path):
    rng = np.random.default_rng(1)
    (a, b), (c, d) = gaussian(30, 20, 4, rng), gaussian(30, 20, 4, rng)
    first = lora_file(tmp_path / "a.safetensors", {"m": (a, b), "zero": (c, 0 * d)})
    second = lora_file(tmp_path / "b.safetensors", {"m": (-2 * a, b), "zero": (c, d)})
    table = against(first, second).set_index("module")
    assert table.loc["m", ["cosine", "angle_out", "angle_in"]].tolist() == pytest.approx([-1, 1, 1])
    assert table.loc["zero", ["rank_a", "rank_b"]].tolist() == [0, 4] and np.isnan(table.loc["zero", "cosine"])
    with pytest.raises(InputError, match="never trained"):
        subspace_similarity(first.modules["zero"], second.modules["zero"])


def test_what_cannot_be_compared_is_refused(pair, tmp_path):
    rng = np.random.default_rng(2)
    other = lora_file(tmp_path / "c.safetensors", {"m": gaussian(61, 40, 5, rng)})
    with pytest.raises(InputError, match=r"\(60, 40\).*\(61, 40\)"):
        against(pair[0], other)
    with pytest.raises(InputError, match="no module of the same name"):
        against(pair[0], lora_file(tmp_path / "d.safetensors", {"x": gaussian(6, 4, 2, rng)}))
    with pytest.raises(InputError, match="out or in"):
        subspace_similarity(pair[0].modules["m"], pair[1].modules["m"], side="left")
