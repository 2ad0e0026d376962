"""Compare ViTGAN with golden files: building blocks (tests.golden_vitgan_blocks) and whole networks; the arrays show what a file contains.

Pure functions are compared in float64 (1e-9); everything with variables in float32 (1e-4: the sine with ω0 = 30 amplifies rounding).
"""

from __future__ import annotations

import json
import re

import numpy as np
import tensorflow.compat.v1 as tf

from dnnlib import tflib
from tests import golden_vitgan_blocks as blocks
from tests.golden import Unsupported, largest, relative_error
from tests.golden_vitgan_blocks import compare, numbered, prefixes, single
from training.networks import ViTGANDiscriminatorConfig, ViTGANGeneratorConfig
from training.networks.vitgan import layers, spectral
from training.networks.vitgan.config import L2_MODES

FLOAT64 = 1e-9
FLOAT32 = 1e-4


def check_file(path):
    """Compare everything in one golden file.

    Args:
        path: .npz file with `meta`.

    Returns:
        (largest relative error, tolerance).

    Raises:
        Unsupported: no check here matches the arrays.
    """
    compared, tolerance = results(path)
    if not compared:
        raise Unsupported("no result is in the file")
    return largest(_error(name, *pair) for name, pair in compared.items()), tolerance


def results(path):
    """(dict name -> (value, expected) for everything in a golden file that can be compared, tolerance)."""
    with np.load(path, allow_pickle=False) as file:
        data = dict(file)
    meta = json.loads(str(data.pop("meta")))
    for marker, check, tolerance in CHECKS:
        if any(re.fullmatch(marker, name) for name in data):
            with tflib.session_scope():
                return check(data, meta), tolerance
    raise Unsupported(f"arrays {', '.join(sorted(data))} belong to no known kind")


def _error(name, value, expected):
    """Relative error, or absolute error if the expected values are all rounding noise around 0 (a gradient that cancels)."""
    if np.max(np.abs(expected), initial=0) < 1e-12:
        return float(np.max(np.abs(value), initial=0))
    return relative_error(value, expected)


def _network_values(data, prefix):
    """The arrays whose names begin with `prefix`: dict our variable name -> array."""
    return {_variable_name(name[len(prefix) :]): data[name] for name in data if name.startswith(prefix)}


def _variable_name(name):
    return name.replace("kernel", "weight")


def _depth(data):
    return len({name.split("/")[0] for name in data if name.startswith("p:block")})


def _shared_arguments(data, image, meta):
    dim = data["p:block0/mlp/bias1"].size
    return {"resolution": image.shape[1], "num_channels": image.shape[3], "dim": dim, "heads": meta["heads"], "depth": _depth(data),
            "mlp_ratio": data["p:block0/mlp/bias0"].size // dim, "positions": "fourier" if "p:pos/kernel" in data else "table"}  # fmt: skip


def _set_values(network, values):
    unknown = set(values) - set(network.variables) | set(network.trainables) - set(values)
    if unknown:
        raise Unsupported(f"variables {', '.join(sorted(unknown))} are in one of network and file only")
    network.set_values(values)


def check_generator(data, meta):
    if meta["sln_eps"] != layers.EPSILON:
        raise Unsupported(f"sln_eps {meta['sln_eps']}")
    image, z = data["image"], single(data["z"][:, np.newaxis])
    tokens = len(data["i:e_pos"])
    config = ViTGANGeneratorConfig(
        patch=image.shape[1] // int(round(tokens**0.5)), z_dim=data["z"].shape[1], mapping_num_layers=numbered(data, "p:map/kernel{}"),
        siren_layers=numbered(data, "p:siren{}/kernel"), siren_w0=meta["w0"],
        style="affine" if "p:siren0/style_kernel" in data else "direct", **_shared_arguments(data, image, meta),
    )  # fmt: skip
    network = tflib.Network("G", config)
    values = _network_values(data, "p:")
    gains = blocks.siren_gains([len(values[f"siren{index}/weight"]) for index in range(config.siren_layers)], meta["w0"])
    _set_values(network, {name: value / gains.get(name, 1) for name, value in values.items()})
    outputs = network.get_output_for(z, tf.zeros([len(data["z"]), 0]))
    images = tf.transpose(outputs.images, [0, 2, 3, 1])
    names = [name for name in data if name.startswith("g:")]
    sources = [network.variables[_variable_name(name[2:])] for name in names]
    gradients = tf.gradients(tf.reduce_sum(images * single(data["R"])), [z] + sources)
    gradients = [gradients[0]] + [value / gains.get(_variable_name(name[2:]), 1) for name, value in zip(names, gradients[1:])]
    tensors = {"image": images, "grad_z": gradients[0][:, 0], "i:w": outputs.ws[:, 0, 0], **dict(zip(names, gradients[1:]))}
    return compare(data, tensors)


def check_discriminator(data, meta):
    compared = {}
    for mode in [prefix for prefix in prefixes(data, "_logits") if prefix in L2_MODES]:
        with tflib.session_scope():
            compared.update(_discriminator_mode(data, meta, mode))
    return compared


def _discriminator_mode(data, meta, mode):
    image = data["img"]
    (size, channels), tokens = image.shape[2:], len(data["e_pos"]) - 1
    patch = int(round((len(data["p:patch/kernel"]) / channels) ** 0.5)) // 2
    config = ViTGANDiscriminatorConfig(
        patch=patch, l2_mode=mode, pad_patches=tokens == (size // patch) ** 2, **_shared_arguments(data, image, meta)
    )
    network = tflib.Network("D", config)
    values = _network_values(data, "p:")
    for suffix, prefix in (("_u", "u:"), ("_sigma", "sigma_init:")):
        values.update({name + suffix: value for name, value in _network_values(data, prefix).items()})
    _set_values(network, values)
    images = single(image.transpose([0, 3, 1, 2]))
    scores = network.get_output_for(images, tf.zeros([len(image), 0])).scores
    names = [name for name in data if name.startswith(f"{mode}_g:")]
    sources = [network.variables[_variable_name(name.partition(":")[2])] for name in names]
    gradients = tf.gradients(tf.reduce_sum(scores * single(data["R"])), [images] + sources)
    tensors = {f"{mode}_logits": scores, f"{mode}_grad_img": tf.transpose(gradients[0], [0, 2, 3, 1]), **dict(zip(names, gradients[1:]))}
    for name in [name for name in data if name.startswith("sigma:")]:
        own = network.variables[_variable_name(name.partition(":")[2])]
        tensors[name] = spectral.power_iteration(own, network.variables[own.name.partition("/")[2][:-2] + "_u"])[0]
    compared = compare(data, tensors)
    tflib.run(network.after_update_op())
    moved = network.get_values()
    compared.update({f"{mode} {name}": (moved[_variable_name(name[6:]) + "_u"], data[name]) for name in data if name.startswith("u_new:")})
    return compared


# (array name that identifies the kind, check, tolerance); the first match counts.
CHECKS = (
    ("p:map/kernel0", check_generator, FLOAT32),
    ("p:patch/kernel", check_discriminator, FLOAT32),
    ("w_gain_sqrt2", blocks.check_mapping, FLOAT32),
    ("gamma_kernel", blocks.check_sln, FLOAT32),
    ("Wqk", blocks.check_attention_l2, FLOAT32),
    ("Wq", blocks.check_attention_dot, FLOAT32),
    (".+_u0", blocks.check_isn, FLOAT64),
    ("u_brightness", blocks.check_diffaug, FLOAT64),
    ("d_adv", blocks.check_losses, FLOAT64),
    ("extract", blocks.check_patches, FLOAT32),
    ("out_demod", blocks.check_modulated_linear, FLOAT32),
    ("y", blocks.check_siren_head, FLOAT32),
    (r"coords_\d+", blocks.check_fourier, FLOAT32),
)
