"""From what was asked to a config: the facts are found, and the rules applied to them."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from kdjax import config, data, parse, tasks, tree, weights
from kdjax.artifacts.model import EncoderSpec, Spec
from kdjax.compress import rules
from kdjax.compress.budget import Budget
from kdjax.compress.estimate import Estimate, estimate
from kdjax.compress.facts import (
    batch_normalised,
    machine,
    milliseconds,
    pictures,
    shrunk_most,
    size_of,
    spec_of,
)
from kdjax.compress.given import Asked, check_classes, check_seen, read, source_of
from kdjax.compress.recognised import classifier, recognised
from kdjax.compress.rules import Network, Pictures, Size
from kdjax.data import Dataset, sources
from kdjax.inputs import Inputs
from kdjax.report import units
from kdjax.types import BadInput, Field, under
from kdjax.weights import Preprocessing

LEAST_LEFT = 0.02
"""Share of a student's parameters below which it is not pruned: nothing would be left of it."""

_ANY_SIDE = 32
"""At which pictures are framed to look at what they are."""


class Chosen(NamedTuple):
    """What the rules gave.

    Attributes:
      run: the config, as plain data.
      told: the choices and the estimate, in lines for the user.
      most_bytes: of the file; None where the budget is of time.
      labels_a_class: how many there are on average; 0 without labels.
    """

    run: dict[str, Any]
    told: list[str]
    most_bytes: float | None
    labels_a_class: float

    def parsed(self) -> config.Run:
        """The config as a run takes it."""
        return parse.parse(config.Run, self.run)


class _Data(NamedTuple):
    """What there is to learn from, as a config and as it is."""

    config: dict[str, Any]
    train: Dataset
    test: Dataset
    facts: Pictures


def choose(asked: Asked, kept: data.Kept) -> Chosen:
    """The config for what was asked, and why it is so.

    Args:
      asked: see there.
      kept: what is known of the pictures from earlier starts.

    Raises:
      BadInput: the weights or the pictures cannot be used, or the budget is too small.
    """
    published, network, wants = _network(asked)
    of, network = _data(asked, published, network, wants, kept)
    small = rules.student_size(network, of.facts)

    def spec(width: int) -> Spec:
        given = rules.student(width, of.facts)
        return spec_of(given, of.train, size=small, mean=network.mean, std=network.std)

    width, params, most = _width(asked.budget, network, spec)
    size = rules.seen(network, of.facts)
    teacher = spec_of(network.encoder, of.train, size=size, mean=network.mean, std=network.std)
    labelled = bool(of.facts.labelled)
    here = machine(teacher, spec(width), batch=rules.batch(of.facts), labelled=labelled)
    effort = rules.effort(of.facts, here.speed, minutes=asked.minutes)
    stages = rules.stages(
        network, of.facts, effort, width=width, budget=asked.budget, params=params
    )
    found = estimate(
        stages,
        network,
        of.facts,
        effort,
        here,
        student=size_of(spec(width)).params,
        outputs=teacher.task.outputs,
        example=of.train.size // len(of.train),
    )
    title = parse.parse(config.Encoder, network.encoder).title
    run = {
        "name": f"{title} on {of.config['name']}, compressed",
        "data": of.config,
        "seeds": [asked.seed],
        **({} if labelled else {"reference": "teacher"}),
        **({} if rules.shared_evenly(stages, jax.device_count()) else {"parallel": "single"}),
        "stages": stages,
    }
    told = [
        f"network    {title}, {units.compact(network.params)} parameters; sees pictures at "
        f"{_by(size)}",
        f"pictures   {_pictures_told(of)}",
        f"student    {spec(width).name} at {_by(small)}, "
        f"{units.compact(size_of(spec(width)).params)} parameters"
        + ("" if params is None else f", shrunk to {units.compact(params)}"),
        f"budget     {_budget_told(asked.budget, most)}",
        *_effort_told(effort, labelled),
        *_estimate_told(found),
    ]
    labels = of.facts.labelled / of.facts.classes if labelled else 0.0
    return Chosen(run, [*told, *(f"note       {note}" for note in _notes(of))], most, labels)


def _network(asked: Asked) -> tuple[weights.Published, Network, Preprocessing]:
    """The network of the weights; what is known of it before there are pictures."""
    with under("", {"weights": "--weights", "weights.layout": "--weights"}):
        published = weights.published(asked.weights)
        given = None if asked.encoder is None else parse.literal(asked.encoder)
        if given is not None and not isinstance(given, dict):
            raise BadInput("--encoder", f"{asked.encoder!r}", "write \"{'name': 'resnet18'}\"")
        if given is not None and "weights" in given:
            raise BadInput("--encoder", "'weights' are not for it", "give --weights alone")
        encoder, wants = recognised(published, encoder=given)
    network = Network(
        encoder={**encoder, "weights": asked.weights},
        params=0,
        size=wants.size,
        mean=wants.mean,
        std=wants.std,
        crop=wants.crop,
        interpolation=wants.interpolation,
        squash=wants.squash,
        head=False,
    )
    return published, network, wants


def _data(
    asked: Asked,
    published: weights.Published,
    network: Network,
    wants: Preprocessing,
    kept: data.Kept,
) -> tuple[_Data, Network]:
    """The pictures in the frame in which the network wants them, and what it is then asked."""
    source = source_of(asked)
    flag = "--labels" if asked.labels.endswith(".csv") else "--data"
    framed = source["kind"] != "npz"  # whose pictures are pixels already
    any_side = {"size": _ANY_SIDE} if framed else {}
    try:
        first = read({"name": "pictures", "source": {**source, **any_side}}, kept, flag=flag)
    except sources.AlreadySplit:
        del source["test_share"]
        first = read({"name": "pictures", "source": {**source, **any_side}}, kept, flag=flag)
    check_seen(first["train"], first["test"], channels=len(network.mean))
    side = _side(first["train"])
    labelled = bool(first["train"].shown.any())
    if labelled:
        check_classes(first["train"])
    if labelled and not first["test"].shown.all():
        without = int((~first["test"].shown).sum())
        raise BadInput(
            flag,
            f"{without} of the {len(first['test'])} test pictures have no label",
            "leave them out, or give --labels=none",
        )
    target = None
    if not labelled:
        target, head = _answers(published, network, wants)
        network = dataclasses.replace(network, head=head)
    size = rules.stored(network, side)
    of_data = {
        "name": Path(asked.data).name or "pictures",
        "source": {**source, **(rules.frame(network, size, side) if framed else {})},
        **({} if target is None else {"target": target}),
        "mean": [*network.mean],
        "std": [*network.std],
        **({} if framed else rules.seen_by(network, _shape(first["train"]))),
    }
    splits = read(of_data, kept, flag=flag)
    train, test = splits["train"], splits["test"]
    facts = pictures(train, test, classes=tasks.of(train).outputs, side=side)
    seen = rules.seen(network, facts)
    whole = spec_of(network.encoder, train, size=seen, mean=network.mean, std=network.std)
    network = dataclasses.replace(
        network,
        params=tree.size(whole.abstract()["params"]),
        normalised=batch_normalised(whole),
    )
    return _Data(of_data, train, test, facts), network


def _side(dataset: Dataset) -> int:
    """The shorter side of most pictures, as they are in their files, in pixels."""
    if dataset.originals is None:
        return min(_shape(dataset))
    return int(np.median(dataset.originals.min(1)))


def _shape(dataset: Dataset) -> tuple[int, int]:
    """Height and width that all pictures have."""
    ((height, width, _),) = (field.shape for field in dataset.fields.values())
    return height, width


def _answers(
    published: weights.Published, network: Network, wants: Preprocessing
) -> tuple[dict[str, Any], bool]:
    """What a network answers to pictures without labels: its own classes, or else its features."""
    made = parse.parse(config.Encoder, network.encoder)
    classes, names = classifier(published, made, wants)
    if classes:
        return {"kind": "classes", "classes": classes, "names": [*names]}, True
    return {"kind": "vectors", "dim": features_of(network)}, False


def features_of(network: Network) -> int:
    """How many numbers the encoder gives of a picture."""
    made = parse.parse(config.Encoder, network.encoder).architecture
    shape = (*network.size, len(network.mean))
    inputs = Inputs.of({"image": Field(shape, "uint8")}, mean=network.mean, std=network.std)
    return EncoderSpec(encoder=made, projector=(), inputs=inputs).features


def _width(
    budget: Budget, network: Network, spec: Callable[[int], Spec]
) -> tuple[int, int | None, float | None]:
    """The student's width, to how many parameters it is shrunk, and the bytes of the budget.

    Raises:
      BadInput: no student is so small.
    """
    if budget.kind == "ms":
        return _width_within(budget.value, spec), None, None
    most = budget.value if budget.kind == "bytes" else budget.value * 4 * network.params
    sizes: dict[int, Size] = {width: size_of(spec(width)) for width in rules.WIDTHS}
    width = rules.width_of(most, sizes)
    if sizes[width].file() <= most:
        return width, None, most
    params = sizes[width].params_within(most)
    if params < LEAST_LEFT * sizes[width].params:
        least = sizes[width].file(LEAST_LEFT**0.5)
        raise BadInput(
            "--budget",
            f"{units.compact(most, 'B')}, and the smallest student takes about "
            f"{units.compact(least, 'B')}",
            "give more",
        )
    return width, params, most


def _width_within(most_ms: float, spec: Callable[[int], Spec]) -> int:
    """The smallest width that takes as long as it may, or the largest.

    Raises:
      BadInput: as little as may be left of it takes longer.
    """
    slow = (width for width in rules.WIDTHS if milliseconds(spec(width)) >= most_ms)
    width = next(slow, rules.WIDTHS[-1])
    least = milliseconds(*shrunk_most(spec(width)))
    if least > most_ms:
        raise BadInput(
            "--budget",
            f"{units.milliseconds(most_ms)}, and the smallest student takes about "
            f"{units.milliseconds(least)} here",
            "give more",
        )
    return width


def _notes(of: _Data) -> list[str]:
    """What is to be said of the pictures, by the flags that the command has."""
    notes = [note.replace(" labels=", " --labels=") for note in of.train.notes]
    if not of.facts.labelled:
        return notes
    names = getattr(of.train.target, "names", ()) or [*map(str, range(of.facts.classes))]
    known = {*of.train.labels[of.train.shown].tolist()}
    if without := [name for i, name in enumerate(names) if i not in known]:
        more = f" and {len(without) - 5} more" if len(without) > 5 else ""
        notes.append(
            f"nothing to learn from of {', '.join(without[:5])}{more}: all are for the test"
        )
    return notes


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _pictures_told(of: _Data) -> str:
    facts = of.facts
    labels = "none labelled"
    if facts.labelled:
        labels = f"{facts.labelled:,} labelled, {units.count(facts.classes, 'class', 'classes')}"
    return (
        f"{facts.train:,} to learn from ({labels}), {facts.test:,} to test on; {facts.side} pixels on "
        "the short side, mostly"
    )


def _budget_told(budget: Budget, most: float | None) -> str:
    if most is None or budget.kind == "bytes":
        return str(budget)
    return f"{budget} of the network, {units.compact(most, 'B')}"


def _effort_told(effort: rules.Effort, labelled: bool) -> list[str]:
    steps = f"{units.count(effort.views, 'view')} of each picture, {effort.student:,} steps"
    if not labelled:
        return [f"training   {steps}; no labels: the student learns what the network answers"]
    how = (
        f"{effort.teacher:,} steps from a linear probe"
        if effort.teacher
        else "a linear probe alone"
    )
    return [f"training   the teacher: {how}; the student: {steps}, as many on the labels alone"]


def _estimate_told(found: Estimate) -> list[str]:
    each = ", ".join(f"{name} {units.duration(s)}" for name, s in found.seconds.items())
    return [
        f"takes      about {units.duration(60 * found.minutes)} ({each})",
        f"needs      about {units.compact(found.disk, 'B')} of disk, "
        f"{units.compact(found.memory, 'B')} of memory",
    ]
