"""The same network in torch and here: random weights and statistics, through a file, equal outputs.

What each test finds is a row of the page's table: `python tests/benchmarks/parity.py` writes it.
"""

import copy
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from kdjax import config, parse, weights
from kdjax.models import Classifier, Compute

TOLERANCE = 1e-4
"""Of outputs in float32 and of gradients in float64, relative to the largest value of the array."""
ZERO = 1e-6
"""A tensor whose gradients are less than this part of the largest of all has none, but for rounding."""


class Parity(NamedTuple):
    """How far a network here is from the same one in torch.

    Attributes:
      evaluation: largest difference of its outputs, relative to the largest output.
      gradients: in training, of the tensor where it is largest, relative to that tensor's largest.
      tensors: of the file, each of which is written again as it was.
    """

    evaluation: float
    gradients: float
    tensors: int


def needed(*names: str) -> list[Any]:
    """Modules of the extra `parity`; the file's tests are skipped where one cannot be imported."""
    found = []
    for name in names:
        try:
            found.append(importlib.import_module(name))
            if name == "torch":
                found[-1].set_num_threads(1)  # others wait for each other in vain on a busy machine
        except Exception as error:  # a torchvision of another build than torch's is no ImportError
            said = str(error).splitlines()[0]
            pytest.skip(f"needs {name}: {said}", allow_module_level=True)
    return found


def randomised(model: Any, seed: int = 0) -> Any:
    """Of a torch network, every parameter and statistic away from where it begins, well scaled."""
    torch = importlib.import_module("torch")
    draw = np.random.default_rng(seed)
    with torch.no_grad():
        for name, leaf in model.state_dict().items():
            if not leaf.dtype.is_floating_point:
                leaf.fill_(7)  # batches that a BatchNorm has seen
                continue
            shape = tuple(leaf.shape)
            if name.endswith("running_var"):
                value = draw.uniform(0.5, 1.5, shape)
            elif leaf.ndim > 1 and name.endswith(("weight",)):
                value = draw.normal(0, np.prod(shape[1:]) ** -0.5, shape)
            elif leaf.ndim == 1 and name.endswith("weight"):
                value = draw.uniform(0.7, 1.3, shape)  # of a norm
            elif any(part in name for part in ("gamma", "lambda1", "layer_scale")):
                value = draw.uniform(0.3, 1.0, shape)
            else:
                value = draw.normal(0, 0.2, shape)
            leaf.copy_(torch.from_numpy(np.asarray(value, np.float32)))
    return model


def still(model: Any) -> Any:
    """A torch network without dropout and stochastic depth."""
    for module in model.modules():
        for name in ("p", "drop_prob", "drop_rate"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model


def state_of(model: Any) -> dict[str, np.ndarray]:
    """Its tensors by name, as they are now."""
    return {n: v.detach().numpy().copy() for n, v in model.state_dict().items()}


def _compiled(function: Any, *args: Any) -> Any:
    """What a function gives that is run once: compiling is what costs."""
    cheap = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(function).lower(*args).compile(compiler_options=cheap)(*args)


def _length(found: np.ndarray, wanted: np.ndarray) -> float:
    """Of the difference of two arrays, as a part of that of the second."""
    return float(np.linalg.norm(found - wanted) / max(np.linalg.norm(wanted), 1e-30))


class Pair:
    """A network in torch and, read from a file of its weights, here.

    Args:
      torch_model: gives logits, or what `logits` takes them out of.
      fields: of the encoder's config.
      folder: for the file.
      layout: that is asked for; None for the one that is found.
      side: of the images.
      classes: of the classifier; None where there is none: features are compared.
      logits: what is compared, of what the network gives in torch.
      state: tensors of the file, from the network in torch.
      skip: pattern of tensors that are left out.
      again: the tensors that are written of those of the file; by default they are the same.
    """

    def __init__(
        self,
        torch_model: Any,
        fields: Mapping[str, Any],
        folder: Path,
        *,
        layout: str | None = None,
        side: int = 24,
        classes: int | None = 10,
        logits: Callable[[Any], Any] = lambda found: found,
        state: Callable[[Any], dict[str, np.ndarray]] = state_of,
        skip: str | None = None,
        again: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] = lambda state: state,
    ):
        self.torch_model, self.logits = torch_model, logits
        self.config = parse.parse(config.Encoder, fields, "config.encoder")
        self.encoder = self.config.module(Compute())
        self.classes, self.side, self.again = classes, side, again
        images = np.random.default_rng(5).normal(size=(4, side, side, 3))
        self.images = np.asarray(images, np.float32)
        self.state_of, self.state = state, state(torch_model)
        file = folder / "model.safetensors"
        save_file({n: np.array(v, order="C") for n, v in self.state.items()}, file)
        how = {"layout": layout, "skip": skip}
        self.variables, account = weights.read(
            str(file), self.encoder, jnp.asarray(self.images), classes=classes, **how
        )
        self.mapped = weights.mapped(
            weights.published(str(file)), self.named(self.variables), **how
        )
        assert account == self.mapped.account
        assert not account.fresh
        assert classes is None or account.head == "taken"

    def model(self, encoder: Any) -> Any:
        """With its classifier, if there is one."""
        return encoder if self.classes is None else Classifier(encoder, self.classes)

    def named(self, variables: Any) -> weights.Named:
        """The network with these variables for its names."""
        return weights.named(self.encoder, variables, size=(self.side, self.side))

    def out(self, variables: Any, images: Any, *, train: bool) -> Any:
        """What the network here gives, computed with numbers of the images' kind."""
        model = self.model(self.config.module(Compute(dtype=images.dtype)))
        found, _ = model.apply(variables, images, train=train, mutable=["batch_stats"])
        return found if self.classes is None else found["logits"]

    def evaluated(self) -> float:
        """How far the outputs in evaluation are apart, relative to the largest."""
        torch = importlib.import_module("torch")
        with torch.no_grad():
            given = torch.from_numpy(self.images.transpose(0, 3, 1, 2).copy())
            theirs = self.logits(self.torch_model.eval()(given)).numpy()

        def evaluate(variables, images):
            return self.out(variables, images, train=False)

        ours = np.asarray(_compiled(evaluate, self.variables, jnp.asarray(self.images)))
        assert np.isfinite(theirs).all()
        assert theirs.std() > 1e-3 * np.abs(theirs).max() > 0
        return float(np.abs(ours - theirs).max() / np.abs(theirs).max())

    def in_torch(self, dtype: type) -> dict[str, np.ndarray]:
        """Gradients in training as torch computes them, by the names of the file's tensors."""
        torch = importlib.import_module("torch")
        model = copy.deepcopy(self.torch_model).to(getattr(torch, np.dtype(dtype).name)).train()
        model.zero_grad()
        found = self.logits(
            model(torch.from_numpy(self.images.transpose(0, 3, 1, 2).astype(dtype)))
        )
        (torch.from_numpy(self._weight(dtype)) * torch.tanh(found)).sum().backward()
        with torch.no_grad():
            for leaf in model.parameters():
                leaf.copy_(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad)
            for leaf in model.buffers():
                leaf.zero_()
        return self._learned(self.state_of(model.float()))

    def here(self, dtype: type) -> dict[str, np.ndarray]:
        """The same gradients here."""
        weight = self._weight(dtype)

        def loss(params, state, images):
            out = self.out({**state, "params": params}, images, train=True)
            return (weight * jnp.tanh(out)).sum()

        with jax.enable_x64(dtype is np.float64):
            others = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), dict(self.variables))
            params = others.pop("params")
            found = _compiled(jax.grad(loss), params, others, jnp.asarray(self.images, dtype))
            found = jax.tree.map(np.asarray, {**others, "params": found})
        return self._learned(self.written(found))

    def _learned(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Those of parameters."""
        account = self.mapped.account
        gone = {*account.ignored, *account.skipped}
        return {
            name: leaf
            for name, leaf in tensors.items()
            if name not in gone and not name.endswith(("running_mean", "running_var"))
        }

    def _weight(self, dtype: type) -> np.ndarray:
        """Of each image in the loss whose gradients are compared."""
        return np.random.default_rng(7).normal(size=(len(self.images), 1)).astype(dtype)

    def gradients(self) -> dict[str, float]:
        """How far each tensor's gradients in training are apart, relative to their largest.

        Both in float64: in float32 a BatchNorm over a few pixels and a ReLU at its kink make more of
        the rounding than what is asked for, in torch as here. Of tensors without a gradient, such as
        a bias before a BatchNorm, relative to `ZERO` of the largest of all.
        """
        theirs, ours = self.in_torch(np.float64), self.here(np.float64)
        assert theirs.keys() == ours.keys()
        largest = max(np.abs(leaf).max() for leaf in theirs.values())
        assert largest > 0
        assert (
            sum(np.abs(leaf).max() > ZERO * largest for leaf in theirs.values()) > len(theirs) / 2
        )
        return {
            n: float(np.abs(ours[n] - leaf).max() / max(np.abs(leaf).max(), ZERO * largest))
            for n, leaf in theirs.items()
        }

    def assert_no_more_rounding(self) -> None:
        """Gradients in float32 are as near to torch's in float64 as those of torch in float32 are.

        To a factor of four, or 2e-3: a deep network with few examples in its BatchNorms has large errors,
        whoever computes it.
        """
        exact, theirs = self.in_torch(np.float64), self.in_torch(np.float32)
        ours = self.here(np.float32)
        longest = max(np.linalg.norm(leaf) for leaf in exact.values())
        for name, leaf in exact.items():
            if np.linalg.norm(leaf) < ZERO * longest:
                assert np.linalg.norm(ours[name]) < 1e-4 * longest, name
                continue
            far, allowed = _length(ours[name], leaf), max(2e-3, 4 * _length(theirs[name], leaf))
            assert far < allowed, f"gradient of {name}: {far}, and {allowed} is allowed"

    def written(self, variables: Any) -> dict[str, np.ndarray]:
        """The tensors that are written of these variables, as those of the file."""
        account = self.mapped.account
        return weights.written(
            self.named(variables),
            self.mapped.layout.name,
            prefix=account.prefix,
            counters=account.counters,
        )

    def parity(self) -> Parity:
        """That outputs and gradients agree, and what is written is what was read."""
        evaluation = self.evaluated()
        assert evaluation < TOLERANCE
        written, account = self.written(self.variables), self.mapped.account
        gone = {*account.ignored, *account.skipped}
        counts = {n for n in gone if n.endswith("num_batches_tracked")}
        kept = self.again({n: v for n, v in self.state.items() if n not in gone - counts})
        assert sorted(written) == sorted(kept)
        for name, value in kept.items():
            np.testing.assert_array_equal(written[name], value, err_msg=name)
            assert written[name].dtype == value.dtype
        apart = self.gradients()
        worst = max(apart, key=lambda name: apart[name])
        assert apart[worst] < TOLERANCE, (worst, apart[worst])
        return Parity(evaluation, apart[worst], len(written))
