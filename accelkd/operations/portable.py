"""Encoders in formats that run without Python: ONNX, ExecuTorch and Core ML.

Each format needs the library of its extra (`pip install 'accelkd[onnx]'`). Int8 is what was measured to be best for
each architecture (docs/export.md): the weights and inputs of a Transformer's matrix products, the latter at the ranges
of the segment at hand; the convolutions of an EfficientNet, at the ranges of calibration segments.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from accelkd.models.efficientnet import EfficientNet
from accelkd.models.encoders import AnyEncoder
from accelkd.segments.schema import SAMPLES

Format = Literal["onnx", "executorch", "coreml"]
MODEL_FILES: dict[Format, str] = {"onnx": "model.onnx", "executorch": "model.pte", "coreml": "model.mlpackage"}
# What converts and runs each of them
LIBRARIES: dict[Format, tuple[str, ...]] = {
    "onnx": ("torch", "onnx", "onnxruntime", "onnxscript"),
    "executorch": ("torch", "executorch", "torchao"),
    "coreml": ("torch", "coremltools"),
}
INPUT, OUTPUT = "segments", "embeddings"

Run = Callable[[Tensor], Tensor]  # segments [batch, channels, 3840] to embeddings [batch, width]


def convert(
    encoder: AnyEncoder, path: Path, to: Format, *, int8: bool = False, calibration: Tensor | None = None
) -> None:
    """Write an encoder in evaluation mode, on the CPU, as a file (Core ML: a folder) of one of the formats.

    Batches of ONNX have any size, those of the others one segment. Int8 of an EfficientNet needs `calibration` segments
    `[segments, channels, 3840]` (not for Core ML, whose weights alone become int8). Raises ValueError where they are
    missing, and where a library is, with the extra that brings it.
    """
    if int8 and calibration is None and needs_calibration(encoder, to):
        raise ValueError("int8 of an EfficientNet needs segments to calibrate its ranges with")
    with _library(to), _quiet():
        if to == "onnx":
            _onnx(encoder, path, int8, calibration)
        elif to == "executorch":
            _executorch(encoder, path, int8, calibration)
        else:
            _coreml(encoder, path, int8)


def needs_calibration(encoder: AnyEncoder, to: Format) -> bool:
    """Whether int8 takes the ranges of its inputs from segments."""
    return isinstance(encoder, EfficientNet) and to != "coreml"


def load_portable(path: Path, to: Format, *, threads: int = 0) -> Run:
    """Load what `convert` wrote into the format's own runtime; `threads` 0 means as many as there are cores.

    Raises ValueError for Core ML, which runs on Apple's systems, and where the library is missing.
    """
    if to == "coreml":
        raise ValueError("Core ML runs on Apple's systems alone")
    with _library(to):
        return _load_onnx(path, threads) if to == "onnx" else _load_executorch(path, threads)


def _onnx(encoder: AnyEncoder, path: Path, int8: bool, calibration: Tensor | None) -> None:
    import onnxruntime  # noqa: F401  (without it nothing can be verified: better known before the conversion)

    program = torch.onnx.export(
        encoder,
        (_example(encoder, batch=2),),  # a batch of one would be taken for a constant
        dynamo=True,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    assert program is not None  # with dynamo
    model = program.model_proto
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]  # the call stack of every node, with the paths of this machine
    if not int8:
        path.write_bytes(model.SerializeToString())
        return
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static

    if calibration is None or not isinstance(encoder, EfficientNet):
        products = ["MatMul", "Gemm"]
        quantize_dynamic(model, path, weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=products)
        return

    class Segments(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
        def __init__(self, segments: Tensor) -> None:
            self.remaining = iter(segments.split(1))

        def get_next(self) -> dict[str, Any] | None:
            segment = next(self.remaining, None)
            return None if segment is None else {INPUT: segment.numpy()}

    quantize_static(
        model,
        path,
        Segments(calibration),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv"],
    )


def _load_onnx(path: Path, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda segments: torch.from_numpy(session.run([OUTPUT], {INPUT: segments.numpy()})[0])


def _executorch(encoder: AnyEncoder, path: Path, int8: bool, calibration: Tensor | None) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from executorch.exir import to_edge_transform_and_lower
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    example = _example(encoder, batch=1)
    program = torch.export.export(encoder, (example,))
    if int8:
        dynamic = not isinstance(encoder, EfficientNet)
        quantizer = XNNPACKQuantizer().set_global(
            get_symmetric_quantization_config(is_per_channel=True, is_dynamic=dynamic)
        )
        prepared = prepare_pt2e(program.module(), quantizer)
        for segment in (example if calibration is None else calibration).split(1):
            prepared(segment)
        program = torch.export.export(convert_pt2e(prepared), (example,))
    attention = {torch.ops.aten.scaled_dot_product_attention.default: _attention}
    lowered = to_edge_transform_and_lower(program.run_decompositions(attention), partitioner=[XnnpackPartitioner()])
    path.write_bytes(lowered.to_executorch().buffer)


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention `[batch, heads, tokens, width]` in operations that XNNPACK has: two to four times as fast as its own.

    That of torch also handles rows in which everything is masked, for which the graph leaves XNNPACK in every layer.
    """
    batch, heads, tokens, width = query.shape
    query, key, value = (part.reshape(batch * heads, tokens, width) for part in (query, key, value))
    weights = F.softmax(torch.bmm(query * width**-0.5, key.transpose(1, 2)), dim=-1)
    return torch.bmm(weights, value).reshape(batch, heads, tokens, width)


def _load_executorch(path: Path, threads: int) -> Run:
    from executorch.runtime import Runtime

    if threads:
        from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool

        _unsafe_reset_threadpool(threads)  # unsafe while another model runs
    method = Runtime.get().load_program(path).load_method("forward")
    # What it returns is written over by the next call
    return lambda segments: torch.cat(
        [method.execute([segment.contiguous()])[0].clone() for segment in segments.split(1)]
    )


def _coreml(encoder: AnyEncoder, path: Path, int8: bool) -> None:
    import coremltools
    from coremltools.optimize import coreml as optimize

    program = torch.export.export(_Named(encoder), (_example(encoder, batch=1),)).run_decompositions({})
    model = coremltools.convert(
        program,
        convert_to="mlprogram",
        outputs=[coremltools.TensorType(name=OUTPUT)],
        minimum_deployment_target=coremltools.target.iOS17,  # and watchOS 10, macOS 14
        compute_precision=coremltools.precision.FLOAT32,
        skip_model_load=True,
    )
    if int8:
        settings = optimize.OptimizationConfig(optimize.OpLinearQuantizerConfig(mode="linear_symmetric"))
        model = optimize.linear_quantize_weights(model, settings)
    model.save(str(path))


class _Named(nn.Module):
    """An encoder whose argument has the name that Core ML gives to the input."""

    def __init__(self, encoder: AnyEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, segments: Tensor) -> Tensor:
        embeddings: Tensor = self.encoder(segments)
        return embeddings


def _example(encoder: AnyEncoder, batch: int) -> Tensor:
    return torch.zeros(batch, encoder.channels, SAMPLES)


@contextmanager
def _library(extra: Format) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is not installed: pip install 'accelkd[{extra}]'") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of converters about libraries and settings that no encoder needs."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
