#!/usr/bin/env python3
"""Weights of the example `detect_text`, and what onnxruntime makes of them.

    python export_ppocr.py ch_PP-OCRv4_det_infer.onnx [--out ../examples/data]

The model is PaddleOCR's text detector PP-OCRv4 (mobile; Apache-2.0, the PaddlePaddle authors) as the package
rapidocr-onnxruntime 1.4.4 has it under rapidocr_onnxruntime/models (`pip download --no-deps rapidocr-onnxruntime==1.4.4`).
Needs numpy, onnx, onnxruntime, Pillow, safetensors.

ppocr_det.safetensors: weights of convolutions rounded to f16, the rest f32, nothing folded, layers renamed.
ppocr_det_golden.safetensors: a small `input`, and the probability `map` that onnxruntime makes of it with the model's own graph
and the rounded weights, without the graph optimisations that would fold or fuse anything.
"""

import argparse
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from PIL import Image, ImageDraw, ImageFont
from safetensors.numpy import save_file

SOURCE = "rapidocr-onnxruntime 1.4.4, ch_PP-OCRv4_det_infer.onnx, Apache-2.0, the PaddlePaddle authors"
# The backbone has 14 blocks of a depthwise and a pointwise convolution; stride 2 has no activation behind the depthwise one.
STRIDES = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 2, 1, 1, 1]
SQUEEZES = {10: 96, 11: 107}


def names():
    """The initializers of the graph by the names that the example has for them."""
    table = {"stem.weight": "conv2d_0.w_0", **norm("stem.norm", "batch_norm2d_0")}
    for block, stride in enumerate(STRIDES):
        for part, i in (("depthwise", 2 * block), ("pointwise", 2 * block + 1)):
            name = f"block.{block}.{part}"
            table |= conv(name, 394 + i) | affine(f"{name}.affine", f"mobile_one_block_{i}")
            if part == "pointwise" or stride == 1:
                table |= affine(f"{name}.act", f"whswish_b_{i + 1}")
        if block in SQUEEZES:
            table |= squeeze(f"block.{block}.se", SQUEEZES[block])
    for level in range(4):
        first = 135 + 6 * level
        table |= conv(f"neck.{level}.reduce", 131 + level)
        table |= {f"neck.{level}.in.weight": f"conv2d_{first}.w_0"} | squeeze(f"neck.{level}.in.se", first + 1)
        table |= {f"neck.{level}.out.weight": f"conv2d_{first + 3}.w_0"} | squeeze(f"neck.{level}.out.se", first + 4)
    table |= {"head.conv.weight": "conv2d_159.w_0", **norm("head.conv.norm", "batch_norm_0")}
    table |= {"head.up.0.weight": "conv2d_transpose_0.w_0", "head.up.0.bias": "conv2d_transpose_0.b_0"}
    table |= norm("head.up.0.norm", "batch_norm_1")
    return table | {"head.up.1.weight": "conv2d_transpose_1.w_0", "head.up.1.bias": "conv2d_transpose_1.b_0"}


def conv(name, i):
    return {f"{name}.weight": f"conv2d_{i}.w_0", f"{name}.bias": f"conv2d_{i}.b_0"}


def squeeze(name, i):
    return conv(f"{name}.down", i) | conv(f"{name}.up", i + 1)


def affine(name, source):
    return {f"{name}.scale": f"{source}.w_0", f"{name}.shift": f"{source}.w_1"}


def norm(name, source):
    parts = {"weight": "w_0", "bias": "b_0", "running_mean": "w_1", "running_var": "w_2"}
    return {f"{name}.{ours}": f"{source}.{theirs}" for ours, theirs in parts.items()}


def check_graph(graph):
    """What the example takes for granted."""
    attribute = lambda node, name: next(onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name)
    of = lambda kind: [node for node in graph.node if node.op_type == kind]
    slopes = [round(attribute(node, "alpha"), 4) for node in of("HardSigmoid")]
    assert slopes == [0.1667] * 2 + [0.2] * 8, slopes
    assert all(attribute(node, "beta") == 0.5 for node in of("HardSigmoid"))
    assert all(abs(attribute(node, "epsilon") - 1e-5) < 1e-10 for node in of("BatchNormalization"))
    assert all(attribute(node, "mode") == b"nearest" for node in of("Resize"))
    assert len(of("Conv")) == 62 and len(of("ConvTranspose")) == 2


def small_input():
    """Two words on a coloured ground, prepared as a picture is: [1, 3, 64, 96] in -1..1, blue first, exact in f16."""
    picture = Image.new("RGB", (96, 64), (236, 228, 205))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 40, 95, 63), fill=(40, 60, 90))
    draw.text((8, 8), "convolve", fill=(20, 20, 30), font=ImageFont.load_default(18))
    draw.text((30, 44), "on GPUs", fill=(250, 240, 120), font=ImageFont.load_default(14))
    pixels = np.asarray(picture, np.float32)[:, :, ::-1].transpose(2, 0, 1)[None]
    return np.ascontiguousarray((pixels / 255 - 0.5) / 0.5, np.float16)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent / "examples/data")
    options = parser.parse_args()
    model = onnx.load(options.model)
    check_graph(model.graph)
    # Paddle's exporter writes weights as Constant nodes.
    holders = {node.output[0]: node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"}
    table, tensors = names(), {}
    for name, source in table.items():
        array = numpy_helper.to_array(holders[source])
        if name.endswith(".weight") and array.ndim == 4:
            array = array.astype(np.float16)
            assert np.isfinite(array).all(), name
            holders[source].CopyFrom(numpy_helper.from_array(array.astype(np.float32), holders[source].name))
        # The bias of a transposed convolution is stored as [1, C, 1, 1].
        tensors[name] = np.ascontiguousarray(array if array.ndim == 4 and name.endswith(".weight") else array.reshape(-1))
    left = [name for name, tensor in holders.items() if name not in table.values() and not name.startswith("p2o.")]
    assert not left, left
    save_file(tensors, options.out / "ppocr_det.safetensors", metadata={"source": SOURCE})

    session = onnxruntime.SessionOptions()
    session.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    runner = onnxruntime.InferenceSession(model.SerializeToString(), session, providers=["CPUExecutionProvider"])
    x = small_input()
    (probabilities,) = runner.run(None, {"x": x.astype(np.float32)})
    golden = {"input": x, "map": probabilities}
    metadata = {"source": f"onnxruntime {onnxruntime.__version__} on the rounded weights"}
    save_file(golden, options.out / "ppocr_det_golden.safetensors", metadata=metadata)
    print(f"{sum(a.size for a in tensors.values())} parameters, map {probabilities.min():.4f} to {probabilities.max():.4f},",
          f"{(probabilities > 0.3).mean():.0%} over 0.3")


if __name__ == "__main__":
    main()
