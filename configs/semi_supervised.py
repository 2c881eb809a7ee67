"""How far few labels go, on the digits: SimCLR without labels, then 1 %, 10 % or all of them.

One encoder is pretrained on all 1,437 training images. Its frozen features are evaluated by k-NN and by a
linear classifier, and it is fine-tuned, with 1 %, 10 % and all of the labels of each class (10, 143 and
1,437; at least one per class). For comparison the same network is trained from scratch.

  kdjax --config=configs/semi_supervised.py --workdir=DIR
"""

import digits
from ml_collections import ConfigDict

from kdjax.parse import parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(arg, seeds=5, tune=False, runlocal=False)
    asked = [name for name in ("tune", "runlocal") if args[name]]
    c = digits.get_config(",".join([f"seeds={args['seeds']}", *asked])).to_dict()
    base = c["stages"]
    steps = {1: 60, 10: 150, 100: 300}
    if args["runlocal"]:
        steps = dict.fromkeys(steps, 2)

    pretrain = base["pretrain"]
    stages = dict(pretrain=pretrain)
    # (percent, neighbours, strengths): one example of a class leaves none to choose a strength by.
    for percent, k, strengths in ((1, 1, [0.1]), (10, 10, None), (100, 200, None)):
        labels = dict(labels_share=percent / 100)
        linear = {} if strengths is None else dict(strengths=strengths)
        tuned = dict(base["teacher"], steps=steps[percent], **labels)
        scratch = {field: x for field, x in tuned.items() if field != "start_from"}
        stages |= {
            f"frozen_{percent}": dict(
                kind="evaluate", model="pretrain", knn=dict(k=k), linear=linear, **labels
            ),
            f"tuned_{percent}": tuned,
            f"scratch_{percent}": dict(scratch, encoder=pretrain["encoder"]),
        }
    examples = 64 if args["tune"] else 360
    stages["frozen_100"]["pairs"] = dict(views=pretrain["views"], examples=examples)
    c |= dict(name="semi_supervised", data=c["data"] | dict(labels_per_class=None))
    c["stages"] = ConfigDict(stages, sort_keys=False)  # the report's rows stand in this order
    return ConfigDict(c)
