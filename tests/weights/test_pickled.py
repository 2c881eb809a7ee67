"""Checkpoints of torch: every array to the bit, and whatever is no array refused in one line."""

import io
import os
import struct
from pathlib import Path

import hypothesis
import ml_dtypes
import numpy as np
import pytest
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file

from kdjax.commands import convert
from kdjax.types import BadFile, BadInput
from kdjax.weights import pickled, tensors
from kdjax.weights.unpickling import Refused, unpickled
from tests.weights import torch_writer as by_hand
from tests.weights.torch_writer import Call, Named, Raw, Storage, storage, stream, tarred, tensor

RANDOM = np.random.default_rng(0)
KINDS = {
    "Float": np.float32,
    "Double": np.float64,
    "Half": np.float16,
    "BFloat16": ml_dtypes.bfloat16,
    "Long": np.int64,
    "Int": np.int32,
    "Short": np.int16,
    "Char": np.int8,
    "Byte": np.uint8,
    "ComplexFloat": np.complex64,
}


def zipped(value, *storages, **more):
    """As `torch_writer.zipped`, of tensors that are made for a stream: a zip has no views."""
    return by_hand.zipped(_without_views(value), *storages, **more)


def _without_views(value):
    if isinstance(value, by_hand.Persistent):
        return by_hand.Persistent(value.said[:5])
    if isinstance(value, dict):
        return {name: _without_views(x) for name, x in value.items()}
    if isinstance(value, Call):
        return Call(value.function, tuple(map(_without_views, value.arguments)))
    return value


def read(tmp_path, content, **how):
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    return pickled.read(path, **how)


FORMATS = pytest.mark.parametrize("form", [stream, zipped, tarred], ids=["stream", "zip", "tar"])
WEIGHT = storage("0", "Float", np.arange(6, dtype=np.float32))
STATE = {"layer.weight": tensor(WEIGHT, (2, 3)), "layer.bias": tensor(WEIGHT, (2,), offset=4)}


@FORMATS
def test_every_dtype_to_the_bit(form, tmp_path):
    values = {kind: RANDOM.integers(0, 100, 7).astype(dtype) for kind, dtype in KINDS.items()}
    values["Bool"] = np.uint8([0, 1, 2, 0, 255, 1, 0])
    storages = [storage(kind, kind, x) for kind, x in values.items()]
    found = read(tmp_path, form({of.kind: tensor(of) for of in storages}, *storages)).arrays
    values["Bool"] = values["Bool"] != 0
    for kind, expected in values.items():
        assert found[kind].dtype == expected.dtype
        np.testing.assert_array_equal(found[kind], expected)


@FORMATS
def test_views_of_one_storage(form, tmp_path):
    base = np.arange(24, dtype=np.float32)
    of = storage("7", "Float", base)
    parameter = Call(
        Named("torch._utils", "_rebuild_parameter"),
        (tensor(of, (4, 6)), True, Call(Named("collections", "OrderedDict"), ())),
    )
    state = {
        "whole": parameter,
        "transposed": tensor(of, (6, 4), (1, 6)),
        "middle": tensor(of, (2, 3), (6, 2), 7),
        "scalar": tensor(of, (), (), 23),
        "repeated": tensor(of, (3, 2), (0, 1), 4),
        "empty": tensor(of, (0, 5), (5, 1), 24),
    }
    found = read(tmp_path, form(state, of)).arrays
    whole = base.reshape(4, 6)
    expected = {
        "whole": whole,
        "transposed": whole.T,
        "middle": np.float32([[7, 9, 11], [13, 15, 17]]),
        "scalar": np.float32(23),
        "repeated": np.float32([[4, 5]] * 3),
        "empty": np.zeros((0, 5), np.float32),
    }
    assert [*found] == [*expected]
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, strict=True)


def test_views_as_torch_had_them_before_tensors(tmp_path):
    of = storage("a", "Int", np.arange(10, dtype=np.int32))
    state = {"part": tensor(of, (2, 2), offset=1, view=("b", 4, 5))}
    np.testing.assert_array_equal(
        read(tmp_path, stream(state, of)).arrays["part"], np.int32([[5, 6], [7, 8]])
    )


def test_a_storage_of_bytes_has_the_dtype_of_its_tensor(tmp_path):
    values = RANDOM.normal(size=(3, 2)).astype(ml_dtypes.float8_e4m3fn)
    kind = Named("torch.storage", "UntypedStorage")
    said = by_hand.Persistent(("storage", kind, "0", "cpu", 6))
    made = Call(
        Named("torch._utils", "_rebuild_tensor_v3"),
        (said, 0, (3, 2), (2, 1), False, {}, Named("torch", "float8_e4m3fn")),
    )
    content = by_hand.zipped({"x": made}, Storage("0", "", values.tobytes(), 6))
    np.testing.assert_array_equal(read(tmp_path, content).arrays["x"], values, strict=True)


def test_what_is_written_is_read_by_safetensors(tmp_path, capsys):
    half = RANDOM.normal(size=(2, 3)).astype(ml_dtypes.bfloat16)
    of = storage("1", "BFloat16", half.T)
    state = {
        "state_dict": {
            "module.head.weight": tensor(of, (2, 3), (1, 2)),
            "module.bias": STATE["layer.bias"],
        },
        "epoch": 3,
        "optimizer": {"state": {0: {"step": tensor(WEIGHT)}}},
    }
    path, out = tmp_path / "file.pth", tmp_path / "file.safetensors"
    path.write_bytes(stream(state, of, WEIGHT))
    assert convert.main([str(path), str(out)]) == 0
    assert capsys.readouterr().out == (
        f"{out}: 2 tensors (1 bfloat16, 1 float32), 20 bytes; from state_dict; names without 'module.'; "
        "left out: epoch, optimizer\n"
    )
    with safe_open(out, "numpy") as file:
        assert file.metadata()["format"] == "pt"
        assert len(file.metadata()["source_sha256"]) == 64
        assert sorted(file.keys()) == ["bias", "head.weight"]
        assert file.get_slice("head.weight").get_dtype() == "BF16"
        np.testing.assert_array_equal(file.get_tensor("bias"), np.float32([4, 5]))
    # After the header, the tensors of the larger dtype first: the bytes of the half one are the last.
    assert out.read_bytes()[-12:] == half.tobytes()


def test_a_scalar_keeps_its_shape(tmp_path):
    path, out = tmp_path / "file.pth", tmp_path / "file.safetensors"
    path.write_bytes(zipped({"x": tensor(WEIGHT, (), (), 2)}, WEIGHT))
    pickled.convert(path, out)
    np.testing.assert_array_equal(load_file(out)["x"], np.float32(2), strict=True)


WHOLE, OTHER = {"w": tensor(WEIGHT)}, {"v": tensor(WEIGHT), "u": tensor(WEIGHT)}


@pytest.mark.parametrize(
    ("tree", "how", "key", "names"),
    [
        ({"w": tensor(WEIGHT), "version": 2}, {}, "", ["w"]),
        ({"net": WHOLE, "epoch": 1}, {}, "net", ["w"]),
        ({"model": WHOLE, "model_ema": OTHER}, {}, "model", ["w"]),
        ({"model": WHOLE, "model_ema": OTHER}, {"key": "model_ema"}, "model_ema", ["v", "u"]),
        ({"state_dict": WHOLE, "mean": tensor(WEIGHT)}, {}, "state_dict", ["w"]),
        (
            {"a": {"student": WHOLE, "teacher": OTHER}},
            {"key": "a/teacher"},
            "a/teacher",
            ["v", "u"],
        ),
        ({"optimizer": WHOLE, "lr_scheduler": OTHER, "net": OTHER}, {}, "net", ["v", "u"]),
        ({"module._orig_mod.w": tensor(WEIGHT)}, {}, "", ["w"]),
        ({"module.w": tensor(WEIGHT), "v": tensor(WEIGHT)}, {}, "", ["module.w", "v"]),
        (
            {"body.w": tensor(WEIGHT), "head.w": tensor(WEIGHT)},
            {"prefix": "body."},
            "",
            ["w"],
        ),
    ],
    ids=lambda value: "",
)
def test_the_weights_are_found(tree, how, key, names, tmp_path):
    found = read(tmp_path, stream(tree, WEIGHT), **how)
    assert (found.key, [*found.arrays]) == (key, names)


@pytest.mark.parametrize(
    ("tree", "how", "line"),
    [
        (
            {"student": WHOLE, "teacher": OTHER},
            {},
            r"several dicts in it may be the weights: student \(1 tensors\), teacher \(2 tensors\); "
            "choose one with --key",
        ),
        ({"net": WHOLE}, {"key": "nett"}, r"no weights at 'nett'; there are net \(1 tensors\)"),
        (
            {"epoch": 3, "loss": 0.5},
            {},
            r"no weights in it, but epoch \(a value of type int\), loss",
        ),
        ({}, {}, "no weights in it, but nothing"),
        ([tensor(WEIGHT)], {}, "no dict of names in it, but a list of 1"),
        (tensor(WEIGHT), {}, "no dict of names in it, but a tensor"),
        (WHOLE, {"prefix": "body."}, "no name in it begins with 'body.'; the first of them is 'w'"),
        ({"a\nb": WHOLE, "c": OTHER}, {}, r"the weights: a\\nb \(1"),
        ({"": tensor(WEIGHT)}, {}, "has no name"),
        ({"__metadata__": tensor(WEIGHT)}, {}, "or one that safetensors does not take"),
        ({"\udc80": tensor(WEIGHT)}, {}, "has no name"),
    ],
    ids=lambda value: "",
)
def test_what_is_not_clear_is_refused(tree, how, line, tmp_path):
    storages = [WEIGHT] if "FloatStorage" in repr(tree) else []
    with pytest.raises(BadFile, match=line) as caught:
        read(tmp_path, stream(tree, *storages), **how)
    assert "\n" not in str(caught.value)


def test_a_dtype_that_safetensors_lacks_is_refused(tmp_path):
    of = storage("0", "ComplexDouble", np.zeros(2, np.complex128))
    with pytest.raises(
        BadFile, match="x is a tensor of complex128, which safetensors does not have"
    ):
        read(tmp_path, stream({"x": tensor(of)}, of))


CALLS = {
    "os.system": Call(Named("posix", "system"), ("touch MARK",)),
    "eval": Call(Named("builtins", "eval"), ("open('MARK', 'w')",)),
    "numpy": Call(Named("numpy.core.multiarray", "scalar"), (1,)),
    "namespace": Call(Named("argparse", "Namespace"), ()),
    "stack": Raw(b"X\x05\x00\x00\x00posixX\x06\x00\x00\x00system\x93X\x04\x00\x00\x00exit\x85R"),
    "alike": Call(Named("torch._utils", "_rebuild_tensor_v2.__globals__"), ()),
    "module": Call(Named("torch.nn.modules.linear", "Linear"), ()),
}


@FORMATS
@pytest.mark.parametrize("name", CALLS)
def test_nothing_else_is_called(form, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        BadFile, match=r"it asks for '.*', which is no part of a file of arrays; where"
    ):
        read(tmp_path, form({"w": tensor(WEIGHT), "x": CALLS[name]}, WEIGHT))
    assert os.listdir(tmp_path) == ["file.pth"]


def _named_only(name):
    return Call(Named("torch", name), (3,))


BUILT = b"(X\x01\x00\x00\x00aK\x01db"  # BUILD with {"a": 1}


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (_named_only("FloatStorage"), "it calls torch.FloatStorage, which is no part"),
        (Raw(b"(cposix\nsystem\nX\x01\x00\x00\x00ao"), "it asks for 'posix.system'"),
        (Raw(b"(X\x01\x00\x00\x00aiposix\nsystem\n"), "it has the instruction INST"),
        (Raw(b"\x82\x01"), "it has the instruction EXT1"),
        (Raw(b"\x96" + struct.pack("<Q", 3) + b"abc"), "it has the instruction BYTEARRAY8"),
        (Raw(b"\x97"), "it has the instruction NEXT_BUFFER"),
        (Raw(b"]" + BUILT), "it is damaged"),
        (Raw(b"N}\x92"), "it has the instruction NEWOBJ_EX"),
        (Raw(b"h\x07"), "it is damaged"),
        (Raw(b"0000"), "it is damaged"),
        (Raw(b"})Ns"), "it is damaged"),
        (Raw(b"P1\n"), "it has the instruction PERSID"),
        (by_hand.Persistent(("module", 1, 2, 3)), "more than tensors"),
        (Raw(b"}ccollections\nOrderedDict\n(" + b")" * 5 + b"tR"), "it is damaged"),
    ],
    ids=lambda value: "",
)
def test_instructions_that_no_file_of_arrays_needs(value, line, tmp_path):
    with pytest.raises(BadFile, match=line):
        read(tmp_path, stream({"w": tensor(WEIGHT), "x": value}, WEIGHT))


def test_attributes_of_a_dict_are_passed_over(tmp_path):
    """torch keeps the versions of modules in such."""
    tree = Raw(by_hand.written(STATE) + BUILT)
    assert [*read(tmp_path, stream(tree, WEIGHT)).arrays] == [*STATE]


def _many(n):
    return {"w": tensor(WEIGHT, (2**n, 2**n), (0, 0))}


HUGE = 2**62
BOMBS = {
    "repeated": (
        _many(20),
        "its tensors have 4,398,046,511,104 bytes together, more than 16 times",
    ),
    "shape": ({"w": tensor(WEIGHT, (HUGE,), (1,))}, "a size, a stride or a place that none has"),
    "product": (
        {"w": tensor(WEIGHT, (2**30,) * 3, (0,) * 3)},
        r"shape \[1073741824, .* no file holds",
    ),
    "empty": ({"w": tensor(WEIGHT, (0, 2**40, 2**40), (0, 0, 0))}, "which no file holds"),
    "stride": ({"w": tensor(WEIGHT, (2,), (2**40,))}, "larger than its storage of 6 entries"),
    "offset": ({"w": tensor(WEIGHT, (1,), (1,), 6)}, "larger than its storage"),
    "negative": ({"w": tensor(WEIGHT, (2,), (-1,), 3)}, "a size, a stride or a place"),
    "axes": (
        {"w": tensor(WEIGHT, (1,) * 40, (1,) * 40)},
        "40 axes and 40 strides|a tensor has no shape",
    ),
    "long": ({"w": tensor(WEIGHT), "x": Raw(b"\x8b" + struct.pack("<i", 2**31 - 1))}, "damaged"),
    "text": ({"w": tensor(WEIGHT), "x": Raw(b"\x8d" + struct.pack("<Q", 2**60))}, "damaged"),
    "bytes": ({"w": tensor(WEIGHT), "x": Raw(b"\x8e" + struct.pack("<Q", 2**63 - 1))}, "damaged"),
}


@FORMATS
@pytest.mark.parametrize("name", BOMBS)
def test_numbers_that_are_too_large_make_nothing(form, name, tmp_path):
    tree, line = BOMBS[name]
    with pytest.raises(BadFile, match=line):
        read(tmp_path, form(tree, WEIGHT))


def test_a_memo_is_no_array(tmp_path):
    """The place in the memo is a number; in CPython's unpickler it makes so many."""
    tree = Raw(by_hand.written(STATE) + b"r\xff\xff\xff\xff")
    assert len(read(tmp_path, stream(tree, WEIGHT)).arrays) == 2


def test_one_byte_may_not_be_a_hundred_without_end():
    content = b"(" + b"}" * 2000 + b"t."
    with pytest.raises(Refused, match="it has more than 1,000 instructions"):
        unpickled(io.BytesIO(content), known={}, most=1000)
    assert len(unpickled(io.BytesIO(content), known={}, most=2003)) == 2000


def test_a_large_storage_that_is_not_there(tmp_path):
    big = Storage("0", "Float", WEIGHT.content, 2**40)
    with pytest.raises(
        BadFile, match="damaged or cut short: storage '0' has 24 bytes, and its tensors"
    ):
        read(tmp_path, stream({"w": tensor(big, (6,))}, big))
    with pytest.raises(
        BadFile, match="damaged or cut short: data/'0' has 24 bytes, and its tensors"
    ):
        read(tmp_path, zipped({"w": tensor(big, (6,))}, big))


def _with_size(size):
    """The zip says of its storage, in both places, that it has another size."""
    content = zipped(STATE, WEIGHT)
    pair = struct.pack("<II", 24, 24)
    assert content.count(pair) == 2
    return content.replace(pair, struct.pack("<II", size, size))


FILES = {
    "empty": (lambda: b"", "it is empty"),
    "text": (
        lambda: b"<!DOCTYPE html>",
        "torch.save has not written it: it begins with b'<!DOCTYP'",
    ),
    "safetensors": (
        lambda: struct.pack("<Q", 2) + b"{}",
        "it is a file of safetensors already; use it as it is$",
    ),
    "lfs": (
        lambda: b"version https://git-lfs.github.com/spec/v1\n",
        "pointer of Git LFS.* git lfs pull",
    ),
    "gzip": (lambda: b"\x1f\x8b\x08\x00", "gunzip"),
    "hdf5": (lambda: b"\x89HDF\r\n", "HDF5"),
    "npy": (lambda: b"\x93NUMPY\x01", "NumPy"),
    "tar": (lambda: b"\0" * 257 + b"ustar\0" + b"\0" * 999, "a damaged tar|without 'storages'"),
    "pickle": (lambda: by_hand.pickle({"w": 1}), "it is a pickle, and none of torch.save"),
    "protocol": (
        lambda: by_hand.pickle(by_hand.MAGIC) + by_hand.pickle(7),
        "its protocol is not 1001",
    ),
    "big-endian": (
        lambda: stream(STATE, WEIGHT, little_endian=False),
        "its numbers are big-endian",
    ),
    "keys": (
        lambda: stream(STATE, WEIGHT, storage("1", "Int", [1])),
        "list of storages is not that of",
    ),
    "no keys": (lambda: stream(STATE), "list of storages is not that of"),
    "big-endian zip": (lambda: zipped(STATE, WEIGHT, order=b"big"), "its numbers are big-endian"),
    "twice": (lambda: zipped(STATE, WEIGHT, version=b"3"), "two members of one name"),
    "compressed": (
        lambda: zipped(STATE, WEIGHT, compress=True),
        "'model/data.pkl' is compressed or",
    ),
    "script": (lambda: zipped(STATE, WEIGHT, **{"constants.pkl": b""}), "a program of TorchScript"),
    "no storage": (lambda: zipped(STATE), "it has no data/'0', in which there are tensors"),
    "another zip": (
        lambda: by_hand.zipped({}).replace(b"data.pkl", b"data.txt"),
        "has no data.pkl",
    ),
    "sizes": (lambda: _with_size(2**31), "its members together are larger than the file"),
    "damaged": (
        lambda: zipped(STATE, WEIGHT).replace(WEIGHT.content, b"\xff" * 24),
        "a damaged zip",
    ),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_other_files_are_refused_by_what_they_are(name, tmp_path):
    make, line = FILES[name]
    with pytest.raises(BadFile, match=line) as caught:
        read(tmp_path, make())
    assert str(caught.value).startswith(f"{tmp_path / 'file.pth'}: ")
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(BadFile, match=r"no such file|it is no file"):
            pickled.read(path)
    for long in ("a" * 300, "/".join(["a" * 99] * 50)):
        with pytest.raises(BadFile, match=r"the name is too long; name a file$"):
            pickled.read(tmp_path / long)
    with pytest.raises(
        BadInput, match=r"out.bin is no name of safetensors; give .*out.safetensors"
    ):
        pickled.convert(tmp_path / "none.pth", tmp_path / "out.bin")


@pytest.mark.parametrize("out", [".", "/", "..", "x"])
def test_names_that_are_none_of_safetensors(out, tmp_path):
    with pytest.raises(BadInput, match=r"is no name of safetensors; give .*\.safetensors$"):
        pickled.convert(tmp_path / "none.pth", Path(out))


def test_a_checkpoint_is_not_written_over(tmp_path):
    """Whatever its name is, and whatever it is called there."""
    path, link = tmp_path / "x.safetensors", tmp_path / "y.safetensors"
    content = zipped({"x": tensor(WEIGHT, (), (), 2)}, WEIGHT)
    path.write_bytes(content)
    link.symlink_to(path)
    for out in (path, link):
        with pytest.raises(BadInput, match=r"is the checkpoint itself; give another name"):
            pickled.convert(path, out)
    assert path.read_bytes() == content
    with pytest.raises(BadInput, match=r"convert .*x\.safetensors converted-x\.safetensors$"):
        tensors.opened(path)


@FORMATS
def test_cut_short_anywhere(form, tmp_path):
    """Refused; only a tar has something at its end that holds nothing."""
    content, refused = form(STATE, WEIGHT), 0
    ends = range(1, len(content), max(len(content) // 80, 1))
    for end in ends:
        try:
            found = read(tmp_path, content[:end]).arrays
        except BadFile:
            refused += 1
            continue
        assert not any(content[end:])
        np.testing.assert_array_equal(found["layer.bias"], np.float32([4, 5]))
    assert refused == len(ends) if form is not tarred else refused > len(ends) / 3


SEEDS = [
    stream(STATE | {"n": [1, (2.5, None)], "t": True}, WEIGHT),
    zipped(STATE, WEIGHT),
    tarred(STATE, WEIGHT),
    stream({"x": CALLS["os.system"]} | STATE, WEIGHT),
    zipped({"x": CALLS["eval"]} | STATE, WEIGHT),
    stream({"x": CALLS["stack"]} | STATE, WEIGHT),
]
INSTRUCTIONS = [bytes([i]) for i in range(256)]


@st.composite
def mutated(draw):
    """A file with bytes changed, taken out, put in, or taken from another one."""
    content = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(content)))
        match draw(st.integers(0, 3)):
            case 0:
                content[at : at + 1] = draw(st.sampled_from(INSTRUCTIONS))
            case 1:
                content[at:at] = draw(st.binary(min_size=1, max_size=9))
            case 2:
                del content[at : at + draw(st.integers(1, 16))]
            case 3:
                other = draw(st.sampled_from(SEEDS))
                begin = draw(st.integers(0, len(other)))
                content[at:at] = other[begin : begin + draw(st.integers(1, 40))]
    return bytes(content)


def _only_refused(content, folder):
    path = folder / "file.pth"
    path.write_bytes(content)
    before = {*os.listdir(folder)}
    try:
        arrays = pickled.read(path).arrays
        assert sum(np.ascontiguousarray(array).nbytes for array in arrays.values()) < 2**22
    except BadFile as error:
        lines = str(error).splitlines()
    else:
        lines = ["read"]
    assert len(lines) == 1
    assert {*os.listdir(folder)} == before


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def _fuzz(folder, examples):
    @hypothesis.settings(max_examples=examples, deadline=None, database=None)
    @hypothesis.given(mutated())
    def run(content):
        _only_refused(content, folder)

    run()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_mutated_files_are_read_or_refused(folder, monkeypatch):
    monkeypatch.chdir(folder)
    _fuzz(folder, 100)


@pytest.mark.thorough
def test_many_mutated_files_are_read_or_refused(folder, monkeypatch):
    monkeypatch.chdir(folder)
    _fuzz(folder, 5_000)
