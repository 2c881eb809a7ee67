"""The rules of `kdjax compress`: pure functions of facts."""

import dataclasses
import json

import flax.linen as nn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax import config, data, few_labels, parse
from kdjax.compress import budget, facts, rules
from kdjax.compress.written import config_file
from kdjax.config import optimizers
from kdjax.types import BadInput

LOOK = few_labels.Facts(
    side=32, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3, mirrored=0.5, warp=0.5
)
NETWORK = rules.Network(
    encoder={"name": "resnet18", "imagenet_stem": True, "weights": "resnet18.safetensors"},
    params=11_689_512,
    size=(224, 224),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    crop=0.875,
    interpolation="bilinear",
    squash=False,
    head=False,
)


def pictures(**changes):
    known = {"train": 5000, "test": 500, "labelled": 5000, "classes": 10, "side": 32, "look": LOOK}
    return rules.Pictures(**{**known, **changes})


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("200kB", "bytes", 200_000),
        (" 1.5 MB", "bytes", 1_500_000),
        ("64KiB", "bytes", 65_536),
        ("2ms", "ms", 2),
        ("500us", "ms", 0.5),
        ("1e-3s", "ms", 1),
        ("0.5x", "share", 0.5),
        (".25X", "share", 0.25),
    ],
)
def test_a_budget(text, kind, value):
    found = budget.parsed(text)
    assert found.kind == kind
    assert found.value == pytest.approx(value)
    assert budget.parsed(str(found)) == found


@pytest.mark.parametrize(
    "text", ["", "200", "kB", "-3kB", "0ms", "2x", "0x", "1e999kB", "3 potatoes"]
)
def test_a_budget_that_is_none(text):
    with pytest.raises(BadInput, match=r"^--budget: .* write a size"):
        budget.parsed(text)


@pytest.mark.parametrize(
    ("side", "seen", "stored", "student"),
    [
        (8, 32, 8, 8),
        (32, 64, 32, 32),
        (64, 128, 64, 64),
        (96, 192, 96, 96),
        (112, 224, 112, 112),
        (400, 224, 224, 112),
    ],
)
def test_sizes_never_enlarge_beyond_twice(side, seen, stored, student):
    of = pictures(side=side)
    assert rules.seen(NETWORK, of) == (seen, seen)
    assert rules.stored(NETWORK, side) == (stored, stored)
    assert rules.student_size(NETWORK, of) == (student, student)


def test_a_network_of_small_pictures_sees_them_as_they_are():
    small = dataclasses.replace(NETWORK, size=(32, 32))
    assert rules.seen(small, pictures(side=400)) == (32, 32)


SIZES = st.builds(
    rules.Size,
    inner=st.integers(1000, 10**7),
    edges=st.integers(100, 10**5),
    others=st.integers(10, 10**4),
    layers=st.integers(2, 60),
    channels=st.integers(10, 5000),
)


@given(SIZES, st.floats(0.0, 1.0))
def test_what_a_file_holds_is_the_most_that_fits(size, part):
    least, most = rules.A_LAYER * size.layers, size.file()
    limit = least + part * (most - least)
    left = size.params_within(limit)
    assert 0 <= left <= size.params
    # The scale of so many parameters, found another way: the positive root of the quadratic.
    linear = size.edges + size.others
    scale = (-linear + (linear**2 + 4 * size.inner * left) ** 0.5) / (2 * size.inner)
    assert size.file(scale) <= limit * (1 + 1e-6)
    assert size.file(scale + 2 / size.inner**0.5) >= limit or left >= size.params - 1


def test_no_parameter_fits_where_the_layers_alone_are_more():
    size = rules.Size(inner=1000, edges=100, others=10, layers=10, channels=50)
    assert size.params_within(rules.A_LAYER * 10 - 1.0) == 0


def test_the_smallest_width_that_is_as_large_as_the_budget():
    sizes = {
        w: rules.Size(inner=100 * w**2, edges=10 * w, others=w, layers=2, channels=w)
        for w in (8, 16, 64)
    }
    assert rules.width_of(sizes[16].file(), sizes) == 16
    assert rules.width_of(sizes[16].file() - 1, sizes) == 16
    assert rules.width_of(sizes[16].file() + 1, sizes) == 64
    assert rules.width_of(1e12, sizes) == 64


def test_time_is_shared():
    speed = rules.Speed(teacher=0.01, teacher_step=0.03, student=0.001)
    found = rules.effort(pictures(), speed, minutes=60.0)
    # 0.3 of an hour are 1080 s, at 30 ms a picture 7.2 epochs of 5,000 labelled ones.
    assert found.teacher == round(7.2 * 5000 / 128)
    # 0.2 are 720 s: 14 views would fit, and 8 are the most.
    assert found.views == 8
    assert found.student == round(720 / 0.128)
    assert found.shrunk == round(360 / 0.128)


def test_without_labels_all_of_the_time_is_the_students():
    speed = rules.Speed(teacher=0.1, teacher_step=0.0, student=0.001)
    found = rules.effort(pictures(labelled=0), speed, minutes=30.0)
    assert found.teacher == 0
    assert found.views == round(1800 * 0.4 / 500)
    assert found.student == round(1800 * 0.4 / 0.128)
    long = rules.effort(pictures(labelled=0), speed, minutes=600.0)
    assert long.student == -(-rules.MOST_EPOCHS["student"] * 5000 // 128)


def test_a_large_network_is_probed_alone():
    slow = rules.Speed(teacher=10.0, teacher_step=30.0, student=0.001)
    found = rules.effort(pictures(), slow, minutes=1.0)
    assert (found.teacher, found.views) == (0, 1)


@pytest.mark.parametrize("labelled", [0, 300])
@pytest.mark.parametrize("text", ["100kB", "2ms"])
@pytest.mark.parametrize("side", [32, 300])
@pytest.mark.parametrize("head", [False, True])
def test_the_stages_are_a_config_and_its_file_says_the_same(labelled, text, side, head, tmp_path):
    of, asked = pictures(labelled=labelled, side=side), budget.parsed(text)
    network = dataclasses.replace(NETWORK, head=head and not labelled)
    effort = rules.Effort(teacher=20, views=2, student=100, shrunk=50)
    params = None if asked.kind == "ms" else 50_000
    stages = rules.stages(network, of, effort, width=16, budget=asked, params=params)
    run = {"name": 'it\'s "mine"', "data": {"name": "x"}, "seeds": [0], "stages": stages}
    parsed = parse.parse(config.Run, run)
    assert ("scratch" in parsed.stages) == bool(labelled)
    assert isinstance(parsed.stages["teacher"], config.Finetune if labelled else config.Pretrained)
    assert isinstance(parsed.stages["shrunk"], config.Shrink)
    written = config_file(
        run, title="A title.", command="kdjax", why=["because"], notes={"file": "it"}
    )
    names = {}
    exec(compile(written, "config.py", "exec"), names)
    found = names["get_config"]()
    assert list(found.stages) == list(stages)
    assert json.loads(found.to_json()) == json.loads(json.dumps(run))


def test_a_teacher_that_is_trained_keeps_the_statistics_that_its_probe_has_seen():
    def optimizer(steps, network):
        effort = rules.Effort(teacher=steps, views=2, student=100, shrunk=50)
        budgeted = budget.parsed("9MB")
        found = rules.stages(network, pictures(), effort, width=16, budget=budgeted, params=None)
        return parse.parse(config.Stage, found["teacher"]).optimizer

    normalised = dataclasses.replace(NETWORK, normalised=".*/norm/[^/]*")
    frozen = optimizer(20, normalised).freezing
    assert frozen is not None
    assert (frozen.frozen, frozen.statistics) == (".*/norm/[^/]*", True)
    assert optimizer(20, NETWORK).freezing is None
    assert isinstance(optimizer(0, normalised), optimizers.Frozen)


@pytest.mark.parametrize(
    ("encoder", "pattern"),
    [
        ({"name": "cnn", "widths": [4, 8]}, ".*/norm/[^/]*"),
        ({"name": "convnext", "depths": [1] * 3, "widths": [8] * 3}, None),
        (
            {"function": f"{__name__}:Mixed"},
            "encoder/norm/bias|encoder/norm/scale",
        ),
    ],
)
def test_what_batchnorms_have_as_parameters(encoder, pattern):
    images = np.zeros((8, 16, 16, 3), np.uint8)
    dataset = data.from_arrays(images, np.arange(8) % 2, classes=2)
    given = {"size": (16, 16), "mean": (0.5,) * 3, "std": (0.2,) * 3}
    assert facts.batch_normalised(facts.spec_of(encoder, dataset, **given)) == pattern


class Mixed(nn.Module):
    """A BatchNorm, and another norm that is called so in another place."""

    @nn.compact
    def __call__(self, image, *, train):
        x = nn.BatchNorm(use_running_average=not train, name="norm")(image)
        return Inner(name="inner")(x).mean((1, 2))


class Inner(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.LayerNorm(name="norm")(x)


def test_few_pictures_are_for_one_device():
    stages = {"a": {"batch": 16}, "b": {"batch": 4}, "c": {"kind": "shrink"}}
    assert rules.shared_evenly(stages, 4)
    assert not rules.shared_evenly(stages, 8)


def test_of_few_test_pictures_less_agreement_is_asked():
    assert rules.required_agreement(4) == 0.5
    assert rules.required_agreement(400) == 0.9
    assert rules.required_agreement(10**8) == 0.95


def test_nothing_is_shrunk_where_the_whole_student_is_within_the_budget():
    effort = rules.Effort(teacher=20, views=2, student=100, shrunk=50)
    found = rules.stages(
        NETWORK, pictures(), effort, width=16, budget=budget.parsed("9MB"), params=None
    )
    assert not {"shrunk", "small"} & found.keys()
    assert found["int8"]["model"] == "student"
