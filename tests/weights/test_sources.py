"""Where weights are found, and what is said beside them."""

import json
import math

import numpy as np
import pytest
import safetensors.numpy

from kdjax import weights
from kdjax.types import BadInput
from kdjax.weights import positions, sources

TENSORS = {"conv1.weight": np.ones((2, 3, 3, 3), np.float32)}
COMMIT = "0123456789abcdef0123456789abcdef01234567"

TIMM = {
    "architecture": "resnet18",
    "num_classes": 1000,
    "pretrained_cfg": {
        "input_size": [3, 224, 224],
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "crop_mode": "center",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
}
CONVNEXT = {  # also ResNet's of transformers
    "image_processor_type": "ConvNextImageProcessor",
    "crop_pct": 0.875,
    "do_normalize": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "size": {"shortest_edge": 224},
}
VIT = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 224, "width": 224},
}
DINOV2 = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "size": {"shortest_edge": 256},
}


def folder(at, *, config=None, preprocessor=None):
    at.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(TENSORS, at / "model.safetensors")
    for name, said in ((sources.CONFIG, config), (sources.PREPROCESSOR, preprocessor)):
        if said is not None:
            (at / name).write_text(json.dumps(said))
    return str(at)


@pytest.mark.parametrize(
    ("said", "size", "short_side", "interpolation", "mean", "squash"),
    [
        ({"config": TIMM}, (224, 224), 235, "bicubic", 0.485, False),
        ({"preprocessor": CONVNEXT}, (224, 224), 256, "bicubic", 0.485, False),
        (
            {"preprocessor": {**CONVNEXT, "size": {"shortest_edge": 384}}},
            *((384, 384), 384, "bicubic", 0.485, True),
        ),
        ({"preprocessor": VIT}, (224, 224), 224, "bilinear", 0.5, True),
        ({"preprocessor": DINOV2}, (224, 224), 256, "bicubic", 0.485, False),
        ({"preprocessor": {**VIT, "size": 192}}, (192, 192), 192, "bilinear", 0.5, True),
    ],
)
def test_preprocessing_as_the_files_say_it(
    said, size, short_side, interpolation, mean, squash, tmp_path
):
    found = weights.preprocessing(folder(tmp_path, **said))
    assert found is not None
    assert (found.size, found.short_side, found.squash) == (size, short_side, squash)
    assert (found.interpolation, found.mean[0]) == (interpolation, mean)
    assert sources.of_plain(found.plain()) == found


def test_numbers_for_pixels_up_to_255_are_for_those_up_to_1(tmp_path):
    said = {**VIT, "do_rescale": False, "image_mean": [127.5] * 3, "image_std": [51.0] * 3}
    found = weights.preprocessing(folder(tmp_path, preprocessor=said))
    assert found is not None
    np.testing.assert_allclose(found.mean, 0.5)
    np.testing.assert_allclose(found.std, 0.2)
    said = {**VIT, "do_normalize": False}
    found = weights.preprocessing(folder(tmp_path, preprocessor=said))
    assert found is not None
    assert (found.mean, found.std) == ((0.0,) * 3, (1.0,) * 3)


def test_no_file_says_it(tmp_path):
    assert weights.preprocessing(folder(tmp_path)) is None
    assert weights.preprocessing(folder(tmp_path, config={"model_type": "resnet"})) is None


@pytest.mark.parametrize(
    "cfg",
    [
        {"std": [0.0, 1.0, 1.0]},
        {"std": [math.inf, 1.0, 1.0]},
        {"crop_pct": 1.5},
        {"crop_pct": 1e-9},
        {"mean": "x"},
        {"mean": [math.nan, 0.5, 0.5]},
        {"mean": [0.5, 0.5]},
        {"interpolation": "sinc"},
        {"input_size": [3, math.inf, 32]},
        {"input_size": [3, 10**30, 10**30]},
    ],
)
def test_what_cannot_be_understood_is_one_line(cfg, tmp_path):
    at = folder(tmp_path, config={**TIMM, "pretrained_cfg": {**TIMM["pretrained_cfg"], **cfg}})
    with pytest.raises(BadInput, match=r"config\.json: its preprocessing cannot be understood"):
        weights.preprocessing(at)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BadInput, match=r"config\.json: cannot be read as JSON"):
        weights.preprocessing(at)


@pytest.mark.parametrize(
    "said", [{"size": {"shortest_edge": 0}}, {"rescale_factor": 0}, {"rescale_factor": 1e-320}]
)
def test_a_preprocessor_that_divides_by_nothing_is_one_line(said, tmp_path):
    at = folder(tmp_path, preprocessor={**DINOV2, **said})
    with pytest.raises(BadInput, match=r"preprocessor_config\.json: its preprocessing cannot be"):
        weights.preprocessing(at)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("~nobody-of-this-name/x", "there is no such user"),
        ("x" * 300, "has 300 bytes"),
        ("", "empty"),
    ],
)
def test_a_path_that_no_file_system_takes(source, line):
    with pytest.raises(BadInput, match=rf"^weights: .*{line}"):
        weights.published(source)


def test_a_config_beside_several_files_is_none_of_theirs(tmp_path):
    at = folder(tmp_path, config=TIMM)
    assert weights.published(f"{at}/model.safetensors").architecture == "resnet18"
    safetensors.numpy.save_file(TENSORS, tmp_path / "other.safetensors")
    assert weights.published(f"{at}/other.safetensors").architecture is None
    assert weights.published(at).architecture == "resnet18"  # of a folder it is that of the model


def repository(cache, name):
    """As huggingface_hub keeps one."""
    root = cache / f"models--{name.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    return folder(root / "snapshots" / COMMIT, config=TIMM)


def test_repositories_are_read_from_the_local_cache(tmp_path, monkeypatch):
    why = "huggingface_hub is not installed (extra: hub)"
    constants = pytest.importorskip("huggingface_hub.constants", reason=why)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository(tmp_path, "timm/resnet18.a1_in1k")
    for source in (
        *("hf:timm/resnet18.a1_in1k", "timm:resnet18.a1_in1k"),
        f"hf:timm/resnet18.a1_in1k@{COMMIT}",
    ):
        found = weights.published(source)
        assert found.revision == COMMIT
        assert found.architecture == "resnet18"
        assert found.tensors.said["conv1.weight"].shape == (2, 3, 3, 3)
    with pytest.raises(BadInput) as error:
        weights.published("hf:timm/resnet18.a1_in1k@v2")
    said = str(error.value)
    assert "not in the cache" in said
    assert "run `hf download timm/resnet18.a1_in1k --revision=v2 --local-dir=DIR`" in said
    with pytest.raises(BadInput, match="timm/unknown --local-dir=DIR"):
        weights.published("timm:unknown")


def by_hand(grid, size, *, antialias, offset=0.0):
    """Cubic interpolation, place by place."""

    def kernel(x, a):
        x = abs(x)
        if x < 1:
            return ((a + 2) * x - (a + 3)) * x * x + 1
        return a * (((x - 5) * x + 8) * x - 4) if x < 2 else 0.0

    def line(values, wanted):
        n, found = len(values), []
        scale = n / (wanted + offset)
        for i in range(wanted):
            center = (i + 0.5) * scale
            total, weight = 0.0, 0.0
            if antialias:
                width = max(scale, 1.0)
                for j in range(n):
                    if abs(j + 0.5 - center) < 2 * width:
                        w = kernel((j + 0.5 - center) / width, -0.5)
                        total, weight = total + w * values[j], weight + w
                found.append(total / weight)
            else:
                first = math.floor(center - 0.5)
                for j in range(first - 1, first + 3):
                    w = kernel(center - 0.5 - j, -0.75)
                    total += w * values[min(max(j, 0), n - 1)]
                found.append(total)
        return np.array(found)

    rows = np.stack([line(grid[:, j], size[0]) for j in range(grid.shape[1])], axis=1)
    return np.stack([line(rows[i], size[1]) for i in range(size[0])])


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize(
    ("size", "offset"), [((5, 5), 0.0), ((7, 9), 0.0), ((2, 3), 0.0), ((5, 2), 0.1)]
)
def test_positions_of_other_sizes_are_interpolated(size, offset, antialias):
    grid = np.random.default_rng(0).normal(size=(4, 4, 3)).astype(np.float32)
    found = positions.resized(grid, size, antialias=antialias, offset=offset)
    for channel in range(3):
        wanted = by_hand(grid[..., channel].astype(float), size, antialias=antialias, offset=offset)
        np.testing.assert_allclose(found[..., channel], wanted, atol=1e-5)


def test_positions_keep_those_of_other_tokens_and_of_the_same_size():
    given = np.random.default_rng(0).normal(size=(1, 2 + 16, 3)).astype(np.float32)
    how = positions.positions(before=2, grid=(3, 5), antialias=True)
    (found,) = how.into([given], [(1, 2 + 15, 3)])
    np.testing.assert_array_equal(found[:, :2], given[:, :2])
    wanted = positions.resized(given[0, 2:].reshape(4, 4, 3), (3, 5), antialias=True)
    np.testing.assert_array_equal(found[0, 2:], wanted.reshape(15, 3))
    same = positions.positions(before=2, grid=(4, 4), antialias=True)
    np.testing.assert_array_equal(same.into([given], [(1, 18, 3)])[0], given)
    with pytest.raises(ValueError, match="are no square"):
        same.into([given[:, 1:]], [(1, 18, 3)])


@pytest.mark.thorough
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", [(24, 24), (16, 9), (8, 8), (7, 20)])
def test_positions_are_those_of_torch(size, antialias):
    torch = pytest.importorskip("torch", reason="torch is not installed (extra: parity)")
    grid = np.random.default_rng(0).normal(size=(14, 14, 5)).astype(np.float32)
    channels_first = torch.tensor(grid).permute(2, 0, 1)[None]
    how = {"mode": "bicubic", "antialias": antialias, "align_corners": False}
    for offset, asked in (
        (0.0, {"size": size}),
        (0.1, {"scale_factor": tuple((side + 0.1) / 14 for side in size)}),
    ):
        wanted = torch.nn.functional.interpolate(channels_first, **asked, **how)
        found = positions.resized(grid, size, antialias=antialias, offset=offset)
        np.testing.assert_allclose(found, wanted[0].permute(1, 2, 0).numpy(), atol=1e-5)
