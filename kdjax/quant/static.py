"""Static post-training int8 of an ONNX file, calibrated on real images."""

import logging
import os
import tempfile

import numpy as np
from jaxtyping import UInt8

from kdjax.types import BadInput


def quantize_onnx(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    calibration: UInt8[np.ndarray, "n height width channel"],
    batch: int = 64,
) -> None:
    """Writes `target`: `source` with int8 convolutions and dense layers in QDQ form.

    Weights are int8, symmetric, a scale for each output channel. Activations are uint8, asymmetric,
    a scale for each tensor, from the smallest and the largest value that the calibration images give.
    (Signed activations would leave ONNX Runtime's kernels half fused.) The preprocessing and the mean
    over space stay float.

    Args:
      source: a float file whose one input is a batch of images, BatchNorm folded.
      target: the file to write.
      calibration: raw images, as the file takes them.
      batch: images of a calibration pass.

    Raises:
      BadInput: there are no calibration images, or ONNX Runtime is not installed.

    Reference: Jacob et al. 2017, https://arxiv.org/abs/1712.05877.
    """
    if not len(calibration):
        raise BadInput("calibration_examples: quantization needs at least one image, found 0")
    try:
        import onnx
        import onnxruntime
        from onnxruntime import quantization
    except ImportError:
        raise BadInput("int8 needs ONNX Runtime: pip install 'kdjax[export]'") from None

    name = onnx.load(source, load_external_data=False).graph.input[0].name
    feeds = iter([{name: calibration[i : i + batch]} for i in range(0, len(calibration), batch)])

    class Reader(quantization.CalibrationDataReader):
        def get_next(self):  # pyright: ignore[reportIncompatibleMethodOverride]  (None ends it)
            return next(feeds, None)

    onnxruntime.set_default_logger_severity(3)
    logging.getLogger("root").addFilter(_not_preprocessed)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            inferred = os.path.join(scratch, "inferred.onnx")
            onnx.save(onnx.shape_inference.infer_shapes(onnx.load(source)), inferred)
            quantization.quantize_static(
                inferred,
                os.fspath(target),
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=["Conv", "Gemm", "MatMul", "Add"],
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
            # What no runtime reads: a fiftieth of a small file.
            model = onnx.load(target)
            del model.graph.value_info[:]
            for node in model.graph.node:
                node.ClearField("name")
            onnx.save(model, target)
    finally:
        logging.getLogger("root").removeFilter(_not_preprocessed)


def _not_preprocessed(record: logging.LogRecord) -> bool:
    """ONNX Runtime asks for its own preprocessing; the shapes it is after are inferred above."""
    return "pre-processing" not in record.getMessage()
