"""What the README shows as code runs as it stands there."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import losses, train
from kdjax.report import tables

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "kdjax").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tables_are_those_of_the_kept_results(page):
    """Otherwise: python -m kdjax.report.tables write PAGE."""
    assert page.read_text() == tables.written(page)


def test_a_loss_in_ten_lines_learns():
    block = re.search(r"<!-- ten lines -->\n```python\n(.*?)```", README, re.DOTALL)
    assert block is not None
    user = {}
    exec(block[1], user)

    image, logits = jax.random.normal(jax.random.key(0), (32, 8, 8, 1)), 2.0 * jnp.eye(32)[:, :10]
    batch = {"inputs": image, "teacher_logits": logits}
    state = train.TrainState.start(
        user["model"].init(jax.random.key(1), image, train=True), optax.adamw(1e-3)
    )
    outputs, _ = user["model"].apply(state.variables, image, train=True, mutable=["batch_stats"])
    said = []
    for _ in range(40):
        state, metrics = user["step"](state, batch, jax.random.key(2))
        said.append(metrics)
    difference = np.abs(np.asarray(outputs["logits"] - logits, np.float64))
    huber = np.where(difference < 1.0, 0.5 * difference**2, difference - 0.5).mean()
    kd = losses.kd_kl(outputs["logits"], logits, temperature=4.0).mean()
    assert said[0]["loss/huber"] == pytest.approx(huber, rel=1e-5)
    assert said[0]["loss"] == pytest.approx(0.9 * float(kd) + 0.1 * huber, rel=1e-5)
    assert said[-1]["loss/kd"] < 0.8 * said[0]["loss/kd"]
    assert said[-1]["loss/huber"] < said[0]["loss/huber"]
