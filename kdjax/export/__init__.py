"""Files that run without kdjax: what the data has goes in, raw, and nothing is left to get wrong."""

from kdjax.export.composites import with_composites
from kdjax.export.formats import Format, of_file
from kdjax.export.formats.litert import LiteRT
from kdjax.export.formats.onnx import ONNX
from kdjax.export.formats.stablehlo import StableHLO, load_stablehlo, write_stablehlo
from kdjax.export.integers import litert_faults, onnx_faults, require_integers
from kdjax.export.layerwise import layer_differences
from kdjax.export.litert import load_litert, write_litert
from kdjax.export.litert_call import litert_call
from kdjax.export.litert_integers import quantize_in_the_call
from kdjax.export.memory import peak_memory
from kdjax.export.model import Model
from kdjax.export.onnx_call import onnx_call
from kdjax.export.onnx_file import load_onnx, write_onnx
from kdjax.export.onnx_integers import write_quantized
from kdjax.export.runtime import Runtime, described, suffix_fault
from kdjax.export.shapes import shortest_of

__all__ = [
    "ONNX",
    "Format",
    "LiteRT",
    "Model",
    "Runtime",
    "StableHLO",
    "described",
    "layer_differences",
    "litert_call",
    "litert_faults",
    "load_litert",
    "load_onnx",
    "load_stablehlo",
    "of_file",
    "onnx_call",
    "onnx_faults",
    "peak_memory",
    "quantize_in_the_call",
    "require_integers",
    "shortest_of",
    "suffix_fault",
    "with_composites",
    "write_litert",
    "write_onnx",
    "write_quantized",
    "write_stablehlo",
]
