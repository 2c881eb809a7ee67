"""Self-supervised methods: their loss by hand, on eight devices, and what they keep between steps."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import config, losses, models, parse, ssl, train
from kdjax.artifacts.model import EncoderSpec
from kdjax.inputs import Inputs
from kdjax.ssl.method import spread
from kdjax.stages.pretrain import chosen
from kdjax.types import Field

BATCH, STEPS, SIZE = 16, 3, 6
CNN = {"name": "cnn", "widths": [4, 6]}
VIT = {"name": "vit", "width": 4, "depth": 1, "heads": 2, "mlp": 4, "patch": 2}
LOCAL = {"local_crops": 2, "local_views": {"recipe": "simclr", "size": 4}}
METHODS = {
    "simclr": {},
    "dcl": {"sigma": 0.5},
    "moco_v2": {"queue": 2 * BATCH, "momentum": 0.9},
    "moco_v3": {"predictor": [8], "momentum": 0.9},
    "byol": {"predictor": [8], "momentum": {"begin": 0.8, "end": 1.0, "shape": "cosine"}},
    "simsiam": {"bottleneck": 3},
    "barlow_twins": {},
    "vicreg": {},
    "swav": {"prototypes": 7, "freeze_steps": 1, **LOCAL},
    "dino": {"prototypes": 7, "momentum": 0.9, **LOCAL},
    "rotation": {},
    "mae": {"share": 0.5, "decoder_width": 4, "decoder_depth": 1, "decoder_heads": 2},
}


@functools.cache
def made(name: str, axis_name: str | None = None) -> tuple[ssl.Method, EncoderSpec]:
    vit = name == "mae"
    c = parse.parse(
        config.Pretrain,
        {
            "kind": "pretrain",
            "encoder": VIT if vit else CNN,
            "projector": [] if vit else [8, 5],
            "views": {"recipe": "simclr"},
            "method": {"name": name, **METHODS[name]},
            "steps": STEPS,
            "batch": BATCH,
            "optimizer": {"name": "sgd", "learning_rate": 0.1},
        },
    )
    spec = EncoderSpec(
        encoder=c.encoder,
        projector=c.projector,
        inputs=Inputs.of({"image": Field((SIZE, SIZE, 1), "uint8")}),
    )
    return chosen(c, spec, axis_name=axis_name), spec


@functools.cache
def initial(encoder: str):
    """Variables of the model, the same for all methods but `mae`."""
    _, spec = made(encoder)
    return spec.init(jax.random.key(0))


@functools.cache
def start(name: str):
    method, _ = made(name)
    return method.start(initial("mae" if name == "mae" else "simclr"), jax.random.key(1))


def batch(step: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(step)

    def images(*shape):
        return random.normal(size=(BATCH, *shape, 1)).astype(np.float32)

    kept = np.sort(random.permuted(np.tile(np.arange(9), (BATCH, 1)), axis=1)[:, :5])
    hidden = np.ones((BATCH, 9), bool)
    np.put_along_axis(hidden, kept, False, axis=1)
    return {
        "view_a": images(SIZE, SIZE),
        "view_b": images(SIZE, SIZE),
        "local": images(2, 4, 4),
        "kept": kept.astype(np.int32),
        "hidden": hidden,
    }


class Program(NamedTuple):
    parallel: train.Parallel
    method: ssl.Method
    tx: optax.GradientTransformation
    run_steps: Callable


@functools.cache
def program(name: str, way: str, accumulate: int = 1):
    parallel = train.choose(way)
    method, _ = made(name, parallel.axis_name)
    tx = optax.sgd(0.1, momentum=0.9)
    step = train.make_train_step(
        method.objective(parallel.axis_name),
        tx,
        ema=method.momentum,
        accumulate=accumulate,
        axis_name=parallel.axis_name,
    )

    run_steps = parallel.compile(train.make_run_steps(lambda resident, feed, key: feed, step))
    return Program(parallel, method, tx, run_steps)


def fit(name, way="single", *, state=None, stop=STEPS, accumulate=1):
    """The last state and the metrics of each step, from `state` on."""
    parallel, method, tx, run_steps = program(name, way, accumulate)
    if state is None:
        variables = jax.tree.map(jnp.copy, start(name))
        state = train.TrainState.start(variables, tx, ema=method.momentum is not None)
    state, metrics = parallel.replicate(state), []
    for i in range(int(state.step), stop):
        feed = parallel.feed(jax.tree.map(lambda x: x[None], batch(i)))
        key = parallel.replicate(jax.random.key(3))
        state, found = run_steps(state, parallel.replicate({}), feed, key)
        metrics.append(jax.tree.map(lambda x: x[0], jax.device_get(found)))
    return jax.device_get(state), metrics


@functools.cache
def fitted(name):
    return fit(name)


@functools.cache
def first_outputs():
    """Projections of the first batch: both views together, the local ones, each view by itself."""
    _, spec = made("simclr")
    variables, model = initial("simclr"), spec.module()

    @jax.jit
    def project(image):
        return model.apply(variables, image, train=True, mutable=["batch_stats"])[0]["projections"]

    a, b, local = (batch(0)[name] for name in ("view_a", "view_b", "local"))
    local = np.concatenate([local[:, 0], local[:, 1]])
    return [np.asarray(project(x)) for x in (np.concatenate([a, b]), local, a, b)]


def beside(name, module, head, *inputs, **kwargs):
    own = {
        collection: found[train.BESIDE][head]
        for collection, found in start(name).items()
        if collection != train.MEMORY and head in found.get(train.BESIDE, {})
    }
    return module.apply(own, *inputs, mutable=["batch_stats"], **kwargs)[0]


def by_hand(name):
    """The loss of the first step: at first the target network is the online one."""
    together, local, a, b = map(jnp.asarray, first_outputs())
    za, zb = together[:BATCH], together[BATCH:]
    match name:
        case "simclr":
            return losses.nt_xent(za, zb, temperature=0.5).mean()
        case "dcl":
            return losses.dcl(za, zb, temperature=0.1, sigma=0.5).mean()
        case "moco_v2":
            queue = start(name)[train.MEMORY]["queue"]
            return losses.info_nce(a, b, queue, temperature=0.2).mean()
        case "barlow_twins":
            return losses.barlow_twins(a, b, off_diagonal_weight=0.005)
        case "vicreg":
            return losses.vicreg(a, b)
        case "moco_v3" | "byol" | "simsiam":
            widths = (3, 5) if name == "simsiam" else (8, 5)
            head = models.Projector(widths)
            pa, pb = (beside(name, head, "predictor", z, train=True) for z in (a, b))
            if name == "byol":
                return (losses.byol(pa, b) + losses.byol(pb, a)).mean()
            if name == "simsiam":
                return 0.5 * (losses.negative_cosine(pa, b) + losses.negative_cosine(pb, a)).mean()
            one = functools.partial(losses.moco_v3, temperature=0.2)
            return (one(pa, b) + one(pb, a)).mean()
    every = jnp.concatenate([za, zb, local[:BATCH], local[BATCH:]])
    scores = beside(name, models.Prototypes(7), "prototypes", every).reshape(4, BATCH, 7)
    if name == "swav":
        return losses.swav(scores).mean()
    return losses.dino(
        scores, scores[:2], jnp.zeros(7), student_temperature=0.1, teacher_temperature=0.04
    ).mean()


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("rotation", "mae")])
def test_the_first_loss_by_hand(name):
    _, metrics = fitted(name)
    assert {f"loss/{term}" for term in made(name)[0].terms} == {
        key for key in metrics[0] if key.startswith("loss/")
    }
    first_outputs()  # outside of the program
    np.testing.assert_allclose(metrics[0]["loss"], jax.jit(lambda: by_hand(name))(), rtol=2e-5)


def test_rotation_tells_four_turns_of_one_batch_apart():
    _, metrics = fitted("rotation")
    _, spec = made("rotation")
    turns = np.concatenate([np.rot90(batch(0)["view_a"], i, axes=(1, 2)) for i in range(4)])
    layer, label = (
        start("rotation")["params"][train.BESIDE]["turns"],
        jnp.repeat(jnp.arange(4), BATCH),
    )

    @jax.jit
    def logits_of(turns):
        outputs, _ = spec.module().apply(
            initial("simclr"), turns, train=True, mutable=["batch_stats"]
        )
        return outputs["projections"] @ layer["kernel"] + layer["bias"][None, :]

    logits = logits_of(turns)
    np.testing.assert_allclose(
        metrics[0]["loss"], losses.cross_entropy(logits, label).mean(), rtol=1e-5
    )
    right = (np.asarray(logits).argmax(-1) == label).mean()
    np.testing.assert_allclose(metrics[0]["accuracy/rotation"], right, rtol=1e-6)


def test_mae_sees_what_is_shown_and_is_asked_for_the_rest():
    method, _ = made("mae")
    state = train.TrainState.start(start("mae"), optax.sgd(0.1))

    @jax.jit
    def forward(batch):
        outputs, _ = method.forward(state.params, state, batch, jax.random.key(0))
        patches = models.patches_of(batch["view_a"], patch=2)
        error = losses.masked_patch_mse(
            outputs["painted"], patches, batch["hidden"], normalize=True
        )
        return {**outputs, "loss": error.mean()}

    whole = batch(0)
    np.testing.assert_allclose(fitted("mae")[1][0]["loss"], forward(whole)["loss"], rtol=1e-5)
    # A change of a hidden patch moves the loss and not what is painted; of a shown one, also that.
    row = 2 * (whole["kept"][0, 0] // 3)
    column = 2 * (whole["kept"][0, 0] % 3)
    gone = np.flatnonzero(whole["hidden"][0])[0]
    for which, (top, left), same in [
        ("hidden", (2 * (gone // 3), 2 * (gone % 3)), True),
        ("shown", (row, column), False),
    ]:
        image = whole["view_a"].copy()
        image[0, top, left] += 3.0
        found = forward({**whole, "view_a": image})
        moved = np.abs(found["painted"] - forward(whole)["painted"]).max(axis=(1, 2))
        assert (moved[0] == 0) == same, which
        assert (moved[1:] == 0).all()


def test_patches_are_laid_out_as_a_vit_has_them():
    image = jnp.arange(2 * 4 * 6 * 2, dtype=jnp.float32).reshape(2, 4, 6, 2)
    found = models.patches_of(image, patch=2)
    assert found.shape == (2, 6, 8)
    for i, (top, left) in enumerate([(r, c) for r in (0, 2) for c in (0, 2, 4)]):
        expected = image[:, top : top + 2, left : left + 2].reshape(2, 8)
        np.testing.assert_array_equal(found[:, i], expected)


def test_a_decoder_puts_tokens_where_they_belong():
    decoder = models.PatchDecoder(width=4, depth=1, heads=2, patches=4, pixels=3)
    tokens = jax.random.normal(jax.random.key(0), (1, 2, 5))
    kept = jnp.asarray([[1, 3]])
    variables = jax.jit(lambda key: decoder.init(key, tokens, kept))(jax.random.key(1))
    paint = jax.jit(lambda tokens, kept: decoder.apply(variables, tokens, kept))
    found = paint(tokens, kept)
    assert found.shape == (1, 4, 3)
    swapped = paint(tokens[:, ::-1], kept[:, ::-1])
    np.testing.assert_allclose(swapped, found, rtol=1e-5, atol=1e-6)
    assert np.abs(paint(tokens[:, ::-1], kept) - found).max() > 1e-3


def test_prototypes_are_cosines():
    x = jnp.asarray([[3.0, 4.0], [0.0, 0.0]])
    module = models.Prototypes(3)
    kernel = jnp.asarray([[1.0, 0.0, -3.0], [0.0, 2.0, -4.0]])

    def scores(x, kernel):
        return module.apply({"params": {"kernel": kernel}}, x)

    np.testing.assert_allclose(scores(x, kernel), [[0.6, 0.8, -1.0], [0.0, 0.0, 0.0]], rtol=1e-6)
    by_x, by_kernel = jax.grad(lambda *args: scores(*args).sum(), argnums=(0, 1))(x, kernel)
    assert jnp.isfinite(by_x).all()
    assert jnp.isfinite(by_kernel).all()


@pytest.mark.parametrize(
    ("name", "accumulate"), [("moco_v2", 1), ("byol", 1), ("swav", 1), ("dino", 1), ("moco_v2", 2)]
)
def test_eight_devices_are_one(name, accumulate):
    if accumulate == 1:
        one, many = fitted(name), fit(name, "pmap")
    else:
        one, many = (fit(name, way, stop=2, accumulate=2) for way in ("single", "pmap"))
    for a, b in zip(one[1], many[1], strict=True):
        np.testing.assert_allclose(b["loss"], a["loss"], rtol=1e-4)
    for a, b in zip(jax.tree.leaves(one[0]), jax.tree.leaves(many[0]), strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-3, atol=2e-5)


def test_training_that_was_stopped_goes_on_with_its_queue(tmp_path):
    expected, _ = fitted("moco_v2")
    state, _ = fit("moco_v2", stop=1)
    checkpoints = train.Checkpoints(tmp_path)
    checkpoints.save(1, state)
    checkpoints.close()
    tx = program("moco_v2", "single").tx
    checkpoints = train.Checkpoints(tmp_path)
    fresh = train.TrainState.start(jax.tree.map(jnp.copy, start("moco_v2")), tx, ema=True)
    state = checkpoints.latest(train.choose("single").replicate(fresh))
    checkpoints.close()
    found, _ = fit("moco_v2", state=state)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    assert expected.model_state[train.MEMORY]["pointer"] == STEPS * BATCH % (2 * BATCH)


def test_the_queue_begins_with_random_unit_rows():
    queue = np.asarray(start("moco_v2")[train.MEMORY]["queue"])
    np.testing.assert_allclose(np.linalg.norm(queue, axis=1), 1.0, rtol=1e-5)
    assert np.abs(np.corrcoef(queue) - np.eye(len(queue))).max() < 1 - 1e-3
    method, _ = made("moco_v2")
    other = method.start(initial("simclr"), jax.random.key(2))[train.MEMORY]["queue"]
    assert (other != queue).all()


def test_frozen_prototypes_begin_to_learn():
    before = start("swav")["params"][train.BESIDE]["prototypes"]["kernel"]
    still, moved = fit("swav", stop=1)[0], fit("swav", stop=2)[0]
    np.testing.assert_array_equal(still.params[train.BESIDE]["prototypes"]["kernel"], before)
    assert np.abs(moved.params[train.BESIDE]["prototypes"]["kernel"] - before).max() > 0


@pytest.mark.parametrize("name", METHODS)
def test_what_is_left_is_the_model(name):
    method, spec = made(name)
    state, _ = fitted(name)
    left = method.left(state)
    assert jax.tree.map(lambda x: x.shape, left) == jax.tree.map(
        lambda x: x.shape, dict(spec.abstract())
    )
    kernel = jax.tree.leaves(left["params"])[0]
    online, average = (
        None if params is None else jax.tree.leaves(train.of_model({"params": params}))[0]
        for params in (state.params, state.ema_params)
    )
    np.testing.assert_array_equal(kernel, average if name == "dino" else online)
    if name == "dino":  # with the statistics that the teacher saw
        assert jax.tree.leaves(left["batch_stats"])[0].shape
        means = (left["batch_stats"], state.model_state["batch_stats"])
        mine, students = (m["encoder"]["block1"]["norm"]["mean"] for m in means)
        assert np.abs(mine - students).max() > 0


def test_spread_of_projections():
    z = jnp.asarray(np.random.default_rng(0).normal(size=(4096, 16)), jnp.float32)
    np.testing.assert_allclose(spread(z), 0.25, rtol=0.01)
    assert spread(jnp.ones((8, 3))) == 0
    parts = jax.pmap(lambda z: spread(z, axis_name="i"), axis_name="i")(z[:64].reshape(8, 8, 16))
    np.testing.assert_allclose(parts, np.full(8, spread(z[:64])), rtol=1e-5)
    for name in ("byol", "simsiam", "barlow_twins", "vicreg", "swav", "dino"):
        assert 0 < fitted(name)[1][0]["std/projections"] <= 1 / np.sqrt(5) + 1e-6
