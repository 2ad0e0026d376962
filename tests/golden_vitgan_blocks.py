"""ViTGAN's building blocks, augmentation and losses against golden files: one check per kind of file, used by tests.golden_vitgan.

A check is a function (arrays, meta) -> dict name -> (value, expected). Sizes and hyper-parameters come from the arrays and from `meta`.
"""

from __future__ import annotations

import re

import numpy as np
import tensorflow.compat.v1 as tf

from dnnlib import tflib
from dnnlib.tflib import variables
from tests.golden import Unsupported
from training import augment, loss
from training.config import AugmentConfig
from training.networks.layers import dense as mapping_dense
from training.networks.vitgan import attention, layers, patches, siren, spectral
from training.networks.vitgan.config import L2_MODES
from training.networks.vitgan.generator import mapping


class Bench:
    """A function that creates variables, run once on arrays.

    Args:
        data: the golden file's arrays.
        build: function without arguments -> dict name -> tensor; its variables are created in the current graph.
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
        """Gradients of Σ output·weights: dict with the keys of `by` (name -> tensor or variable name)."""
        wanted = {name: self.variables[x] if isinstance(x, str) else x for name, x in by.items()}
        return dict(zip(wanted, tf.gradients(tf.reduce_sum(output * weights), list(wanted.values()))))


def compare(data, tensors):
    """Evaluate the tensors that the file has an array for: dict name -> (value, array)."""
    values = tflib.run({name: tensor for name, tensor in tensors.items() if name in data})
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
    return compare(data, dict(bench.outputs, eqdense_out=first))


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
    if "table" in data:  # includes the class token's row, which the discriminator stores separately
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


def siren_gains(widths, w0):
    """The files contain weights as used; we store them in units of an equalised learning rate: dict name -> used / stored.

    Args:
        widths: list of I, one per layer of the patch head.
        w0: ω0.
    """
    gains = {}
    for index, width in enumerate(widths):
        slope = w0 if index < len(widths) - 1 else 1
        gains.update({f"siren{index}/weight": 1 / (slope * np.sqrt(width)), f"siren{index}/bias": 1 / slope})
    return gains


def _siren_variant(data, meta, prefix):
    count = numbered(data, prefix + "_kernel{}")
    style = "affine" if f"{prefix}_style_kernel0" in data else "direct"
    parts = ("weight", "bias") + (("style_weight", "style_bias") if style == "affine" else ())
    names = {f"siren{i}/{part}": f"{prefix}_{part}{i}".replace("weight", "kernel") for i in range(count) for part in parts}
    widths = [data[f"{prefix}_kernel{i}"].shape[1] for i in range(count)]
    gains = siren_gains([data[f"{prefix}_kernel{i}"].shape[0] for i in range(count)], meta["w0"])
    data = {**data, **{names[name]: data[names[name]] / gain for name, gain in gains.items()}}

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
    if "out_gated" in data:
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
