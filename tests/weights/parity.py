"""The same network in torch and here: random weights and statistics, through a file, equal outputs."""

import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from kdjax import config, parse, tree, weights
from kdjax.models import Classifier, Compute


def needed(*names: str) -> list[Any]:
    """Modules of the extra `parity`; the file's tests are skipped where one cannot be imported."""
    found = []
    for name in names:
        try:
            found.append(importlib.import_module(name))
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


def _compiled(function: Any, *args: Any) -> Any:
    """What a function gives that is run once: compiling is what costs."""
    cheap = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(function).lower(*args).compile(compiler_options=cheap)(*args)


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
      state: tensors of the file, where they have other names than the network's own.
    """

    def __init__(
        self,
        torch_model,
        fields,
        folder,
        *,
        layout=None,
        side=24,
        classes=10,
        logits=None,
        state=None,
    ):
        self.torch_model, self.folder, self.layout = torch_model, folder, layout
        self.logits = logits or (lambda found: found)
        self.config = parse.parse(config.Encoder, fields, "config.encoder")
        self.encoder = self.config.module(Compute())
        self.classes, self.side = classes, side
        self.model = self.encoder if classes is None else Classifier(self.encoder, classes)
        images = np.random.default_rng(5).normal(size=(4, side, side, 3))
        self.images = np.asarray(images, np.float32)
        self.shapes = jax.eval_shape(
            lambda: self.model.init(jax.random.key(0), jnp.zeros((1, side, side, 3)), train=False)
        )
        named = {n: v.detach().numpy() for n, v in torch_model.state_dict().items()}
        self.state = named if state is None else state
        self.variables, self.mapped = self.read(self.state)

    def named(self, variables: Any) -> weights.Named:
        """The network with these variables for its names."""
        return weights.named(self.encoder, variables, size=(self.side, self.side))

    def read(self, state: Any) -> tuple[Any, weights.Mapped]:
        """Variables from tensors by way of a file."""
        file = self.folder / "model.safetensors"
        save_file({n: np.array(v, order="C") for n, v in state.items()}, file)
        mapped = weights.mapped(
            weights.published(str(file)), self.named(self.shapes), layout=self.layout
        )
        encoder, head = mapped.read()
        found = {}
        for name in tree.named_leaves(self.shapes):
            collection, _, path = name.partition("/")
            if path.startswith("classifier/"):
                assert head is not None, mapped.account.head
                found[name] = head[path.removeprefix("classifier/")]
            else:
                found[name] = encoder[f"{collection}/{path.removeprefix('encoder/')}"]
        leaves = [jnp.asarray(found[name]) for name in tree.named_leaves(self.shapes)]
        return jax.tree.unflatten(jax.tree.structure(self.shapes), leaves), mapped

    def out(self, variables: Any, images: Any, *, train: bool) -> Any:
        """What the network here gives, computed with numbers of the images' kind."""
        encoder = self.config.module(Compute(dtype=images.dtype))
        model = encoder if self.classes is None else Classifier(encoder, self.classes)
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

    def gradients(self) -> dict[str, float]:
        """How far each parameter's gradients in training are apart, relative to the largest of all.

        Both in float64: in float32 a BatchNorm over a few pixels and a ReLU at its kink make more of
        the rounding than what is asked for, in torch as here.
        """
        torch = importlib.import_module("torch")
        weight = np.random.default_rng(7).normal(size=(len(self.images), 1))
        self.torch_model.double().train().zero_grad()
        given = torch.from_numpy(self.images.transpose(0, 3, 1, 2).astype(np.float64))
        found = self.logits(self.torch_model(given))
        (torch.from_numpy(weight) * torch.tanh(found)).sum().backward()
        zero = {n: np.zeros_like(v) for n, v in self.state.items()}
        grads = {
            n: p.grad.numpy() for n, p in self.torch_model.named_parameters() if p.grad is not None
        }
        read, _ = self.read({**zero, **grads})
        theirs = tree.named_leaves(read["params"])

        def loss(params, state, images):
            out = self.out({**state, "params": params}, images, train=True)
            return (weight * jnp.tanh(out)).sum()

        with jax.enable_x64(True):
            double = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), self.variables)
            params = double.pop("params")
            images = jnp.asarray(self.images, jnp.float64)
            ours = tree.named_leaves(_compiled(jax.grad(loss), params, double, images))
            ours = {name: np.asarray(leaf) for name, leaf in ours.items()}
        largest = max(np.abs(leaf).max() for leaf in theirs.values())
        assert largest > 0
        return {n: float(np.abs(ours[n] - theirs[n]).max() / largest) for n in ours}

    def written(self) -> dict[str, np.ndarray]:
        """The tensors that are written of what was read."""
        account = self.mapped.account
        return weights.written(
            self.named(self.variables),
            self.mapped.layout.name,
            prefix=account.prefix,
            counters=account.counters,
        )

    def assert_equal(self, *, gradients: bool) -> None:
        """Outputs agree to 1e-4, gradients if asked for, and what is written is what was read."""
        assert self.evaluated() < 1e-4
        written = self.written()
        ignored = self.mapped.layout.is_ignored
        kept = {
            name: value
            for name, value in self.state.items()
            if name.endswith("num_batches_tracked") or not ignored(name)
        }
        assert sorted(written) == sorted(kept)
        for name, value in kept.items():
            np.testing.assert_array_equal(written[name], value, err_msg=name)
            assert written[name].dtype == value.dtype
        if gradients:
            apart = self.gradients()
            worst = max(apart, key=lambda name: apart[name])
            assert apart[worst] < 1e-4, (worst, apart[worst])
