"""The recipe of `kdjax.few_labels`, for images that nobody has tuned and few labels.

  kdjax --config=configs/few_labels.py:name=cifar10,labels=10,data_dir=TFDS --workdir=DIR
  kdjax --config=configs/few_labels.py:name=cifar10,labels=10,seeds=5,effort=2 --workdir=DIR
  kdjax --config=configs/few_labels.py:without=warp --workdir=DIR

The second takes the directory from the environment's KDJAX_DATA_DIR, and twice the steps. The third
leaves out one part of the recipe: `warp`, `pretraining`, `probe` or `self_training`. Views and sizes
follow from facts about the first thousand training images, without a label. `--dry_run` prints the
stages, and any field of them can be changed, as with `--config.stages.student.steps=500`.
"""

from ml_collections import ConfigDict

from kdjax import config, few_labels
from kdjax.contexts import build
from kdjax.parse import parse_arg
from kdjax.types import BadInput


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(
        arg,
        name="digits",
        data_dir="",
        labels=10,
        seeds=1,
        effort=1.0,
        without="",
        test="test",
        runlocal=False,
    )
    data = dict(name=args["name"], test_split=args["test"], labels_per_class=args["labels"])
    if args["data_dir"]:
        data["data_dir"] = args["data_dir"]
    first = f"train[:{few_labels.LOOKED_AT}]"
    try:
        seen = build.dataset(config.Data(**data), first)
    except BadInput as error:
        mends = filter(None, (error.mend, "this file takes it as an argument, data_dir=DIR"))
        raise BadInput(error.under("config").path, error.fault, "; ".join(mends)) from None
    found = few_labels.facts(seen.inputs()["image"])
    effort = 0.003 if args["runlocal"] else args["effort"]
    stages = few_labels.stages(found, labels=args["labels"], effort=effort, without=args["without"])

    c = ConfigDict()
    c.name = f"few_labels of {args['name']}"
    c.seeds = list(range(args["seeds"]))
    c.data = dict(data, mean=list(found.mean), std=list(found.std))
    c.stages = ConfigDict(stages, sort_keys=False)
    return c
