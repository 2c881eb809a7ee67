"""Pages: what they show as code runs as it stands there, and what they point to is there."""

import re
import shlex
import shutil
import urllib.parse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import config, export, load, losses, main, models, parse, quant, shrink, train
from kdjax.config.sources.sentences import TextTable
from kdjax.report import tables
from kdjax.types import Field

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted(p for name in ("configs", "kdjax") for p in (ROOT / name).rglob("*.md"))]
TEXTS = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
of_each_page = pytest.mark.parametrize("page", TEXTS)


def blocks(marker: str, language: str = "python") -> list[str]:
    """The blocks of code under a marker, in all pages."""
    pattern = rf"<!-- {marker} -->\n```{language}\n(.*?)^```$"
    return [one for text in TEXTS.values() for one in re.findall(pattern, text, re.M | re.S)]


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$|`[^`\n]+`", "", text, flags=re.M | re.S)


@of_each_page
def test_tables_are_those_of_the_kept_results(page):
    """Otherwise: kdjax tables write PAGE."""
    assert TEXTS[page] == tables.written(ROOT / page)


def anchors(text: str) -> set[str]:
    """Of the headings of a page, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_anchors_are_those_of_github():
    assert anchors("# A `b`, c: d/e -> f\n```sh\n# no\n```\n") == {"a-b-c-de---f"}


@of_each_page
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(TEXTS[page])):
        if urllib.parse.urlparse(target).scheme:
            assert target.startswith("https://"), target
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), target
        assert path.resolve().is_relative_to(ROOT.resolve()), target
        if anchor:
            assert anchor in anchors(path.read_text()), target


@of_each_page
def test_files_that_are_named_are_there(page):
    """In code: `configs/kd/`, `tests/export`, `python tests/benchmarks/start.py`."""
    text = re.sub(
        r"^```python\n# \S+\n", "```python\n", TEXTS[page], flags=re.M
    )  # a new file's name
    code = re.findall(r"^```.*?^```$|`[^`\n]+`", text, re.M | re.S)
    named = re.findall(r"(?<![\w./])(?:configs|kdjax|tests|colabs)/[\w./]*", "\n".join(code))
    assert not [name for name in named if not (ROOT / name).exists()]


def test_every_page_is_reached_from_the_front_page():
    seen, to_do = set(), [README]
    while to_do:
        page = to_do.pop().resolve()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        targets = re.findall(r"\]\(([^)\s#:]+)[^)\s]*\)", without_code(page.read_text()))
        to_do += [page.parent / target for target in targets]
    assert {page.resolve() for page in PAGES} <= seen


def test_the_front_page_is_short():
    assert README.read_text().count("\n") <= 200


def test_the_command_that_ci_takes_from_the_front_page():
    """As `.ci/run` cuts it out."""
    (command,) = blocks("test", "sh")
    assert "pytest " in command
    assert TEXTS["README.md"].count("<!-- test -->") == 1


def commands(text: str) -> list[list[str]]:
    """Words of each `kdjax ...`, in blocks or in the text."""
    shell = re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S)
    lines = "\n".join(shell).split("\n")
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
    return [shlex.split(line, comments=True) for line in lines if line.strip().startswith("kdjax ")]


@of_each_page
def test_commands_that_are_shown_are_commands(page):
    """Every config with its argument and its overrides, every word."""
    for word, *args in (line[1:] for line in commands(TEXTS[page])):
        if not word.startswith("-"):
            assert word in (*main.WORDS, "..."), word
            continue
        given = [
            arg.removeprefix("--config=") for arg in (word, *args) if arg.startswith("--config=")
        ]
        if given and "few_labels.py:name=" not in given[0]:  # which reads the dataset
            changes = [arg.removeprefix("--config.") for arg in args if arg.startswith("--config.")]
            load.load_config(str(ROOT / given[0]), changes)


def test_a_config_on_sentences_of_ones_own(tmp_path):
    """As the page of data has it, in a file beside the config."""
    (text,) = re.findall(r"```python\n# reviews\.py\n(.*?)```", TEXTS["kdjax/data/README.md"], re.S)
    (tmp_path / "reviews.py").write_text(text)
    shutil.copy(ROOT / "configs" / "sst2_distil.py", tmp_path)
    run = load.load_config(str(tmp_path / "reviews.py"))
    assert isinstance(run.data.source, TextTable)
    assert run.data.source.root == "reviews.csv"
    assert {"teacher_all", "export_layers_all"} <= run.stages.keys()


TRAINING = {
    "steps": 1,
    "batch": 8,
    "optimizer": {"name": "sgd", "learning_rate": 0.1},
}


@pytest.mark.parametrize("block", blocks("stages"))
def test_stages_that_are_shown_are_stages(block):
    """What is left out with `...` is what every stage that trains takes."""
    user = {}
    exec(re.sub(r"\.\.\.,?(?=\s*\)$)", "**kwargs", block, flags=re.M), {"kwargs": {}}, user)
    shown = [stage for stage in user.values() if isinstance(stage, dict)]
    assert shown
    for stage in shown:
        if stage["kind"] in ("pretrain", "distill", "finetune"):
            own = {} if "start_from" in stage else {"encoder": {"name": "cnn", "widths": [4]}}
            stage = {**TRAINING, **own, **stage}
        parse.parse(config.Stage, stage, "config.stages.shown")


@pytest.fixture(scope="module")
def net():
    """`(module, images, variables)` of a small network."""
    module = models.Classifier(models.CNN([8, 16]), classes=10)
    images = jax.random.normal(jax.random.key(0), (4, 8, 8, 1))
    return module, images, module.init(jax.random.key(1), images, train=False)


def test_shrinking_as_it_is_shown(net):
    module, images, variables = net
    (block,) = blocks("shrink")
    opt_state = optax.sgd(0.1, momentum=0.9).init(variables["params"])
    user = {"shrink": shrink, "module": module, "variables": variables, "images": images}
    exec(block, user | {"opt_state": opt_state}, user)
    small = user["small"]
    before, after = (
        sum(x.size for x in jax.tree.leaves(v["params"])) for v in (variables, small.variables)
    )
    assert after < 0.5 * before
    logits = small.module.apply(small.variables, images, train=False)["logits"]
    assert logits.shape == (4, 10)


def test_quantizing_as_it_is_shown(net, tmp_path, monkeypatch):
    pytest.importorskip("onnx", reason="needs the extra: pip install 'kdjax[export]'")
    module, images, variables = net
    monkeypatch.chdir(tmp_path)

    def forward(variables, batch):
        return module.apply(variables, batch, train=False)["logits"]

    def deployed(image):
        return forward(variables, image / 255.0)

    export.write_onnx(deployed, Path("float.onnx"), inputs={"image": Field((8, 8, 1), "uint8")})
    (block,) = blocks("quant")
    user = {
        "export": export,
        "quant": quant,
        "forward": forward,
        "variables": variables,
        "batch": images,
    }
    exec(block, user | {"batches": [images]}, user)
    images = np.asarray(np.random.default_rng(0).integers(256, size=(5, 8, 8, 1)), np.uint8)
    found, wanted = (
        np.asarray(export.load_onnx(Path(name), threads=1)(images))
        for name in ("int8.onnx", "float.onnx")
    )
    assert 0 < np.abs(found - wanted).max() < 0.2 * np.abs(wanted).max()


def test_a_loss_in_ten_lines_learns():
    (block,) = blocks("ten lines")
    user = {}
    exec(block, user)

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
