"""How many parameters a model has is counted without loading it."""

import pytest

from soft_prompt_explorer.analysis.models.size import total_parameters


def test_parameters_are_counted_without_loading_and_tied_ones_once(llama_folder, sharded_llama_folder, tiny_llama):
    assert total_parameters(str(llama_folder)) == total_parameters(str(sharded_llama_folder)) == tiny_llama.num_parameters()
    assert total_parameters("/no/such/model") is None
    assert total_parameters("nobody/such-a-model") is None


@pytest.mark.slow
def test_the_size_of_the_embedded_model_is_that_of_its_weights(embedded_model):
    assert total_parameters("smollm2-135m") == embedded_model[0].num_parameters()
