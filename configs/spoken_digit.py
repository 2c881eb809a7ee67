"""Spoken digits with five labels per class: a self-trained teacher, two students, int8 files.

The Free Spoken Digit Dataset: 2,700 recordings of six speakers at 8 kHz, of which 50 have a label, and
300 of the same speakers for the test. A CNN on log-mel spectra learns by SimCLR, then from the 50
labels and from its own predictions; its answers about `views` views of each recording are cached. An LSTM
and MLPerf Tiny's DS-CNN learn from them, and both from the 50 labels alone, in as many steps. Each
student loses half of its units, trains on, is quantized to int8 and exported.

  kdjax --config=configs/spoken_digit.py --workdir=DIR
  kdjax --config=configs/spoken_digit.py:keywords --workdir=DIR    # DS-CNN alone, with all labels

It takes the data directory from the environment's KDJAX_DATA_DIR, or --config.data.data_dir=TFDS.
"""

from ml_collections import ConfigDict

from kdjax.parse import parse_arg

_RATE = 8_000
_BATCH = 64

# A word is no longer itself when it is played backwards or an octave higher.
_WEAK = dict(recipe="waveform", shift=400, gain=3.0)
_LABEL = dict(recipe="waveform", shift=800, speed=1.08, gain=6.0, noise=20.0)
_STRONG = dict(
    recipe="waveform",
    shift=1_200,
    speed=1.15,
    gain=6.0,
    noise=10.0,
    time_mask=1_200,
    band_mask=0.25,
)


def _spectra(**net) -> dict:
    """A network on the log-mel spectra of recordings."""
    return dict(name="log_mel", rate=_RATE, window=40.0, hop=20.0, bands=24, net=net)


_SMALL = dict(lstm=_spectra(name="lstm", widths=[96]), cnn=_spectra(name="ds_cnn"))


def _training(steps: int, rate: float) -> dict:
    cosine = dict(name="cosine", warmup_steps=min(40, steps // 4))
    adamw = dict(name="adamw", learning_rate=rate, weight_decay=1e-2, schedule=cosine)
    return dict(steps=steps, batch=_BATCH, optimizer=adamw, log_every_steps=max(1, steps // 20))


def _int8(name: str) -> list[dict]:
    """Recurrent layers find their ranges in each call; the others have calibrated ones."""
    rules = [dict(pattern=".*")]
    return [dict(pattern=".*lstm.*", activations="dynamic"), *rules] if name == "lstm" else rules


def _few(steps: dict, *, views: int) -> dict:
    """The line with few labels."""
    large = _spectra(name="cnn", widths=[32, 64, 128, 256])
    stages = dict(
        pretrain=dict(
            kind="pretrain",
            encoder=large,
            projector=[128, 64],
            method=dict(name="simclr", temperature=0.2),
            views=_STRONG,
            **_training(steps["pretrain"], 2e-3),
        ),
        probe=dict(kind="evaluate", model="pretrain", knn=None, linear={}),
        teacher=dict(
            kind="finetune",
            start_from="pretrain",
            head="probe",
            views=_LABEL,
            self_training=dict(weak=_WEAK, strong=_STRONG),
            **_training(steps["teacher"], 1e-3),
        ),
        cache=dict(kind="cache", teacher="teacher", recipe=_STRONG, views=views),
    )
    for name, encoder in _SMALL.items():
        distilled = dict(kind="distill", cache="cache", temperature=2.0)
        trained = _training(steps["student"], 3e-3)
        stages |= {
            f"student_{name}": dict(distilled, encoder=encoder, **trained),
            f"scratch_{name}": dict(kind="finetune", encoder=encoder, views=_LABEL, **trained),
            f"shrunk_{name}": dict(
                kind="shrink", model=f"student_{name}", sparsity=0.5, multiple=8, examples=256
            ),
            f"small_{name}": dict(
                distilled,
                start_from=f"shrunk_{name}",
                **_training(steps["more"], 2e-3),
            ),
            f"int8_{name}": dict(
                kind="quantize",
                model=f"small_{name}",
                rules=_int8(name),
                accuracy_drop=0.02,
            ),
            f"file_{name}": dict(kind="export", model=f"student_{name}", formats=["onnx"]),
            f"small_file_{name}": dict(kind="export", model=f"small_{name}", formats=["onnx"]),
            f"int8_file_{name}": dict(kind="export", model=f"int8_{name}", formats=["onnx"]),
        }
    return stages


def _keywords(steps: dict) -> dict:
    """The keyword spotter of MLPerf Tiny with all labels, in int8."""
    return dict(
        spotter=dict(
            kind="finetune",
            encoder=_SMALL["cnn"],
            views=_LABEL,
            **_training(steps["spotter"], 3e-3),
        ),
        int8=dict(kind="quantize", model="spotter", accuracy_drop=0.02),
        float_file=dict(kind="export", model="spotter", formats=["onnx"]),
        file=dict(kind="export", model="int8", formats=["onnx"]),
    )


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(arg, labels=5, views=8, seeds=5, keywords=False, effort=1.0, runlocal=False)
    steps = dict(pretrain=600, teacher=800, student=500, more=200, spotter=1_200)
    steps = {name: max(4, round(count * args["effort"])) for name, count in steps.items()}
    train, test, seeds = "train", "test", args["seeds"]
    if args["runlocal"]:
        steps, seeds = dict.fromkeys(steps, 4), 1
        train, test = "train[:300]", "test[:100]"
    c = ConfigDict()
    c.name = "spoken_digit"
    c.seeds = list(range(seeds))
    c.data = dict(
        name="spoken_digit",
        source=dict(kind="tfds_sound", set="spoken_digit:1.0.10", rate=_RATE, seconds=0.8),
        train_split=train,
        test_split=test,
        labels_per_class=None if args["keywords"] else args["labels"],
    )
    views = 2 if args["runlocal"] else args["views"]
    stages = _keywords(steps) if args["keywords"] else _few(steps, views=views)
    c.stages = ConfigDict(stages, sort_keys=False)  # the report's rows stand in this order
    return c
