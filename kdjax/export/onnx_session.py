"""How an ONNX file is opened, whoever runs it in this process."""

from typing import Any

from kdjax.export.onnx_memory import PRECISE


def open_session(model: str | bytes, *, threads: int, quiet: bool = False) -> Any:
    """A model in ONNX Runtime on the CPU, with `threads` threads inside an operator."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if quiet:
        options.log_severity_level = 4  # what goes wrong is raised; once is enough
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry(*PRECISE)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
