"""LibriSpeech: a Conformer that transcribes read speech, and an LSTM that learns from its frames.

100 or 960 hours of people reading books, at 16 kHz, with transcripts. A Conformer learns these by CTC.
Its answers at every frame of `views` views of each utterance are cached, and a unidirectional LSTM learns
from them (`student`: without any transcript, and 320 ms later, as on connected digits), loses half of its
units, trains on, is quantized to int8 and exported to a file that takes any length. For comparison the
same LSTM learns from the transcripts (`alone`).

  for part in train-clean-100 train-clean-360 train-other-500 test-clean
  do curl https://www.openslr.org/resources/12/$part.tar.gz | tar xz; done
  kdjax --config=configs/librispeech.py:root=LibriSpeech --workdir=DIR              # 100 hours
  kdjax --config=configs/librispeech.py:root=LibriSpeech,hours=960 --workdir=DIR

**Untested at this size**: nobody has run more of it than `runlocal`, two steps of small networks on five
utterances. `configs/README.md` has the command for a TPU pod, and a computed estimate of what it takes.

FLAC needs the extra `speech`. `runlocal` takes any folder in LibriSpeech's layout, also with WAV files,
that has `train-clean-100` and `test-clean`.
"""

import ctc
from ml_collections import ConfigDict

from kdjax.parse import parse_arg

_RATE = 16_000
_SPLITS = {
    100: "train-clean-100",
    960: "train-clean-100+train-clean-360+train-other-500",
}
_ALPHABET = [" ", "'", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ"]

# Played a tenth faster or slower, as Ko et al. 2015 have it.
_SEEN = dict(recipe="waveform", speed=1.1)


def _spectra(window: float, hop: float, net: dict) -> dict:
    """A network on log-mel spectra."""
    return dict(name="log_mel", rate=_RATE, window=window, hop=hop, bands=80, low=20.0, net=net)


def _training(steps: int, *, batch: int, rate: float) -> dict:
    return ctc.adamw(steps, batch=batch, rate=rate, lines=200)


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(arg, root="LibriSpeech", hours=100, views=4, seeds=1, runlocal=False)
    if args["hours"] not in _SPLITS:
        raise ValueError(f"hours={args['hours']}: give 100 or 960")
    # An epoch of 100 hours has 111 steps, one of 960 has 1,099.
    steps = {100: 20_000, 960: 100_000}[args["hours"]]
    batch, examples, views = 256, 256, args["views"]
    # Both answer every 40 ms: the first joins four frames, the second has longer ones.
    large = _spectra(25.0, 10.0, dict(name="conformer", width=256, depth=16, pool="none"))
    small = _spectra(50.0, 40.0, dict(name="lstm", widths=[640, 640, 640], pool="none"))
    if args["runlocal"]:
        steps, batch, examples, views = 2, 4, 4, 1
        large["net"] |= dict(width=16, depth=1)
        small["net"] |= dict(widths=[16])
    c = ConfigDict()
    c.name = f"librispeech{args['hours']}"
    c.seeds = list(range(args["seeds"]))
    c.data = dict(
        name="LibriSpeech",
        source=dict(
            kind="recordings",
            root=args["root"],
            layout="splits",
            rate=_RATE,
            longest=36.0,
            transcripts=dict(files="**/*.trans.txt", alphabet=_ALPHABET),
        ),
        train_split=_SPLITS[args["hours"]],
        test_split="test-clean",
        buckets=dict(audio=[_RATE * seconds for seconds in (8, 12, 14, 16, 20)]),
    )
    frames = dict(
        kind="distill",
        cache="cache",
        temperature=1.0,
        kd_weight=1.0,
        ce_weight=0.0,
        logits=dict(name="blank_selection", around=2, delay=8),
    )
    trained = _training(steps, batch=batch, rate=2e-3)
    stages = dict(
        teacher=dict(
            kind="finetune", views=_SEEN, encoder=large, **_training(steps, batch=batch, rate=1e-3)
        ),
        cache=dict(
            kind="cache",
            teacher="teacher",
            recipe=_SEEN,
            views=views,
            signal=dict(name="top_k", k=8, temperatures=[1.0]),
            batch=batch,
        ),
        student=dict(frames, encoder=small, **trained),
        alone=dict(kind="finetune", views=_SEEN, encoder=small, **trained),
        shrunk=dict(kind="shrink", model="student", sparsity=0.5, multiple=8, examples=examples),
        small=dict(
            frames, start_from="shrunk", **_training(max(2, steps // 2), batch=batch, rate=1e-3)
        ),
        int8=ctc.int8("small", examples=examples, agreement=0.9),
        file=dict(kind="export", model="small", formats=["onnx"]),
        int8_file=dict(kind="export", model="int8", formats=["onnx"], agreement=0.9),
    )
    c.stages = ConfigDict(stages, sort_keys=False)  # the report's rows stand in this order
    return c
