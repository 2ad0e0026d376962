"""Compare the ViTGAN building blocks, losses and whole networks with golden files; what a file holds is told by its arrays.

Pure functions are compared in float64 (1e-9); whatever owns variables is float32 (1e-4: the sine with ω0 = 30 amplifies rounding).
Every comparison goes into one dict name -> (value, expected); sizes and hyper-parameters come from the arrays and from `meta`.
"""

from __future__ import annotations

import json
import re

import numpy as np
import tensorflow.compat.v1 as tf

from dnnlib import tflib
from dnnlib.tflib import variables
from tests.golden import Unsupported, relative_error
from training import augment, loss
from training.config import AugmentConfig
from training.networks import ViTGANDiscriminatorConfig, ViTGANGeneratorConfig
from training.networks.layers import dense as mapping_dense
from training.networks.vitgan import attention, layers, patches, siren, spectral
from training.networks.vitgan.config import L2_MODES
from training.networks.vitgan.generator import mapping

FLOAT64 = 1e-9
FLOAT32 = 1e-4


def check_file(path):
    """Compare everything in one golden file.

    Args:
        path: .npz file with `meta`.

    Returns:
        (largest relative error, tolerance).

    Raises:
        Unsupported: no check here fits the arrays.
    """
    with np.load(path, allow_pickle=False) as file:
        data = dict(file)
    meta = json.loads(str(data.pop("meta")))
    for marker, check, tolerance in CHECKS:
        if any(re.fullmatch(marker, name) for name in data):
            with tflib.session_scope():
                compared = check(data, meta)
            return max(_error(name, *pair) for name, pair in compared.items()), tolerance
    raise Unsupported(f"arrays {', '.join(sorted(data))} belong to no known kind")


def _error(name, value, expected):
    """Relative error; where everything expected is rounding noise around 0 (a gradient that cancels) the error is absolute."""
    if np.max(np.abs(expected), initial=0) < 1e-12:
        return float(np.max(np.abs(value), initial=0))
    return relative_error(value, expected)


class Bench:
    """A function that creates variables, run once on arrays.

    Args:
        data: the golden file's arrays.
        build: function without arguments -> dict name -> tensor; its variables are created in the present graph.
        names: dict variable name -> array name.
    """

    def __init__(self, data, build, names):
        with tf.variable_scope("bench"):
            self.outputs = build()
        self.variables = {v.name[len("bench/") : -2]: v for v in tf.global_variables() if v.name.startswith("bench/")}
        if set(self.variables) != set(names):
            raise Unsupported(f"variables {sorted(self.variables)}, the file has {sorted(names)}")
        variables.assign({self.variables[name]: data[key] for name, key in names.items()})

    def gradients(self, output, weights, by):
        """Gradients of Σ output·weights: dict like `by` (name -> tensor or variable name)."""
        wanted = {name: self.variables[x] if isinstance(x, str) else x for name, x in by.items()}
        return dict(zip(wanted, tf.gradients(tf.reduce_sum(output * weights), list(wanted.values()))))


def compare(data, tensors):
    """Evaluate tensors: dict name -> (value, the file's array of that name)."""
    values = tflib.run(tensors)
    return {name: (value, data[name]) for name, value in values.items()}


def single(array):
    """float32 constant."""
    return tf.constant(array, tf.float32)


def double(array):
    """float64 constant."""
    return tf.constant(array, tf.float64)


def prefixes(data, suffix):
    """The beginnings of array names that end in `suffix`."""
    return sorted(name[: -len(suffix)] for name in data if name.endswith(suffix))


def numbered(data, pattern):
    """Number of arrays pattern.format(0), pattern.format(1), ..."""
    count = 0
    while pattern.format(count) in data:
        count += 1
    return count


def check_mapping(data, meta):
    count = numbered(data, "kernel{}")
    names = {f"{ours}{i}": f"{theirs}{i}" for i in range(count) for ours, theirs in (("weight", "kernel"), ("bias", "bias"))}
    widths = [data[f"kernel{i}"].shape[1] for i in range(count)]
    bench = Bench(data, lambda: {"w_gain_sqrt2": mapping(single(data["z"]), widths, meta["lr_mul"])}, names)
    with tf.variable_scope("bench", reuse=True):
        first = mapping_dense(single(data["x_normalized"]), widths[0], lrmul=meta["lr_mul"], suffix="0")
    return compare(data, dict(bench.outputs, **({"eqdense_out": first} if "eqdense_out" in data else {})))


def check_sln(data, meta):
    if meta["eps"] != layers.EPSILON:
        raise Unsupported(f"eps {meta['eps']}")
    h, w = single(data["h"]), single(data["w"])
    roles = [(role, part) for role in ("gamma", "beta") for part in ("weight", "bias")]
    names = {f"sln/{role}_{part}": f"{role}_{part}".replace("weight", "kernel") for role, part in roles}
    bench = Bench(data, lambda: {"out": layers.self_modulated_norm(h, w, "sln")}, names)
    tensors = dict(bench.outputs, normalized=layers.standardize(h))
    tensors.update(bench.gradients(bench.outputs["out"], single(data["R"]), {"grad_h": h, "grad_w": w}))
    return compare(data, tensors)


def check_fourier(data, meta):
    compared = {}
    for name in [name for name in data if re.fullmatch(r"coords_\d+", name)]:
        compared[name] = (layers.coordinates(int(name[len("coords_") :])), data[name])
    for prefix in prefixes(data, "_kernel"):
        expected = data[f"e_{prefix}"]
        side = int(round(len(expected) ** 0.5))
        names = {f"{prefix}/weight": f"{prefix}_kernel", f"{prefix}/bias": f"{prefix}_bias"}
        compared[f"e_{prefix}"] = (_fourier(data, prefix, side, names), expected)
    if "table" in data:  # with the class token's row, which the discriminator keeps apart
        compared["e_table"] = (tflib.run(tf.sin(single(data["table"]))), data["e_table"])
    return compared


def _fourier(data, prefix, side, names):
    def build():
        with tf.variable_scope(prefix):
            return layers.fourier_features(side, data[f"{prefix}_kernel"].shape[1])

    with tflib.session_scope():
        return tflib.run(Bench(data, build, names).outputs)


def check_modulated_linear(data, meta):
    x, y = single(data["x"]), single(data["y"])
    w = single(data["kernel"])
    names = {"style_weight": "style_kernel", "style_bias": "style_bias"}
    scales = Bench(data, lambda: layers.dense(y, w.shape.as_list()[0], "style_{}", bias_init=1.0), names).outputs
    return compare(data, {
        "style": scales,
        "out": siren.modulated_linear(x, scales, w),
        "out_demod": siren.modulated_linear(x, scales, w, demodulate=True),
        "out_direct": siren.modulated_linear(x, single(data["style_direct"]), w),
        "out_scaled": siren.modulated_linear(x, scales, w / np.sqrt(w.shape.as_list()[0])),
    })  # fmt: skip


def check_siren_head(data, meta):
    compared = {"e_fou": (_fourier(data, "fou", int(round(len(data["e_fou"]) ** 0.5)),
                                   {"fou/weight": "fou_kernel", "fou/bias": "fou_bias"}), data["e_fou"])}  # fmt: skip
    for prefix in prefixes(data, "_kernel0"):
        if prefix.endswith("_style"):
            continue
        with tflib.session_scope():
            compared.update(_siren_variant(data, meta, prefix))
    return compared


def _siren_variant(data, meta, prefix):
    count = numbered(data, prefix + "_kernel{}")
    style = "affine" if f"{prefix}_style_kernel0" in data else "direct"
    parts = ("weight", "bias") + (("style_weight", "style_bias") if style == "affine" else ())
    names = {f"siren{i}/{part}": f"{prefix}_{part}{i}".replace("weight", "kernel") for i in range(count) for part in parts}
    widths = [data[f"{prefix}_kernel{i}"].shape[1] for i in range(count)]

    def build():
        return siren.siren_head(single(data["e_fou"]), single(data["y"]), widths, meta["w0"], style, "demod" in prefix)

    return compare(data, {f"{prefix}_out": Bench(data, build, names).outputs})


def check_attention_dot(data, meta):
    x = single(data["x"])
    names = {f"attn/{role}_weight": f"W{role}" for role in "qkvo"}
    names["attn/o_bias"] = "bo"
    bench = Bench(data, lambda: attention.dot_attention(x, meta["heads"]), names)
    out, probs = bench.outputs
    by = {f"grad_W{role}": f"attn/{role}_weight" for role in "qkvo"}
    tensors = {"out": out, "probs": probs, **bench.gradients(out, single(data["R"]), dict(by, grad_x=x))}
    logits = attention.dot_logits(single(data["q"]), single(data["k"]))
    tensors["heads_out"] = attention.attend(logits, single(data["v"]))[0]
    return compare(data, tensors)


def check_attention_l2(data, meta):
    compared = {}
    for mode in [prefix for prefix in prefixes(data, "_logits") if prefix in L2_MODES]:
        with tflib.session_scope():
            compared.update(_l2_mode(data, meta, mode))
    return compared


def _l2_mode(data, meta, mode):
    x = single(data["x"])
    names = {f"attn/{role}_weight": f"W{role}" for role in ("qk", "v", "o")}
    bench = Bench(data, lambda: attention.l2_attention(x, meta["heads"], mode), dict(names, **{"attn/o_bias": "bo"}))
    out, probs = bench.outputs
    by = {f"{mode}_grad_W{role}": f"attn/{role}_weight" for role in ("qk", "v", "o")}
    by[f"{mode}_grad_x"] = x
    tensors = {f"{mode}_out": out, f"{mode}_probs": probs, **bench.gradients(out, single(data["R"]), by)}
    q = single(data["q"])
    logits = attention.l2_logits(q, q, mode)
    tensors[f"{mode}_logits"] = logits
    tensors[f"{mode}_heads_out"] = attention.attend(logits, single(data["v"]))[0]
    if "q_untied" in data:
        untied = attention.l2_logits(single(data["q_untied"]), single(data["k_untied"]), mode)
        heads, untied_probs = attention.attend(untied, single(data["v_untied"]))
        tensors.update({f"untied_{mode}_out": heads, f"untied_{mode}_probs": untied_probs})
    return compare(data, tensors)


def check_isn(data, meta):
    compared = {}
    for prefix in prefixes(data, "_u0"):
        kernel, u = double(data[f"{prefix}_W"]), double(data[f"{prefix}_u0"])
        initial = spectral.largest_singular_value(data[f"{prefix}_W_init"].astype(np.float64))
        compared[f"{prefix}_sigma_init"] = (initial, data[f"{prefix}_sigma_init"])
        true = spectral.largest_singular_value(data[f"{prefix}_W"].astype(np.float64))
        compared[f"{prefix}_W_isn_exact"] = (data[f"{prefix}_W"].astype(np.float64) * initial / true, data[f"{prefix}_W_isn_exact"])
        weights = kernel * (initial / spectral.power_iteration(kernel, u)[0])
        gradient = tf.gradients(tf.reduce_sum(weights * double(data[f"{prefix}_R"])), kernel)[0]
        states = []
        for _ in data[f"{prefix}_sigma_steps"]:
            sigma, u, v = spectral.power_iteration(kernel, u)
            states.append((sigma, u, v))
        sigmas, us, vs = [tf.stack(list(column)) for column in zip(*states)]
        compared.update(compare(data, {
            f"{prefix}_W_isn_1step": weights, f"{prefix}_grad_W": gradient,
            f"{prefix}_sigma_steps": sigmas, f"{prefix}_u_steps": us, f"{prefix}_v_steps": vs,
        }))  # fmt: skip
    return compared


def check_patches(data, meta):
    images = single(data["img"])
    patch = data["img"].shape[1] // int(round(data["extract"].shape[1] ** 0.5))
    names = {"weight": "proj_kernel", "bias": "proj_bias"}
    windows = patches.overlapping_patches(images, patch)
    projected = Bench(data, lambda: layers.dense(windows, data["proj_bias"].size), names).outputs
    grid = int(round((len(data["patches"]) / len(data["image"])) ** 0.5))
    assembled = patches.assemble_patches(single(data["patches"]), grid, data["image"].shape[1] // grid)
    return compare(data, {
        "extract": windows,
        "extract_nopad": patches.overlapping_patches(images, patch, pad=False),
        "proj": projected,
        "image": tf.transpose(assembled, [0, 2, 3, 1]),
    })  # fmt: skip


def check_diffaug(data, meta):
    x = double(data["img"])
    _, height, width, _ = data["img"].shape
    colors = [(name, getattr(augment, name), double(data[f"u_{name}"])) for name in ("brightness", "saturation", "contrast")]
    tensors = {f"out_{name}": function(x, u) for name, function, u in colors}
    tensors["out_color"] = x
    for _, function, u in colors:
        tensors["out_color"] = function(tensors["out_color"], u)
    for prefix in prefixes(data, "_t_row"):
        shifts, places, size = _geometry(data, prefix)
        mask = augment.cutout_mask(x, *places, size, size)
        moved = augment.translate(tensors["out_color"], *shifts)
        tensors[f"{prefix}_mask"] = mask
        tensors[f"{prefix}_out_translation"] = augment.translate(x, *shifts)
        tensors[f"{prefix}_out_cutout"] = x * mask
        tensors[f"{prefix}_out_all"] = moved * mask
    tensors["out_gated"] = _gated(data, x, colors)
    compared = compare(data, tensors)
    for prefix, ratios in (("official", AugmentConfig()), ("ref", AugmentConfig(translation=0.1, cutout=0.3))):
        if f"{prefix}_shift_max" in data:
            compared[f"{prefix}_shift_max"] = (augment.share(height, ratios.translation), data[f"{prefix}_shift_max"])
            compared[f"{prefix}_cut_size"] = (augment.share(width, ratios.cutout), data[f"{prefix}_cut_size"])
    return compared


def _geometry(data, prefix):
    draws = [[tf.constant(data[f"{prefix}_{kind}_{axis}"], tf.int32) for axis in ("row", "col")] for kind in ("t", "o")]
    return draws[0], draws[1], int(data[f"{prefix}_cut_size"])


def _gated(data, x, colors):
    shifts, places, size = _geometry(data, "official")
    steps = [lambda y, f=function, u=u: f(y, u) for _, function, u in colors]
    steps += [lambda y: augment.translate(y, *shifts), lambda y: y * augment.cutout_mask(y, *places, size, size)]
    for step, gate in zip(steps, data["gate"]):
        x = augment.where_image(tf.constant(gate > 0), step(x), x)
    return x


def check_losses(data, meta):
    real, fake = double(data["real_aug"]), double(data["fake_aug"])
    adversarial = tf.reduce_mean(loss.discriminator_loss("logistic", fake, real))
    consistency = [tf.reduce_mean(loss.consistency(augmented, double(data[clean])))
                   for augmented, clean in ((real, "real_clean"), (fake, "fake_clean"))]  # fmt: skip
    beta = double(data["ema_beta"])
    return compare(data, {
        "d_adv": adversarial, "bcr_real": consistency[0], "bcr_fake": consistency[1],
        "d_total": adversarial + 10 * consistency[0] + 10 * consistency[1],
        "g_loss": tf.reduce_mean(loss.generator_loss("logistic_ns", fake)),
        "ema_next": double(data["param"]) + (double(data["ema"]) - double(data["param"])) * beta,
    })  # fmt: skip


def _network_values(data, prefix):
    """The arrays whose names begin so: dict our variable name -> array."""
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
    network = tflib.Network("G", "ViTGANGenerator", config)
    _set_values(network, _network_values(data, "p:"))
    outputs = network.get_output_for(z, tf.zeros([len(data["z"]), 0]))
    images = tf.transpose(outputs.images, [0, 2, 3, 1])
    names = [name for name in data if name.startswith("g:")]
    sources = [network.variables[_variable_name(name[2:])] for name in names]
    gradients = tf.gradients(tf.reduce_sum(images * single(data["R"])), [z] + sources)
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
    network = tflib.Network("D", "ViTGANDiscriminator", config)
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


# (array name that tells the kind, check, tolerance), the first match counts.
CHECKS = (
    ("p:map/kernel0", check_generator, FLOAT32),
    ("p:patch/kernel", check_discriminator, FLOAT32),
    ("w_gain_sqrt2", check_mapping, FLOAT32),
    ("gamma_kernel", check_sln, FLOAT32),
    ("Wqk", check_attention_l2, FLOAT32),
    ("Wq", check_attention_dot, FLOAT32),
    (".+_u0", check_isn, FLOAT64),
    ("u_brightness", check_diffaug, FLOAT64),
    ("d_adv", check_losses, FLOAT64),
    ("extract", check_patches, FLOAT32),
    ("out_demod", check_modulated_linear, FLOAT32),
    ("y", check_siren_head, FLOAT32),
    (r"coords_\d+", check_fourier, FLOAT32),
)
