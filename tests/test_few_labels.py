"""The recipe for few labels: the facts that it follows from, and what it makes of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import config, few_labels, parse, pipeline, views
from kdjax.data import digits
from kdjax.few_labels import Facts
from kdjax.types import BadInput


def test_digits_are_told_from_their_mirror_images_and_noise_is_not():
    found = few_labels.facts(digits("train").inputs()["image"][:1000])
    assert (found.side, found.channels) == (8, 1)
    assert found.mirrored > 0.75
    noise = np.random.default_rng(0).integers(0, 256, (1000, 9, 7, 3), np.uint8)
    of_noise = few_labels.facts(noise)
    assert abs(of_noise.mirrored - 0.5) < 0.08
    assert (of_noise.side, of_noise.channels) == (7, 3)
    np.testing.assert_allclose(of_noise.mean, 0.5, atol=0.01)
    np.testing.assert_allclose(of_noise.std, np.sqrt(1 / 12), atol=0.01)


def test_what_is_symmetric_has_no_mirror_image():
    image = np.random.default_rng(0).integers(0, 256, (50, 8, 4, 1), np.uint8)
    both = np.concatenate([image, image[:, :, ::-1]], 2)
    assert 0.2 <= few_labels.mirrored(both) <= 0.8
    assert few_labels.mirrored(both[:, :, :1]) == 0.5


def test_what_is_warped_anyway_bears_to_be_warped():
    """One picture in 600 warps of thrice the whole strength; and in none, with a little noise."""
    rng = np.random.default_rng(0)
    picture = jax.image.resize(
        jnp.asarray(rng.random((6, 6, 1)), jnp.float32), (24, 24, 1), "linear"
    )

    def one(key):
        return views.warp(key, picture, **few_labels.warp(3.0))

    of_many = jax.vmap(one)(jax.random.split(jax.random.key(1), 600))
    of_one = np.clip(np.asarray(picture) + rng.normal(0, 0.02, (600, 24, 24, 1)), 0, 1)
    images = [(255 * np.asarray(x)).astype(np.uint8) for x in (of_many, of_one)]
    strengths = [few_labels.warp_strength(x) for x in images]
    assert strengths == [1.0, 0.0]
    assert few_labels.warp(0.0) == {"turn": 0.0, "shear": 0.0, "stretch": 1.0}


def facts(**own):
    plain = {"side": 28, "channels": 1, "mean": (0.1,), "std": (0.3,), "mirrored": 0.9, "warp": 0.5}
    return Facts(**{**plain, **own})


@pytest.mark.parametrize(
    ("own", "flip", "saturation"),
    [
        ({}, 0.0, 0.0),
        ({"mirrored": 0.52, "channels": 3}, 0.5, 0.4),
        ({"mirrored": few_labels.CHIRAL}, 0.5, 0.0),
    ],
)
def test_views_follow_the_facts(own, flip, saturation):
    found = few_labels.views(facts(**own))
    assert {view["flip"] for view in found.values()} == {flip}
    assert found["strong"]["saturation"] == saturation


@pytest.mark.parametrize(("side", "last"), [(8, 1), (28, 4), (32, 4), (64, 4), (224, 7)])
def test_an_encoder_ends_with_a_small_map(side, last):
    widths = few_labels.widths(facts(side=side), first=16)
    for _ in widths[1:]:
        side = -(-side // 2)
    assert side == last
    assert (widths[0], max(widths)) == (16, 128)


@pytest.mark.parametrize("side", [1, 8, 28, 96])
@pytest.mark.parametrize("effort", [0.001, 1.0, 2.0])
def test_its_stages_are_a_run(side, effort):
    stages = few_labels.stages(facts(side=side), effort=effort)
    run = parse.parse(config.Run, {"name": "x", "data": {"name": "digits"}, "stages": stages})
    assert run.stages["pretrain"].steps == max(1, round(1000 * effort))


def test_each_part_can_be_left_out_and_nothing_else_changes():
    whole = few_labels.stages(facts())
    differ = {}
    for part in few_labels.INGREDIENTS:
        found = few_labels.stages(facts(), without=part)
        run = parse.parse(config.Run, {"name": "x", "data": {"name": "digits"}, "stages": found})
        assert set(pipeline.order(run)) == set(found)
        differ[part] = {name for name in whole if found.get(name) != whole[name]}
    assert differ == {
        "warp": {"pretrain", "teacher", "cache", "scratch"},
        "pretraining": {"pretrain", "probe", "teacher"},
        "probe": {"teacher"},
        "self_training": {"teacher"},
    }
    with pytest.raises(BadInput, match=r"^without: there is no 'wrap'; did you mean warp"):
        few_labels.stages(facts(), without="wrap")


@pytest.mark.parametrize(("labels", "strengths"), [(1, 1), (2, 8)])
def test_one_label_of_a_class_leaves_no_strength_to_choose(labels, strengths):
    found = few_labels.stages(facts(), labels=labels)
    run = parse.parse(config.Run, {"name": "x", "data": {"name": "digits"}, "stages": found})
    for name in ("pixels", "probe"):
        assert len(run.stages[name].linear.strengths) == strengths
