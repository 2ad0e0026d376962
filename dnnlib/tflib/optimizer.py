"""Adam over the variables of one network: several devices and workers, gradient accumulation, clipping, non-finite gradients.

Several losses (a training loss and its lazily applied regularizer) may share one Optimizer and so its state.
"""

from __future__ import annotations

import numpy as np
import tensorflow.compat.v1 as tf

from dnnlib.tflib import setup
from dnnlib.tflib import variables as tflib_variables

FIRST_LOSS_SCALE = 2.0**15
LOSS_SCALE_UPDATES = 1000


class Optimizer:
    """Adam (Kingma & Ba 2015), in TensorFlow's form: p -= lr · sqrt(1 - β2^t) / (1 - β1^t) · m / (sqrt(v) + ε).

    Args:
        name: variable scope of the optimizer's own variables.
        variables: dict name -> tf.Variable to train.
        learning_rate, beta1, beta2, epsilon: Adam's constants.
        clip_norm: global norm that the gradients are scaled down to, or None.
        rounds: number of rounds whose gradients are averaged for an update.
        loss_scaling: multiply losses by a factor and divide the gradients by it, so that they do not underflow in float16. The factor is
            halved at a non-finite gradient and doubled every LOSS_SCALE_UPDATES updates (Micikevicius et al. 2018, section 3.2).

    Attributes:
        state: dict name -> tf.Variable: what resuming a training between two updates needs besides the variables themselves.
    """

    def __init__(self, name, variables, learning_rate, beta1, beta2, epsilon, clip_norm=None, rounds=1, loss_scaling=False):
        self.name = name
        self.variables = variables
        self.learning_rate = learning_rate
        self.beta1 = beta1
        self.beta2 = beta2
        self.epsilon = epsilon
        self.clip_norm = clip_norm
        self.rounds = rounds
        self.loss_scaling = loss_scaling
        self.state = {}
        with tf.variable_scope(None, default_name=name):
            self._m = [self._variable(f"m/{key}", v.shape.as_list()) for key, v in variables.items()]
            self._v = [self._variable(f"v/{key}", v.shape.as_list()) for key, v in variables.items()]
            self._updates = self._variable("updates", [], tf.int64)
            self._skipped = self._variable("skipped", [], tf.int64)
            self._loss_scale = self._variable("loss_scale", [])  # even if unused: a run may change its precision
            self._sums = None
            if rounds > 1:  # zero between two updates, so not part of the state
                self._sums = [_zeros(f"sum/{key}", v.shape.as_list()) for key, v in variables.items()]
        self._applied_sums = None
        setup.run([variable.initializer for variable in [*self.state.values(), *(self._sums or [])]])  # zeros
        tflib_variables.assign({self._loss_scale: FIRST_LOSS_SCALE})

    def _variable(self, name, shape, dtype=tf.float32):
        self.state[name] = _zeros(name, shape, dtype)
        return self.state[name]

    def build(self, losses, devices):
        """Build the operations for one loss.

        Args:
            losses: list of scalar tensors, one per device; their mean is minimized.
            devices: list of device strings on which the losses were built.

        Returns:
            (round_op, finish_op): run `round_op` once per round, then `finish_op`, which applies the averaged gradients and evaluates to
            (gradient norm, squared norms by variable [V], whether the update was applied, updates skipped so far, loss scale). With one
            round, `round_op` is None.
        """
        gradients = self._gradients(losses, devices)
        with tf.device(devices[0]), tf.name_scope(self.name):
            if self._sums is None:
                return None, self._apply(gradients, devices[0])
            accumulate = tf.group(*[s.assign_add(g) for s, g in zip(self._sums, gradients)])
            return accumulate, self._apply_sums(devices[0])

    def _gradients(self, losses, devices):
        """Gradients averaged over the devices; zero if a loss does not depend on a variable."""
        wanted = list(self.variables.values())
        scale = self._loss_scale.read_value() if self.loss_scaling else 1.0
        by_device = []
        for loss, device in zip(losses, devices):
            with tf.device(device):
                by_device.append(tf.gradients(loss * scale, wanted, unconnected_gradients="zero"))
        with tf.device(devices[0]):
            means = [tf.add_n(list(parts)) / len(parts) if len(parts) > 1 else parts[0] for parts in zip(*by_device)]
            return [mean / scale for mean in means] if self.loss_scaling else means

    def _apply_sums(self, device):
        if self._applied_sums is None:
            share = tf.constant(1 / self.rounds, tf.float32)
            means = [s * share for s in self._sums]
            outputs = self._apply(means, device)
            with tf.control_dependencies(outputs):
                clear = tf.group(*[s.assign(tf.zeros_like(s)) for s in self._sums])
            with tf.control_dependencies([clear]):
                self._applied_sums = tuple(tf.identity(output) for output in outputs)
        return self._applied_sums

    def _apply(self, gradients, device):
        gradients = setup.workers().mean(gradients, device)
        squares = tf.stack([tf.reduce_sum(tf.square(g)) for g in gradients])
        norm = tf.sqrt(tf.reduce_sum(squares))
        update = tf.cond(tf.is_finite(norm), lambda: self._update(gradients, norm), self._skip)
        with tf.control_dependencies([update]):
            outputs = (norm, squares, update, self._skipped.read_value(), self._loss_scale.read_value())
            return tuple(tf.identity(output) for output in outputs)

    def _update(self, gradients, norm):
        if self.clip_norm is not None:
            scale = tf.minimum(1.0, self.clip_norm / tf.maximum(norm, 1e-30))
            gradients = [gradient * scale for gradient in gradients]
        count = self._updates.assign_add(1, read_value=True)
        time = tf.cast(count, tf.float64)
        powers = [tf.cast(tf.pow(tf.constant(beta, tf.float64), time), tf.float32) for beta in (self.beta1, self.beta2)]
        lr, beta1, beta2, epsilon = (tf.constant(x, tf.float32) for x in (self.learning_rate, self.beta1, self.beta2, self.epsilon))
        steps = []
        if self.loss_scaling:
            grows = tf.equal(count % LOSS_SCALE_UPDATES, 0)
            steps.append(self._loss_scale.assign(self._loss_scale * tf.where(grows, 2.0, 1.0)))
        for variable, m, v, gradient in zip(self.variables.values(), self._m, self._v, gradients):
            steps.append(
                tf.raw_ops.ResourceApplyAdam(
                    var=variable.handle, m=m.handle, v=v.handle, beta1_power=powers[0], beta2_power=powers[1], lr=lr,
                    beta1=beta1, beta2=beta2, epsilon=epsilon, grad=gradient,
                )  # fmt: skip
            )
        with tf.control_dependencies(steps):
            return tf.constant(True)

    def _skip(self):
        steps = [self._skipped.assign_add(1)]
        if self.loss_scaling:
            steps.append(self._loss_scale.assign(self._loss_scale / 2))
        with tf.control_dependencies(steps):
            return tf.constant(False)

    def first_bad(self, squares):
        """Name of the first variable whose squared gradient norm, of the array [V], is not finite."""
        return list(self.variables)[int(np.argmax(~np.isfinite(squares)))]


def _zeros(name, shape, dtype=tf.float32):
    return tf.get_variable(name, shape=shape, dtype=dtype, initializer=tf.zeros_initializer(), trainable=False)
