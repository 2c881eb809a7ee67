"""The line that the page of training shows."""

import re
from pathlib import Path

import numpy as np
from etils import epath

from kdjax import config, load, models, pipeline, tree
from kdjax.artifacts.model import Spec
from kdjax.contexts import Splits, build
from kdjax.tasks import of
from kdjax.train import rates
from kdjax.train.freezing import NEVER

PAGE = (Path(__file__).parents[2] / "kdjax" / "train" / "README.md").read_text()


def test_the_line_of_the_page(tmp_path):
    ((name, text),) = re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / name).write_text(text)
    run = load.load_config(str(tmp_path / name))
    splits = Splits(run.data)
    tasks = pipeline.plan(run, epath.Path(tmp_path / "run"), splits)
    assert [task.name for task in pipeline.check(run, tasks, splits)] == ["pretrain", "tuned"]
    tuned, first = run.stages["tuned"], run.stages["pretrain"]
    assert isinstance(tuned, config.Finetune)
    assert isinstance(first, config.Pretrain)
    optimizer = tuned.optimizer
    encoder = first.encoder
    spec = Spec(encoder=encoder, inputs=splits.inputs.sized(8), task=of(splits.train))
    params = spec.abstract()["params"]
    since = tree.named_leaves(optimizer.freezing.since(params))
    when = {"stem": NEVER, "stage0": NEVER, "stage1": 100, "stage2": 100, "stage3": 50}
    for leaf, step in since.items():
        part = leaf.split("/")[1].split("_")[0]
        assert step == when.get(part, 0), leaf
    names = models.names_in_order(spec.module(), spec.blank(), train=True)
    how = {"layer_decay": optimizer.layer_decay, "layers": optimizer.layers}
    by_name = rates.factors(names, **how, rates=optimizer.rates)
    assert by_name["encoder/stage3_block1/first/conv/kernel"] == 0.75
    assert by_name["encoder/stem/conv/kernel"] == 0.75**9
    # The patterns of the table are such.
    for pattern in re.findall(r'"(encoder/[^"]+|classifier/[^"]+)"', PAGE):
        assert any(re.fullmatch(pattern.replace("\\|", "|"), leaf) for leaf in names), pattern
    assert build.optimizer(tuned, names=lambda: names).init(
        {"encoder": params["encoder"], "classifier": params["classifier"]}
    )
    assert np.isfinite([*by_name.values()]).all()
