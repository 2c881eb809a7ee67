"""An epoch of sentences put together by length, against all of them padded to the longest. Prints JSON.

  python tests/benchmarks/ragged.py --data_dir=DIR      SST-2's sentences, as the set is prepared by TFDS

Reading, padding, the transfer and the step are timed together, as training does them: a Transformer of
two blocks over words. The epochs are interleaved; every program is compiled before.
"""

import argparse
import os
import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from result import ratios, show

from kdjax import data, evaluate, losses, models, train
from kdjax.data.records import Records

WORDS, CLASSES = 5000, 2


class Reader(nn.Module):
    """Features [batch, width] of words, padding masked."""

    width: int
    blocks: int

    @nn.compact
    def __call__(self, tokens, tokens_length, *, train):
        mask = jnp.arange(tokens.shape[1])[None, :] < tokens_length[:, None]
        x = nn.Embed(WORDS, self.width)(tokens)
        for _ in range(self.blocks):
            attention = nn.MultiHeadDotProductAttention(num_heads=4)
            x = x + attention(nn.LayerNorm()(x), mask=mask[:, None, None, :])
            x = x + nn.Dense(self.width)(nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(x))))
        weight = mask[..., None].astype(x.dtype)
        return (x * weight).sum(1) / weight.sum(1)


def sentences(data_dir: str, *, n: int, most: int) -> data.Dataset:
    """The first `n` sentences of the training split, words by their hash."""
    import tensorflow_datasets as tfds

    builder = tfds.builder("sst2_sentences", data_dir=data_dir)
    records = Records(builder, "train", name="sst2_sentences", keys=("sentence", "label"))
    read = records.read(range(n))
    words = [
        [zlib.crc32(word) % WORDS for word in bytes(one["sentence"]).split()][:most] for one in read
    ]
    labels = [int(one["label"]) for one in read]
    return data.from_fields(
        {"tokens": words},
        labels,
        classes=CLASSES,
        below={"tokens": WORDS},
        ragged={"tokens": most},
        name="sst2_sentences",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", default=os.environ.get("KDJAX_DATA_DIR"))
    parser.add_argument("--examples", type=int, default=4096)
    parser.add_argument("--most", type=int, default=48, help="words of a sentence")
    parser.add_argument("--buckets", default="12,24,36")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    dataset = sentences(args.data_dir, n=args.examples, most=args.most)
    steps = args.examples // args.batch
    buckets = {"tokens": (*map(int, args.buckets.split(",")), args.most)}
    model, tx, parallel = (
        models.Classifier(Reader(args.width, 2), CLASSES),
        optax.adamw(1e-3),
        train.choose("single"),
    )
    inputs = dataset.read(np.arange(2))
    variables = jax.device_get(model.init(jax.random.key(0), inputs, train=False))

    def ce(outputs, batch):
        return losses.cross_entropy(outputs["logits"], batch["label"])

    objective = train.weigh(train.forward_of(model), {"ce": (1.0, ce)})
    run = parallel.compile(
        train.make_run_steps(lambda resident, feed, key: feed, train.make_train_step(objective, tx))
    )

    def epoch(buckets):
        state = train.TrainState.start(variables, tx)
        state, key = parallel.replicate(state), jax.random.key(0)
        feeds = data.stream_feeds(
            dataset,
            seed=0,
            batch=args.batch,
            share=slice(None),
            start=0,
            stop=steps,
            dispatch_steps=1,
            buckets=buckets,
        )
        positions = 0
        for _, feed in feeds:
            positions += feed["inputs"]["tokens"].size
            state, metrics = run(state, {}, parallel.feed(feed), key)
        jax.block_until_ready(metrics)
        return positions

    calls = {"padded": lambda: epoch(None), "by length": lambda: epoch(buckets)}
    positions = {name: call() for name, call in calls.items()}
    times = evaluate.interleaved(calls, repeats=args.repeats)
    show(
        {
            "set": dataset.name,
            "examples": len(dataset),
            "steps": steps,
            "buckets": list(buckets["tokens"]),
            "words": int(dataset.lengths["tokens"].sum()),
            "positions": positions,
            **ratios(times, "padded"),
        }
    )


if __name__ == "__main__":
    main()
