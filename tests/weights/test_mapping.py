"""Tensors by their names into variables and back: what fits, what is left, what is refused."""

import functools
import json
import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from kdjax import models, tree, weights
from kdjax.types import BadInput
from kdjax.weights import tensors
from kdjax.weights.rules import Rule, bind
from kdjax.weights.transforms import same, without_bias

X = jnp.zeros((1, 16, 16, 3))
SMALL = models.ResNet(blocks=(1, 2), widths=(2, 2, 4))


@functools.cache
def variables_of(encoder=SMALL):
    """Of a classifier, every number another one."""
    model = models.Classifier(encoder, 3)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), X, train=True))
    random = np.random.default_rng(0)
    return jax.tree.map(lambda x: random.normal(size=x.shape).astype(np.float32), shapes)


def written(tmp_path, layout="torchvision", *, encoder=SMALL, **changed):
    """A file of a small network, and its tensors; those of `changed` are other ones, None is none."""
    found = weights.written(weights.named(encoder, variables_of(encoder)), layout)
    found |= {name.replace("__", "."): array for name, array in changed.items()}
    found = {name: array for name, array in found.items() if array is not None}
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(found, path)
    return path, found


def read(path, *, encoder=SMALL, classes=3, **how):
    return weights.read(str(path), encoder, X, classes=classes, **how)


def test_names_of_a_resnet_18_in_torchvision_are_the_published_ones():
    encoder = models.resnet18(width=2)
    found = weights.written(weights.named(encoder, variables_of(encoder)), "torchvision")
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    wanted = {"conv1.weight", "fc.weight", "fc.bias", *(f"bn1.{x}" for x in norm)}
    for stage in range(1, 5):
        for block in range(2):
            at = f"layer{stage}.{block}"
            wanted |= {f"{at}.conv1.weight", f"{at}.conv2.weight"}
            wanted |= {f"{at}.bn{i}.{x}" for i in (1, 2) for x in norm}
            if stage > 1 and block == 0:
                wanted |= {f"{at}.downsample.0.weight"}
                wanted |= {f"{at}.downsample.1.{x}" for x in norm}
    assert set(found) == wanted
    assert found["layer2.0.conv1.weight"].shape == (4, 2, 3, 3)
    assert found["fc.weight"].shape == (3, 16)


def test_values_are_where_they_belong(tmp_path):
    path, found = written(tmp_path)
    variables, account = read(path)
    block = variables["params"]["encoder"]["stage1_block1"]["second"]
    kernel = found["layer2.1.conv2.weight"]
    for i, j in ((0, 0), (3, 1)):
        np.testing.assert_array_equal(block["conv"]["kernel"][1, 2, j, i], kernel[i, j, 1, 2])
    statistics = variables["batch_stats"]["encoder"]["stage1_block1"]["second"]["norm"]
    np.testing.assert_array_equal(statistics["var"], found["layer2.1.bn2.running_var"])
    np.testing.assert_array_equal(block["norm"]["scale"], found["layer2.1.bn2.weight"])
    np.testing.assert_array_equal(variables["params"]["classifier"]["kernel"], found["fc.weight"].T)
    assert (account.layout, account.head, account.classes) == ("torchvision", "taken", 3)
    assert account.matched + len(account.ignored) == account.tensors == len(found)
    assert account.dtypes == {"F32": account.matched}


DEEP = models.ResNet(
    blocks=(1, 2),
    widths=(2, 2, 4),
    project_first=True,
    block=models.Bottleneck,
    imagenet_stem=True,
)
FAMILIES = {
    "resnet": (SMALL, ("torchvision", "kuangliu", "hf", "kdjax")),
    "bottlenecks": (DEEP, ("hf",)),
    "resnet8x4": (models.cifar_resnet(8, multiplier=4), ("repdistiller", "kuangliu")),
    "vgg": (models.vgg(11, width=1), ("repdistiller", "kdjax")),
}


@pytest.mark.parametrize(
    ("encoder", "layout"),
    [
        pytest.param(
            *(encoder, layout),
            id=f"{name}-{layout}",
            marks=[pytest.mark.thorough] if name == "resnet8x4" else [],
        )
        for name, (encoder, names) in FAMILIES.items()
        for layout in names
    ],
)
def test_a_file_is_the_same_when_it_is_written_again(encoder, layout, tmp_path):
    """The variables are too, and the layout is found by the names."""
    path, first = written(tmp_path, layout, encoder=encoder)
    variables, account = read(path, encoder=encoder)
    for name, leaf in tree.named_leaves(variables_of(encoder)).items():
        np.testing.assert_array_equal(tree.named_leaves(variables)[name], leaf, err_msg=name)
    again = weights.written(
        weights.named(encoder, variables),
        account.layout,
        prefix=account.prefix,
        counters=account.counters,
    )
    assert again.keys() == first.keys()
    for name, array in again.items():
        np.testing.assert_array_equal(array, first[name], err_msg=name)
        assert array.dtype == first[name].dtype


def test_convolutions_with_biases_give_what_they_gave():
    """VGG's BatchNorm takes them up: `norm(conv(x) + bias)` is the same with the mean less the bias."""
    x, bias, mean, var = (np.random.default_rng(i).normal(size=5) for i in range(4))
    (moved,) = without_bias().into([bias, mean], [(5,), (5,)])
    np.testing.assert_allclose((x + bias - mean) / np.abs(var), (x - moved) / np.abs(var))


def test_the_encoder_alone_and_a_classifier_of_others(tmp_path):
    path, _ = written(tmp_path)
    variables, account = read(path, classes=None)
    wanted = {"stem", "stage0_block0", "stage1_block0", "stage1_block1"}
    assert set(variables["params"]) == wanted
    assert account.head == "left out, as there is none here"
    variables, account = read(path, classes=7)
    assert account.head == "left out, as it has 3 classes and the task 7"
    assert variables["params"]["classifier"]["kernel"].shape == (4, 7)
    whole, _ = read(path)
    stem = whole["params"]["encoder"]["stem"]["conv"]["kernel"]
    np.testing.assert_array_equal(variables["params"]["encoder"]["stem"]["conv"]["kernel"], stem)


def test_an_encoder_without_the_prefix_of_a_whole_model(tmp_path):
    """transformers has `resnet.` before all names but the head's, and nothing where there is no head."""
    path, found = written(tmp_path, "hf")
    assert "resnet.embedder.embedder.convolution.weight" in found
    _, account = read(path)
    assert account.prefix == "resnet."
    alone = {n.removeprefix("resnet."): x for n, x in found.items() if n.startswith("resnet.")}
    safetensors.numpy.save_file(alone, path)
    variables, account = read(path, classes=None)
    assert (account.prefix, account.head) == ("", "not in the files")
    again = weights.written(weights.named(SMALL, variables), "hf", prefix=account.prefix)
    assert again.keys() == alone.keys()


def test_names_from_inside_data_parallel(tmp_path):
    path, found = written(tmp_path)
    safetensors.numpy.save_file({f"module.{name}": x for name, x in found.items()}, path)
    variables, account = read(path)
    assert account.prefix == "module."
    again = weights.written(weights.named(SMALL, variables), "torchvision", prefix="module.")
    assert again.keys() == {f"module.{name}" for name in found}


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_taken_exactly(dtype, tmp_path):
    path, found = written(tmp_path)
    half = {n: x.astype(dtype) if x.dtype == np.float32 else x for n, x in found.items()}
    safetensors.numpy.save_file(half, path)
    variables, account = read(path)
    kernel = variables["params"]["encoder"]["stem"]["conv"]["kernel"]
    assert kernel.dtype == np.float32
    wanted = half["conv1.weight"].astype(np.float32).transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(kernel, wanted)
    assert set(account.dtypes) == {"F16" if dtype is np.float16 else "BF16"}


def test_several_files_with_an_index(tmp_path):
    _, found = written(tmp_path)
    (tmp_path / "x.safetensors").unlink()
    names = sorted(found)
    parts = {"a.safetensors": names[:20], "b.safetensors": names[20:]}
    for file, own in parts.items():
        safetensors.numpy.save_file({name: found[name] for name in own}, tmp_path / file)
    index = {"weight_map": {name: file for file, own in parts.items() for name in own}}
    (tmp_path / tensors.INDEX).write_text(json.dumps(index))
    variables, account = read(tmp_path)
    assert account.tensors == len(found)
    np.testing.assert_array_equal(variables["params"]["classifier"]["bias"], found["fc.bias"])
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(BadInput, match=r"b\.safetensors: missing"):
        read(tmp_path)
    index["weight_map"]["fc.bias"] = "../b.safetensors"
    (tmp_path / tensors.INDEX).write_text(json.dumps(index))
    with pytest.raises(BadInput, match="no name of a file in this folder"):
        read(tmp_path)


ODD = np.zeros((3, 3), np.float32)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"fc__bias": None}, "1 missing (fc.bias)"),
        ({"layer1__0__bn1__running_var": None}, "1 missing (layer1.0.bn1.running_var)"),
        ({"extra__weight": ODD, "more": ODD}, "2 left over (extra.weight, more)"),
        (
            {"layer1__0__conv2__weight": np.zeros((2, 2, 1, 1), np.float32)},
            "1 of another shape (layer1.0.conv2.weight is [2, 2, 1, 1] for [2, 2, 3, 3])",
        ),
        ({"conv1__weight": ODD}, "1 of another shape (conv1.weight is [3, 3] for [2, 3, 3, 3])"),
        (
            {"conv1__weight": np.zeros((2, 3, 3, 3), np.int8)},
            "conv1.weight is I8, and weights are read",
        ),
        ({"bn1__bias": np.full(2, np.nan, np.float32)}, "bn1.bias has values that are not finite"),
    ],
)
def test_what_does_not_fit_is_one_line(changed, line, tmp_path):
    path, _ = written(tmp_path, **changed)
    with pytest.raises(BadInput, match=re.escape(line)) as error:
        read(path)
    assert str(error.value).startswith("weights: ")
    assert "\n" not in str(error.value)


def test_skip_says_what_may_be_left_over(tmp_path):
    path, found = written(tmp_path, fc__bias=None, fc__weight=None, extra__weight=ODD)
    variables, account = read(path, skip=r"extra\..*|.*/stage1_block1/second/norm/.*")
    assert account.skipped == ("extra.weight",)
    norm = "encoder/stage1_block1/second/norm"
    assert account.fresh == (
        *(f"batch_stats/{norm}/{x}" for x in ("mean", "var")),
        *(f"params/{norm}/{x}" for x in ("bias", "scale")),
    )
    # What is fresh is as a new network has it.
    norm = variables["params"]["encoder"]["stage1_block1"]["second"]["norm"]
    np.testing.assert_array_equal(norm["scale"], np.ones(4))
    np.testing.assert_array_equal(
        variables["params"]["encoder"]["stem"]["norm"]["scale"], found["bn1.weight"]
    )


def test_the_weights_of_another_network_say_what_they_are(tmp_path):
    path, _ = written(tmp_path, encoder=DEEP)
    with pytest.raises(BadInput, match=r"left over \(layer1\.0\.bn3\.bias") as error:
        read(path)
    assert "looks like torchvision's ResNet" in str(error.value)
    with pytest.raises(
        BadInput, match=r"none of its .* tensors .* is one of VGG; it looks like"
    ) as error:
        read(path, encoder=models.vgg(8))
    (tmp_path / "config.json").write_text('{"architecture": "resnet50.a1_in1k"}')
    with pytest.raises(BadInput, match=r"says it is resnet50\.a1_in1k"):
        read(path)


def test_a_layout_that_is_none_of_this_network(tmp_path):
    path, _ = written(tmp_path)
    with pytest.raises(
        BadInput, match=r"weights\.layout: 'torchvison' is no layout of ResNet; did you"
    ):
        read(path, layout="torchvison")
    with pytest.raises(BadInput, match="layout: 'repdistiler'"):
        weights.written(weights.named(SMALL, variables_of()), "repdistiler")


def test_patterns_add_to_numbers_in_both_directions():
    rules = [
        Rule("layer{s+1}.{b}.{x:word}", "params/stage{s}_block{b}/{x:word}", same),
        Rule("rest.{p:path}", "{p:path}", same),
    ]
    found, lost = bind(rules, ["params/stage2_block10/scale", "batch_stats/a/b", "params/stage2/x"])
    assert [bound.theirs[0] for bound in found] == [
        "layer3.10.scale",
        "rest.batch_stats/a/b",
        "rest.params/stage2/x",
    ]
    assert not lost
    assert bind(rules[:1], ["params/other"]) == ([], ["params/other"])


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_no_bytes_break_the_reader(data, tmp_path_factory):
    """A file that is cut off, or has other bytes in its header, is one line, or is read."""
    folder = tmp_path_factory.mktemp("bytes")
    path = folder / "x.safetensors"
    content = bytearray(
        safetensors.numpy.save({"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.float16)})
    )
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    lines = []
    try:
        found = tensors.opened(path)
        with found.reading() as reader:
            assert all(reader.raw(name).shape == x.shape for name, x in found.said.items())
    except BadInput as error:
        lines.append(str(error))
    assert all(line.startswith(f"weights: {path}: ") and "\n" not in line for line in lines)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("x.safetensors", b"\x80\x02}q\x00.", "a pickle, which can run any code"),
        ("x.safetensors", b"PK\x03\x04" + bytes(40), "a pickle, which can run any code"),
        ("x.pth", b"anything", "kdjax convert"),
        ("x.safetensors", b"", "empty"),
        ("x.safetensors", b"\x89HDF\r\n\x1a\n" + bytes(9), "HDF5"),
        ("x.safetensors", b"nonsense and more", "no safetensors file"),
    ],
)
def test_other_files_are_told_by_their_bytes(name, content, line, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=re.escape(line)):
        read(tmp_path / name)


def test_a_file_that_is_cut_off(tmp_path):
    path, _ = written(tmp_path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(BadInput, match=r"x\.safetensors: cut off"):
        read(path)


def test_a_file_that_goes_on_behind_its_tensors(tmp_path):
    path, _ = written(tmp_path)
    path.write_bytes(path.read_bytes() + bytes(1_234))
    with pytest.raises(BadInput, match=r"x\.safetensors: 1,234 bytes behind its last tensor"):
        read(path)


def test_folders_without_weights_or_with_too_many(tmp_path):
    with pytest.raises(BadInput, match="no such file or folder"):
        read(tmp_path / "none")
    with pytest.raises(BadInput, match="no weights; give a safetensors file"):
        read(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(BadInput, match=r"pytorch_model\.bin: a pickle"):
        read(tmp_path)
    path, _ = written(tmp_path)
    path.rename(tmp_path / "a.safetensors")
    read(tmp_path)  # the one that there is
    (tmp_path / "b.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes())
    with pytest.raises(BadInput, match="2 safetensors files"):
        read(tmp_path)
