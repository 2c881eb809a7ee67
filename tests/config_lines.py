"""Configs that tests change: all of the repository with each argument, and one of everything."""

import contextlib
import itertools
import pathlib
import re
from collections.abc import Iterator, Mapping

from kdjax import load, user_code
from kdjax.types import BadInput

FILES = sorted(
    path
    for path in (pathlib.Path(__file__).parents[1] / "configs").glob("**/*.py")
    if "def get_config" in path.read_text()  # not what configs in a folder share
)


def loaded(path: pathlib.Path, arg: str = "") -> dict:
    """The plain values of a config file, with the source of its own functions."""
    values = load.values_of(f"{path}:{arg}" if arg else str(path))
    return user_code.resolved(values, folder=path.parent)


def args_of(path: pathlib.Path) -> Iterator[str]:
    """Every argument that a file takes, one at a time, each with a value that it takes."""
    yield ""
    try:
        loaded(path, "@@@")
    except BadInput as error:
        names = str(error).partition("known: ")[2].split(", ")
    for name in names:
        for text in (name, f"{name}=2", f"{name}=0.5", f"{name}=8", f"{name}=digits"):
            try:
                load.load_config(f"{path}:{text}")
            except BadInput:
                continue
            yield text
            break
        else:
            raise AssertionError(f"{path}: no value of {name} was found")


def misplaced(error: BadInput, values: Mapping) -> str | None:
    """What is wrong with the path of something in a config that is refused; None where it is right.

    It begins at the config, and each name is one of what is before it. Only the last may be of none: it
    is unknown, or missing.

    Args:
      error: whose path is to be right.
      values: the plain values of the whole config, defaults too.
    """
    if str(error) != "; ".join(filter(None, (f"{error.path}: {error.fault}", error.mend))):
        return f"{error} is not {error.path!r}, {error.fault!r}, {error.mend!r}"
    for path in re.split(r", (?=config\b)", error.path):
        root, *names = re.findall(r"\[[^]]*\]|[^.\[\]]+", path)
        if root != "config":
            return f"{path!r} begins at {root!r}"
        at = values
        for i, name in enumerate(names):
            key = name.strip("[]'\"")
            if isinstance(at, Mapping) and key in at:
                at = at[key]
            elif isinstance(at, list | tuple) and key.isdecimal() and int(key) < len(at):
                at = at[int(key)]
            elif i < len(names) - 1:
                return f"{path!r}: there is no {name!r}"
    return None


@contextlib.contextmanager
def well_placed(values: Mapping) -> Iterator[None]:
    """What is refused within has a right path, see `misplaced`."""
    try:
        yield
    except BadInput as error:
        if (why := misplaced(error, values)) is not None:
            raise AssertionError(why) from error
        raise


_SGD = {"name": "sgd", "learning_rate": 0.1}
_TRAINING = {"steps": 10, "batch": 8, "optimizer": _SGD}
_CNN = {"name": "cnn", "widths": [4, 8]}
_VIT = {"name": "vit", "width": 8, "depth": 1, "heads": 2, "mlp": 8, "patch": 4}
_CROPS = {"recipe": "crop_flip", "crop_scale": [0.5, 1.0], "shift": 1, "cutout": 2}
_ENCODERS = [
    _CNN,
    {"name": "cifar_resnet", "depth": 8},
    {"name": "resnet18", "width": 4},
    {"name": "resnet50", "width": 4},
    {"name": "vgg", "depth": 8, "width": 4, "pools": 2},
    {"name": "mobilenet_v2", "multiplier": 0.25},
    {"name": "mobilenet_v3", "size": "small", "multiplier": 0.25},
    {"name": "efficientnet_b0", "multiplier": 0.25},
    {"name": "efficientnet_lite0", "multiplier": 0.25, "padding": "same"},
    {"name": "efficientnet_lite1", "multiplier": 0.125, "epsilon": 1e-3},
    {"name": "efficientnet_lite2", "multiplier": 0.125, "momentum": 0.99},
    {"name": "convnext", "depths": [1, 1], "widths": [4, 8], "patch": 2},
    {"name": "resnet34", "width": 4},
    {"name": "se_resnet", "depth": 18, "width": 4, "caffe": True},
    {"name": "wide_resnet", "depth": 10, "widen": 2},
    {"name": "shufflenet_v2", "multiplier": 0.5},
    {"name": "mlperf_resnet8", "width": 4},
    {"name": "ds_cnn", "width": 4, "blocks": 1},
    {"name": "plain_cnn", "widths": [4, 8], "hidden": 8},
    _VIT,
    {**_VIT, "name": "vit_tiny", "registers": 2, "layer_scale": 0.1},
    {**_VIT, "name": "vit_small", "pool": "class_and_mean", "qkv_bias": False},
    {**_VIT, "name": "vit_base", "norm_after_pool": True},
]
_METHODS = [
    {"name": "simclr"},
    {"name": "dcl", "sigma": 0.5},
    {"name": "moco_v2", "queue": 16},
    {"name": "moco_v3", "predictor": [8]},
    {"name": "byol", "momentum": {"begin": 0.9, "end": 1.0, "begin_step": 1, "end_step": 5}},
    {"name": "simsiam"},
    {"name": "barlow_twins"},
    {"name": "vicreg"},
    {"name": "swav", "local_crops": 2, "local_views": {"recipe": "simclr", "size": 6}},
    {"name": "dino", "freeze_steps": 2},
    {"name": "rotation"},
]
_OPTIMIZERS = [
    {**_SGD, "schedule": {"name": "cosine", "warmup_steps": 2}, "clip_norm": 1.0},
    {"name": "adamw", "learning_rate": 0.1, "schedule": {"name": "stairs", "at_steps": [2, 4]}},
    {"name": "lars", "learning_rate": 0.1, "schedule": {"name": "constant"}},
    {"name": "frozen"},
]
_GRADUAL = {"name": "gradual", "begin_step": 1, "end_step": 8, "every_steps": 1, "sparsity": 0.5}
_PATTERNS = [{"name": "weights"}, {"name": "blocks"}, {"name": "filters"}, {"name": "units"}]
_PRUNED = [
    *({**_GRADUAL, "pattern": pattern} for pattern in _PATTERNS),
    {**_GRADUAL, "sparsity": None, "pattern": {"name": "n_m"}},
    {**_GRADUAL, "allocation": [[".*/kernel", 0.5]]},
    {"name": "sparse_training", "sparsity": 0.5, "end_step": 8, "every_steps": 1},
    {"name": "ticket", "sparsity": 0.5},
]
_TAPS = {"student": ["encoder/block0"], "teacher": ["encoder/block0"]}
_TWO = {side: ["encoder/block0", "encoder/block1"] for side in ("student", "teacher")}
_TERMS = {
    **{
        name: {"name": name, **_TAPS}
        for name in (
            *("hint", "attention", "nst", "vid", "review", "ofd"),
            *("hidden_cosine", "pkd", "attention_scores"),
        )
    },
    "layers": {"name": "distilhubert", "student": ["encoder/block1"], "teacher": _TWO["teacher"]},
    "relations": {"name": "attention_relations", **_TAPS, "relations": ["key"], "heads": 2},
    **{name: {"name": name} for name in ("rkd", "similarity", "correlation", "pkt", "crd")},
    "fsp": {"name": "fsp", **_TWO, "weight": {"begin": 0.0, "end": 1.0}},
}
_LOGITS = [
    *({"name": name} for name in ("kl", "dkd", "dist", "mse", "ce")),
    {"name": "multi_level"},
    {"name": "blank_selection", "around": 2, "delay": 1},
    {"name": "frame_dkd", "around": 2, "delay": 1},
    {"name": "best_path"},
]
_EMBEDDINGS = [
    {"name": "cosine"},
    {"name": "mse"},
    {"name": "seed", "queue": 16},
    {"name": "compress", "queue": 16},
    {"name": "rkd"},
    {"name": "similarity"},
]
_PUBLISHED = str(pathlib.Path(__file__).parent / "weights" / "one.safetensors")
"""One tensor of zeros: a config is planned with it, and not run."""

_STUDENT = {"kind": "distill", "cache": "cache", "encoder": _CNN, **_TRAINING}


def _stages() -> Iterator[tuple[str, dict]]:
    turn = itertools.cycle(_ENCODERS)
    for how in _METHODS:
        views = {"recipe": "simclr", "blur_kernel": 3}
        own = {"encoder": next(turn), "projector": [8], "views": views, "method": how}
        yield f"by_{how['name']}", {"kind": "pretrain", **_TRAINING, **own}
    mae = {"encoder": _VIT, "projector": [], "views": {"recipe": "eval", "size": 8}}
    yield "by_mae", {"kind": "pretrain", **_TRAINING, **mae, "method": {"name": "mae"}}
    yield (
        "by_own",
        {
            "kind": "pretrain",
            **_TRAINING,
            "encoder": {"function": "tests.own_pieces:TinyNet", "widths": [4]},
            "views": {"function": "tests.own_pieces:speckled", "amount": 0.2},
            "method": {"function": "tests.own_pieces:aligned"},
            "projector": [8],
        },
    )
    published = {"source": _PUBLISHED, "layout": "kdjax", "skip": "x.*"}
    yield "imported", {"kind": "pretrained", "size": 8, "encoder": {**_CNN, "weights": published}}
    layers = {**_VIT, "weights": {"stage": "by_mae", "blocks": [0], "fresh": "x.*"}}
    yield "begun", {"kind": "finetune", "encoder": layers, "views": _CROPS, **_TRAINING}
    yield "net", {"kind": "finetune", "start_from": "by_simclr", "views": _CROPS, **_TRAINING}
    count = max(len(_OPTIMIZERS), len(_ENCODERS) - len(_METHODS))  # every encoder has its turn
    optimizers = itertools.islice(itertools.cycle(_OPTIMIZERS), count)
    for i, (optimizer, encoder) in enumerate(zip(optimizers, turn, strict=False)):
        again = "" if i < len(_OPTIMIZERS) else f"_{i}"
        own = {"encoder": encoder, "optimizer": optimizer, "teacher_free": {}}
        own |= {"ema": 0.9, "accumulate": 2, "labels_per_class": 2, "rewind_step": 1}
        stage = {"kind": "finetune", "views": _CROPS, **_TRAINING, **own}
        yield f"with_{optimizer['name']}{again}", stage
    for i, prune in enumerate(_PRUNED):
        own = {"encoder": _CNN, "views": _CROPS, "prune": prune, "labels_share": 0.5}
        yield f"pruned_{i}", {"kind": "finetune", **_TRAINING, **own}
    guided = {"start_from": "by_simclr", "head": "probe", "views": _CROPS}
    guided |= {"self_training": {"weak": _CROPS, "strong": _CROPS}}
    yield "guided", {"kind": "finetune", **_TRAINING, **guided}
    cache = {"kind": "cache", "teacher": "net", "recipe": _CROPS, "views": 2}
    yield "cache", cache
    yield "top", {**cache, "signal": {"name": "top_k", "k": 3, "temperatures": [4.0, 2.0]}}
    both = {"teacher": ["net", "with_sgd"], "weights": [1.0, 2.0], "mix": {"name": "mixup"}}
    yield "mean", {**cache, **both, "signal": {"name": "logits"}}
    said = {"teacher": "by_simclr", "signal": {"name": "embedding"}, "mix": {"name": "cutmix"}}
    yield "said", {**cache, **said}
    for logits in _LOGITS:
        own = {
            "logits": logits,
            "accept": ["jax"],
            "sweep": [{"temperature": 2.0, "kd_weight": 1.0}],
        }
        yield f"by_{logits['name']}", {**_STUDENT, **own}
    yield (
        "seen",
        {
            **_STUDENT,
            "live": True,
            "features": {**_TERMS, "own": {"function": "tests.own_pieces:apart", "power": 1.5}},
            "teacher_weights": [1.0],
            "terms": {"rank": {"function": "tests.own_pieces:rank_hinge", "margin": 0.2}},
        },
    )
    for how in _EMBEDDINGS:
        own = {"cache": "said", "encoder": _CNN, "projector": [8], "method": how}
        yield f"like_{how['name']}", {"kind": "distill_encoder", **_TRAINING, **own}
    judged = {"knn": {"k": 3}, "linear": {}, "pairs": {"views": _CROPS, "examples": 10}}
    yield "worth", {"kind": "evaluate", "model": "by_simclr", **judged}
    bears = {"kind": "sensitivity", "model": "net", "numbers": [{"weights": "int4"}]}
    yield "bears", {**bears, "against": "teacher", "cache": "cache"}
    yield "less", {"kind": "shrink", "model": "net", "sparsity": 0.5, "frozen": "x"}
    yield "small", {"kind": "shrink", "model": "net", "budget": {"params": 100}}
    yield "trimmed", {"kind": "trim", "model": "net"}
    yield "int8", {"kind": "quantize", "model": "net", "rules": [{"weights": "int8"}]}
    formats = ["stablehlo", "onnx", "litert", {"function": "tests.own_formats:Npz", "packed": True}]
    yield "file", {"kind": "export", "model": "int8", "formats": formats}
    yield (
        "rounded",
        {
            "kind": "own",
            "function": "tests.own_stages:rounded",
            "reads": ["net"],
            "leaves": "net",
            "step": 0.5,
        },
    )


EVERYTHING = {
    "name": "everything",
    "scores": {"top": {"function": "tests.own_inputs:top", "k": 2}},
    "data": {
        "name": "digits",
        "source": {"function": "tests.own_inputs:pictures", "kept": 1.0},
        "mean": [0.3],
        "std": [0.4],
        "labels_per_class": 5,
    },
    "stages": dict(_stages()),
    "seeds": [0, 1],
}
"""Every kind of stage, and every member of every union but those of the following."""

_TEXTS = {"tokenizer": {"train": "wordpiece", "vocab": 100}, "max_length": 16}
OTHER_ENCODERS = [
    {"name": "bert", "vocab": 20, "width": 8, "depth": 1, "heads": 2, "mlp": 8, "positions": 16},
    {"name": "distilbert", "vocab": 20, "width": 8, "depth": 1, "heads": 2, "pooler": "relu"},
    {"name": "minilm", "vocab": 20, "width": 8, "depth": 1, "heads": 2, "embedding_size": 4},
    {"name": "modernbert", "vocab": 20, "width": 8, "depth": 1, "heads": 2, "mlp": 8, "window": 4},
    {"name": "bag_of_embeddings", "vocab": 20, "width": 8, "hidden": [4], "dropout": 0.5},
    {"name": "lstm", "vocab": 20, "widths": [4, 4], "bidirectional": True, "dropout": 0.5},
    {"name": "conformer", "width": 8, "depth": 1, "heads": 2, "mlp": 8, "kernel": 3, "stride": 2},
    {
        "name": "log_mel",
        "rate": 1000,
        "bands": 8,
        "net": {"name": "cnn", "widths": [4]},
        "augment": {"band_width": 2, "frame_width": 3},
    },
]
"""Encoders of texts and of sound."""

_MASKED = {"recipe": "masked_tokens", "share": 0.2}
_TOKENS = {"recipe": "tokens", "crop": [0.5, 1.0]}
_WAVEFORM = {
    "recipe": "waveform",
    "shift": 5,
    "speed": 1.1,
    "noise": 20.0,
    "band_mask": 0.1,
    "pauses": {"noise": 10.0, "shortest": 0.04},
}
OTHER_STAGES = {
    "method": {
        "kind": "pretrain",
        **_TRAINING,
        "encoder": OTHER_ENCODERS[0],
        "projector": [],
        "views": {"recipe": "eval"},
        "method": {"name": "masked_lm", "share": 0.2},
    },
    "views": {
        "kind": "pretrain",
        **_TRAINING,
        "encoder": {**OTHER_ENCODERS[-1], "net": {"name": "lstm", "widths": [4]}},
        "projector": [],
        "views": _WAVEFORM,
        "method": {"name": "masked_frames", "clusters": 3, "cepstrum": 4},
    },
    "self_training": {
        "kind": "finetune",
        **_TRAINING,
        "encoder": OTHER_ENCODERS[0],
        "views": {"recipe": "eval"},
        "self_training": {"weak": _MASKED, "strong": {**_TOKENS, "hide": 0.1, "drop": 0.5}},
    },
}
"""Stages of texts and of sound, by what of them is nowhere else."""

_PICTURES = {"root": "nowhere", "size": [8, 8]}

OTHER_DATA = [
    {"name": "x", "source": source, "target": target}
    for source, target in (
        ({"kind": "folder", **_PICTURES}, {"kind": "classes", "classes": 2, "names": ["a", "b"]}),
        ({"kind": "arrow", **_PICTURES}, {"kind": "vectors", "dim": 4}),
        ({"kind": "tar", **_PICTURES, "names": ["a", "b"]}, None),
        ({"kind": "csv", **_PICTURES, "label": ["x", "y"], "target": "values"}, None),
        ({"kind": "npz", "root": "nowhere"}, None),
        ({"kind": "lines", "root": "nowhere", **_TEXTS}, {"kind": "classes", "classes": 2}),
        ({"kind": "lines", "root": "nowhere", **_TEXTS}, {"kind": "tokens"}),
        ({"kind": "text_table", "root": "nowhere", **_TEXTS, "text": ["a", "b"]}, None),
        ({"kind": "tfds_text", "set": "x", "tokenizer": "nowhere", "max_length": 16}, None),
        ({"kind": "recordings", "root": "nowhere", "rate": 1000, "seconds": 0.4}, None),
        (
            {
                "kind": "recordings",
                "root": "nowhere",
                "rate": 1000,
                "transcripts": {"files": "said.csv", "alphabet": ["a", "b"], "unit": "words"},
            },
            None,
        ),
        ({"kind": "tfds_sound", "set": "x", "rate": 1000, "longest": 0.4}, None),
        (
            {
                "kind": "connected_words",
                "set": "x",
                "rate": 1000,
                "utterances": 40,
                "test_utterances": 20,
                "test_speakers": ["a"],
            },
            {"kind": "transcripts", "alphabet": ["one", "two"], "unit": "words"},
        ),
    )
]
"""Sources of which a config has one, and what is asked where they have no labels."""
