"""Students that learn from what their teacher's transformer has at each token."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath

from kdjax import config, inputs, losses, models, parse, pipeline, tasks, train
from kdjax.artifacts import Artifact
from kdjax.contexts import Splits
from kdjax.teacher_targets import features
from kdjax.types import BadInput, Field, length_field
from tests import own_tasks
from tests.sentence_tables import BERT, PLAIN_VIEWS, pairs, training

pytest.importorskip("tokenizers", reason="tokenizers is not installed")

BLOCKS = {"student": ["encoder/block0"], "teacher": ["encoder/block1"]}
ATTENTIONS = {side: [f"{path}/attention" for path in paths] for side, paths in BLOCKS.items()}
TERMS = {
    "hidden": {"name": "hint", **BLOCKS, "weight": 1.0},
    "cosine": {"name": "hidden_cosine", **BLOCKS},
    "layers": {
        "name": "distilhubert",
        "student": ["encoder/block0"],
        "teacher": ["encoder/block0", "encoder/block1"],
    },
    "first": {"name": "pkd", **BLOCKS, "weight": 0.1},
    "scores": {"name": "attention_scores", **ATTENTIONS},
    "relations": {"name": "attention_relations", **ATTENTIONS, "heads": 4},
    "attention": {
        "name": "attention_relations",
        **ATTENTIONS,
        "relations": ["attention", "value"],
    },
}
FIELDS = inputs.Inputs.of(
    {"tokens": Field((20,), "int32", 30, ragged=True), "tokens_length": length_field(20)}
)


def classifier(width, depth, key):
    module = models.Classifier(
        models.bert(
            vocab=30,
            width=width,
            depth=depth,
            heads=2,
            mlp=16,
            positions=20,
            pooler=None,
            dropout=0.0,
            attention_dropout=0.0,
        ),
        classes=2,
    )
    return module, jax.jit(functools.partial(module.init, train=True))(key, FIELDS.blank())


@pytest.fixture(scope="module")
def both():
    return classifier(8, 1, jax.random.key(0)), classifier(12, 2, jax.random.key(1))


def padded(width):
    """Three texts of 5, 12 and 9 tokens; what is behind them is no padding token."""
    random = np.random.default_rng(0)
    tokens = random.integers(1, 30, (3, width), dtype=np.int32)
    tokens[:, :12] = np.random.default_rng(1).integers(1, 30, (3, 12))
    return {"tokens": jnp.asarray(tokens), "tokens_length": jnp.asarray([5, 12, 9], jnp.int32)}


def terms_of(both, names, *, known=TERMS, given=FIELDS):
    """The terms of these models, and the gradient of their losses of a batch: `width -> ...`."""
    (student, variables), (teacher, theirs) = both
    terms = []
    for name in names:
        c = parse.parse(config.FeatureTerm, known[name])
        shapes = []
        for (module, own), paths in zip(both, (c.student, c.teacher), strict=True):
            seen = functools.partial(models.capture, module, paths=c.tapped(paths), train=False)
            found = jax.eval_shape(lambda v, seen=seen: seen(v, given.blank()).features, own)
            shapes.append(tuple(found[path].shape for path in c.tapped(paths)))
        terms.append(features.Term(name, c, 1.0, (shapes[0], shapes[1]), (), given))
    start = features.beside(variables, terms, key=jax.random.key(2), examples=3)
    paths = tuple(dict.fromkeys(path for term in terms for path in term.teacher))

    @jax.jit
    def of_batch(own):
        seen = models.capture(teacher, theirs, own, paths=paths, train=False)
        batch = {"inputs": own, **{f"teacher_features/{p}": x for p, x in seen.features.items()}}
        state = train.TrainState.start(start, optax.sgd(0.1))
        forward = features.forward(student, terms, None)

        def total(params):
            outputs, _ = forward(params, state, batch, jax.random.key(3))
            return sum(outputs[name].sum() for name in names), outputs

        return jax.value_and_grad(total, has_aux=True)(start["params"])

    return of_batch, start


@pytest.mark.parametrize("name", TERMS)
def test_padding_changes_no_loss_and_no_gradient_of_a_student(name, both):
    of_batch, _ = terms_of(both, [name])
    (_, short), grads = of_batch(padded(12))
    (_, long), others = of_batch(padded(20))
    assert (np.asarray(short[name]) > 1e-6).all()
    np.testing.assert_allclose(long[name], short[name], rtol=1e-6, atol=1e-6)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(others), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_frames_are_compared_where_models_answer():
    """They are fewer than samples: the mask of the answers says which of them are padding."""
    task, own = tasks.CTC(alphabet=("a", "b", "c")), own_tasks.spoken("train", n=5)
    given, rows = inputs.Inputs.of(own.fields), own.read(np.arange(5))
    both = []
    for i, width in enumerate((4, 6)):
        module = task.head(own_tasks.Frames(width))
        init = jax.jit(functools.partial(module.init, train=True))
        both.append((module, init(jax.random.key(i), given.blank())))
    paths = {"student": ["encoder/Conv_1"], "teacher": ["encoder/Conv_0", "encoder/Conv_1"]}
    known = {"layers": {"name": "distilhubert", **paths}}
    of_batch, _ = terms_of(both, ["layers"], known=known, given=given)
    longest = int(own.lengths["audio"].max())
    (found, slopes), (padded, others) = (
        of_batch({"audio": jnp.asarray(rows["audio"][:, :width]), "audio_length": length})
        for length in [jnp.asarray(rows["audio_length"])]
        for width in (longest, own_tasks.LONGEST)
    )
    assert longest < own_tasks.LONGEST - 50
    assert found[1]["logits"].shape != padded[1]["logits"].shape
    assert (np.asarray(found[1]["layers"]) > 1e-3).all()
    np.testing.assert_allclose(padded[1]["layers"], found[1]["layers"], rtol=1e-6)
    for a, b in zip(jax.tree.leaves(slopes), jax.tree.leaves(others), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)


def test_the_attention_of_a_model_is_what_its_queries_and_keys_say(both):
    """The relation of queries with keys is the softmax of linen's attention: its output follows."""
    (module, variables), _ = both
    own, at = padded(12), "encoder/block0/attention"
    paths = [at, *(f"{at}/{part}" for part in ("query", "key", "value"))]
    seen = models.capture(module, variables, own, paths=paths, train=False).features
    query, key, value = (np.asarray(seen[path], np.float64) for path in paths[1:])
    scores = np.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(query.shape[-1])
    where = np.asarray(FIELDS.where(own))
    scores = np.where(where[:, None, None], scores, -np.inf)
    share = np.exp(scores - scores.max(-1, keepdims=True))
    share /= share.sum(-1, keepdims=True)
    mixed = np.einsum("bhqk,bkhd->bqhd", share, value)
    out = variables["params"]["encoder"]["block0"]["attention"]["out"]
    found = np.einsum("bqhd,hde->bqe", mixed, np.asarray(out["kernel"])) + np.asarray(out["bias"])
    np.testing.assert_allclose(seen[at], found, atol=1e-5)


def test_terms_are_the_losses_of_what_is_tapped(both):
    of_batch, _ = terms_of(both, ["scores", "relations"])
    own = padded(12)
    (_, outputs), _ = of_batch(own)
    taps = []
    for (module, variables), block in zip(both, (0, 1), strict=True):
        paths = [f"encoder/block{block}/attention/{part}" for part in ("query", "key", "value")]
        seen = models.capture(module, variables, own, paths=paths, train=False).features
        taps.append([seen[path] for path in paths])
    where = FIELDS.where(own)
    mine, theirs = taps
    found = losses.attention_mse(*mine[:2], *theirs[:2], where)
    np.testing.assert_allclose(outputs["scores"], found, rtol=1e-5)
    mine, theirs = ([x.reshape(3, 12, 4, -1) for x in side] for side in taps)
    found = sum(losses.relation_kl(a, a, b, b, where) for a, b in zip(mine, theirs, strict=True))
    np.testing.assert_allclose(outputs["relations"], found, rtol=1e-5, atol=3e-8)


def run_of(folder, terms, *, teacher=(), **student):
    folder.mkdir(exist_ok=True)
    data = {**pairs(folder, n=80), "buckets": {"tokens": [24]}}
    small = {**BERT, "depth": 1, "width": 8, "dropout": 0.1}
    line = {
        "teacher": {
            "kind": "finetune",
            "encoder": {**BERT, **dict(teacher)},
            "views": PLAIN_VIEWS,
            **training(2),
        },
        "cache": {"kind": "cache", "teacher": "teacher", "recipe": PLAIN_VIEWS, "views": 1},
        "student": {
            "kind": "distill",
            "cache": "cache",
            "live": True,
            "encoder": {**small, **student},
            "features": terms,
            **training(4, log_every_steps=1, accumulate=2),
        },
    }
    run = {"name": "sentences", "data": data, "parallel": "single", "stages": line}
    return parse.parse(config.Run, run)


# Each by itself: the other tests here.
@pytest.mark.thorough
def test_a_student_with_dropout_learns_all_of_them_at_once(tmp_path):
    run = run_of(tmp_path / "tables", TERMS)
    splits = Splits(run.data)
    planned = pipeline.plan(run, epath.Path(tmp_path / "run"), splits)
    pipeline.check(run, planned, splits)
    pipeline.execute(run, planned, splits)
    (task,) = (task for task in planned if task.name == "student")
    lines = (task.folder / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 4
    for line in map(json.loads, lines):
        assert all(np.isfinite(line[f"loss/{name}"]) for name in TERMS)
    artifact = Artifact.open(task.folder, task.stage)
    assert "beside" not in json.dumps(artifact.manifest["model"])


FAULTS = {
    "padding": (
        {"relations": {"name": "similarity", **BLOCKS}},
        {},
        r"relations\.student: encoder/block0 gives \[1, 40, 8\], of which some is padding, and "
        "similarity compares all; tap what has one row",
    ),
    "one for all": (
        {"it": {"name": "distilhubert", "student": ["a", "b"], "teacher": ["a", "b"]}},
        {},
        r"it\.student: 2 paths, and one goes with all; give one path",
    ),
    "heads": (
        {"it": {"name": "attention_scores", **ATTENTIONS}},
        {"heads": 1},
        r"it\.student: attention_scores compares head with head, and there are 1 and 2; take",
    ),
    "divisor": (
        {"it": {"name": "attention_relations", **ATTENTIONS, "heads": 3}},
        {},
        r"it\.heads: 3 do not divide the width of 8; take a divisor",
    ),
    "block": (
        {"it": {"name": "attention_scores", **BLOCKS}},
        {},
        r"it\.student: no module is called at 'encoder/block0/query'",
    ),
    "attention": (
        {"it": {"name": "pkd", "student": ["encoder"], "teacher": ["encoder"]}},
        {},
        r"it\.student: pkd compares \[batch, position, dim\], and these are \[1, 8\] and \[1, 16\]",
    ),
    "both": (
        {
            "it": {
                "name": "attention_relations",
                **ATTENTIONS,
                "heads": 2,
                "relations": ["attention"],
            }
        },
        {},
        r"it\.heads: 2, and an attention has heads of its own",
    ),
}


def checked(folder, terms, encoder):
    run = run_of(folder, terms, **encoder)
    splits = Splits(run.data)
    pipeline.check(run, pipeline.plan(run, epath.Path(folder / "run"), splits), splits)


@pytest.mark.parametrize("case", FAULTS)
def test_what_cannot_be_compared_is_one_line_before_anything_runs(case, tmp_path):
    terms, encoder, line = FAULTS[case]
    folder = tmp_path / "tables"
    with pytest.raises(BadInput, match=rf"^config\.stages\.student\.features\.{line}") as refused:
        checked(folder, terms, encoder)
    assert "\n" not in str(refused.value)
