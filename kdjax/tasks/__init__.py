"""What a model is asked: its head, its loss, what its answers are worth, when two models agree.

A dataset says what its labels are of (`kdjax.data.targets`); `of` gives the task of such labels. A task
is one file here: a subclass of `Task` that names the target which it is asked with. Stages ask it for
everything that depends on it and have no case for any of them:

- `head` is the linen module on the encoder; `output` names what a file of the model gives.
- `terms` are the losses where every example has a label, `labelled` that of those which have one.
- `taught` is what a student learns from what its teacher says, `signal` what a cache keeps of that.
- `scores` are what answers are worth, by name, `primary` the one by which models are compared; each
  says in which direction it is better, and has an interval where a sound one is known.
- `agreement` is how near two models are to each other: of an exported file and the live model, of the
  quantized and the float one. 1 is the same; what a config requires is a share of it. `distance` is the
  loss of one against the other, by which a sensitivity is measured.

What needs more than a task has (one class an example, softmaxes) asks for it, by `classes_of_example`
and `classes_of_answer`, which refuse with the field's path before anything runs.

Answers and targets per position
--------------------------------

`tagging` answers with logits [n, positions, classes] to labels [n, positions], -1 where there is none.
`ctc` answers at frames, which are not the positions of its label: a transcript, -1 behind the end. What
every such task has in common (`positions.OfPositions`):

- Its encoder gives features [n, positions, dim]; or `(features, mask)`, where the mask [n, positions]
  says which positions are no padding. The head passes it on as the output `mask`.
- Its losses are of positions, with a weight for each: `(losses, mask)`, [n, positions] both; those of
  `ctc` are of examples. The mean is over the positions that count in the whole batch, in all accumulated
  parts and on all devices (`kdjax.train.weigh`). So padding changes no loss, and no padding is seen by
  anything but the encoder.
- Its signal is `kdjax.teacher.Positions` of what is kept of each position (`each`): logits, or a top k.
  How many positions there are is what the teacher's model answers at, of the longest example; a student
  of frames has as many.
- Its scores and its agreement look at the positions that have a label. `ctc` says blank behind the mask,
  so that an answer is decoded without it: its scores are WER and CER of the likeliest path, its agreement
  1 less the edits from one model's symbols to the other's.
- Where a label asks for more positions than a model has (`least_positions`), that is refused before
  anything runs.
- An answer may have more than is scored and compared: `judged` says what of it, by the raw inputs.

So another one is one file here and a target of its own in `kdjax.data.targets`, by whose class `of` tells
it from the others; such as `masked_lm`: its labels are the tokens themselves, the view says which of them
are hidden (`asked`), and of the answer to a text with one hidden token that one is `judged`.
"""

from kdjax.choice import choices, import_all
from kdjax.data import Dataset, Unlabelled
from kdjax.tasks.base import Softmaxes, Task
from kdjax.types import BadInput

import_all(__name__, __path__)

from kdjax.tasks.classification import Classification  # noqa: E402
from kdjax.tasks.ctc import CTC  # noqa: E402
from kdjax.tasks.embedding import Embedding  # noqa: E402
from kdjax.tasks.masked_lm import MaskedLM  # noqa: E402
from kdjax.tasks.regression import Regression  # noqa: E402
from kdjax.tasks.several import SeveralLabels  # noqa: E402
from kdjax.tasks.tagging import Tagging  # noqa: E402


def of(dataset: Dataset) -> Task:
    """What the labels of a dataset ask.

    Raises:
      BadInput: there are no labels.
      LookupError: there is no task with such labels.
    """
    if isinstance(dataset.target, Unlabelled):
        raise BadInput(
            "config.data",
            f"{dataset.name} has no labels, and this needs to know what a model answers",
            "say how many classes there are, or give data with labels",
        )
    for kind in choices(Task):
        assert issubclass(kind, Task)
        if kind.target is type(dataset.target):
            return kind.of(dataset.target)
    raise LookupError(f"no task has labels that are {dataset.target}")


__all__ = [
    "CTC",
    "Classification",
    "Embedding",
    "MaskedLM",
    "Regression",
    "SeveralLabels",
    "Softmaxes",
    "Tagging",
    "Task",
    "of",
]
