"""Masked prediction of frames: what is hidden, what it is asked for, and the line of two stages."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath
from scipy.special import log_softmax

from kdjax import config, parse, pipeline, ssl, train
from kdjax.artifacts import Artifact
from kdjax.artifacts.model import load
from kdjax.contexts import Splits
from kdjax.inputs import Inputs
from kdjax.models import Compute
from kdjax.types import BadInput
from kdjax.views import draws, frame_spans
from tests import own_tasks

LENGTH = jnp.int32(90)
RATE, MOST = own_tasks.RATE, own_tasks.LONGEST
LSTM = {"name": "lstm", "widths": [8], "bidirectional": True}
CONFORMER = {"name": "conformer", "width": 8, "depth": 1, "heads": 2, "mlp": 8, "kernel": 3}
SPECTRA = {"name": "log_mel", "rate": RATE, "window": 64.0, "hop": 25.0, "bands": 12, "low": 20.0}
OWN = own_tasks.spoken("train", n=24)
INPUTS = Inputs.of(OWN.fields)


def heard(n):
    return {name: jnp.asarray(x) for name, x in OWN.read(np.arange(n)).items()}


def stage_of(net=LSTM, **method):
    return parse.parse(
        config.Stage,
        {
            "kind": "pretrain",
            "encoder": {**SPECTRA, "net": net},
            "views": {"recipe": "eval"},
            "projector": [],
            "method": {"name": "masked_frames", "clusters": 6, "cepstrum": 5, "width": 8, **method},
            "steps": 10,
            "batch": 8,
            "optimizer": {"name": "adamw", "learning_rate": 1e-2},
        },
        "config.stages.net",
    )


def prepared(net=LSTM, **method):
    """The method of a stage, the first state, its clusters, and what it sees of a batch."""
    stage = stage_of(net, **method)
    module = stage.encoder.module(Compute())
    made = stage.method.method(ssl.Trained(module, module, 8, INPUTS, Compute(), 10))
    recipe = stage.views.recipe_for(INPUTS)
    draw = stage.method.draw(recipe, stage, stream="net", inputs=INPUTS)
    spectra = stage.method.asks(stage.encoder).of
    rows = heard(len(OWN))
    cepstra, mask = ssl.frames_of(spectra, {}, rows, of_spectra=True)
    found = ssl.k_means(np.asarray(cepstra)[np.asarray(mask)], clusters=6, seed=0)
    clusters = ssl.Clusters(*map(jnp.asarray, found), {}, spectra, of_spectra=True)
    variables = module.init(jax.random.key(0), **INPUTS.blank(), train=False)
    variables = made.start({"params": {"encoder": variables["params"]}}, jax.random.key(2))
    return made, train.TrainState.start(variables, optax.sgd(0.1)), clusters, draw


def batch_of(n, width=MOST, epoch=0):
    rows = heard(n)
    return {
        "id": jnp.arange(n, dtype=jnp.uint32),
        "epoch": jnp.full(n, epoch, jnp.uint32),
        "inputs": {**rows, "audio": rows["audio"][:, :width]},
    }


def test_spans_are_hidden_as_often_as_their_share_says():
    spans = jax.jit(jax.vmap(lambda key: frame_spans(key, LENGTH, frames=100, share=0.05, span=4)))(
        jax.random.split(jax.random.key(0), 4000)
    )
    hidden = np.array(spans)
    assert hidden[:, 90:].all()
    hidden[:, 90:] = False
    expected = 1 - 0.95 ** np.minimum(np.arange(90) + 1, 4)
    assert np.abs(hidden[:, :90].mean(0) - expected).max() < 5 * np.sqrt(0.19 * 0.81 / 4000)
    padded = np.pad(hidden.astype(int), ((0, 0), (1, 1)))
    begins = np.argwhere(np.diff(padded, axis=1) == 1)
    ends = np.argwhere(np.diff(padded, axis=1) == -1)
    long = ends[:, 1] - begins[:, 1]
    assert long[ends[:, 1] < 90].min() == 4


def test_padding_changes_no_span():
    key = jax.random.key(3)
    found = [frame_spans(key, jnp.int32(20), frames=n, share=0.2, span=3) for n in (20, 21, 40)]
    assert 0 < found[0].sum() < 20
    for other in found[1:]:
        np.testing.assert_array_equal(other[:20], found[0])
        assert other[20:].all()


def test_clusters_are_those_of_a_seed_and_each_frame_has_the_nearest():
    random = np.random.default_rng(0)
    centres = np.asarray([[0.0, 0.0], [9.0, 0.0], [0.0, 90.0]])
    rows = np.repeat(centres, 40, 0) + random.normal(size=(120, 2)) * [0.5, 5.0]
    first, again, other = (ssl.k_means(rows, clusters=3, seed=seed) for seed in (0, 0, 1))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    back = first.centroids * first.scale + first.shift
    found = back[np.lexsort((back[:, 0].round(), back[:, 1].round(-1)))]
    np.testing.assert_allclose(found, centres, atol=3.0)
    assert other.centroids.shape == (3, 2)
    with pytest.raises(BadInput, match=r"^clusters: 3 of 2 frames; give fewer"):
        ssl.k_means(rows[:2], clusters=3, seed=0)
    _, _, clusters, _ = prepared()
    view = heard(3)
    features, mask = clusters.features(view)
    x = (np.asarray(features) - np.asarray(clusters.shift)) / np.asarray(clusters.scale)
    apart = ((x[:, :, None] - np.asarray(clusters.centroids)) ** 2).sum(-1)
    np.testing.assert_array_equal(clusters.assigned(view), apart.argmin(-1))
    assert mask.shape == features.shape[:2]


@pytest.mark.parametrize(("net", "stride"), [(LSTM, 1), ({**CONFORMER, "stride": 2}, 2)])
def test_the_loss_is_of_hidden_frames_alone(net, stride):
    made, state, clusters, draw = prepared(net, share=0.2, span=3)
    seen = draw(batch_of(8), {draws.CLUSTERS: clusters}, jax.random.key(0))
    loss, (_, metrics) = made.objective()(state.params, state, seen, jax.random.key(0))
    outputs, _ = made.forward(state.params, state, seen, jax.random.key(0))
    frames = np.asarray(OWN.lengths["audio"][:8]) // 25 + 1
    hidden, targets = np.asarray(seen["hidden"]), np.asarray(seen["targets"])
    assert hidden.shape == targets.shape == (8, MOST // 25 + 1)
    steps = -(-hidden.shape[1] // stride)
    logits = np.asarray(outputs["logits"], np.float64)
    assert logits.shape == (8, steps, 6)
    each, right = [], []
    for i, t in np.ndindex(8, steps):
        own = range(t * stride, min((t + 1) * stride, hidden.shape[1]))
        if t < -(-frames[i] // stride) and all(hidden[i, own]):
            each.append(-log_softmax(logits[i, t])[targets[i, t * stride]])
            right.append(logits[i, t].argmax() == targets[i, t * stride])
    assert 20 < len(each) < 8 * steps
    np.testing.assert_allclose(loss, np.mean(each), rtol=1e-4)
    np.testing.assert_allclose(metrics["accuracy/masked"], np.mean(right), rtol=1e-5)
    assert outputs["features"].shape == (8, 16 if stride == 1 else 8)


def test_what_is_hidden_is_not_seen():
    """Whatever the spectra are there."""
    module = stage_of().encoder.module(Compute())
    variables = module.init(jax.random.key(0), **INPUTS.blank(), train=False)
    frames = ssl.at_frames(module.clone(normalize=False))
    hidden = jnp.zeros((1, 37), bool).at[0, 10:14].set(True)
    one = jnp.asarray(np.random.default_rng(0).integers(-9000, 9000, (1, 900)), jnp.int16)
    other = one.at[:, 300:310].set(0)  # of frames 11 and 12 alone
    found = [frames.apply(variables, x, train=False, hidden=hidden)[0] for x in (one, other)]
    np.testing.assert_array_equal(*found)
    apart = [frames.apply(variables, x, train=False)[0] for x in (one, other)]
    assert np.abs(apart[0] - apart[1]).max() > 1e-4


def test_other_frames_are_hidden_in_each_epoch_and_the_same_ones_again():
    _, _, clusters, draw = prepared()
    key, resident = jax.random.key(0), {draws.CLUSTERS: clusters}
    first, again, other = (draw(batch_of(8, epoch=e), resident, key)["hidden"] for e in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != np.asarray(other)).any()


def test_padding_changes_neither_loss_nor_gradient():
    made, state, clusters, draw = prepared(
        {**CONFORMER, "stride": 2, "dropout": 0.0}, share=0.2, span=3
    )
    longest, found = int(OWN.lengths["audio"][:8].max()), []
    for width in (longest, MOST):
        seen = draw(batch_of(8, width), {draws.CLUSTERS: clusters}, jax.random.key(0))
        value = jax.value_and_grad(
            lambda p, seen=seen: made.objective()(p, state, seen, jax.random.key(0))[0]
        )
        found.append(jax.jit(value)(state.params))
    assert longest < MOST - 50
    assert jax.tree.all(jax.tree.map(lambda a, b: np.allclose(a, b, atol=2e-6), *found))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"net": {"name": "cnn", "widths": [4]}}, r"net\.encoder: cnn\S* gives nothing of single"),
        ({"net": {**LSTM, "pool": "none"}}, r"net\.encoder\.net\.pool: the features are means"),
        ({"cepstrum": 13}, r"net\.method\.cepstrum: 13 of 12 bands; give fewer"),
        ({"share": 1.0}, r"net\.method\.share: 1.0"),
    ],
)
def test_stages_that_it_is_not_for(changes, line):
    with pytest.raises(BadInput, match=rf"^config\.stages\.{line}"):
        stage_of(**changes)


def run_of(**changed):
    stage = parse.plain(stage_of(CONFORMER | {"stride": 2}, examples=12, share=0.2, span=3))
    stage |= {"steps": 3, "log_every_steps": 1}
    again = {**stage, "method": {**stage["method"], "of": "first", "clusters": 4, "cepstrum": 13}}
    encoder = {**stage["encoder"], "weights": {"stage": "second"}}
    encoder["net"] = {**encoder["net"], "pool": "none"}
    last = {"kind": "finetune", "encoder": encoder, "views": {"recipe": "eval"}, "steps": 1}
    last |= {"batch": 8, "optimizer": stage["optimizer"]}
    stages = {"first": stage, "second": again, "teacher": last}
    for name, changes in changed.items():
        for part, fields in changes.items():
            stages[name] = {**stages[name], part: {**stages[name][part], **fields}}
    source = {"function": "tests.own_tasks:spoken", "n": 24}
    data = {"name": "tones", "source": source, "buckets": {"audio": [600]}}
    fields = {"name": "tones", "data": data, "parallel": "single", "stages": stages}
    return parse.parse(config.Run, fields)


def test_two_stages_and_what_begins_with_the_second(tmp_path):
    run, workdir = run_of(), epath.Path(tmp_path)
    splits = Splits(run.data)
    tasks = pipeline.plan(run, workdir, splits)
    pipeline.check(run, tasks, splits)
    pipeline.execute(run, tasks, splits)
    done = {task.name: Artifact.open(task.folder, task.stage) for task in tasks}
    for name, clusters, dim in (("first", 6, 5), ("second", 4, 8)):
        with np.load(done[name].folder / "clusters.npz") as kept:
            assert kept["centroids"].shape == (clusters, dim)
        lines = (done[name].folder / "metrics.jsonl").read_text().splitlines()
        losses = [json.loads(line)["loss/masked_frames"] for line in lines]
        assert len(losses) == 3
        assert np.isfinite(losses).all()
        assert losses[0] > 0.5
        assert "beside" not in json.dumps(done[name].manifest["encoder_model"])
    spec, variables = load(done["teacher"], field="here")
    assert spec.task.name == "ctc"
    assert variables["params"]["head"]["kernel"].shape == (8, 4)


def test_a_network_for_pictures_gives_nothing_of_frames():
    net = parse.parse(config.Encoder, {**SPECTRA, "net": {"name": "cnn", "widths": [4]}})
    with pytest.raises(BadInput, match=r"^encoder.net: CNN gives nothing of single frames; take"):
        ssl.at_frames(net.module(Compute()))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"second": {"method": {"examples": 99}}},
            r"second\.method\.examples: 99 is not between 1 and the 24 training examples",
        ),
        (
            {"first": {"encoder": {"hop": 50.0}}},
            r"second\.method\.of: clusters are of 10 frames, and the encoder answers at 19; give an",
        ),
    ],
)
def test_what_has_no_such_frames_is_refused_before_anything_runs(changes, line, tmp_path):
    run = run_of(**changes)
    splits = Splits(run.data)
    tasks = pipeline.plan(run, epath.Path(tmp_path), splits)
    with pytest.raises(BadInput, match=f"^config.stages.{line}") as caught:
        pipeline.check(run, tasks, splits)
    assert "\n" not in str(caught.value)
