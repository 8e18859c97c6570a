#!/usr/bin/env python3
"""The layers of benches/layers.json on PyTorch, torchvision and onnxruntime, on the CPU or a CUDA device.

    python peers.py [FILE] [--device cpu|cuda] [--tier cpu|gpu] [--filter TEXT] [--repeat N] [--threads N] [--json OUT]

f32 throughout, TF32 off. All tensors lie on the device before a call is timed: by CUDA events around it there, by
perf_counter on the CPU. Peers: torch (convolution, transposed convolution; involution by unfold), torchvision
(deform_conv2d), onnxruntime (a model of one node: Conv, ConvTranspose, DeformConv). A peer that is not installed, or
that cannot run a layer, is named with the reason. --json has rows like those of the layers example:
{"name", "op", "peer", "first_ms", "min_ms", "median_ms", "max_ms"}.
"""

import argparse
import json
import math
import pathlib
import platform
import statistics
import sys
import time

try:
    import torch
except ImportError as error:
    sys.exit(f"error: PyTorch is needed, the other peers are compared with it: {error}")
import torch.nn.functional as F

WARM_UP = 3
TABLE = pathlib.Path(__file__).resolve().parent.parent / "layers.json"


class Missing(Exception):
    """Why a peer does not run a layer."""


def main():
    options = parse()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    # PyTorch's own choice among cuDNN's algorithms by measurement, in the warm-up.
    torch.backends.cudnn.benchmark = True
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("error: --device cuda: PyTorch finds no CUDA device")
    layers = [
        layer
        for layer in json.loads(options.file.read_text())["cases"]
        if layer["tier"] == (options.tier or {"cpu": "cpu", "cuda": "gpu"}[options.device])
        and options.filter in layer["name"]
    ]
    if not layers:
        sys.exit("error: no layer of that tier has such a name")
    name = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor() or platform.machine()
    peers = [Torch(options.device), Torchvision(options.device), OnnxRuntime(options.device, options.threads)]
    print(f"{name}; {torch.get_num_threads()} threads; f32, TF32 off")
    for peer in peers:
        print(f"{peer.about}: {', '.join(peer.operators)}")
    print(f"{'layer':26} {'peer':14} {'first':>9} {'min':>9} {'median':>9} {'max':>9}  difference from torch (bound)")
    rows, wrong = [], 0
    for layer in layers:
        arrays, expected = make_arrays(layer, options.device), None
        for peer in (peer for peer in peers if layer["op"] in peer.operators):
            head = f"{layer['name']:26} {peer.name:14}"
            try:
                call = peer.prepare(layer, arrays)
                times, output = measure(call, options)
            except Missing as reason:
                print(f"{head} not run: {reason}")
                continue
            output = as_tensor(output)
            text = ""
            if expected is None:
                expected, bound = output, error_bound(layer, arrays)
            else:
                difference = (output - expected).abs().max().item()
                text = f"{difference:.2e} ({bound:.2e})"
                if not difference <= bound:
                    wrong += 1
                    text += " FAIL"
            print(head, *(f"{value:9.3f}" for value in times.values()), "", text, flush=True)
            if text.endswith("FAIL"):
                continue
            rows.append({"name": layer["name"], "op": layer["op"], "peer": f"{peer.about} {options.device}", **times})
    if options.json:
        report = {
            "adapter": name,
            "driver": ", ".join(peer.about for peer in peers),
            "threads": torch.get_num_threads(),
            "layers": rows,
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    if wrong:
        sys.exit(f"error: {wrong} results differ by more than their bound")


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "file",
        nargs="?",
        type=pathlib.Path,
        default=TABLE,
        metavar="FILE",
        help="table of layers; by default benches/layers.json",
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--tier", choices=["cpu", "gpu"], help="by default the one that suits the device")
    parser.add_argument("--filter", default="", metavar="TEXT", help="only layers whose name contains this")
    parser.add_argument("--repeat", type=int, default=20, metavar="N", help="calls that count")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads; by default each peer's own choice")
    parser.add_argument("--json", type=pathlib.Path, metavar="OUT", help="write the numbers to this file")
    options = parser.parse_args()
    if options.repeat < 1:
        parser.error("--repeat: expected at least 1")
    return options


def make_arrays(layer, device):
    """Seeded arrays: reals in -1..1, offsets in -2..2, masks in 0..1."""
    random = torch.Generator().manual_seed(1)

    def uniform(shape, low, high):
        return torch.rand(shape, generator=random).mul_(high - low).add_(low).to(device)

    n, c, o, g = layer["batch"], layer["in_channels"], layer["out_channels"], layer["groups"]
    arrays = {"input": uniform([n, c, *layer["spatial"]], -1, 1)}
    axes = zip(layer["spatial"], layer["kernel"], layer["stride"], layer["padding"], layer["dilation"])
    out = [(size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1 for size, kernel, stride, pad, dilation in axes]
    taps = math.prod(layer["kernel"])
    if layer["op"] == "involution":
        arrays["weight"] = uniform([n, g, *layer["kernel"], *out], -1, 1)
    elif layer["op"] == "conv_transpose":
        arrays["weight"] = uniform([c, o // g, *layer["kernel"]], -1, 1)
    else:
        arrays["weight"] = uniform([o, c // g, *layer["kernel"]], -1, 1)
    if layer["op"] == "deform_conv":
        maps = layer["offset_groups"] * taps
        arrays["offset"] = uniform([n, 2 * maps, *out], -2, 2)
        if layer["mask"]:
            arrays["mask"] = uniform([n, maps, *out], 0, 1)
    return arrays


def error_bound(layer, arrays):
    """By how much two results may differ: twice n u / (1 - n u) times the largest sum of absolute values that n
    products can have. A sample of a deformable convolution adds nine roundings."""
    w = arrays["weight"].abs()
    if layer["op"] == "involution":
        products, largest = math.prod(layer["kernel"]), w.flatten(2, 3).sum(2).max().item()
    elif layer["op"] == "conv_transpose":
        products, largest = (
            w.shape[0] // layer["groups"] * math.prod(layer["kernel"]),
            w.sum(0).flatten(1).sum(1).max().item(),
        )
    else:
        products, largest = w[0].numel(), w.flatten(1).sum(1).max().item()
    rounding = (products + 9) * 2.0**-24
    bound = 2 * rounding / (1 - rounding) * largest
    if layer["op"] == "deform_conv":
        # Coordinates may be rounded in another order: a unit of one changes an interpolation by 2 at most.
        bound += 2 * 2 * 2 * max(layer["spatial"]) * 2.0**-23 * largest
    return bound


class Torch:
    """torch.nn.functional; involution as its authors wrote it, by unfold."""

    operators = ("conv", "conv_transpose", "involution")

    def __init__(self, device):
        self.name, self.about = "torch", f"torch {torch.__version__}"
        if device == "cuda":
            self.about += f" (cuDNN {torch.backends.cudnn.version()})"

    def prepare(self, layer, arrays):
        x, w, rank = arrays["input"], arrays["weight"], len(layer["spatial"])
        options = {key: layer[key] for key in ("stride", "padding", "dilation", "groups")}
        if layer["op"] == "conv":
            return lambda: [F.conv1d, F.conv2d, F.conv3d][rank - 1](x, w, **options)
        if layer["op"] == "conv_transpose":
            return lambda: [F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d][rank - 1](x, w, **options)
        return lambda: involution(x, w, layer)


def involution(x, w, layer):
    (n, c), g, out = x.shape[:2], layer["groups"], w.shape[-2:]
    windows = F.unfold(x, layer["kernel"], layer["dilation"], layer["padding"], layer["stride"])
    windows = windows.view(n, g, c // g, -1, *out)
    return (windows * w.flatten(2, 3).unsqueeze(2)).sum(3).view(n, c, *out)


class Torchvision:
    """torchvision.ops."""

    operators = ("deform_conv",)

    def __init__(self, _device):
        self.name, self.about = "torchvision", "no torchvision"
        try:
            import torchvision

            self.run, self.reason = torchvision.ops.deform_conv2d, None
            self.about = f"torchvision {torchvision.__version__}"
        except Exception as error:  # A torchvision that does not fit its torch fails in many ways.
            self.reason = f"import torchvision: {error}"

    def prepare(self, layer, arrays):
        if self.reason:
            raise Missing(self.reason)
        options = {key: tuple(layer[key]) for key in ("stride", "padding", "dilation")}
        x, offset, w, mask = arrays["input"], arrays["offset"], arrays["weight"], arrays.get("mask")
        return lambda: self.run(x, offset, w, mask=mask, **options)


class OnnxRuntime:
    """A model of one node, whose weight is an initializer, as it is in a network."""

    operators = {"conv": "Conv", "conv_transpose": "ConvTranspose", "deform_conv": "DeformConv"}

    def __init__(self, device, threads):
        self.name, self.about, self.device = "onnxruntime", "no onnxruntime", device
        self.provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[device]
        try:
            import onnx
            import onnxruntime

            self.onnx, self.ort, self.reason = onnx, onnxruntime, None
            self.about = f"onnxruntime {onnxruntime.__version__}"
            if self.provider not in onnxruntime.get_available_providers():
                self.reason = f"this onnxruntime has no {self.provider}"
        except ImportError as error:
            self.reason = str(error)
            return
        self.session_options = onnxruntime.SessionOptions()
        # Else a node that the CUDA provider lacks would run, and be timed, on the CPU.
        self.session_options.add_session_config_entry(
            "session.disable_cpu_ep_fallback", "1" if device == "cuda" else "0"
        )
        self.session_options.intra_op_num_threads = threads or torch.get_num_threads()

    def prepare(self, layer, arrays):
        if self.reason:
            raise Missing(self.reason)
        session = self.session(layer, arrays)
        binding = session.io_binding()
        for name, x in arrays.items():
            if name != "weight":
                binding.bind_input(name, self.device, 0, "float32", tuple(x.shape), x.data_ptr())
        binding.bind_output("output", self.device, 0)
        if self.device == "cuda":
            torch.cuda.synchronize()  # onnxruntime has a stream of its own.

        def call():
            session.run_with_iobinding(binding)
            return binding

        return call

    def session(self, layer, arrays):
        helper, numpy_helper = self.onnx.helper, self.onnx.numpy_helper
        attributes = {
            "kernel_shape": layer["kernel"],
            "strides": layer["stride"],
            "dilations": layer["dilation"],
            "pads": layer["padding"] * 2,
            "group": layer["groups"],
        }
        inputs = ["input", "weight"]
        if layer["op"] == "deform_conv":
            attributes["offset_group"] = layer["offset_groups"]
            inputs += ["offset"] + (["", "mask"] if layer["mask"] else [])
        node = helper.make_node(self.operators[layer["op"]], inputs, ["output"], **attributes)
        values = [
            helper.make_tensor_value_info(key, self.onnx.TensorProto.FLOAT, list(x.shape))
            for key, x in arrays.items()
            if key != "weight"
        ]
        output = helper.make_tensor_value_info("output", self.onnx.TensorProto.FLOAT, None)
        weight = numpy_helper.from_array(arrays["weight"].cpu().numpy(), "weight")
        graph = helper.make_graph([node], layer["name"], values, [output], [weight])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
        providers = [(self.provider, {"use_tf32": "0"})] if self.device == "cuda" else [self.provider]
        try:
            return self.ort.InferenceSession(model.SerializeToString(), self.session_options, providers=providers)
        except Exception as error:  # onnxruntime's exceptions have no common class.
            raise Missing(" ".join(str(error).split())[:160]) from None


def as_tensor(output):
    if isinstance(output, torch.Tensor):
        return output.cpu()
    return torch.from_numpy(output.copy_outputs_to_cpu()[0])


def measure(call, options):
    """Times in milliseconds, and the last result."""
    cuda = options.device == "cuda"

    # onnxruntime has a stream of its own, which events of PyTorch's do not see; its call returns when it is done.
    def timed():
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        output = call()
        if cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - start) * 1e3, output

    def timed_by_events():
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        output = call()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end), output

    with torch.inference_mode():
        first, output = timed()
        clock = timed_by_events if cuda and isinstance(output, torch.Tensor) else timed
        for _ in range(WARM_UP):
            clock()
        times = [clock()[0] for _ in range(options.repeat)]
    return {
        "first_ms": first,
        "min_ms": min(times),
        "median_ms": statistics.median(times),
        "max_ms": max(times),
    }, output


if __name__ == "__main__":
    main()
