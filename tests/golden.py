"""Compare this code with golden files: python -m tests.golden PATH...

PATH is a file or a folder. One line is printed per file: its name and the largest error relative to the largest absolute value of the
compared array, or why it cannot be compared. The exit code is 1 if a file is out of tolerance or not supported.
"""

from __future__ import annotations

import json
import os
import sys

import numpy as np

from dnnlib import UserError, tflib
from dnnlib.tflib import snapshot
from training.networks import vocabulary
from training.networks.config import DiscriminatorConfig, GeneratorConfig

NETWORK_TOLERANCE = 2e-4  # float32, deep products of random weights


class Unsupported(Exception):
    """A file that this code cannot compare yet."""


def relative_error(value, expected):
    """Largest absolute difference divided by the largest absolute expected value."""
    value, expected = np.asarray(value, np.float64), np.asarray(expected, np.float64)
    if value.shape != expected.shape:
        raise UserError(f"shape {value.shape}, expected {expected.shape}")
    if not expected.size:
        return 0.0
    return float(np.max(np.abs(value - expected)) / max(np.max(np.abs(expected)), 1e-30))


def largest(errors):
    """The largest of some errors; NaN if one of them is NaN, which Python's max would pass over."""
    return float(np.max(list(errors)))


def _is_first_vocabulary(kwargs):
    """Whether keyword arguments without a build function's name use the first vocabulary."""
    first = {*vocabulary.FIRST_GENERATOR, *vocabulary.FIRST_DISCRIMINATOR}
    second = {"z_dim", "w_dim", "c_dim", "a_dim", "channel_base", "channel_max", "mapping_num_layers"}
    return bool(first & set(kwargs)) and not second & set(kwargs)


def check_network(path):
    """Build the network of a golden file, set its variables by name, compare every output in the file.

    Args:
        path: .npz file with config, var:<name>, inputs and outputs.

    Returns:
        (largest relative error, tolerance).
    """
    with np.load(path, allow_pickle=False) as file:
        data = dict(file)
    kwargs = json.loads(str(data["config"]))
    is_discriminator = "scores" in data
    config_class = DiscriminatorConfig if is_discriminator else GeneratorConfig
    first = vocabulary.FIRST_DISCRIMINATOR if is_discriminator else vocabulary.FIRST_GENERATOR
    config, notes = vocabulary.parse(kwargs, config_class, first if _is_first_vocabulary(kwargs) else None)
    for note in notes:
        print(f"{path}: {note}")
    values = {key[4:]: value for key, value in data.items() if key.startswith("var:")}
    with tflib.session_scope():
        network = tflib.Network("net", config)
        snapshot.check_variables(network, {name: list(value.shape) for name, value in values.items()}, "golden file")
        network.set_values(values)
        outputs = _discriminator_outputs(network, data) if is_discriminator else _generator_outputs(network, data)
        return largest(relative_error(value, data[name]) for name, value in outputs.items()), NETWORK_TOLERANCE


def _discriminator_outputs(network, data):
    return {"scores": network.run(data["images"], data["labels"]).scores}


def _generator_outputs(network, data):
    z, labels = data["z"], data["labels"]
    plain = network.run(z, labels, truncation_psi=1.0, noise_mode="const", return_maps="maps" in data, return_ws=True)
    outputs = {
        "images_psi1": plain.images,
        "ws": plain.ws,
        "images_psi07": network.run(z, labels, truncation_psi=0.7, noise_mode="const").images,
        "images_nonoise": network.run(z, labels, truncation_psi=1.0, noise_mode="none").images,
    }
    if "maps" in data:
        outputs["maps"] = plain.maps
    if "ws_in" in data:
        outputs["images_from_ws"] = network.run_part("synthesis", data["ws_in"], noise_mode="const").images
    unknown = {key for key in data if not key.startswith("var:")} - set(outputs) - {"config", "z", "labels", "ws_in"}
    if unknown:
        raise Unsupported(f"arrays {', '.join(sorted(unknown))} are not known")
    return outputs


def check_snapshot(path):
    """Load the snapshot beside a golden file and compare the outputs of its networks.

    Args:
        path: .npz or .pkl file; the other one is beside it.

    Returns:
        (largest relative error, tolerance).
    """
    stem = os.path.splitext(path)[0]
    with np.load(stem + ".npz", allow_pickle=False) as file:
        data = dict(file)
    with tflib.session_scope():
        g, d, gs = tflib.load_snapshot(stem + ".pkl")
        labels = np.zeros([len(data["z"])] + list(g.input_shapes[1]))
        averaged = gs.run(data["z"], labels, truncation_psi=0.7, noise_mode="const", return_ws=True)
        outputs = {
            "images_Gs_psi07": averaged.images,
            "ws_Gs": averaged.ws,
            "images_G_psi1": g.run(data["z"], labels, truncation_psi=1.0, noise_mode="const").images,
            "d_scores": d.run(data["d_images"]).scores,
        }
        return largest(relative_error(value, data[name]) for name, value in outputs.items() if name in data), NETWORK_TOLERANCE


def check_metrics(path):
    """Compare the metrics with a golden file of feature sets; see tests.golden_metrics."""
    from tests import golden_metrics

    return golden_metrics.check_file(path)


def check_vitgan(path):
    """Compare the ViTGAN building blocks with a golden file; see tests.golden_vitgan."""
    from tests import golden_vitgan

    return golden_vitgan.check_file(path)


def kind_of(path):
    """The function that compares a golden file, chosen by what is in it and beside it.

    Raises:
        Unsupported: nothing here can compare it.
    """
    stem = os.path.splitext(path)[0]
    if os.path.exists(stem + ".pkl"):
        return check_snapshot
    with np.load(path, allow_pickle=False) as file:
        names = set(file)
    if "config" in names and any(name.startswith("var:") for name in names):
        return check_network
    if "meta" in names:
        return check_vitgan
    if os.path.exists(os.path.join(os.path.dirname(path), "expected.json")):
        return check_metrics
    raise Unsupported(f"arrays {', '.join(sorted(names))} belong to no known kind")


def golden_files(paths):
    """The .npz files among the paths and below the folders, sorted; a .pkl stands for the .npz beside it.

    Raises:
        UserError: a path does not exist or contains no golden file.
    """
    found = []
    for path in paths:
        if os.path.isdir(path):
            inside = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names if name.endswith(".npz")]
            if not inside:
                raise UserError(f"{path}: no .npz file in this folder")
            found += sorted(inside)
        elif os.path.isfile(os.path.splitext(path)[0] + ".npz"):
            found.append(os.path.splitext(path)[0] + ".npz")
        else:
            raise UserError(f"{path}: no such golden file (.npz) or folder")
    return list(dict.fromkeys(found))


def check_file(path):
    """Compare one file.

    Returns:
        (line to print, whether it is within tolerance).
    """
    try:
        error, tolerance = kind_of(path)(path)
    except (Unsupported, UserError) as reason:
        return f"FAIL {path}: {reason}", False
    good = error <= tolerance  # False for NaN
    return f"{'ok  ' if good else 'FAIL'} {path}: largest relative error {error:.2g} (tolerance {tolerance:.0e})", good


def main(argv):
    """Entry point; returns the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__.strip())
        return 0 if argv else 2
    results = []
    for path in golden_files(argv):
        line, good = check_file(path)
        print(line, flush=True)
        results.append(good)
    print(f"{sum(results)} of {len(results)} golden files agree")
    return 0 if all(results) else 1


if __name__ == "__main__":
    from dnnlib.errors import run_main

    sys.exit(run_main(main))
