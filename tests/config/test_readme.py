"""What the page shows as code runs as it stands there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
from etils import epath

from kdjax import config, export, load, parse, pipeline
from kdjax.config.encoders.own import OwnEncoder
from kdjax.contexts import Splits
from kdjax.inputs import Inputs
from kdjax.types import Field

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "kdjax" / "config" / "README.md").read_text()
FILES = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))


def test_each_of_the_users_pieces_is_gone_through(tmp_path):
    """Every function is traced as the stages call it; one loss is computed besides."""
    assert FILES.keys() == {
        "my_losses.py",
        "my_models.py",
        "my_views.py",
        "my_tokens.py",
        "my_features.py",
        "my_methods.py",
        "my_data.py",
        "my_scores.py",
        "my_formats.py",
        "my_stages.py",
        "line.py",
        "mine.py",
        "kdjax/config/logit_losses/huber.py",
    }
    for name, text in FILES.items():
        if "/" not in name:
            (tmp_path / name).write_text(text)
    run = load.load_config(str(tmp_path / "line.py"), ["stages.student.terms.rank.margin=0.2"])
    splits = Splits(run.data)
    tasks = pipeline.plan(run, epath.Path(tmp_path / "run"), splits)
    assert [task.name for task in pipeline.check(run, tasks, splits)] == [*run.stages]
    of_data = "data = dict(name='captions', source=dict(function='my_data:captions', n=12))"
    text = FILES["line.py"].replace('data = dict(name="digits", labels_per_class=5)', of_data)
    assert of_data in text
    (tmp_path / "captioned.py").write_text(text)
    read = Splits(load.load_config(str(tmp_path / "captioned.py")).data).train
    assert [*read.fields] == ["picture", "tokens"]
    assert read.read(np.arange(3))["picture"].shape == (3, 8, 8, 3)
    answers, labels = np.float32([[3, 2, 1, 0], [0, 1, 2, 3]]), np.array([2, 0])
    assert run.scores["top"].score(answers, labels, path="").value == 0.5
    space: dict = {}
    for name in ("my_tokens.py", "my_features.py"):
        exec(FILES[name], space)
    far = space["apart"]([np.float32([[1, 2]])], [np.float32([[0, 4]])], power=2.0)
    np.testing.assert_allclose(far, [2.5])
    tokens = np.arange(1, 6, dtype=np.int32)
    (seen,) = space["hidden"](jax.random.key(0), {"tokens": tokens}, share=0.5).values()
    assert set(np.asarray(seen)) <= {0, *tokens}
    student = run.stages["student"]
    assert isinstance(student.encoder, OwnEncoder)
    outputs = {"logits": np.float32([[1.0, 0.9, 0.0]])}
    batch = {"teacher_logits": np.float32([[0.0, 2.0, 3.0]])}
    found = student.terms["rank"].term()(outputs, batch)
    np.testing.assert_allclose(found, [0.2 + 0.9], rtol=1e-6)


def test_the_format_of_the_page_gives_what_its_model_gives(tmp_path, monkeypatch):
    (tmp_path / "my_formats.py").write_text(FILES["my_formats.py"])
    monkeypatch.syspath_prepend(str(tmp_path))
    (shown,) = re.findall(r"`files=(dict\(kind=\"export\".*?\))`\.", PAGE)
    stage = parse.parse(config.Stage, eval(shown))
    assert isinstance(stage, config.Export)
    runtime = stage.formats[1].runtime(path="here")
    random = np.random.default_rng(0)
    layer = {"kernel": random.normal(size=(16, 3)), "bias": random.normal(size=3)}
    inputs = Inputs.of({"image": Field((4, 4, 1), "uint8")}, mean=(0.4,), std=(0.3,))

    def forward(variables, seen):
        own = variables["params"]["classifier"]
        return seen["image"].reshape(-1, 16) @ own["kernel"] + own["bias"][None]

    variables = jax.tree.map(np.float32, {"params": {"classifier": layer}})
    model = export.Model(
        predict=lambda image: forward(variables, inputs.see_all({"image": image})),
        inputs=inputs,
        output="logits",
        forward=forward,
        variables=variables,
    )
    runtime.write(model, tmp_path / "model.npz")
    images = random.integers(256, size=(5, 4, 4, 1)).astype(np.uint8)
    found = runtime.load(tmp_path / "model.npz", threads=1)(images)
    np.testing.assert_allclose(found, model.predict(images), atol=16 * 3 * 1e-4)
    assert np.abs(found - model.predict(images)).max() > 1e-6  # its numbers have four digits


ENCODER = '''
"""Dense layers."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Literal

import flax.linen as nn

from kdjax.config.encoders import Encoder
from kdjax.config.fields import Width
from kdjax.models import Compute
from kdjax.ranges import AtLeast


class MLP(nn.Module):
    """Dense layers with ReLU on all pixels."""

    widths: Sequence[int]
    compute: Compute = Compute()

    @nn.compact
    def __call__(self, image, *, train):
        """The features."""
        x = image.reshape(len(image), -1)
        for width in self.widths:
            x = nn.relu(nn.Dense(width, dtype=self.compute.dtype)(x))
        return x


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseLayers(Encoder):
    """Dense layers."""

    name: Literal["mlp"]
    widths: Annotated[tuple[Width, ...], AtLeast(1)]

    @property
    def title(self) -> str:
        """What the report calls it."""
        return "mlp-" + "-".join(map(str, self.widths))

    def module(self, compute: Compute) -> MLP:
        """The module."""
        return MLP(self.widths, compute=compute)
'''
METHOD = '''
"""Two views alike."""

import dataclasses
from typing import Literal

from kdjax import losses, ssl
from kdjax.config.methods import Method


@dataclasses.dataclass(frozen=True, kw_only=True)
class Near(Method):
    """The cosine of two views, which collapses."""

    name: Literal["near"]

    def method(self, trained: ssl.Trained) -> ssl.Method:
        """The method."""

        def near(outputs, batch):
            return losses.negative_cosine(outputs["za"], outputs["zb"])

        return ssl.Method(forward=ssl.both_views(trained.model), terms={"near": (1.0, near)})
'''


FORMAT = '''
"""Weights as text."""

import dataclasses
from typing import ClassVar, Literal

from kdjax.export.formats import Known


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text(Known):
    """A file that a person can read."""

    name: Literal["text"] = "text"
    suffix: ClassVar[str] = ".txt"

    def write(self, model, path):
        """Nothing of it."""
        path.write_text("weights")

    def load(self, path, *, threads):
        """What was written."""
        return path.read_text
'''
STAGE = '''
"""Counts what another stage has left."""

import dataclasses
from typing import Literal

from kdjax import config
from kdjax.config.fields import Text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Count(config.Stage):
    """How many files a stage has left."""

    kind: Literal["count"]
    model: Text

    def needs(self, stages):
        """The stage."""
        return (self.model,)


def check(context, c):
    """Nothing to refuse."""
    return {}


def run(context, c):
    """The count."""
    return {"files": len(context.inputs[c.model].manifest["files"])}
'''


def test_one_file_each_is_a_new_piece_of_kdjax(tmp_path):
    """A loss, an encoder, a method, a format, a kind of stage: nothing else is touched."""
    shutil.copytree(
        ROOT / "kdjax", tmp_path / "kdjax", ignore=shutil.ignore_patterns("__pycache__")
    )
    name = "kdjax/config/logit_losses/huber.py"
    (tmp_path / name).write_text(FILES[name])
    (tmp_path / "kdjax/config/encoders/mlp.py").write_text(ENCODER)
    (tmp_path / "kdjax/config/methods/near.py").write_text(METHOD)
    (tmp_path / "kdjax/export/formats/text.py").write_text(FORMAT)
    (tmp_path / "kdjax/stages/count.py").write_text(STAGE)
    program = """
import jax
import numpy as np
from kdjax import config, parse, ssl
from kdjax.inputs import Inputs
from kdjax.models import Compute
from kdjax.config.logit_losses.huber import Huber
made = parse.parse(config.LogitLoss, {"name": "huber", "delta": 0.5})
one, other = np.zeros((2, 4), np.float32), np.float32([[0.25, 0, 0, 0], [2, 0, 0, 0]])
print(made.between(4.0, None)(one, other, {}).tolist())
assert "delta: a number in (0, inf)" in Huber.__doc__
try:
    parse.parse(config.LogitLoss, {"name": "hubr"}, "logits")
except ValueError as error:
    print(error)
net = parse.parse(config.Encoder, {"name": "mlp", "widths": [8, 4]})
print(net.title, type(net.module(Compute())).__name__)
near = parse.parse(config.Method, {"name": "near"})
trained = ssl.Trained(net.module(Compute()), net.module(Compute()), 4, Inputs(()), Compute(), 10)
print(*near.method(trained).terms, near.least_rows)
from etils import epath
from kdjax import export, pipeline
from kdjax.artifacts import Artifact
from kdjax.contexts import Splits
files = {"kind": "export", "model": "m", "formats": ["onnx", "text"]}
found = parse.parse(config.Stage, files).formats[1]
print(found.runtime(path="").batch, export.of_file("model.txt").name)
stages = {
    "features": {"kind": "evaluate", "linear": None, "knn": {"k": 1}},
    "count": {"kind": "count", "model": "features"},
}
data = {"name": "digits", "train_split": "train[:20]", "test_split": "test[:10]"}
run = parse.parse(config.Run, {"name": "one", "data": data, "stages": stages})
splits = Splits(run.data)
tasks = pipeline.plan(run, epath.Path("work"), splits)
pipeline.execute(run, tasks, splits)
print(Artifact.open(tasks[1].folder, tasks[1].stage).manifest["files"], all(t.done for t in tasks))
"""
    found = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "JAX_PLATFORMS": "cpu"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    values, line, net, method, format, stage = found.stdout.splitlines()
    assert values == str([0.25**2 / 2 / 4, 0.5 * (2.0 - 0.25) / 4])
    assert "did you mean huber?" in line
    assert net == "mlp-8-4 MLP"
    assert method == "near 1"
    assert format == "any of 1 or more text"
    assert stage == "{} True"
