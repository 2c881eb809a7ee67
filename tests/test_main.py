"""The command line as a user meets it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from etils import epath

from kdjax import main as command
from kdjax import parse, pipeline, teacher
from kdjax.artifacts import finish, proof
from kdjax.commands import report as written
from kdjax.commands import run
from kdjax.commands.flags import FLAGS
from kdjax.load import load_config
from kdjax.report import Row
from kdjax.types import BadInput
from tests.compiled import HARDLY_OPTIMIZED
from tests.together import run_together

ROOT = Path(__file__).parents[1]
DIGITS = str(ROOT / "configs" / "digits.py")
FORMATS = ("stablehlo", "onnx")
QUICK = "--config.latency_seconds=0"
QUANTIZED = ("int8", "small_int8", "small_aware")
# The notebooks of `test_colabs.py` run as users compile.
ENVIRONMENT = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), **HARDLY_OPTIMIZED}
# With compilations kept where a run keeps them unless told otherwise.
ALONE = {name: value for name, value in ENVIRONMENT.items() if "COMPILATION_CACHE" not in name}


def kdjax(*args, env=ENVIRONMENT, **kwargs):
    return subprocess.run(
        [sys.executable, "-m", "kdjax.main", *args],
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        **kwargs,
    )


PLANNING = """
import os, signal
def get_config(arg=None):
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(10**9):
        pass
"""
REPORTING = """
import os, pathlib, signal, sys, threading, time
def get_config(arg=None):
    lock = pathlib.Path(arg) / ".report.lock"
    def end():
        while not lock.exists():
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=end, daemon=True).start()
    stage = dict(kind="finetune", encoder=dict(name="cnn", widths=[2]), steps=1, batch=16,
                 views=dict(recipe="eval"),
                 optimizer=dict(name="sgd", learning_rate=0.1, schedule=dict(name="constant")))
    return dict(name="one", data=dict(name="digits"), stages=dict(only=stage))
"""


@pytest.mark.parametrize(
    ("config", "number"), [(PLANNING, signal.SIGTERM), (REPORTING, signal.SIGINT)]
)
def test_a_signal_before_or_after_all_stages_is_one_line(tmp_path, config, number):
    (tmp_path / "config.py").write_text(config)
    said = kdjax(f"--config={tmp_path}/config.py:{tmp_path}/run", f"--workdir={tmp_path}/run")
    assert said.returncode == 128 + number
    *before, line = said.stderr.splitlines()
    assert line.startswith(f"kdjax: {number.name}: ended; what is done stays done")
    assert all(text.startswith("only (seed 0): ") for text in before)


@pytest.mark.slow
def test_the_whole_line(tmp_path, capsys):
    args = (f"--config={DIGITS}:runlocal,seeds=1", f"--workdir={tmp_path}", QUICK)
    # Two processes: the second restores the shrunk student and trains it on.
    begun = kdjax(*args, "--stages=shrunk")
    assert begun.returncode == 0, begun.stderr
    assert not [*tmp_path.glob("stages/small-*")]
    first = kdjax(*args)
    assert first.returncode == 0, first.stderr
    said = first.stderr.splitlines()
    assert "shrunk (seed 0): done before, skipped" in said
    assert any(line.startswith("small (seed 0): ") and "accuracy" in line for line in said)
    written = json.loads((tmp_path / "report.json").read_text())
    rows = {row["stage"]: row for row in written["rows"]}
    assert list(rows) == [
        "teacher",
        "student",
        "scratch",
        "pruned",
        "shrunk",
        "small",
        *QUANTIZED,
        *(f"{m}.{f}" for m in ("teacher", "student", "pruned", "small") for f in FORMATS),
        *(f"{m}.onnx" for m in QUANTIZED),
    ]
    for row in rows.values():
        parse.parse(Row, row)
        assert row["latency_ms_p50"] > 0
        assert row["bytes_on_disk"] > 0
        assert row["flops"] > 0
    assert rows["teacher"]["params"] > 4 * rows["student"]["params"]
    assert rows["pruned"]["nonzero_params"] < 0.2 * rows["pruned"]["params"]
    assert rows["int8.onnx"]["bytes_on_disk"] < 0.32 * rows["student.onnx"]["bytes_on_disk"]
    assert rows["small_aware.onnx"]["bytes_on_disk"] < 0.5 * rows["small.onnx"]["bytes_on_disk"]
    assert rows["small"]["params"] == rows["shrunk"]["params"] < 0.4 * rows["student"]["params"]
    assert rows["small.onnx"]["bytes_on_disk"] < 0.4 * rows["student.onnx"]["bytes_on_disk"]
    assert len(written["parity"]) == 8 + 2 + 3  # float files, quantized models, their files
    groups = written["shrunk"]["shrunk"]["groups"]
    assert [group["size"] for group in groups] == [16, 32, 64, 96]
    assert written["sensitivity"]["bears"]["curves"].keys() == {g["name"] for g in groups}
    page = (tmp_path / "report.html").read_text()
    assert all(name in page for name in rows)

    command.main(["kdjax", *args])
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 19
    assert all(line.endswith("done before, skipped") for line in said)
    command.main(["kdjax", *args, "--dry_run", "--config.stages.student.steps=3"])
    dry = capsys.readouterr().out.splitlines()
    todo = [line.split()[-1].split("-")[0] for line in dry if "to do" in line]
    assert todo == [
        "student",
        *("pruned", "bears", "shrunk", "small", *QUANTIZED),
        *("export_student", "export_pruned", "export_small"),
        *(f"export_{m}" for m in QUANTIZED),
    ]


def _steps_saved(workdir):
    """Steps of the checkpoints that are whole: orbax renames a folder when it is."""
    return [int(p.name) for p in workdir.glob("stages/*/checkpoints/*") if p.name.isdigit()]


@pytest.mark.slow
@pytest.mark.thorough  # tests/test_kills.py kills a line of its own, and compares more
def test_killed_and_begun_again_is_as_never_killed(tmp_path):
    """SIGKILL after a checkpoint; the run that goes on leaves the parameters of one never killed."""
    steps, every = 400, 40
    args = [
        f"--config={DIGITS}:seeds=1",
        "--stages=scratch",
        f"--config.stages.scratch.steps={steps}",
        f"--config.stages.scratch.checkpoint_every_steps={every}",
        "--config.stages.scratch.batch=64",
        "--config.stages.scratch.encoder.widths=[4,8]",
        "--config.stages.scratch.optimizer.name=adamw",
    ]
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "kdjax.main", *args, f"--workdir={killed}"],
        env=ALONE,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while not _steps_saved(killed):
        assert process.poll() is None, "ended before a checkpoint was there"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (folder,) = killed.glob("stages/scratch-*")
    assert not (folder / "manifest.json").exists()
    kept = max(_steps_saved(killed))
    assert every <= kept < steps

    again = kdjax(*args, f"--workdir={killed}", env=ALONE)
    assert again.returncode == 0, again.stderr
    whole = kdjax(*args, f"--workdir={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr
    (other,) = (tmp_path / "whole").glob("stages/scratch-*")
    assert other.name == folder.name
    found, wanted = (json.loads((f / "manifest.json").read_text()) for f in (folder, other))
    assert found["variables"] == wanted["variables"]  # bit for bit
    lines = [
        json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
    assert lines == sorted(set(lines))
    assert lines[-1] == steps


BAD = [
    (
        ["--config.stages.student.stpes=3"],
        "config.stages.student.stpes: unknown field; did you mean steps?",
    ),
    (
        ["--config.data.name=nothing", "--config.data.data_dir=/nowhere"],
        "config.data.data_dir|data.data_dir: /nowhere is not a directory",
    ),
    (
        ["--config.stages.student.steps=many"],
        "config.stages.student.steps: expected an integer, found 'many' (str)",
    ),
    (
        ["--config.stages.teacher.start_from=pretrian"],
        "no stage 'pretrian'; did you mean pretrain?",
    ),
    (
        ["--config.stages.student.optimizer.name=adam"],
        "config.stages.student.optimizer.name: 'adam' is not one of",
    ),
    (["--config.data.train_split=val"], "split 'val' of digits"),
    (["--config.latency_batch=0"], "config.latency_batch: 0 is not in [1, 2^31)"),
    (["--config.seeds=[]"], "config.seeds: none given; give at least one"),
    (["--stages=studnet"], "--stages: there is no stage 'studnet'; did you mean student?"),
    (["--nonsense=1"], "nonsense"),
    (["extra"], "unexpected argument 'extra'"),
    (["--config.stages.student.steps"], "write --config.stages.student.steps=VALUE"),
    (
        ["--config.data.labels_per_class=5000"],
        "class 0 of digits train has",
    ),
]


@pytest.mark.parametrize(("args", "message"), BAD, ids=[args[0] for args, _ in BAD])
def test_bad_input_is_one_line(args, message, tmp_path, monkeypatch, capsys):
    argv = ["kdjax", f"--config={DIGITS}:runlocal", f"--workdir={tmp_path}", *args]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as stop:
        command.run()
    assert stop.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert any(part in said[0] for part in message.split("|")), said[0]


def test_bad_files(tmp_path):
    (tmp_path / "file").write_text("")
    digits = f"--config={DIGITS}:runlocal"
    with pytest.raises(BadInput, match=r"workdir: .*file is a file; name a directory"):
        command.main(["kdjax", digits, f"--workdir={tmp_path / 'file'}"])
    with pytest.raises(BadInput, match=r"--config: .*nowhere.py is not a file"):
        command.main(["kdjax", "--config=nowhere.py", f"--workdir={tmp_path}"])
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(BadInput, match="has no function get_config"):
        command.main(["kdjax", f"--config={tmp_path / 'empty.py'}", f"--workdir={tmp_path}"])
    with pytest.raises(BadInput, match="--workdir is missing"):
        command.main(["kdjax", digits])
    with pytest.raises(BadInput, match="unknown argument; did you mean labels"):
        command.main(["kdjax", f"--config={DIGITS}:label=3", f"--workdir={tmp_path}"])


def test_exit_status_of_the_program(tmp_path):
    """Once through a real process: one line, no traceback, status 2, nothing written."""
    ended = kdjax(f"--config={DIGITS}", f"--workdir={tmp_path / 'w'}", "--config.stages.cash=1")
    assert ended.returncode == 2
    assert ended.stderr.strip().splitlines() == [
        "kdjax: config.stages.cash: expected fields, with 'kind' among them, found 1 (int)"
    ]
    assert not (tmp_path / "w").exists()


def test_a_reader_that_has_had_enough_is_no_fault_of_the_storage():
    """`kdjax --fields=all | head -1`, as a shell has it."""
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(
        [sys.executable, "-m", "kdjax.main", "--fields=all"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_divergence_stops_with_step_and_term(tmp_path):
    ended = kdjax(
        f"--config={DIGITS}:runlocal",
        f"--workdir={tmp_path}",
        "--stages=scratch",
        "--config.stages.scratch.steps=20",
        "--config.stages.scratch.optimizer.name=sgd",
        "--config.stages.scratch.optimizer.weight_decay=0.0",
        "--config.stages.scratch.optimizer.learning_rate=1e15",
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.strip().splitlines()
    assert re.match(r"kdjax: config.stages.scratch: step \d+: loss/ce is NaN", line)
    assert "no checkpoint is before it" in line
    assert not list(tmp_path.glob("stages/*/manifest.json"))


# That the config is taken, tests/stages/test_effect.py; its images, tests/data/test_prepared.py.
@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.skipif("KDJAX_DATA_DIR" not in os.environ, reason="KDJAX_DATA_DIR has no CIFAR-100")
def test_cifar100_runlocal(tmp_path):
    """Every config runs: `digits` above, those of CIFAR on a few batches of the real images."""
    config = f"{ROOT / 'configs' / 'cifar100_kd.py'}:runlocal,table"
    stages = "--stages=scratch,student_live,dkd,export_student"
    ended = kdjax(f"--config={config}", f"--workdir={tmp_path}", stages)
    assert ended.returncode == 0, ended.stderr
    assert len(list((tmp_path / "records").iterdir())) == 2  # train and test, for the next start
    assert [row["stage"] for row in json.loads((tmp_path / "report.json").read_text())["rows"]] == [
        "teacher",
        "scratch",
        "student",
        "student_live",
        "dkd",
        "student.stablehlo",
        "student.onnx",
    ]


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path):
    """Each reads its share of a batch and asks the teacher for its share of the views.

    The first one measures and writes the report.
    """
    args = [f"--config={DIGITS}:runlocal", "--stages=student", QUICK]
    args += ["--config.stages.student.log_every_steps=1"]
    args += ["--config.stages.pretrain.encoder.widths=[8,16]"]  # three processes compile it
    more = "--stages=int8,shrunk"  # what the first process does alone
    run_together(
        lambda port, index: [
            *(sys.executable, "-m", "kdjax.main", *args, more, f"--workdir={tmp_path / 'two'}"),
            *("--distributed", f"--coordinator_address=127.0.0.1:{port}"),
            *("--num_processes=2", f"--process_id={index}"),
        ],
        processes=2,
        environment={**ENVIRONMENT, "JAX_NUM_CPU_DEVICES": "2"},
    )
    one = kdjax(*args, f"--workdir={tmp_path / 'one'}")
    assert one.returncode == 0, one.stderr

    def losses(workdir, name):
        (path,) = workdir.glob("stages/student-*/metrics.jsonl")
        return [json.loads(line)[name] for line in path.read_text().splitlines()]

    # The first is of no update, the student's own or its teacher's, each of which multiplies what
    # was rounded otherwise: by how much depends on the processor.
    found, wanted = (losses(tmp_path / name, "loss/ce") for name in ("two", "one"))
    assert found[0] == pytest.approx(wanted[0], rel=1e-5)
    found, wanted = (losses(tmp_path / name, "loss") for name in ("two", "one"))
    assert found == pytest.approx(wanted, rel=1e-3)
    rows = json.loads((tmp_path / "two" / "report.json").read_text())["rows"]
    assert [row["stage"] for row in rows] == ["teacher", "student", "shrunk", "int8"]

    def stored(workdir):
        (folder,) = workdir.glob("stages/cache-*")
        return teacher.Folder(folder / "cache").open("teacher_logits").read().result()

    np.testing.assert_allclose(stored(tmp_path / "two"), stored(tmp_path / "one"), atol=0.02)


@pytest.mark.slow
@pytest.mark.thorough
def test_ways_to_prune_runlocal(tmp_path):
    """Each way leaves just the share of weights, or of parameters, that it says."""
    ways = ("one_shot", "uniform", "ticket", "rigl")
    stages = ",".join(f"{way}_50" for way in (*ways, "channels", "slimming"))
    args = f"--config={DIGITS}:runlocal,pruning", f"--workdir={tmp_path}"
    ended = kdjax(*args, f"--stages=dense,{stages}")
    assert ended.returncode == 0, ended.stderr
    rows = {row["stage"]: row for row in json.loads((tmp_path / "report.json").read_text())["rows"]}
    dense = rows["dense"]["nonzero_params"]
    for way in ways:
        row = rows[f"{way}_50"]
        assert row["params"] == rows["dense"]["params"]
        assert row["sparsity"] == pytest.approx(0.5, abs=1e-3)
        assert row["nonzero_params"] == pytest.approx(0.5 * dense, rel=0.01)
    for way in ("channels", "slimming"):
        assert 0.45 * dense < rows[f"{way}_50"]["params"] <= 0.5 * dense


@pytest.mark.slow
@pytest.mark.thorough
def test_numbers_mixed_runlocal(tmp_path):
    """What a sensitivity measures of the layers decides their numbers, within the bytes given."""
    stages = "--stages=dynamic,mixed"
    ended = kdjax(f"--config={DIGITS}:runlocal,quantization", f"--workdir={tmp_path}", stages)
    assert ended.returncode == 0, ended.stderr
    said = json.loads((tmp_path / "report.json").read_text())
    assert said["sensitivity"]["bits"]["against"] == "teacher"
    (mixed,) = tmp_path.glob("stages/mixed-*/manifest.json")
    quantized = json.loads(mixed.read_text())["quantized"]
    assert 50_000 < quantized["spent"]["bytes"] <= quantized["budget"]["bytes"] == 60_000
    assert {rule["weights"] for rule in quantized["layers"].values()} == {"int8", "int4"}


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.skipif("KDJAX_DATA_DIR" not in os.environ, reason="KDJAX_DATA_DIR has no CIFAR-10")
def test_cifar10_runlocal(tmp_path):
    config, stages = ROOT / "configs" / "cifar10_int8.py", "--stages=export_int8,export_aware"
    ended = kdjax(f"--config={config}:runlocal", f"--workdir={tmp_path}", stages)
    assert ended.returncode == 0, ended.stderr
    rows = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert [row["stage"] for row in rows] == ["student", "int8", "aware", "int8.onnx", "aware.onnx"]


def test_a_config_may_import_one_beside_it(tmp_path):
    (tmp_path / "told_beside.py").write_text("STEPS = 7\n")
    beside = (
        "from told_beside import STEPS\n"
        "def get_config(arg):\n"
        "    optimizer = dict(name='sgd', learning_rate=0.1)\n"
        "    stage = dict(kind='finetune', encoder=dict(name='cnn', widths=[4]), steps=STEPS, batch=4,\n"
        "                 views=dict(recipe='eval'), optimizer=optimizer)\n"
        "    return dict(name='x', data=dict(name='digits'), stages=dict(only=stage))\n"
    )
    (tmp_path / "config.py").write_text(beside)
    before = list(sys.path)
    assert load_config(str(tmp_path / "config.py")).stages["only"].steps == 7
    assert sys.path == before
    # Another file of the same name, and one that has changed since: none is taken for that above.
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "told_beside.py").write_text("STEPS = 11\n")
    (tmp_path / "other" / "config.py").write_text(beside)
    assert load_config(str(tmp_path / "other" / "config.py")).stages["only"].steps == 11
    (tmp_path / "told_beside.py").write_text("STEPS = 13  # of another size\n")
    assert load_config(str(tmp_path / "config.py")).stages["only"].steps == 13


TO_THE_LINE = [
    ("x = 1\ny = 1 / 0\n", ":2: ZeroDivisionError: division by zero;"),
    ("def get_config(arg=None)\n    pass\n", ":1: SyntaxError: "),
    ("import nothing_of_this_name\n", ":1: ModuleNotFoundError: No module named 'nothing_of_th"),
    ("x = 1\nimport broken_beside\n", ":2: SyntaxError: .*broken_beside.py, line 3"),
    ("\nimport raises_beside\n", r":2: KeyError: 'b' \(.*raises_beside.py, line 2\)"),
    (
        "def get_config(arg=None):\n    raise ValueError('two\\nlines')\n",
        ":2: ValueError: two lines;",
    ),
    ("def f(x):\n    return x.y\n\ndef get_config(a):\n    return f(3)\n", ":2: AttributeError: "),
    ("import sys\ndef get_config(arg=None):\n    sys.exit(0)\n", ":3: SystemExit: 0;"),
    ("def get_config(a):\n    return get_config(a)\n", ":2: RecursionError"),
    (
        "\ndef get_config(arg=None):\n    dict(name='x')\n",
        ":2: get_config gave None, not a ConfigDict",
    ),
    ("def get_config(arg=None):\n    return [1]\n", ":1: get_config gave list, not a ConfigDict"),
    ("async def get_config(arg=None):\n    return {}\n", ":1: get_config gave coroutine, not"),
    ("\n\ndef get_config():\n    return {}\n", ":3: get_config cannot be called with one argument"),
    ("def get_config(a, b):\n    return {}\n", ":1: get_config cannot be called with one argument"),
    ("get_config = {}\n", " has no function get_config"),
]


@pytest.mark.parametrize(("text", "said"), TO_THE_LINE)
def test_a_config_file_that_fails_is_one_line_that_names_where(
    text, said, tmp_path, monkeypatch, capsys
):
    (tmp_path / "broken_beside.py").write_text("x = 1\n\ny = (\n")
    (tmp_path / "raises_beside.py").write_text("x = {}\ny = x['b']\n")
    file, workdir = tmp_path / "mine.py", tmp_path / "work"
    file.write_text(text)
    monkeypatch.setattr(sys, "argv", ["kdjax", f"--config={file}", f"--workdir={workdir}"])
    with pytest.raises(SystemExit) as stop:
        command.run()
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.match(f"kdjax: --config: {re.escape(str(file))}{said}", line), line
    assert not workdir.exists()

    monkeypatch.setattr(sys, "argv", [*sys.argv, "--traceback"])
    with pytest.raises(SystemExit):
        command.run()
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1] == line
    assert len(lines) == 1 or "--traceback" in line


def test_a_placeholder_is_for_an_override(tmp_path):
    text = (
        "from ml_collections import ConfigDict, config_dict\n"
        "def get_config(arg=None):\n"
        "    evaluate = dict(kind='evaluate', model='b')\n"
        "    return ConfigDict(dict(name=config_dict.required_placeholder(str),\n"
        "                           data=dict(name='digits'), stages=dict(a=evaluate)))\n"
    )
    (tmp_path / "open.py").write_text(text)
    with pytest.raises(BadInput, match=r"^config.name: missing"):
        load_config(str(tmp_path / "open.py"))
    assert load_config(str(tmp_path / "open.py"), ["name=mine"]).name == "mine"


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("3", (3,)), ("0,1,2", (0, 1, 2)), ("[4, 2]", (4, 2)), ("4294967295", (2**32 - 1,))],
)
def test_seeds_of_the_command_line(text, seeds):
    assert run.seeds(text) == seeds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a list of integers, found ''"),
        ("x", "expected a list of integers, found 'x'"),
        ("-1", r"\[0\]: -1 is not in \[0, 2\^32\)"),
        ("4294967296", r"\[0\]: 4294967296 is not in"),
        ("1,1", ": 1 stands twice in it"),
        ("0.5", "expected a list of integers, found 0.5"),
        ("True", "expected a list of integers, found True"),
        ("[]", "none given; give at least one"),
    ],
)
def test_seeds_that_are_none(text, said):
    with pytest.raises(BadInput, match=f"^--seeds.*{said}"):
        run.seeds(text)


TWO_SEEDS = (
    "def get_config(arg=None):\n"
    "    stage = dict(kind='finetune', encoder=dict(name='cnn', widths=[2]), steps=1, batch=8,\n"
    "                 views=dict(recipe='eval'), optimizer=dict(name='sgd', learning_rate=0.1))\n"
    "    data = dict(name='digits', train_split='train[:5%]', test_split='test[:5%]')\n"
    "    return dict(name='x', data=data, stages=dict(only=stage), seeds=[0, 1])\n"
)


@pytest.fixture(scope="module")
def array_job(tmp_path_factory):
    """`(arguments without seeds, work directory, stages and report after one job, and after both)`."""
    folder = tmp_path_factory.mktemp("array")
    (folder / "mine.py").write_text(TWO_SEEDS)
    workdir = folder / "w"
    args = ["kdjax", f"--config={folder / 'mine.py'}", f"--workdir={workdir}"]
    left = []
    for seed in (1, 0):
        command.main([*args, f"--seeds={seed}"])
        stages = sorted(path.name.rpartition("-")[0] for path in (workdir / "stages").iterdir())
        left.append((stages, json.loads((workdir / "report.json").read_text())))
    return args, workdir, *left


def test_an_array_job_runs_a_seed_each_and_the_last_reports_all(array_job, capsys):
    """Each in the one work directory; what is left for the run without the flag is the report."""
    args, workdir, (first, one), (_, both) = array_job
    assert first == ["only-seed1"]
    assert [row["seeds"] for row in one["rows"]] == [1]
    assert [row["seeds"] for row in both["rows"]] == [2]  # of all that are done
    capsys.readouterr()
    command.main(args)
    assert capsys.readouterr().err.count("done before, skipped") == 2
    (row,) = json.loads((workdir / "report.json").read_text())["rows"]
    assert row["seeds"] == 2


def test_what_fields_take_is_printed(capsys):
    command.main(["kdjax", "--fields=SGD"])
    assert "learning_rate: a number in (0, inf)\n" in capsys.readouterr().out
    command.main(["kdjax", "--fields=Finetune"])
    said = capsys.readouterr().out
    for inherited in ("steps: updates of", "seed: it is run for", "labels_per_class: how many of"):
        assert f"\n  {inherited}" in said
    assert said.count("Fields:") == 1
    with pytest.raises(BadInput, match=r"--fields: there is no 'SDG'; did you mean SGD"):
        command.main(["kdjax", "--fields=SDG"])


_COMPILES = """
import os, pathlib, sys
import jax, jax.numpy as jnp
from etils import epath
from kdjax.commands import report as written
from kdjax.commands import run
from kdjax.commands.flags import FLAGS

folder = pathlib.Path(sys.argv[1]) / "compiled"
run._keep_compiled(epath.Path(sys.argv[1]))
assert float(jax.jit(lambda x: 3 * x + 1)(jnp.float32(2))) == 7
kept = sorted(path for path in folder.iterdir() if path.name.endswith("-cache"))
print(len(kept))
contents = [b"", kept[-1].read_bytes()[:-7], b"no program"]
for i, path in enumerate(kept):
    path.write_bytes(contents[i % 3])
jax.clear_caches()
assert float(jax.jit(lambda x: 3 * x + 1)(jnp.float32(2))) == 7
"""


def test_programs_are_kept_however_small_and_damaged_ones_are_compiled(tmp_path):
    environment = {n: v for n, v in os.environ.items() if n != "JAX_COMPILATION_CACHE_DIR"}
    environment.pop("PYTHONWARNINGS", None)
    ended = subprocess.run(
        [sys.executable, "-c", _COMPILES, tmp_path],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert int(ended.stdout) >= 2


WORDS = (*command.WORDS,)


def _printed(program: str) -> list[str]:
    """The lines that a program prints, in a process of its own, which says nothing else."""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()


def test_help_lists_every_word_first_and_every_flag_without_jax():
    """In a process of its own; nothing heavy is imported for it."""
    names = ("jax", "flax", "numpy", "kdjax.types")
    program = (
        "import sys; from kdjax import main; sys.argv = ['kdjax', '--help']; main.program(); "
        f"print(*(name for name in {names} if name in sys.modules))"
    )
    *lines, imported = _printed(program)
    assert imported == ""
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 106
    words = [line.split()[1] for line in lines if line.startswith("  kdjax ")]
    assert words[: len(WORDS)] == list(WORDS)
    listed = {name for line in lines for name in re.findall(r"^  --(\w+)", line)}
    assert listed == set(FLAGS)


def test_a_plan_does_without_what_is_slow_to_import_and_it_does_not_need(tmp_path):
    """Nor does a refusal: checkpoints, event files, intervals and pictures come later."""
    config = ROOT / "configs/digits.py:runlocal"
    argv = ["kdjax", f"--config={config}", f"--workdir={tmp_path}", "--dry_run"]
    program = f"""
import sys, kdjax.commands.run, kdjax.stages
from kdjax import main
names = ["orbax", "tensorboardX", "matplotlib", "tensorflow"]
slow = [name for name in [*names, "scipy.special"] if name in sys.modules]
sys.argv = {argv}
main.run()
print(*slow, *(name for name in names if name in sys.modules))  # the digits need scipy
"""
    assert _printed(program)[-1] == ""


def test_help_of_every_word_and_what_is_below_all_does_without_jax():
    """In one process: each word's help, then the modules that every part of kdjax uses."""
    program = """
import contextlib, importlib, sys
from kdjax import main
for word in main.WORDS:
    sys.argv = ["kdjax", word, "--help"]
    with contextlib.suppress(SystemExit):
        main.run()
for name in ("types", "files", "lock", "parse", "paths", "explain", "commands.words"):
    importlib.import_module(f"kdjax.{name}")
print(*(name for name in ("jax", "flax", "tensorflow", "orbax") if name in sys.modules))
"""
    *lines, imported = _printed(program)
    assert imported == ""
    assert [line.split()[2] for line in lines if line.startswith("usage: ")] == list(WORDS)


@pytest.mark.parametrize("word", WORDS)
def test_a_word_has_help_and_refuses_what_it_does_not_know(word, monkeypatch, capsys):
    """One screen with an example; then one line and status 2."""

    def ended(*args):
        monkeypatch.setattr(sys, "argv", ["kdjax", word, *args])
        with pytest.raises(SystemExit) as stop:
            command.run()
        said = capsys.readouterr()
        return stop.value.code, said.out.splitlines(), said.err.splitlines()

    status, out, err = ended("--help")
    assert (status, err) == (0, [])
    assert out[0].startswith(f"usage: kdjax {word} ")
    assert any(line.startswith(f"kdjax {word} ") for line in out[1:])
    assert len(out) <= 50
    for args in (("--nothing_of_this_name",), ()):
        status, out, err = ended(*args)
        assert (status, out) == (2, [])
        (line,) = err
        assert line.startswith("kdjax: ")
        assert line.endswith(f"; see kdjax {word} --help")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["verfy", "runs"], "there is no command 'verfy'; did you mean verify?; see kdjax --help"),
        (["xyz"], f"there is no command 'xyz'; known: {', '.join(WORDS)}; see kdjax --help"),
        ([], "--config is missing; see kdjax --help"),
        (["x.py:a=1"], "to run a config, write kdjax --config=x.py:a=1 --workdir=DIR"),
    ],
)
def test_a_word_that_is_none_is_one_line(argv, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["kdjax", *argv])
    with pytest.raises(SystemExit) as stop:
        command.run()
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"kdjax: {said}\n"


def test_only_the_module_of_the_word_is_imported():
    program = (
        "import sys; from kdjax import main; sys.argv = ['kdjax', 'tables', 'check', 'README.md']; "
        "main.run(); print(*sorted(name for name in sys.modules if 'kdjax.commands.' in name))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.split() == [
        f"kdjax.commands.{n}" for n in ("arguments", "exits", "flags", "tables", "words")
    ]


def test_a_report_says_on_what_its_stages_ran_and_not_who_wrote_it(array_job, tmp_path):
    _, left, _, (_, both) = array_job
    workdir = shutil.copytree(left, tmp_path / "w")
    found = []
    for folder in sorted((workdir / "stages").iterdir()):
        said = proof.read(epath.Path(folder))
        versions = {**said["versions"], "jax": "9.8.7", "another": "1.2"}
        finish(epath.Path(folder), {**said, "device": "8 x TPU v9", "versions": versions})
        command.main(["kdjax", "report", str(workdir)])
        found.append(json.loads((workdir / "report.json").read_text())["run"])
    here = both["run"]["device"]
    assert here.startswith(f"{jax.device_count()} x cpu (")
    assert [run["device"] for run in found] == [f"8 x TPU v9: only; {here}: only", "8 x TPU v9"]
    assert [run["versions"]["jax"] for run in found] == [f"9.8.7, {jax.__version__}", "9.8.7"]
    assert found[0]["versions"]["another"] == "1.2"
    assert found[1]["versions"] == {**both["run"]["versions"], "jax": "9.8.7", "another": "1.2"}


def test_the_report_of_a_work_directory_is_written_again(array_job, tmp_path, capsys):
    """After an array job, without its config; what is not there to report is one line."""
    _, left, (_, first), (_, both) = array_job
    workdir = shutil.copytree(left, tmp_path / "w")
    (workdir / "report.json").write_text(json.dumps(first))
    (workdir / "report.html").unlink()
    capsys.readouterr()
    assert command.main(["kdjax", "report", str(workdir)]) == 0
    assert capsys.readouterr().out == f"{workdir / 'report.html'}\n"
    again = json.loads((workdir / "report.json").read_text())
    assert again == {**both, "run": {**both["run"], "command": first["run"]["command"]}}
    assert (workdir / "report.html").exists()

    before = (workdir / "report.json").read_bytes()
    shutil.move(workdir / "stages", tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="is finished there, or with another"):
        command.main(["kdjax", "report", str(workdir)])
    assert (workdir / "report.json").read_bytes() == before
    for content, said in [
        ("{}", "not a report of kdjax"),
        ('{"run": {"config": {}}}', "run.command: missing"),
        (None, "report.json: "),
    ]:
        (workdir / "report.json").unlink()
        if content is not None:
            (workdir / "report.json").write_text(content)
        with pytest.raises(BadInput, match=f"{said}.*run the command of that run again"):
            command.main(["kdjax", "report", str(workdir)])


def test_files_of_one_name_are_rows_of_their_own_told_apart_by_their_stages():
    """What two stages export of one model is no model of two seeds."""

    def row(stage, size):
        unknown = dict.fromkeys(
            ("flops", "primary", "latency_ms_p50", "latency_ms_p95", "runtime", "threads", "batch")
        )
        costs = {"params": 4, "nonzero_params": 4, "bytes_on_disk": size}
        return parse.plain(Row(stage=stage, model="cnn", seeds=1, scores={}, **costs, **unknown))

    made = [
        (SimpleNamespace(name=name, folder=name, seed=seed), {"rows": [row(file, size + seed)]})
        for seed in (0, 2)
        for name, file, size in (
            ("whole", "small.onnx", 10),
            ("pieces", "small.onnx", 20),
            ("other", "other.onnx", 30),
        )
    ]
    found = written._rows(pipeline.Finished(made, []))
    assert [(one.stage, one.bytes_on_disk, one.seeds) for one in found] == [
        ("whole/small.onnx", 11, 2),
        ("pieces/small.onnx", 21, 2),
        ("other.onnx", 31, 2),
    ]
