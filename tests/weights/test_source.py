"""`load_params`: every tensor in its place, or one error that names all that do not fit."""

import jax.numpy as jnp
import numpy as np
import pytest

from mend_jax.weights import Expected, Weights, WeightsError, load_params


def weights_of(tensors: dict[str, np.ndarray], read=None) -> Weights:
    return Weights(
        config={},
        names=tuple(tensors),
        read=read or tensors.__getitem__,
        shapes={name: array.shape for name, array in tensors.items()},
        tokenizer=None,
        origin="somewhere/model",
    )


def place(path, array):
    return {path[-1]: jnp.asarray(array, jnp.float32)}


def test_builds_the_tree_and_transposes_what_is_asked():
    up, norm = np.arange(6.0).reshape(3, 2), np.arange(2.0)
    weights = weights_of({"up.weight": up, "norm.weight": norm, "unused": np.zeros(5)})
    params = load_params(
        weights,
        {
            "up.weight": Expected(("block_0", "up", "kernel"), (2, 3), transpose=True),
            "norm.weight": Expected(("block_0", "norm", "scale"), (2,), transpose=False),
        },
        place,
    )
    assert params.keys() == {"block_0"} and params["block_0"].keys() == {"up", "norm"}
    np.testing.assert_array_equal(params["block_0"]["up"]["kernel"], up.T)
    np.testing.assert_array_equal(params["block_0"]["norm"]["scale"], norm)


def test_what_is_placed_beside_a_tensor_is_in_the_tree_too():
    expected = {
        "up": Expected(("up", "kernel"), (2,), transpose=False),
        "b": Expected(("up", "bias"), (1,), transpose=False),
    }
    weights = weights_of({"up": np.arange(2.0), "b": np.ones(1)})

    def with_length(path, array):
        return place(path, array) | {f"{path[-1]}_length": jnp.asarray(len(array))}

    params = load_params(weights, expected, with_length)
    assert set(params["up"]) == {"kernel", "kernel_length", "bias", "bias_length"}


def test_one_error_names_all_that_is_missing_or_misshaped_before_reading():
    def read(name):
        raise AssertionError("read before the check")

    weights = weights_of({"wide": np.zeros((3, 2)), "flat": np.zeros(4)}, read)
    expected = {
        "wide": Expected(("wide",), (2, 4), transpose=True),
        "flat": Expected(("flat",), (5,), transpose=False),
        "gone": Expected(("gone",), (7,), transpose=False),
        "lost": Expected(("lost",), (2, 8), transpose=True),
    }
    with pytest.raises(WeightsError) as error:
        load_params(weights, expected, place)
    message = str(error.value)
    assert "somewhere/model" in message
    assert "2 of 4 tensors are missing and 2 have another shape" in message
    assert "wide: has shape (3, 2), expected (4, 2)" in message  # as the file has it
    assert "flat: has shape (4,), expected (5,)" in message
    assert "gone: missing" in message and "lost: missing, expected shape (8, 2)" in message


def test_a_long_list_is_cut_at_twenty_and_the_rest_counted():
    expected = {f"t{i}": Expected((f"t{i}",), (1,), transpose=False) for i in range(33)}
    with pytest.raises(WeightsError, match=r"33 of 33[\s\S]*t19: missing[\s\S]*and 13 more$"):
        load_params(weights_of({}), expected, place)
