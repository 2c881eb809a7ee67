"""What the page of published weights shows runs as it stands there."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import config, models, parse, weights
from kdjax.weights import layouts
from kdjax.weights.positions import positions
from kdjax.weights.rules import Named, Rule, bind
from kdjax.weights.transforms import conv_norm, fused, heads_in

TEXT = (Path(weights.__file__).parent / "README.md").read_text()
TRAINING = {"views": {"recipe": "eval"}, "batch": 8, "steps": 1}
TRAINING |= {"optimizer": {"name": "sgd", "learning_rate": 0.1}}


def block(marker):
    (found,) = re.findall(rf"<!-- {marker} -->\n```python\n(.*?)^```$", TEXT, re.M | re.S)
    return found


def test_the_stages_are_stages():
    found = {"training": TRAINING}
    exec(block("weights"), found)
    stages = {name: parse.parse(config.Stage, c) for name, c in found["stages"].items()}
    assert stages["published"].encoder.imported.source == "hf:timm/resnet18.a1_in1k"
    assert stages["tuned"].encoder.architecture.weights is None


def test_the_rules_are_rules():
    kernels = tuple(f"params/block{{i}}/attention/{x}/kernel" for x in ("query", "key", "value"))
    names = {"Named": Named, "Rule": Rule, "QKV": kernels, "conv_norm": conv_norm}
    names |= {"fused": fused, "heads_in": heads_in, "positions": positions}
    exec(block("layout"), names)
    rules = names["rules"](Named(models.resnet18(), {}, None, "it"))
    found, lost = bind(rules, [name.replace("{i}", "3") for name in kernels])
    assert not lost
    ((theirs, ours, how),) = found
    assert theirs == ("blocks.3.attn.qkv.weight",)
    assert len(ours) == 3
    fused_rows = np.arange(3 * 4 * 5, dtype=np.float32).reshape(12, 5)
    query, key, value = how.into([fused_rows], [(5, 2, 2)] * 3)
    np.testing.assert_array_equal(query[:, 1, 0], fused_rows[2])
    np.testing.assert_array_equal(key[:, 0, 1], fused_rows[5])
    np.testing.assert_array_equal(how.out([query, key, value])[0], fused_rows)


def test_the_functions_read_and_write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def small():  # in the place of a ResNet-18, which takes seconds to make
        return models.ResNet(blocks=(1,), widths=(2, 2))

    model = models.Classifier(small(), 10)
    images = jnp.ones((2, 8, 8, 3))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=True))
    draw = np.random.default_rng(0).normal
    made = jax.tree.map(lambda x: draw(size=x.shape).astype(np.float32), shapes)
    weights.write("model.safetensors", small(), made, layout="torchvision")
    found = {"weights": weights, "images": images, "models": models}
    exec(
        block("weights-functions").replace("models.resnet18()", "small()"),
        {**found, "small": small},
    )
    again, _ = weights.read("again.safetensors", small(), images, classes=10)
    assert jax.tree.all(jax.tree.map(np.array_equal, again, dict(made)))


def test_the_table_has_every_layout():
    for layout in layouts.layouts():
        for name in layout.names:
            assert f"`{name}`" in TEXT, name
