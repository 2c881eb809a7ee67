"""Networks of torch with random weights and statistics, and what they give: for tests of parity.

What imports this needs torch: `pytest.importorskip("torch")` comes first.
"""

import copy
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.torch
import torch

from kdjax import models, weights

SIDE, BATCH = 64, 4


class Given(NamedTuple):
    """What a network gives of a batch, and the gradients of its variables in training.

    Attributes:
      logits: in evaluation.
      gradients: of the mean of `logits * probe` in training, by the name of the tensor, in float64.
      rounding: how far those of torch in float32 are from them, see `distance`: a deep network with few
        examples in its BatchNorms has large errors, whoever computes it.
    """

    logits: np.ndarray
    gradients: dict[str, np.ndarray]
    rounding: dict[str, float]


def randomized(model: torch.nn.Module, *, seed: int = 0) -> torch.nn.Module:
    """With other statistics and scales than a new network has."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                tensor.fill_(7)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.ndim < 2:
                tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))
    return model


def images(*, seed: int = 0, side: int = SIDE) -> np.ndarray:
    """A batch, normalised: [batch, height, width, channel]."""
    return np.random.default_rng(seed).normal(size=(BATCH, side, side, 3)).astype(np.float32)


def given(model: torch.nn.Module, x: np.ndarray) -> Given:
    """What it gives; of transformers' models the logits are a field."""
    evaluated = _logits(model.eval(), x)
    gradients = _gradients(model, x)
    exact = _gradients(copy.deepcopy(model).double(), x.astype(np.float64))
    own = {name: distance(gradient, exact[name]) for name, gradient in gradients.items()}
    return Given(evaluated.detach().numpy().copy(), exact, own)


def _logits(model: torch.nn.Module, x: np.ndarray) -> torch.Tensor:
    found: Any = model(torch.tensor(x).permute(0, 3, 1, 2).contiguous())
    return getattr(found, "logits", found)


def _gradients(model: torch.nn.Module, x: np.ndarray) -> dict[str, np.ndarray]:
    model.train()
    model.zero_grad()
    found = _logits(model, x)
    (found * torch.tensor(probe(tuple(found.shape)))).mean().backward()
    return {n: p.grad.numpy().copy() for n, p in model.named_parameters() if p.grad is not None}


def distance(found: np.ndarray, wanted: np.ndarray) -> float:
    """Between two arrays, as a part of the length of the second."""
    return float(np.linalg.norm(found - wanted) / max(np.linalg.norm(wanted), 1e-30))


def probe(shape: tuple[int, ...]) -> np.ndarray:
    """By what logits are weighed in the loss whose gradients are compared."""
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def saved(model: torch.nn.Module, path: Path) -> Path:
    """Its tensors in a safetensors file."""
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(state, path, metadata={"format": "pt"})
    return path


def agrees(
    torch_model: torch.nn.Module,
    encoder: nn.Module,
    path: Path,
    *,
    classes: int,
    side: int = SIDE,
    tolerance: float = 1e-4,
    layout: str | None = None,
) -> weights.Mapped:
    """Whether an imported network gives what it gives in torch, in evaluation and in training.

    The file is also written again from the variables: it is the same, tensor by tensor.

    Args:
      torch_model: with its classifier.
      encoder: the same network here.
      path: of the file to write.
      classes: of the classifier.
      side: of the images.
      tolerance: largest difference, relative to the largest value.
      layout: to ask for.
    """
    saved(randomized(torch_model), path)
    x = images(side=side)
    wanted = given(torch_model, x)
    model = models.Classifier(encoder, classes)
    x = jnp.asarray(x)
    fresh = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=True))
    network = weights.named(encoder, fresh, size=(side, side))
    found = weights.mapped(weights.published(str(path)), network, layout=layout)
    assert found.account.head == "taken"
    variables, account = weights.read(str(path), encoder, x, classes=classes, layout=layout)
    assert account == found.account
    assert not account.fresh

    logits = model.apply(variables, x, train=False)["logits"]
    close(np.asarray(logits), wanted.logits, tolerance, "logits")

    others = {name: inside for name, inside in variables.items() if name != "params"}

    def loss(params):
        outputs, _ = model.apply(
            {"params": params, **others}, x, train=True, mutable=[*others, "intermediates"]
        )
        return (outputs["logits"] * probe(outputs["logits"].shape)).mean()

    gradients = {"params": jax.grad(loss)(variables["params"])}
    theirs = weights.written(
        weights.named(encoder, {**gradients, **others}), found.layout.name, prefix=account.prefix
    )
    longest = max(np.linalg.norm(gradient) for gradient in wanted.gradients.values())
    for name, gradient in wanted.gradients.items():
        if (
            np.linalg.norm(gradient) < 1e-6 * longest
        ):  # zero, but for rounding: a bias before a norm
            assert np.linalg.norm(theirs[name]) < 1e-4 * longest, name
            continue
        far, allowed = distance(theirs[name], gradient), max(2e-3, 4 * wanted.rounding[name])
        assert far < allowed, f"gradient of {name}: {far}, and in torch {wanted.rounding[name]}"

    again = weights.written(
        weights.named(encoder, variables),
        found.layout.name,
        prefix=account.prefix,
        counters=account.counters,
    )
    with found.published.tensors.reading() as reader:
        assert again.keys() == found.published.tensors.said.keys()
        for name, array in again.items():
            np.testing.assert_array_equal(array, reader.raw(name), err_msg=name)
            assert array.dtype == reader.raw(name).dtype
    return found


def close(found: np.ndarray, wanted: np.ndarray, tolerance: float, what: str) -> None:
    """Whether no number differs by more than this part of the largest."""
    worst = abs(found - wanted).max() / abs(wanted).max()
    assert worst < tolerance, f"{what}: {worst}"
