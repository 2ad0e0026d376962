"""Attention layers against naive float64 loops over images, heads, rows and latents."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from dnnlib import tflib
from dnnlib.tflib import variables
from training.networks import attention
from training.networks.attention import AttentionOptions, attention_layer
from training.networks.config import GeneratorConfig
from training.networks.layers import Context, minibatch_stddev
from training.networks.merge import merge_images, merge_weights
from training.networks.positional import grid_positions, pyramid_positions
from training.networks.synthesis import _Synthesis

N, F, T, DIM, TO, POS = 2, 6, 3, 8, 5, 4


class Layer:
    """One attention layer with random weights and inputs, evaluated in TensorFlow; its variables are float64 arrays, scaled as used."""

    def __init__(self, options, positions=True, mask=None, assignments=None, seed=0):
        rng = np.random.RandomState(seed)
        self.x, self.y = rng.randn(N, F, DIM), rng.randn(N, T, TO)
        self.pos_from, self.pos_to = (rng.randn(F, POS), rng.randn(T, POS)) if positions else (None, None)
        given = [None if a is None else tf.constant(a, tf.float32) for a in (self.x, self.y, self.pos_from, self.pos_to, mask, assignments)]
        result = attention_layer(given[0], given[1], Context(), options, "t", *given[2:])
        stored = {v.name[len("AttLayer_t/") : -2]: v for v in tf.global_variables()}
        variables.assign({v: rng.randn(*v.shape.as_list()) for v in stored.values()})
        outputs = [result.x, result.probs] + ([result.assignments] if result.assignments is not None else [])
        self.outputs = tflib.run(outputs)
        self.v = {name: np.float64(value) for name, value in tflib.run(stored).items()}

    def dense(self, rows, name):
        weight = self.v[f"weight_{name}"]
        return rows @ weight / np.sqrt(len(weight)) + self.v[f"bias_{name}"]


def softmax(scores):
    e = np.exp(scores - scores.max())
    return e / e.sum()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def naive_probs(layer, options, mask=None, assignments=None):
    """P [N, h, F, T] before the gates, one row at a time."""
    s = DIM // options.num_heads
    probs = np.zeros((N, options.num_heads, F, T))
    for n in range(N):
        content = layer.dense(layer.x[n], "query")
        query, key = content, layer.dense(layer.y[n], "key")
        if layer.pos_from is not None:
            query, key = query + layer.dense(layer.pos_from, "from_pos"), key + layer.dense(layer.pos_to, "to_pos")
        for h in range(options.num_heads):
            hidden = np.zeros(T) if mask is None else (1 - mask[n, 0]) * -10000.0
            if not options.kmeans:
                part = slice(h * s, (h + 1) * s)
                for f in range(F):
                    probs[n, h, f] = softmax([query[f, part] @ key[t, part] / np.sqrt(s) for t in range(T)] + hidden)
                continue
            elements = np.concatenate([content, query - content], axis=1)[:, h * 2 * s : (h + 1) * 2 * s]  # contiguous, across the boundary
            if assignments is not None:
                centroids = assignments[n, h] @ elements
            elif options.iterative:
                centroids = layer.dense(key, "key2")[:, h * 2 * s : (h + 1) * 2 * s]
            else:
                centroids = layer.v["toasgn_init"][0, h]
            for i in range(options.kmeans_iters):
                if i:
                    shares = probs[n, h].T
                    centroids = np.stack([sum(shares[t, f] * elements[f] for f in range(F)) / (shares[t].sum() + 1e-8) for t in range(T)])
                weighted = elements * layer.v[f"iter_{i}/st_weights"][h, 0]
                for f in range(F):
                    probs[n, h, f] = softmax([weighted[f] @ centroids[t] / np.sqrt(s) for t in range(T)] + hidden)
    return probs


def naive_layer(layer, options, probs):
    """Gates, values and integration: (x [N, F, DIM], P after the gates)."""
    s, probs, out = DIM // options.num_heads, probs.copy(), np.zeros_like(layer.x)
    for n in range(N):
        value = layer.dense(layer.y[n], "value")
        for h in range(options.num_heads):
            if options.to_gate:
                gate = layer.dense(layer.y[n], "e_cont") + (layer.dense(layer.pos_to, "e_pos") if layer.pos_to is not None else 0)
                probs[n, h] *= sigmoid(gate[:, h])[np.newaxis]
            if options.from_gate:
                gate = layer.dense(layer.x[n], "n_cont") + (layer.dense(layer.pos_from, "n_pos") if layer.pos_from is not None else 0)
                probs[n, h] *= sigmoid(1 + gate[:, h])[:, np.newaxis]
        control = np.concatenate([probs[n, h] @ value[:, h * s : (h + 1) * s] for h in range(options.num_heads)], axis=1)
        control, rows = layer.dense(control, "out"), layer.x[n].copy()
        axis = {"layer": 1, "instance": 0, None: None}[options.norm]
        if axis is not None and options.integration in ("add", "both"):
            rows = rows - rows.mean(axis=axis, keepdims=True)
        if axis is not None and options.integration in ("mul", "both"):
            rows = rows / np.sqrt((rows**2).mean(axis=axis, keepdims=True) + 1e-8)
        gain, bias = {"add": (0, control), "mul": (control, 0), "both": (control[:, :DIM], control[:, DIM:])}[options.integration]
        out[n] = rows * (gain + 1) + bias
    return out, probs


@pytest.mark.parametrize("kmeans", [{}, {"kmeans": True}, {"kmeans": True, "kmeans_iters": 3}, {"kmeans": True, "iterative": True}])
@pytest.mark.parametrize("other", [
    {}, {"num_heads": 2, "to_gate": True, "from_gate": True, "integration": "both", "norm": "layer"},
    {"norm": "instance", "integration": "mul", "to_gate": True}, {"norm": "layer", "integration": "add", "from_gate": True},
])  # fmt: skip
@pytest.mark.parametrize("positions", [True, False])
def test_layer_equals_naive_loops(graph, kmeans, other, positions):
    options = AttentionOptions(**dict(kmeans, **other))
    layer = Layer(options, positions)
    expected, probs = naive_layer(layer, options, naive_probs(layer, options))
    np.testing.assert_allclose(layer.outputs[1], probs, atol=2e-5)
    np.testing.assert_allclose(layer.outputs[0], expected, atol=2e-4)
    if options.kmeans:
        shares = np.transpose(probs, [0, 1, 3, 2])
        np.testing.assert_allclose(layer.outputs[2], shares / (shares.sum(axis=-1, keepdims=True) + 1e-8), atol=2e-4)


@pytest.mark.parametrize("kmeans", [False, True])
def test_no_product_broadcasts_its_batch(graph, kmeans):
    """TensorFlow 2.20 and 2.21 on CPUs write beyond the end of the result if the second factor's batch is broadcast (issue 117700)."""
    x, y = tf.zeros([N, F, DIM]), tf.zeros([N, T, TO])
    result = attention_layer(x, y, Context(), AttentionOptions(kmeans=kmeans, kmeans_iters=2), "t", tf.zeros([F, POS]), tf.zeros([T, POS]))
    tf.gradients(result.x, tf.trainable_variables() + [x, y])
    products = [op for op in graph.graph.get_operations() if op.type.startswith("BatchMatMul")]
    assert len(products) >= 6
    for op in products:
        assert [tensor.shape.as_list()[:-2] for tensor in op.inputs] == [[N, 1], [N, 1]], op.name


def test_masked_latents_receive_no_attention(graph):
    mask = np.array([[[1, 0, 1]], [[1, 1, 0]]], float)
    options = AttentionOptions()
    layer = Layer(options, mask=mask)
    np.testing.assert_allclose(layer.outputs[1], naive_probs(layer, options, mask), atol=2e-5)
    assert layer.outputs[1][0, :, :, 1].max() == 0 and layer.outputs[1][1, :, :, 2].max() == 0


def test_carried_assignments_make_the_centroids(graph):
    assignments = np.random.RandomState(3).dirichlet(np.ones(F), (N, 1, T))
    options = AttentionOptions(kmeans=True, iterative=True)
    layer = Layer(options, assignments=assignments)
    np.testing.assert_allclose(layer.outputs[1], naive_probs(layer, options, assignments=assignments), atol=2e-5)


def test_batch_normalization_uses_the_batch_in_training_and_averages_elsewhere(graph):
    options = AttentionOptions(norm="batch", integration="both")
    x = tf.constant(np.random.RandomState(0).randn(N, F, DIM) * 3 + 1, tf.float32)
    y = tf.zeros([N, T, TO])
    training = Context(training=True, streams=tflib.RandomStreams(0))
    with tf.variable_scope("net", reuse=tf.AUTO_REUSE):
        normalized = attention_layer(x, y, training, options, "t").x
        outside = attention_layer(x, y, Context(), options, "t").x
    averages = {v.name.split("/")[-1][:-2]: v for v in tf.global_variables() if "norm_" in v.name}
    others = {v: np.zeros(v.shape.as_list()) for v in tf.global_variables() if "norm_" not in v.name}
    variables.assign({**others, averages["norm_mean"]: np.full(DIM, 0.5), averages["norm_square"]: np.full(DIM, 4.0)})
    values = tflib.run(x).astype(np.float64)
    centred = values - values.mean(axis=(0, 1))
    expected = centred / np.sqrt((centred**2).mean(axis=(0, 1)) + 1e-8)
    np.testing.assert_allclose(tflib.run(normalized), expected, atol=1e-4)
    np.testing.assert_allclose(tflib.run(outside), (values - 0.5) / 2, atol=1e-4)
    tflib.run([variable.assign(value) for variable, value in training.updates])
    np.testing.assert_allclose(tflib.run(averages["norm_mean"]), 0.999 * 0.5 + 0.001 * values.mean(axis=(0, 1)), atol=1e-5)
    np.testing.assert_allclose(tflib.run(averages["norm_square"]), 0.999 * 4 + 0.001 * (centred**2).mean(axis=(0, 1)), rtol=1e-5)


def test_dropout_of_entries_and_of_latents(graph):
    """Rate p: single entries and whole latents are each dropped with probability p / 2, the rest is scaled up; only in training."""
    training = Context(True, tflib.RandomStreams(0))
    probs = tf.ones([1000, 2, 6, 5])
    dropped = tflib.run(attention._dropout(probs, training, 0.4))
    np.testing.assert_allclose(np.unique(dropped), [0, 1 / 0.8**2], rtol=1e-5)
    there = (dropped > 0).any(axis=2, keepdims=True)
    assert there.mean() == pytest.approx(0.8, abs=0.02)  # 1 − 0.2⁶ of the latents that remain keep an entry
    assert (dropped > 0).sum() / (6 * there.sum()) == pytest.approx(0.8, abs=0.01)
    assert abs(np.corrcoef(there[:, 0].ravel(), there[:, 1].ravel())[0, 1]) < 0.06  # each head drops its own latents
    assert attention._dropout(probs, Context(), 0.4) is probs
    x, y = tf.zeros([50, F, DIM]), tf.zeros([50, T, TO])
    for name, kmeans in (("simplex", False), ("duplex", True)):
        probs = attention_layer(x, y, training, AttentionOptions(dropout=0.4, kmeans=kmeans), name).probs
        tflib.run(tf.global_variables_initializer())
        dropped = tflib.run(probs)
        np.testing.assert_allclose(np.unique(dropped), [0, 1 / T / 0.8**2], rtol=1e-5)


def test_minibatch_stddev_groups(graph):
    """Sample n belongs to group n mod (N / group); one value per group, appended as the last feature."""
    x = np.random.RandomState(0).randn(8, 3, 3, 2)
    y = tflib.run(minibatch_stddev(tf.constant(x, tf.float32), 4))
    for n in range(8):
        members = x[[m for m in range(8) if m % 2 == n % 2]]
        np.testing.assert_allclose(y[n, :, :, 2], np.sqrt(members.var(axis=0) + 1e-8).mean(), rtol=1e-5)
    np.testing.assert_allclose(y[..., :2], x, atol=1e-6)


def test_sinus_positions(graph):
    """Two directions: sin and cos of x (along the width), then of y; D directions: projections on rotated axes."""
    height, width, dim = 2, 4, 8
    two = tflib.run(grid_positions(height, width, dim, "sinus", 2, "uniform")).reshape(height, width, dim)
    for row in range(height):
        for column in range(width):
            x, y = -1 + 2 * column / (width - 1), -1 + 2 * row / (height - 1)
            f = [10000 ** (4 * i / dim) for i in range(dim // 4)]
            expected = [g(c / d) for c in (x, y) for g in (np.sin, np.cos) for d in f]
            np.testing.assert_allclose(two[row, column], expected, atol=1e-6)
    four = tflib.run(grid_positions(height, width, 16, "sinus", 4, "uniform")).reshape(height, width, 16)
    x, y = -1 + 2 * 2 / 3, 1.0
    lines = [x * np.cos(d * np.pi / 4) + y * np.sin(d * np.pi / 4) for d in range(4)]
    expected = [g(line / 10000 ** (8 * i / 16)) for line in lines for g in (np.sin, np.cos) for i in range(2)]
    np.testing.assert_allclose(four[1, 2], expected, atol=1e-6)


@pytest.mark.parametrize("pos_type, stored", [("sinus", []), ("linear", list(range(7)))])
def test_constant_positions_are_built_where_they_are_used(graph, pos_type, stored):
    """At 1024 pixels those of the higher scales alone would be 176 MB; trainable ones are stored for every scale."""
    config = GeneratorConfig(resolution=64, transformer=True, start_res=3, end_res=5, img2img=2, pos_type=pos_type, components_num=16)
    grids = pyramid_positions(config)
    assert sorted(grids) == (stored or [2, 3, 4])
    assert sorted(int(v.name[len("pos_emb")]) for v in tf.global_variables()) == stored


def test_trainable_positions(graph):
    """linear: projections on the directions times a table; trainable: a table of columns and one of rows, concatenated."""
    height, width, dim = 2, 4, 6
    rng = np.random.RandomState(0)
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    tensors = []
    for pos_type, directions in (("linear", 3), ("trainable", 2)):
        with tf.variable_scope(pos_type):
            tensors.append(grid_positions(height, width, dim, pos_type, directions, "normal"))
    tables = {v.name[:-2]: rng.randn(*v.shape.as_list()) for v in tf.global_variables()}
    variables.assign({v: tables[v.name[:-2]] for v in tf.global_variables()})
    linear, trainable = [value.reshape(height, width, dim) for value in tflib.run(tensors)]
    for row in range(height):
        for column in range(width):
            turned = [x[row, column] * np.cos(t) + y[row, column] * np.sin(t) for t in (0, np.pi / 3, 2 * np.pi / 3)]
            scaled = [projection * line for projection, line in zip(turned, tables["linear/emb"])]
            np.testing.assert_allclose(linear[row, column], np.concatenate(scaled), atol=1e-6)
            both = [tables["trainable/x_emb"][column], tables["trainable/y_emb"][row]]
            np.testing.assert_allclose(trainable[row, column], np.concatenate(both), atol=1e-6)


def test_carried_assignments_are_those_of_the_cell_before(graph):
    carried = np.random.RandomState(0).rand(2, 3, 5, 2 * 4)  # [N, h, T, F] of a grid of 2 x 4
    state = SimpleNamespace(assignments=(tf.constant(carried), (2, 4)))
    value = tflib.run(_Synthesis._carried_assignments(state, (4, 8))).reshape(2, 3, 5, 4, 8)
    for row in range(4):
        for column in range(8):
            np.testing.assert_array_equal(value[..., row, column], carried[..., (row // 2) * 4 + column // 2])


@pytest.mark.parametrize("merge_type", ["softmax", "sum"])
@pytest.mark.parametrize("merge_same", [False, True])
def test_merged_images(graph, merge_type, merge_same):
    """Features and pictures are weighted sums over the images of a sample; latents are averaged with the weights' means."""
    rng = np.random.RandomState(0)
    x, images, ws = rng.randn(6, 2, 4, 5), rng.randn(6, 2, 4, 3), rng.randn(2, 3, 7, 8)  # two samples of three
    given = [tf.constant(value, tf.float32) for value in (x, images, ws)]
    merged = merge_images(*given, 2, 3, merge_type, merge_same)
    [kernel] = tf.global_variables()
    table = rng.randn(1, 1, 5, 1)
    variables.assign({kernel: table})
    merged = tflib.run(merged)
    for sample in range(2):
        own = slice(3 * sample, 3 * sample + 3)
        scores = x[own] @ table[0, 0, :, 0] / np.sqrt(5)  # [k, H, W]
        scores = scores.sum(axis=(1, 2), keepdims=True) + 0 * scores if merge_same else scores
        weights = np.exp(scores) / np.exp(scores).sum(axis=0) if merge_type == "softmax" else np.ones([3, 2, 4])
        np.testing.assert_allclose(merged[0][sample], (x[own] * weights[..., np.newaxis]).sum(axis=0), atol=1e-5)
        np.testing.assert_allclose(merged[1][sample], (images[own] * weights[..., np.newaxis]).sum(axis=0), atol=1e-5)
        shares = weights.mean(axis=(1, 2))
        np.testing.assert_allclose(merged[2][sample, 0], np.tensordot(shares / shares.sum(), ws[sample], 1), atol=1e-5)


@pytest.mark.parametrize("merge_type", ["softmax", "max", "sum", "leaves"])
def test_merge_weights(graph, merge_type):
    scores = np.random.RandomState(0).randn(1, 3, 2, 2, 1)
    weights = tflib.run(merge_weights(tf.constant(scores, tf.float32), merge_type))
    for row in range(2):
        for column in range(2):
            s = scores[0, :, row, column, 0]
            expected = {"softmax": softmax(s), "max": np.eye(3)[np.argmax(s)], "sum": np.ones(3)}
            if merge_type == "leaves":
                a, b = sigmoid(s[1] - s[0]), sigmoid(s[2] - max(s[0], s[1]))
                expected["leaves"] = [(1 - a) * (1 - b), a * (1 - b), b]
            np.testing.assert_allclose(weights[0, :, row, column, 0], expected[merge_type], atol=1e-6)


def test_the_largest_image_learns_as_in_softmax(graph):
    rng = np.random.RandomState(0)
    scores, factors = [tf.constant(rng.randn(2, 3, 2, 2, 1), tf.float32) for _ in range(2)]
    largest, soft = tflib.run([tf.gradients(merge_weights(scores, kind) * factors, scores)[0] for kind in ("max", "softmax")])
    np.testing.assert_allclose(largest, soft, atol=1e-6)
    assert np.abs(soft).max() > 0.1
