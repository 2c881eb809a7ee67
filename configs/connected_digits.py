"""Connected digits with few transcripts: a Conformer, and LSTMs that learn from its frames instead.

Synthetic utterances, joined from the Free Spoken Digit Dataset with random pauses and levels: two to five
digits of one speaker each. The speaker of the test utterances is in no training utterance. A Conformer
learns all transcripts by CTC. Its answers, frame by frame, about `views` views of each utterance teach
unidirectional LSTMs:

* `student`: from the frames, and from the transcripts of `share` of the utterances;
* `free`: from the frames alone, most of the Conformer's blanks left out; no transcript;
* `at_once`: as `free`, but for the delay;
* `alone`: from the transcripts of `share` of the utterances, without a teacher.

The Conformer hears the whole utterance, and may name a digit as it begins. An LSTM has heard nothing of
what comes, and so answers `delay` frames of 40 ms later. With `extra` there are also `paths`, from the
Conformer's likeliest transcripts alone, by CTC, and `alone_all`, from all transcripts without a teacher.
All have the same number of steps. `free` then loses half of its units, trains on, still without a
transcript, is quantized to int8 and exported to files that take any length.

  kdjax --config=configs/connected_digits.py --workdir=DIR

It takes the data directory from the environment's KDJAX_DATA_DIR, or --config.data.data_dir=TFDS.
"""

import ctc
from ml_collections import ConfigDict

from kdjax.parse import parse_arg

_RATE = 8_000

# Spectra are normalised, so louder and softer are alike; another speed is another voice, too.
_SEEN = dict(recipe="waveform", speed=1.12)


def _spectra(window: float, hop: float, net: dict, *, masks: dict) -> dict:
    """A network on log-mel spectra."""
    return dict(
        name="log_mel", rate=_RATE, window=window, hop=hop, bands=24, net=net, augment=masks
    )


def _masks(frames: int) -> dict:
    """Bands and frames that are hidden in training."""
    return dict(band_masks=1, band_width=5, frame_width=frames, frame_share=0.1)


# Both answer every 40 ms: the first joins two frames, the second has longer ones.
_LARGE = _spectra(
    32.0,
    20.0,
    dict(name="conformer", width=64, depth=2, mlp=192, kernel=9, stride=2, pool="none"),
    masks=_masks(8),
)
_SMALL = _spectra(40.0, 40.0, dict(name="lstm", widths=[96], pool="none"), masks=_masks(4))


def _training(steps: int, *, batch: int, rate: float) -> dict:
    return ctc.adamw(steps, batch=batch, rate=rate, lines=20)


def _stages(
    steps: dict,
    *,
    batch: int,
    views: int,
    share: float,
    delay: int,
    examples: int,
    extra: bool,
) -> dict:
    trained = _training(steps["student"], batch=batch, rate=5e-3)
    supervised = dict(kind="finetune", views=_SEEN)
    taught = dict(kind="distill", cache="cache", kd_weight=1.0, ce_weight=0.0)
    chosen = dict(name="blank_selection", around=2)
    frames = dict(taught, temperature=1.0, logits=dict(chosen, delay=delay))
    more = dict(
        paths=dict(taught, logits=dict(name="best_path"), encoder=_SMALL, **trained),
        alone_all=dict(supervised, labels_share=1.0, encoder=_SMALL, **trained),
    )
    return dict(
        teacher=dict(
            supervised,
            labels_share=1.0,
            encoder=_LARGE,
            **_training(steps["teacher"], batch=batch, rate=2e-3),
        ),
        cache=dict(kind="cache", teacher="teacher", recipe=_SEEN, views=views),
        student=dict(frames, encoder=_SMALL, **dict(trained, ce_weight=0.01)),
        free=dict(frames, encoder=_SMALL, **trained),
        at_once=dict(frames, encoder=_SMALL, **dict(trained, logits=chosen)),
        alone=dict(supervised, labels_share=share, encoder=_SMALL, **trained),
        **(more if extra else {}),
        shrunk=dict(kind="shrink", model="free", sparsity=0.5, multiple=8, examples=examples),
        small=dict(frames, start_from="shrunk", **_training(steps["more"], batch=batch, rate=5e-3)),
        int8=ctc.int8("small", examples=examples, agreement=0.95),
        teacher_file=dict(kind="export", model="teacher", formats=["onnx"]),
        free_file=dict(kind="export", model="free", formats=["onnx"]),
        small_file=dict(kind="export", model="small", formats=["onnx"]),
        int8_file=dict(kind="export", model="int8", formats=["onnx"], agreement=0.95),
    )


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(
        arg,
        share=0.05,
        views=4,
        seeds=5,
        effort=1.0,
        delay=8,
        held_out="theo",
        extra=False,
        runlocal=False,
    )
    steps = dict(teacher=1_200, student=800, more=800)
    steps = {name: max(4, round(count * args["effort"])) for name, count in steps.items()}
    utterances, tests, seeds, batch = 2_000, 500, args["seeds"], 32
    if args["runlocal"]:
        steps, seeds, batch = dict.fromkeys(steps, 4), 1, 16
        utterances, tests = 80, 20
    c = ConfigDict()
    c.name = "connected_digits"
    c.seeds = list(range(seeds))
    c.data = dict(
        name="connected digits (synthetic)",
        source=dict(
            kind="connected_words",
            set="spoken_digit:1.0.10",
            rate=_RATE,
            utterances=utterances,
            test_utterances=tests,
            test_speakers=[args["held_out"]],
        ),
        buckets=dict(audio=[18_000]),
        labels_share=args["share"],
    )
    views, examples = (2, 32) if args["runlocal"] else (args["views"], 256)
    stages = _stages(
        steps,
        batch=batch,
        views=views,
        share=args["share"],
        delay=args["delay"],
        examples=examples,
        extra=args["extra"],
    )
    c.stages = ConfigDict(stages, sort_keys=False)  # the report's rows stand in this order
    return c
