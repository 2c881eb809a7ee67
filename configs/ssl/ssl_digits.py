"""What the self-supervised methods on the digits share, so that only the method differs.

The pretraining of `configs/digits.py`: all 1,437 training images without labels, the same views and
number of steps, but of the network that is the student there; then k-NN and a linear classifier on the
frozen features, with all labels and with five per class. `table.py` has all methods in one run. Their
arguments:

  seeds=5     for how many seeds
  tune        tested on a fifth of train, never on test
  runlocal    two steps of a tiny encoder
"""

import digits
from ml_collections import ConfigDict

from kdjax.parse import parse_arg


def ramp(begin: float, end: float = 1.0, **more) -> dict:
    """A number that changes while a stage trains."""
    return dict(begin=begin, end=end, **more)


def run(arg: str | None, **methods: dict) -> ConfigDict:
    """A run of these methods, each given by the fields of its stage and of its optimizer that differ.

    An optimizer with a name is taken as it is.
    """
    args = parse_arg(arg, seeds=5, tune=False, runlocal=False)
    asked = [name for name in ("tune", "runlocal") if args[name]]
    c = digits.get_config(",".join([f"seeds={args['seeds']}", *asked])).to_dict()
    base = c["stages"]["pretrain"] | dict(encoder=c["stages"]["student"]["encoder"])
    stages = {}
    for name, own in methods.items():
        optimizer = own.get("optimizer", {})
        if "name" not in optimizer:
            optimizer = base["optimizer"] | optimizer
        stage = base | own | dict(optimizer=optimizer)
        stages[name] = tiny(stage) if args["runlocal"] else stage
        judged = dict(kind="evaluate", model=name, linear=dict(strengths=[1e-3, 1e-2, 1e-1]))
        stages[f"{name}_all"] = dict(judged, knn=dict(k=20))
        stages[f"{name}_few"] = dict(judged, knn=dict(k=5), labels_per_class=5)
    name = "ssl_digits" if len(methods) > 1 else f"{next(iter(methods))}_digits"
    c |= dict(name=name, data=c["data"] | dict(labels_per_class=None))
    c["stages"] = ConfigDict(stages, sort_keys=False)  # the report's rows stand in this order
    return ConfigDict(c)


def tiny(stage: dict) -> dict:
    """The stage with a small network, and nothing that takes more than two steps."""
    method = {name: x for name, x in stage["method"].items() if name != "freeze_steps"}
    encoder = dict(stage["encoder"])
    if encoder["name"] == "vit":
        return stage | dict(method=method, encoder=encoder | dict(width=8, depth=1, heads=2, mlp=8))
    return stage | dict(method=method, encoder=encoder | dict(widths=[4, 8]), projector=[8, 8])
