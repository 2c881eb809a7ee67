"""What a run is: frozen dataclasses, built from the ConfigDict of a config file.

A config file gives a ConfigDict; `kdjax.parse` turns it into a `Run` and names every field that is
unknown, missing or of the wrong type by its path. Defaults live here, nowhere else. Fields made by
`_aside` say where and how a run is done and not what it computes: they are no part of a stage's
fingerprint.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal


def _aside(default: Any) -> Any:
    return dataclasses.field(default=default, metadata={"fingerprint": False})


# --- data and views -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """What is learned from, and what is tested on.

    Attributes:
      name: `digits` (embedded), or a prepared TFDS dataset: `cifar100`, `cifar100:3.0.2`.
      train_split: as TFDS writes it; `train[:90%]` to keep a part for choosing hyper-parameters.
      test_split: what the rows of the report are measured on.
      labels_per_class: how many training labels of each class may be used, None for all.
      mean: of each channel, of pixels in [0, 1]; part of the model's preprocessing.
      std: likewise, the standard deviation.
      data_dir: where TFDS datasets are prepared; the environment's KDJAX_DATA_DIR by default.
      image_key, label_key, id_key: the features of a TFDS dataset.
      mode: `resident` keeps all examples on the device, `stream` reads them batch by batch; `auto`
        is resident up to `resident_bytes` of images.
    """

    name: str
    train_split: str = "train"
    test_split: str = "test"
    labels_per_class: int | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    data_dir: str | None = _aside(None)
    image_key: str = "image"
    label_key: str = "label"
    id_key: str = "id"
    mode: Literal["auto", "resident", "stream"] = _aside("auto")
    resident_bytes: int = _aside(2 * 2**30)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimCLRViews:
    """See `kdjax.views.simclr`; `size` is the side of a view, the image's own by default."""

    recipe: Literal["simclr"]
    size: int | None = None
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    shift: int = 0
    brightness: float = 0.8
    contrast: float = 0.8
    saturation: float = 0.8
    hue: float = 0.2
    jitter: float = 0.8
    grayscale: float = 0.2
    blur: float = 0.5
    blur_kernel: int | None = None
    cutout: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CropFlipViews:
    """See `kdjax.views.crop_flip`; `size` is the side of a view, the image's own by default."""

    recipe: Literal["crop_flip"]
    size: int | None = None
    crop_scale: tuple[float, float] | None = None
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    shift: int = 4
    flip: float = 0.5
    cutout: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalViews:
    """No augmentation: see `kdjax.views.eval_view`."""

    recipe: Literal["eval"]
    size: int | None = None


Views = SimCLRViews | CropFlipViews | EvalViews


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixup:
    """See `kdjax.views.mixup`."""

    name: Literal["mixup"]
    alpha: float = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class CutMix:
    """See `kdjax.views.cutmix`."""

    name: Literal["cutmix"]
    alpha: float = 1.0


Mix = Mixup | CutMix


# --- models ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class CNN:
    """A plain stack of 3x3 convolutions of these widths."""

    name: Literal["cnn"]
    widths: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CifarResNet:
    """`resnet{depth}x{multiplier}` of the CIFAR distillation tables."""

    name: Literal["cifar_resnet"]
    depth: int
    multiplier: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNet18:
    """ResNet-18 with a CIFAR stem."""

    name: Literal["resnet18"]
    width: int = 64


Encoder = CNN | CifarResNet | ResNet18


# --- training -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine:
    """Linear warm-up, then a half cosine to zero at the stage's last step."""

    name: Literal["cosine"]
    warmup_steps: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stairs:
    """Constant, multiplied by `factor` at each of `at_steps`."""

    name: Literal["stairs"]
    at_steps: tuple[int, ...]
    factor: float = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant:
    """The peak, always."""

    name: Literal["constant"]


Schedule = Cosine | Stairs | Constant

_KERNELS = ".*/kernel"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SGD:
    """See `kdjax.train.optimizers.sgd`. All parameters decay by default, as in PyTorch."""

    name: Literal["sgd"]
    learning_rate: float
    schedule: Schedule = Cosine(name="cosine")
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    decayed: str = ".*"
    clip_norm: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW:
    """See `kdjax.train.optimizers.adamw`. Kernels alone decay by default."""

    name: Literal["adamw"]
    learning_rate: float
    schedule: Schedule = Cosine(name="cosine")
    b1: float = 0.9
    b2: float = 0.999
    weight_decay: float = 0.0
    decayed: str = _KERNELS
    clip_norm: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LARS:
    """See `kdjax.train.optimizers.lars`. Kernels alone decay and are scaled by default."""

    name: Literal["lars"]
    learning_rate: float
    schedule: Schedule = Cosine(name="cosine")
    momentum: float = 0.9
    trust: float = 0.001
    weight_decay: float = 0.0
    decayed: str = _KERNELS
    clip_norm: float | None = None


Optimizer = SGD | AdamW | LARS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """What every stage that trains has.

    Attributes:
      steps: updates of the parameters.
      batch: examples of a step, over all devices.
      optimizer: the optimizer and its schedule.
      ema: decay of an average of the parameters, which the stage then leaves; None for none.
      accumulate: parts of a batch that go through the model one after the other.
      dtype: of the activations.
      checkpoint_every_steps: distance between checkpoints.
      log_every_steps: distance between lines of metrics.jsonl, each a mean over the steps between.
      dispatch_steps: steps that the device runs without the host, 0 to choose: 1 on CPU, where XLA
        runs convolutions inside a loop on one thread, 25 elsewhere.
    """

    steps: int
    batch: int
    optimizer: Optimizer
    ema: float | None = None
    accumulate: int = 1
    dtype: Literal["float32", "bfloat16"] = "float32"
    checkpoint_every_steps: int = _aside(1000)
    log_every_steps: int = _aside(50)
    dispatch_steps: int = _aside(0)


# --- stages ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrain(Training):
    """SimCLR on all training images; labels are not used.

    Attributes:
      encoder: what is trained and kept.
      projector: widths of the MLP on top of it, which is not kept for later stages.
      temperature: of NT-Xent.
      views: two are drawn of each example, new ones each epoch.
    """

    kind: Literal["pretrain"]
    encoder: Encoder
    views: Views
    projector: tuple[int, ...] = (128, 64)
    temperature: float = 0.5

    def needs(self, stages: Mapping[str, "Stage"]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        return ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finetune(Training):
    """A classifier trained on the examples whose labels may be used.

    Attributes:
      views: new ones each epoch.
      start_from: a stage of kind `pretrain` or `distill_encoder` whose encoder to begin with; then
        `encoder` is not given.
      encoder: what to train from scratch.
      label_smoothing: see `kdjax.losses.cross_entropy`.
    """

    kind: Literal["finetune"]
    views: Views
    start_from: str | None = None
    encoder: Encoder | None = None
    label_smoothing: float = 0.0

    def needs(self, stages: Mapping[str, "Stage"]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        return () if self.start_from is None else (self.start_from,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FullLogits:
    """All logits: any temperature, `classes` numbers a view."""

    name: Literal["logits"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TopK:
    """The `k` largest log-probabilities and the exact mass of all others: see `kdjax.teacher.TopK`.

    Attributes:
      k: how many classes are kept by name.
      temperatures: at which students may learn.
    """

    name: Literal["top_k"]
    k: int
    temperatures: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Embedding:
    """The features of the teacher's encoder: no labels, no classes, for `distill_encoder`."""

    name: Literal["embedding"]


Signal = FullLogits | TopK | Embedding


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cache:
    """What a teacher says of `views` views of every training example, on disk.

    Attributes:
      teacher: the stage whose model is asked, or several of them.
      recipe: how a view is made. Its `size` is the side that the teacher sees, its own by default;
        `shift`, `cutout` and `blur_kernel` are pixels of a view of that side.
      views: how many of each example; a student cycles through them, one an epoch.
      mix: each view with another example's, chosen by the same keys, or not at all.
      signal: what is kept of the teacher's output.
      together: of several teachers: `mean` keeps the mean of their probabilities, `apart` what each
        says, for a student to weigh (`teacher_weights`).
      weights: of the teachers in the mean, equal by default.
      dtype: of the stored numbers.
      batch: examples in one pass of the teacher; changes no view.
    """

    kind: Literal["cache"]
    teacher: str | tuple[str, ...]
    recipe: Views
    views: int
    mix: Mix | None = None
    signal: Signal = FullLogits(name="logits")
    together: Literal["mean", "apart"] = "mean"
    weights: tuple[float, ...] | None = None
    dtype: Literal["float16", "float32"] = "float16"
    batch: int = _aside(256)

    @property
    def teachers(self) -> tuple[str, ...]:
        """The stages whose models are asked."""
        return (self.teacher,) if isinstance(self.teacher, str) else self.teacher

    def needs(self, stages: Mapping[str, "Stage"]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        return self.teachers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prune:
    """Magnitude pruning on the cubic schedule: see `kdjax.prune`.

    Attributes:
      sparsity: of each prunable tensor at the end, in [0, 1).
      begin_step: last step that is dense.
      end_step: step at which the sparsity is reached.
      every_steps: distance between the updates of the masks.
      prunable: pattern of the names of the parameters to prune.
    """

    sparsity: float
    begin_step: int
    end_step: int
    every_steps: int
    prunable: str = _KERNELS


@dataclasses.dataclass(frozen=True, kw_only=True)
class FromCache(Training):
    """What every stage has that learns from a teacher's signals.

    Attributes:
      cache: a stage of kind `cache`: its views, and what its teachers say of them.
      live: ask the teachers in the step instead of reading their signals; the views are the same.
      size: side of the view that the student sees, the teacher's by default: the same crop.
      accept: what may be otherwise than when the cache was written, where the views are the same
        pixels all the same: `jax` (its version), `backend`.
    """

    cache: str
    live: bool = False
    size: int | None = None
    accept: tuple[Literal["jax", "backend"], ...] = _aside(())

    def needs(self, stages: Mapping[str, "Stage"]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        match stages.get(self.cache):
            case Cache(teachers=teachers):
                return teachers if self.live else (self.cache, *teachers)
        return (self.cache,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Knobs:
    """What a student of a sweep has of its own; the stage's where it is not given."""

    temperature: float | None = None
    kd_weight: float | None = None
    ce_weight: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distill(FromCache):
    """A student that learns all training examples from the teacher, on the teacher's own views.

    Attributes:
      start_from: a stage whose whole model to begin with; then `encoder` is not given.
      encoder: what to train from scratch.
      temperature: of the softened softmaxes.
      kd_weight: of the distillation term, a mean over all rows.
      ce_weight: of the cross-entropy, a mean over the rows whose labels may be used.
      teacher_weights: of teachers that are kept apart, equal by default.
      prune: prune while distilling.
      sweep: several students from one pass over the data, which differ in these; the stage leaves a
        row for each, and no model for another stage to begin with.
      sweep_by: `vmap` trains them as one large step, `unroll` one after the other within a step;
        `auto` is `unroll` on CPU, where XLA is slow at the convolutions that `vmap` makes.
    """

    kind: Literal["distill"]
    start_from: str | None = None
    encoder: Encoder | None = None
    temperature: float = 4.0
    kd_weight: float = 0.9
    ce_weight: float = 0.1
    teacher_weights: tuple[float, ...] | None = None
    prune: Prune | None = None
    sweep: tuple[Knobs, ...] = ()
    sweep_by: Literal["auto", "vmap", "unroll"] = _aside("auto")

    def needs(self, stages: Mapping[str, "Stage"]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        read = () if self.start_from is None else (self.start_from,)
        return (*super().needs(stages), *read)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillEncoder(FromCache):
    """An encoder that learns the embedding of a teacher's: no labels are used.

    It leaves what `pretrain` leaves: an encoder to fine-tune.

    Attributes:
      encoder: what is trained and kept.
      projector: widths of the hidden layers between its features and the teacher's embedding.
    """

    kind: Literal["distill_encoder"]
    encoder: Encoder
    projector: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantize:
    """Post-training int8: static, per-channel weights, activations calibrated on training images.

    Attributes:
      model: the stage whose model is quantized.
      calibration_examples: how many training images calibrate the activations.
      agreement: lowest share of test images on which the int8 file and the live float model must
        give one label.
    """

    kind: Literal["quantize"]
    model: str
    calibration_examples: int = 256
    agreement: float = 0.95

    def needs(self, stages: Mapping[str, "Stage"]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        return (self.model,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """One file a format, each loaded again in its runtime and compared with the live model.

    Attributes:
      model: the stage whose model is exported.
      formats: `stablehlo` (jax.export), `onnx`.
      tolerance: largest difference of a logit from the live one, on the test images, relative to
        the largest live logit; beyond it the stage fails.
    """

    kind: Literal["export"]
    model: str
    formats: tuple[Literal["stablehlo", "onnx"], ...] = ("stablehlo", "onnx")
    tolerance: float = 1e-4

    def needs(self, stages: Mapping[str, "Stage"]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        return (self.model,)


Stage = Pretrain | Finetune | Cache | Distill | DistillEncoder | Quantize | Export


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One result: data, and the stages that lead to it.

    Attributes:
      name: of the result.
      data: what is learned from.
      stages: by name. A stage's name is also that of its stream of random views.
      seeds: every stage is run for each; the report has means and intervals over them.
      parallel: `single`, `pmap`, `mesh`; `auto` is `single` on one device, `pmap` on several.
      latency_batch: examples in one timed call.
      latency_threads: of the runtimes that can be told.
    """

    name: str
    data: Data
    stages: Mapping[str, Stage]
    seeds: tuple[int, ...] = (0,)
    parallel: Literal["auto", "single", "pmap", "mesh"] = _aside("auto")
    latency_batch: int = _aside(1)
    latency_threads: int = _aside(1)
