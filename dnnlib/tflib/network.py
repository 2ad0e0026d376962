"""Network: typed config -> variables, and ways to call it."""

from __future__ import annotations

import collections
import contextlib
import inspect
import threading

import numpy as np
import tensorflow.compat.v1 as tf

from dnnlib.errors import UserError
from dnnlib.tflib import registry, variables
from dnnlib.tflib.random_streams import PerImageStreams
from dnnlib.tflib.setup import get_session

_building = threading.RLock()  # TensorFlow's graphs do not take operations from two threads at once


class Network:
    """Variables of one network and the functions that use them. It knows nothing about losses.

    The variables have their own variable scope; `get_output_for` builds further copies of the computation on the same variables, `run`
    evaluates it on NumPy arrays, in any thread.

    Args:
        name: preferred scope name ("G"); made unique within the graph.
        config: the typed configuration of a registered architecture.
        seed: int; the initial values are a function of it and of the variable names. None leaves the variables
            uninitialized, for values that are set afterwards.
        twin: Network to take the variables and their values from, instead of building the whole network for them (see `clone`).

    Attributes:
        variables, trainables: dict local name -> tf.Variable.
        input_shapes: list of shapes without the batch axis, one per input.
    """

    def __init__(self, name, config, seed=0, twin=None):
        self.arch = registry.find_for(config)
        self.name = name
        self.config = config
        self._graph = tf.get_default_graph()  # other threads have other default graphs
        self.scope = self._graph.unique_name(name, mark_as_used=True)
        self._calls = {}
        with _building:
            if twin is None:
                self._create_variables(seed)
            else:
                self._repeat_variables(twin)

    @property
    def arch_name(self):
        """Registered name of the architecture."""
        return self.arch.name

    @property
    def input_shapes(self):
        """Shapes of the inputs without the batch axis."""
        return [shape for _, shape in self.arch.whole.inputs(self.config)]

    def part(self, name):
        """A function (*input tensors, **options) -> EasyDict of tensors for a part of the network ("mapping", "synthesis")."""
        part = self.arch.parts[name]
        return lambda *inputs, **options: self._build(part, inputs, options)

    def get_output_for(self, *inputs, **options):
        """Build the network again on its variables.

        Args:
            inputs: tensors in the order of the architecture.
            options: keyword arguments of the architecture's build function; an unknown one raises TypeError.

        Returns:
            EasyDict of output tensors.
        """
        return self._build(self.arch.whole, inputs, options)

    def run(self, *inputs, batch_size=8, seeds=None, devices=(None,), **options):
        """Evaluate the network on NumPy arrays.

        Args:
            inputs: arrays [n, ...] in the order of the architecture. Inputs of width 0 (labels of an unconditional network) may be omitted.
            batch_size: images at a time on each device. It does not change the result: a network that compares the images of a batch
                with each other (a discriminator with minibatch standard deviation) takes all of them in one batch, whatever is given here.
            seeds: int array [n] for the random numbers inside the network (noise); drawn at random if None.
            devices: device strings that share the images; (None,) leaves the placement to TensorFlow.
            options: options of the architecture, and `return_<output>=True` for outputs besides the first.

        Returns:
            A namedtuple with one field per output: array [n, ...], or None if it was not requested.

        Raises:
            UserError: n images cannot be divided into the groups that such a network compares.
        """
        return self._run(self.arch.whole, inputs, batch_size, seeds, devices, options)

    def run_part(self, part, *inputs, batch_size=8, seeds=None, devices=(None,), **options):
        """Like `run`, for a part of the network."""
        return self._run(self.arch.parts[part], inputs, batch_size, seeds, devices, options)

    def get_values(self):
        """Dict local name -> array of all variables."""
        return dict(zip(self.variables, self._session().run(list(self.variables.values()))))

    def set_values(self, values):
        """Set variables by local name (dict name -> array); names and shapes must exist."""
        with self._graph.as_default():
            variables.assign({self.variables[name]: value for name, value in values.items()})

    def clone(self, name):
        """Another network with the same architecture, config and current values."""
        with self._graph.as_default():
            return Network(name, self.config, twin=self)

    def copy_from(self, source):
        """Copy the values of another network's variables of the same names."""
        self.set_values(source.get_values())

    def moving_average_op(self, source, beta):
        """Operation: trainable variables move to β·own + (1 − β)·source's, the others are copied.

        Args:
            source: Network of the same architecture.
            beta: number or scalar tensor.
        """
        steps = []
        for name, variable in self.variables.items():
            target = source.variables[name]
            blend = name in self.trainables
            steps.append(variable.assign(target + (variable - target) * beta if blend else target))
        return tf.group(*steps)

    def after_update_op(self):
        """Operation to run once after each update of the trainable variables (state of the weight normalisation), or None."""
        return tf.group(*self.arch.after_update(self.variables)) if self.arch.after_update else None

    def parameter_count(self):
        """(trainable, all) numbers of stored values."""
        return tuple(sum(v.shape.num_elements() for v in group.values()) for group in (self.trainables, self.variables))

    def layer_table(self):
        """Lines of text, one per layer (variable scope): output shape, weight shape and number of trainable values."""
        layers = {}
        for name, variable in self.trainables.items():
            layers.setdefault(name.rpartition("/")[0], []).append(variable)
        shapes = self._layer_output_shapes(layers)
        rows = [("layer", "output", "weight", "parameters")]
        for layer, members in layers.items():
            largest = max(members, key=lambda v: v.shape.num_elements())
            count = sum(v.shape.num_elements() for v in members)
            rows.append((layer or "(top)", shapes.get(layer, ""), str(largest.shape.as_list()), f"{count:,}"))
        trainable, total = self.parameter_count()
        rows.append((f"{self.name}: total", "", f"{total:,} stored", f"{trainable:,}"))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        return [f"{r[0]:<{widths[0]}}  {r[1]:<{widths[1]}}  {r[2]:<{widths[2]}}  {r[3]:>{widths[3]}}" for r in rows]

    def print_layers(self):
        """Print the layer table."""
        print("\n".join(self.layer_table()))

    def _layer_output_shapes(self, layers):
        found = {}
        prefix = self._template_scope
        for op in self._graph.get_operations():
            if op.name.startswith(prefix) and op.outputs:
                layer = op.name[len(prefix) :].rpartition("/")[0]
                while layer and layer not in layers:
                    layer = layer.rpartition("/")[0]
                if layer in layers and op.outputs[0].shape.ndims:
                    found[layer] = str(op.outputs[0].shape.as_list())
        return found

    def _create_variables(self, seed):
        self.variables = {}
        self._call(self.arch.whole, {}, reuse=tf.AUTO_REUSE)
        prefix = f"{self.scope}/"
        for variable in tf.global_variables():
            if variable.name.startswith(prefix):
                self.variables[variable.name[len(prefix) :].rpartition(":")[0]] = variable
        trainable = {variable.name for variable in tf.trainable_variables()}
        self.trainables = {name: v for name, v in self.variables.items() if v.name in trainable}
        if seed is not None:
            variables.initialize(self.variables, seed)

    def _repeat_variables(self, twin):
        """Create the variables of another network once more, with its values; nothing else of it is built."""
        self._template_scope = twin._template_scope
        with tf.variable_scope(tf.VariableScope(reuse=False, name=self.scope), auxiliary_name_scope=False):
            self.variables = {
                name: variables.get_variable(name, variable.shape.as_list(), None, trainable=name in twin.trainables)
                for name, variable in twin.variables.items()
            }
        self.trainables = {name: self.variables[name] for name in twin.trainables}
        self.copy_from(twin)

    def _build(self, part, inputs, options, reuse=True):
        accepted = inspect.signature(part.build).parameters
        for option in options:
            if option not in accepted:
                raise TypeError(f"{self.arch.name}: got option {option!r}, expected one of {', '.join(list(accepted)[1:])}")
        scope = tf.VariableScope(reuse=reuse, name=self.scope)
        with tf.name_scope(f"{self.name}_call"), tf.variable_scope(scope, auxiliary_name_scope=False):
            if reuse is not True:
                self._template_scope = self._graph.get_name_scope() + "/"
            return part.build(self.config, *inputs, **options)

    def _call(self, part, options, reuse=True, device=None):
        """Placeholders and outputs of one way to call a part, built at first use. Float options are fed, the others built in."""
        numbers = tuple(sorted(name for name, value in options.items() if isinstance(value, float)))
        fixed = {name: value for name, value in options.items() if name not in numbers}
        key = (part.outputs, part.build, numbers, tuple(sorted(fixed.items())), device)
        with _building, self._graph.as_default(), tf.device(device) if device else contextlib.nullcontext():
            if key not in self._calls:
                inputs = [tf.placeholder(tf.float32, [None] + list(shape), name=name) for name, shape in part.inputs(self.config)]
                fed = {name: tf.placeholder(tf.float32, [], name=name) for name in numbers}
                seeds = tf.placeholder(tf.int64, [None], name="seeds")
                built = dict(fixed, **fed)
                if "streams" in inspect.signature(part.build).parameters:
                    built["streams"] = PerImageStreams(seeds)
                self._calls[key] = inputs, fed, seeds, self._build(part, inputs, built, reuse)
            return self._calls[key]

    def _session(self):
        with self._graph.as_default():
            return get_session()

    def _run(self, part, inputs, batch_size, seeds, devices, options):
        wanted = [name for index, name in enumerate(part.outputs) if options.pop(f"return_{name}", index == 0)]
        replicas = [self._call(part, options, device=device) for device in devices]
        arrays = self._input_arrays(part, inputs)
        count = len(arrays[0])
        if part.group and count:
            self._check_groups(count, part.group(self.config))
            batch_size = count
        if seeds is None:
            seeds = np.random.randint(2**31, size=count)
        session, results = self._session(), None
        together = batch_size * len(replicas)
        for start in range(0, count, together):
            stop = min(start + together, count)
            shares = [slice(first, min(first + batch_size, stop)) for first in range(start, stop, batch_size)]
            feed, fetches = {}, []
            for rows, (placeholders, fed, seed_holder, outputs) in zip(shares, replicas):
                feed.update({holder: array[rows] for holder, array in zip(placeholders, arrays)})
                feed.update({holder: options[name] for name, holder in fed.items()})
                feed[seed_holder] = seeds[rows]
                fetches.append([outputs[name] for name in wanted])
            for rows, values in zip(shares, session.run(fetches, feed_dict=feed)):
                if results is None:
                    results = [np.empty((count,) + value.shape[1:], value.dtype) for value in values]
                for result, value in zip(results, values):
                    result[rows] = value
        if results is None:
            shapes = [replicas[0][3][name].shape.as_list()[1:] for name in wanted]
            results = [np.empty([0] + [size or 0 for size in shape], np.float32) for shape in shapes]
        found = dict(zip(wanted, results))
        return collections.namedtuple("Outputs", part.outputs)(*[found.get(name) for name in part.outputs])

    def _check_groups(self, count, group):
        if count % min(group, count):
            raise UserError(f"{self.arch.name}: got {count} images, accepted: up to {group}, or a multiple of {group} (compared in groups)")

    def _input_arrays(self, part, inputs):
        listed = part.inputs(self.config)
        arrays = []
        for index, (name, shape) in enumerate(listed):
            value = inputs[index] if index < len(inputs) else None
            if value is None:
                if 0 not in shape:
                    raise ValueError(f"{self.arch.name}.run: input {name!r} is missing, expected an array [n, {str(list(shape))[1:]}")
                value = np.zeros([len(arrays[0])] + list(shape))
            value = np.asarray(value, np.float32)
            if list(value.shape[1:]) != list(shape):
                raise ValueError(f"{self.arch.name}.run: input {name!r} got shape {list(value.shape)}, expected [n, {str(list(shape))[1:]}")
            arrays.append(value)
        return arrays
