"""A line with a stage of every kind, and all that a stage keeps besides: tests run it to the end.

kdjax --config=tests/every_kind.py --workdir=DIR
"""

from ml_collections import ConfigDict


def get_config(arg=None):
    assert not arg
    views = {"recipe": "crop_flip", "shift": 1, "flip": 0.0}
    optimizer = {"name": "adamw", "learning_rate": 3e-3, "weight_decay": 1e-2}
    training = {  # neither distance divides the other, or the steps
        "batch": 32,
        "optimizer": optimizer,
        "checkpoint_every_steps": 4,
        "log_every_steps": 3,
    }
    encoder = {"name": "cnn", "widths": [4, 8]}
    distilled = {"kind": "distill", "cache": "cache", "steps": 14, **training}
    stages = {
        "pretrain": {
            "kind": "pretrain",
            "encoder": {"name": "cnn", "widths": [8, 16]},
            "projector": [16, 8],
            "views": {"recipe": "simclr", "flip": 0.0},
            "probe": True,
            "steps": 10,
            **training,
        },
        "teacher": {
            "kind": "finetune",
            "start_from": "pretrain",
            "head": "probe",
            "views": views,
            "self_training": {"weak": views, "strong": {**views, "turn": 20.0}},
            "steps": 10,
            "rewind_step": 5,
            **training,
        },
        "cache": {"kind": "cache", "teacher": "teacher", "recipe": views, "views": 5},
        "student": {
            **distilled,
            "encoder": encoder,
            "ema": 0.9,
            "prune": {
                "name": "gradual",
                "sparsity": 0.5,
                "begin_step": 0,
                "end_step": 10,
                "every_steps": 2,
            },
        },
        "embedded": {
            "kind": "cache",
            "teacher": "pretrain",
            "recipe": views,
            "views": 2,
            "signal": {"name": "embedding"},
        },
        "encoder": {
            "kind": "distill_encoder",
            "cache": "embedded",
            "encoder": encoder,
            "method": {"name": "seed", "queue": 64},
            "steps": 10,
            **training,
        },
        "worth": {
            "kind": "evaluate",
            "model": "encoder",
            "knn": {"k": 5},
            "linear": {"strengths": [1.0, 10.0]},
            "pairs": {"views": views, "examples": 64},
        },
        "bears": {"kind": "sensitivity", "model": "student", "sparsities": [0.5], "examples": 64},
        "shrunk": {
            "kind": "shrink",
            "model": "student",
            "sparsity": 0.25,
            "sensitivity": "bears",
            "examples": 128,
        },
        "small": {**distilled, "start_from": "shrunk"},
        "int8": {"kind": "quantize", "model": "small", "agreement": 0.0},
        "rounded": {
            "kind": "own",
            "function": "own_stages:rounded",
            "reads": ["small"],
            "leaves": "small",
            "step": 0.01,
        },
        "export_small": {"kind": "export", "model": "small"},
        "export_int8": {"kind": "export", "model": "int8", "formats": ["onnx"], "agreement": 0.0},
    }
    c = ConfigDict({"name": "every kind", "latency_bulk_batch": 2, "latency_seconds": 0.0})
    c.data = {
        "name": "digits",
        "train_split": "train[:30%]",
        "test_split": "test[:30%]",
        "labels_per_class": 4,
    }
    c.stages = ConfigDict(stages, sort_keys=False)
    return c
