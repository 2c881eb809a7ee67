import os
import pathlib
import subprocess
import sys

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from kdjax import fingerprint

_plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def _reordered(value):
    if isinstance(value, dict):
        return {name: _reordered(value[name]) for name in reversed(value)}
    return [_reordered(item) for item in value] if isinstance(value, list) else value


def test_pinned():
    """Other hashes would make every artifact that is there be done again."""
    assert fingerprint.of_json({"b": [1, 2.5, None, "é"], "a": {"c": True}}) == "a616871313af8bd8"
    arrays = {"x": np.arange(6, dtype=np.int32).reshape(2, 3), "y": [np.float32(1.5)]}
    assert fingerprint.of_arrays(arrays) == "a8a84a774ad7392c"


@given(_plain)
def test_json_is_blind_to_the_order_of_keys(value):
    assert fingerprint.of_json(value) == fingerprint.of_json(_reordered(value))


@given(_plain, _plain)
def test_json_tells_values_apart(a, b):
    # repr tells 1, 1.0 and True apart, and -0.0 from 0.0; == does not.
    same = repr(_sorted(a)) == repr(_sorted(b))
    assert (fingerprint.of_json(a) == fingerprint.of_json(b)) == same


def _sorted(value):
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": -float("inf")}])
def test_json_has_no_nan(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint.of_json(value)


@pytest.mark.parametrize("value", [object(), {"a": np.float32(1)}, b"bytes", {1, 2}])
def test_json_takes_plain_data_only(value):
    with pytest.raises(TypeError):
        fingerprint.of_json(value)


ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_arrays_are_told_apart_by_name_dtype_shape_and_bytes():
    different = [
        {"x": ARRAY},
        {"y": ARRAY},
        {"x": {"y": ARRAY}},
        {"x": ARRAY, "y": np.zeros(0)},
        {"x": ARRAY, "y": np.zeros((0, 1))},
        {"x": ARRAY.astype(np.float64)},
        {"x": ARRAY.view(np.int32)},
        {"x": ARRAY.reshape(3, 2)},
        {"x": ARRAY.ravel()},
        {"x": np.where(ARRAY == 5, -5, ARRAY).astype(np.float32)},
        {"x": np.where(ARRAY == 0, -0.0, ARRAY).astype(np.float32)},
        {"x": ARRAY.astype(jnp.bfloat16)},
        {"x": ARRAY[:1], "y": ARRAY[1:]},
        {"x": ARRAY[1:], "y": ARRAY[:1]},
        [ARRAY],
        {},
    ]
    assert len({fingerprint.of_arrays(tree) for tree in different}) == len(different)


def test_arrays_are_the_same_wherever_and_however_they_lie():
    expected = fingerprint.of_arrays({"a": ARRAY, "b": {"c": np.int32(7)}})
    wide = np.zeros((2, 6), np.float32)
    wide[:, ::2] = ARRAY
    for array in (
        jnp.asarray(ARRAY),
        np.asfortranarray(ARRAY),
        wide[:, ::2],
        ARRAY[::-1][::-1],
    ):
        assert fingerprint.of_arrays({"b": {"c": jnp.int32(7)}, "a": array}) == expected


@given(hnp.arrays(np.uint8, (3, 4)), st.integers(0, 11), st.integers(1, 255))
def test_every_byte_counts(array, place, change):
    other = array.copy()
    other.flat[place] ^= change
    assert fingerprint.of_arrays(array) != fingerprint.of_arrays(other)


@pytest.mark.parametrize("dtype", ["bool", "float16", "bfloat16", "int8", "uint32", "<U3"])
def test_every_dtype(dtype):
    array = np.array([0, 1, 1]).astype(jnp.bfloat16 if dtype == "bfloat16" else dtype)
    assert fingerprint.of_arrays(array) == fingerprint.of_arrays(array.copy())
    assert fingerprint.of_arrays(array) != fingerprint.of_arrays(array[::-1])


def test_another_process_finds_the_same_hash():
    # Python's own hash of a string would differ.
    program = "from kdjax import fingerprint as f; print(f.of_json({'a': 'b'}), f.of_arrays({}))"
    root = str(pathlib.Path(__file__).parents[1])
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            cwd=root,
            env={**os.environ, "PYTHONPATH": root, "PYTHONHASHSEED": seed},
        ).stdout.split()[0]
        for seed in ("1", "2")
    }
    assert found == {fingerprint.of_json({"a": "b"})}
