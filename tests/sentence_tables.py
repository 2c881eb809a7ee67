"""Small tables of sentences, and stages that learn from them in a moment."""

import numpy as np

PLAIN_VIEWS = {"recipe": "eval"}
TRAINED = {"train": "wordpiece", "vocab": 400}
BERT = {
    "name": "bert",
    "width": 16,
    "depth": 2,
    "heads": 2,
    "mlp": 32,
    "positions": 64,
    "pooler": None,
    "pool": "mean",
}
GOOD, BAD = ("fine", "moving", "funny", "warm"), ("dull", "flat", "silly", "cold")
PLAIN = ("a", "the", "film", "story", "and", "plot", "with", "actors", "it", "is", "of", "some")


def _sentence(random, words):
    found = list(random.choice(PLAIN, random.integers(2, 14)))
    found.insert(random.integers(len(found) + 1), random.choice(words))
    return " ".join(found)


def pairs(folder, n=400):
    """Whether the second sentence is of the mood of the first one, in tables of their own."""
    random = np.random.default_rng(0)
    for split, count in (("train", n), ("test", 100)):
        rows = []
        for _ in range(count):
            first, other = random.integers(2, size=2)
            texts = [_sentence(random, (BAD, GOOD)[mood]) for mood in (first, other)]
            rows.append(",".join([*texts, ("other", "same")[int(first == other)]]))
        (folder / f"{split}.csv").write_text("\n".join(["a,b,mood", *rows]) + "\n")
    source = {"kind": "text_table", "root": str(folder), "text": ["a", "b"], "label": "mood"}
    return {"name": "moods", "source": {**source, "tokenizer": TRAINED, "max_length": 40}}


def training(steps, **more):
    return {
        "steps": steps,
        "batch": 32,
        "log_every_steps": 20,
        "optimizer": {"name": "adamw", "learning_rate": 3e-3},
        **more,
    }
