"""Improved spectral normalization of the discriminator's weights (paper, eq. 9)."""

from __future__ import annotations

import numpy as np
import tensorflow.compat.v1 as tf

from dnnlib.tflib import variables

_NORM_EPSILON = 1e-12
_STATE = "_u"


def spectral_weight(shape, name="weight"):
    """Equalized weights that keep their initial largest singular value: W̄ = σ(W_init)·W / σ(W), used times 1 / √fan_in.

    σ(W) comes from one step of power iteration from the stored vector `<name>_u`. The vector itself moves once per update of the
    discriminator (`power_iteration_updates`), however often the network is built. `<name>_sigma` keeps σ(W_init).

    Args:
        shape: [..., in, out].
        name: variable name.

    Returns:
        Tensor of that shape.
    """
    stored = variables.get_variable(name, shape, init=variables.normal())
    u = variables.get_variable(name + _STATE, [shape[-1]], init=_unit_vector, trainable=False)
    initial = variables.get_variable(f"{name}_sigma", [], init=variables.Derived(stored, largest_singular_value), trainable=False)
    sigma, _, _ = power_iteration(stored, u)
    return stored * (initial / sigma / np.sqrt(np.prod(shape[:-1])).astype(np.float32))


def power_iteration(kernel, u):
    """One step towards the largest singular value of M = kernel as [in, out].

    v = Mu / ‖Mu‖, u' = Mᵀv / ‖Mᵀv‖, σ = vᵀMu'. Gradients flow only through M in σ (Miyato et al. 2018, appendix A).

    Args:
        kernel: [..., in, out].
        u: unit vector [out].

    Returns:
        (σ [], u' [out], v [in]).
    """
    matrix = tf.reshape(kernel, [-1, kernel.shape.as_list()[-1]])  # [in, out]
    v = tf.stop_gradient(_unit(tf.matmul(matrix, u[:, tf.newaxis])))  # [in, 1]
    new_u = tf.stop_gradient(_unit(tf.matmul(matrix, v, transpose_a=True)))  # [out, 1]
    sigma = tf.reduce_sum(v * tf.matmul(matrix, new_u))
    return sigma, new_u[:, 0], v[:, 0]


def power_iteration_updates(network_variables):
    """Operations that advance every stored vector by one step.

    Args:
        network_variables: dict local name -> tf.Variable.
    """
    steps = []
    for name, variable in network_variables.items():
        if name + _STATE in network_variables:
            u = network_variables[name + _STATE]
            steps.append(u.assign(power_iteration(variable, u)[1]))
    return steps


def largest_singular_value(kernel):
    """σ of an array [..., in, out] as a matrix."""
    return np.linalg.norm(np.reshape(kernel, [-1, kernel.shape[-1]]), ord=2)


def _unit(x):
    return x * tf.rsqrt(tf.reduce_sum(tf.square(x)) + _NORM_EPSILON)


def _unit_vector(rng, shape):
    x = rng.standard_normal(shape)
    return x / np.linalg.norm(x)
