"""What torch itself saves, in both formats, is what is read."""

import numpy as np
import pytest

from kdjax.types import BadFile
from kdjax.weights import pickled

torch = pytest.importorskip("torch", reason="it needs torch, which only the extra parity installs")

FORMATS = pytest.mark.parametrize("zipped", [False, True], ids=["stream", "zip"])


def saved(tmp_path, value, zipped):
    path = tmp_path / "file.pth"
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


def same(found, expected):
    assert [*found] == [*expected]
    for name, tensor in expected.items():
        tensor = tensor.detach()
        assert found[name].shape == tuple(tensor.shape)
        assert found[name].dtype.name == str(tensor.dtype).removeprefix("torch.")
        # Some dtypes NumPy does not have: their bytes.
        given = np.ascontiguousarray(found[name]).tobytes()
        assert given == bytes(tensor.contiguous().reshape(-1).view(torch.uint8).numpy()), name


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(4, 2)
    )


@FORMATS
def test_the_state_of_a_network(zipped, tmp_path):
    net = network()
    same(pickled.read(saved(tmp_path, net.state_dict(), zipped)).arrays, net.state_dict())


@FORMATS
def test_dtypes_views_and_parameters(zipped, tmp_path):
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    dtypes = [
        "float64",
        "float16",
        "bfloat16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint8",
        "bool",
        "complex64",
    ]
    state = {name: (base % 5).to(getattr(torch, name)) for name in dtypes}
    state |= {
        "whole": base,
        "transposed": base.T,
        "some": base[1:3, ::2],
        "expanded": base[:, :1].expand(4, 3),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base[0]),
    }
    if zipped:
        state |= {name: (base % 5).to(getattr(torch, name)) for name in ("float8_e4m3fn", "uint16")}
    same(pickled.read(saved(tmp_path, state, zipped)).arrays, state)


@FORMATS
def test_a_checkpoint_of_a_training(zipped, tmp_path):
    net = network()
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(2, 3, 3, 3)).sum().backward()
    optimizer.step()
    whole = {
        "state_dict": torch.nn.DataParallel(net).state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": {"last_epoch": 3, "rates": [0.1, 0.2]},
        "epoch": 3,
        "arch": "tiny",
        "size": torch.ones(2, 3).shape,
    }
    found = pickled.read(saved(tmp_path, whole, zipped))
    same(found.arrays, net.state_dict())
    assert (found.key, found.stripped) == ("state_dict", "module.")
    assert found.left_out == ["optimizer", "scheduler", "epoch", "arch", "size"]


@FORMATS
def test_a_whole_network_is_refused(zipped, tmp_path):
    with pytest.raises(BadFile, match=r"it asks for 'torch.nn.modules.container.Sequential'"):
        pickled.read(saved(tmp_path, network(), zipped))


def test_a_scripted_network_is_refused(tmp_path):
    path = tmp_path / "file.pt"
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.script(network()).save(path)
    with pytest.raises(BadFile, match="TorchScript"):
        pickled.read(path)


@FORMATS
def test_a_lazy_conjugate_is_refused(zipped, tmp_path):
    state = {"x": torch.ones(3, dtype=torch.complex64).conj()}
    with pytest.raises(BadFile, match="conjugated or negated lazily"):
        pickled.read(saved(tmp_path, state, zipped))
