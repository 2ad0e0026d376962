"""Variables whose initial values are NumPy functions of (seed, name), equal in every TensorFlow version."""

from typing import Any, Callable, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from dnnlib.tflib.random_streams import numpy_stream
from dnnlib.tflib.setup import get_session

_INITIALIZERS = "tflib_initializers"


def get_variable(name, shape, init, trainable=True):
    """Create a float32 variable in the current variable scope, or get the existing one if the scope is reused.

    Args:
        name: name within the scope.
        shape: list of ints.
        init: function (np.random.RandomState, shape) -> array, or a Derived; used by `initialize`.
        trainable: whether an optimizer may change it.

    Returns:
        tf.Variable.
    """
    known = len(tf.global_variables())
    variable = tf.get_variable(name, shape=shape, dtype=tf.float32, initializer=tf.zeros_initializer(), trainable=trainable)
    if len(tf.global_variables()) > known:
        tf.add_to_collection(_INITIALIZERS, (variable, init))
    return variable


def normal(std=1.0):
    """Initializer N(0, std²)."""
    return lambda rng, shape: rng.standard_normal(shape) * std


def uniform(minval=0.0, maxval=1.0):
    """Initializer U[minval, maxval)."""
    return lambda rng, shape: rng.uniform(minval, maxval, shape)


def constant(value):
    """Initializer with one value everywhere."""
    return lambda rng, shape: np.full(shape, value)


class Derived(NamedTuple):
    """Initializer: a function of another variable's initial value."""

    source: Any  # tf.Variable
    function: Callable


def initialize(variables, seed):
    """Set variables to their initial values.

    Args:
        variables: dict local name -> tf.Variable made by `get_variable`; the source of a derived one must be included.
        seed: int; the local name selects the stream.
    """
    initializers = {variable.name: init for variable, init in tf.get_collection(_INITIALIZERS)}
    values = {}
    for name, variable in variables.items():
        init = initializers[variable.name]
        if not isinstance(init, Derived):
            values[variable] = init(numpy_stream(seed, f"init/{name}"), variable.shape.as_list())
    for variable in variables.values():
        init = initializers[variable.name]
        if isinstance(init, Derived):
            values[variable] = init.function(values[init.source])
    assign(values)


def from_array(values):
    """A variable with the values of a float32 array that belongs to no network. A constant would be part of the graph, which is limited to
    2 GB."""
    given = tf.placeholder(tf.float32, np.shape(values))
    variable = tf.Variable(given, trainable=False, collections=[])
    get_session().run(variable.initializer, {given: values})
    return variable


def assign(values):
    """Set variables in one run, without new graph nodes (the initializer of each variable is fed).

    Args:
        values: dict tf.Variable -> array of its shape.

    Raises:
        ValueError: the shape of an array differs from that of its variable.
    """
    feed = {}
    for variable, value in values.items():
        value = np.asarray(value, dtype=variable.dtype.base_dtype.as_numpy_dtype)
        if list(value.shape) != variable.shape.as_list():
            raise ValueError(f"{variable.name}: got shape {list(value.shape)}, expected {variable.shape.as_list()}")
        feed[variable.initializer.inputs[1]] = value
    get_session().run([variable.initializer for variable in values], feed_dict=feed)
