"""DistilBERT's recipe: a masked language model with half of its teacher's layers.

Sanh et al. 2019, https://arxiv.org/abs/1910.01108: the student begins with some of the teacher's layers,
without token types and pooler. Its loss is 5 x KD of the tokens at all positions (T = 2), 2 x the
masked-LM loss and 1 x the cosine of the last hidden states; different tokens are hidden in each view.
Weights and learning rates are those of the authors' code, except that the rate falls by a cosine. Models
are scored by the pseudo-perplexity: each token is predicted from all others of its text.

  kdjax --config=configs/distilbert.py --workdir=DIR --config.data.data_dir=TFDS

is the small form, on `sst2_sentences`, meant for two CPU cores. Its teacher is trained here. For
comparison the same student learns from the cache, without the cosine, and from hidden tokens alone. At
this length it has not been run. A third of it, `:teacher_steps=1000,steps=500`, one seed, 17 minutes
beside other work, is too short to say anything of the recipe: pseudo-perplexity of the teacher 743, of
the student 687, from the cache 686, from hidden tokens alone 684; all three students begin with layers
of the teacher.

The full scale is BERT-base to DistilBERT on your own texts, with one or several coherent sentences per
line in UTF-8: Wikipedia and books, say, in TEXTS/train_*.txt, and ten or twenty lines in TEXTS/test.txt.
Each of these is tested once for each of its tokens, and 4,000 answers take 4,000 x 30,522 x 4 bytes. It
has not been run. FOLDER has the files of `google-bert/bert-base-uncased`: model.safetensors with the
head, config.json, tokenizer.json. On every host of a Cloud TPU pod, here 16 chips of v4:

  kdjax --config=configs/distilbert.py:full,texts=TEXTS,weights=FOLDER
    --workdir=gs://BUCKET/distilbert --distributed --stages=student,export_student

in one line. The teacher answers in the step: no cache is written. What follows is computed.

* Steps: BERT's corpus of 3.3e9 words is about 3.3e9 tokens an epoch by the count of its authors (256 x
  512 tokens, 1e6 steps, 40 epochs), 6.4e6 texts of 512. Three epochs in batches of 4,096 are 4,700 steps.
* Work a token: the student has 42.5e6 weights in its blocks and 24e6 in the head and the embeddings that
  it is multiplied with: 6 x 66.5e6 = 0.40e9 operations forward and back; the teacher 2 x (85e6 + 24e6) =
  0.22e9; attention at length 512, 4 x 512 x 768 a layer, 18 + 12 layers' worth: 0.05e9. Together 0.67e9.
* Time: 0.67e9 x 9.9e9 tokens = 6.6e18 operations. A v4 chip does 275e12 a second in bfloat16; at 40 % of
  that 60,000 chip seconds, or 17 chip hours: a little over one hour on 16 chips. At 3.22 USD a chip hour,
  which is what to look up first, 54 USD. The paper needed 720 GPU hours (V100).
* Memory of a chip: parameters, gradients and Adam of the student 16 bytes x 67e6 = 1.1 GB, the teacher
  0.4 GB. 4,096 / 16 chips / 32 parts = 8 texts at once: logits 8 x 512 x 30,522 x 4 bytes = 0.5 GB, of
  which six are alive (student, teacher, softmaxes, gradient): 3 GB; activations 29 MB a layer and text
  in bfloat16, 6 x 8 of them: 1.4 GB. About 6 GB of 32.
* Memory of a host: it holds the letters while it tokenises them, once, into a file beside the work
  directory: 16 GB, and about 2 kB a text beside them, 13 GB. Then the tokens, the labels and two copies
  of these, 4 bytes a position each: 4 x 13 GB. About 80 GB of the 400 of a v4 host.
"""

from ml_collections import ConfigDict

from kdjax.parse import parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(
        arg,
        full=False,
        texts="texts",
        weights="bert-base-uncased",
        teacher_steps=3_000,
        steps=1_500,
        full_steps=4_700,
        seeds=1,
        runlocal=False,
    )
    full, runlocal = args["full"], args["runlocal"]
    batch, parts, length, train, test = 32, 1, 32, "train", "test[:100]"
    sizes = dict(width=128, heads=4, mlp=512, positions=64)
    depth, blocks, rate = 6, [0, 2, 5], 1e-3
    source: dict = dict(kind="tfds_text", set="sst2_sentences", label=None)
    source["tokenizer"] = dict(train="wordpiece", vocab=4_000)
    buckets = dict(tokens=[12, 20])
    if full:
        batch, parts, length, test, rate = 4_096, 32, 512, "test", 5e-4
        # Of the authors' code.
        sizes, depth, blocks = {}, 12, [0, 2, 4, 7, 9, 11]
        source = dict(kind="lines", root=args["texts"], tokenizer=args["weights"])
        buckets = dict(tokens=[128, 256])
    if runlocal:
        batch, parts, length, train, test = 16, 2, 16, "train[:400]", "test[:4]"
        sizes, depth, blocks = dict(width=16, heads=2, mlp=32, positions=16), 4, [0, 3]
        source["tokenizer"] = dict(train="wordpiece", vocab=600)
        buckets = {}
        args |= dict(teacher_steps=2, steps=2, full_steps=2)

    def training(steps: int, warmup: float = 0.05) -> dict:
        return dict(
            steps=steps,
            batch=batch,
            accumulate=parts,
            log_every_steps=max(1, steps // 50),
            dtype="bfloat16" if full else "float32",
            optimizer=dict(
                name="adamw",
                learning_rate=rate,
                b2=0.98,
                clip_norm=5.0,
                schedule=dict(name="cosine", warmup_steps=max(1, round(warmup * steps))),
            ),
        )

    shape = dict(pool="none", pooler=None, **sizes)
    views = dict(recipe="masked_tokens", share=0.15)
    steps = args["full_steps"] if full else args["steps"]
    layers = dict(
        shape,
        name="distilbert",
        depth=len(blocks),
        weights=dict(stage="teacher", blocks=blocks, head=True),
    )
    if full and not runlocal:
        encoder = dict(shape, name="bert", weights=args["weights"])
        teacher = dict(kind="pretrained", seed=0, encoder=encoder)
    else:
        teacher = dict(
            kind="finetune",
            seed=0,
            encoder=dict(shape, name="bert", depth=depth),
            views=views,
            **training(args["teacher_steps"]),
        )
    taught = dict(kind="distill", cache="cache", encoder=layers, temperature=2.0)
    taught |= dict(kd_weight=5.0, ce_weight=2.0)
    cosine = dict(
        name="hidden_cosine",
        weight=1.0,
        student=[f"encoder/block{len(blocks) - 1}"],
        teacher=[f"encoder/block{depth - 1}"],
    )

    c = ConfigDict()
    c.name = "distilbert"
    c.seeds = list(range(args["seeds"]))
    c.reference = "teacher"
    c.data = dict(
        name="texts" if full else "sst2_sentences",
        source=dict(source, max_length=length, truncate=True),
        target=dict(kind="tokens"),
        train_split=train,
        test_split=test,
        buckets=buckets,
    )
    stages = dict(
        teacher=teacher,
        cache=dict(
            kind="cache",
            teacher="teacher",
            recipe=views,
            views=3 if full else 4,
            signal=dict(name="top_k", k=8, temperatures=[2.0]),
        ),
        student=dict(taught, live=True, features=dict(cosine=cosine), **training(steps)),
        cached=dict(taught, **training(steps)),
        alone=dict(kind="finetune", encoder=layers, views=views, **training(steps)),
        export_student=dict(kind="export", model="student", formats=["onnx"]),
    )
    c.stages = ConfigDict(stages, sort_keys=False)
    return c
