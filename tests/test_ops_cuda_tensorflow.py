"""The compiled ops in TensorFlow: the same grid as the kernels, derivatives, agreement with the reference twins."""

import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import benchmarks.ops
import ops
from benchmarks import ops_tensorflow
from benchmarks.cuda_kernels import ACTIVATIONS
from dnnlib import tflib, toolchain
from dnnlib.gpus import visible_gpus
from ops import builder, implementation
from tests import cuda_grid, golden
from tests.conftest import golden_path
from tests.test_ops_reference import errors_of_float16_sums
from training.networks import DiscriminatorConfig, GeneratorConfig

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("g++"), reason="no g++")]
FIR = np.array([1.0, 3.0, 2.0, 0.5])  # asymmetric, so that a forgotten flip shows


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The library with all kernels that this machine can compile, unoptimised, used only where a test says impl="cuda"."""
    patch = pytest.MonkeyPatch()
    patch.setenv("GANFORMER_CACHE", str(tmp_path_factory.mktemp("cache")))
    patch.setattr(builder, "HOST_FLAGS", ("-O1",) + builder.HOST_FLAGS[1:])
    if shutil.which("nvcc") and not visible_gpus():
        patch.setenv("GANFORMER_CUDA_ARCH", str(toolchain.find_nvcc(toolchain.find_host_compiler(), []).capabilities[0] / 10))
    with tflib.session_scope():
        assert "reference" not in ops.set_implementation("cuda")
    yield implementation.library("cuda")
    ops.set_implementation("ref")
    patch.undo()


class TensorFlowKernels:
    """The ops with the interface of cuda_kernels.Kernels. `device`: "/cpu:0" or "/gpu:0"; AssertionError if they ran elsewhere."""

    def __init__(self, library, device):
        self._library = library
        self._device = device

    def bias_act(self, x, act="linear", order=0, channels_last=True, dtype="float32", gain=1.0, clamp=-1.0, alpha=0.2, misaligned=False,
                 **terms):
        def build(place):
            inputs = [place(terms.get(name), dtype) for name in ("scale", "residual", "noise", "bias", "ref")]
            return self._library.ganformer_bias_act(place(x, dtype), *inputs, act=ACTIVATIONS.index(act), order=order, alpha=alpha,
                                                    gain=gain, clamp=clamp, channels_last=channels_last)
        return self._run(build)

    def upfirdn2d(self, x, fy, fx=None, up=(1, 1), down=(1, 1), pad=(0, 0, 0, 0), flip=False, channels_last=True, dtype="float32",
                  misaligned=False):
        def build(place):
            return self._library.ganformer_upfirdn2d(place(x, dtype), place(fy, "float32"), place(fx, "float32"), up=list(up)[::-1],
                                                     down=list(down)[::-1], pad=[pad[2], pad[3], pad[0], pad[1]], flip=flip,
                                                     channels_last=channels_last)
        return self._run(build)

    def _run(self, build):
        """The inputs are fed: an op on constants would be computed once, on the CPU, wherever it was placed."""
        feeds, metadata = {}, tf.RunMetadata()

        def place(value, dtype):
            value = np.zeros(0) if value is None else value
            tensor = tf.placeholder(tf.float32, value.shape)
            feeds[tensor] = value
            return tf.cast(tensor, dtype)

        with tflib.session_scope() as session, tf.device(self._device):
            y = build(place)
            value = session.run(tf.cast(y, tf.float32), feeds, tf.RunOptions(output_partition_graphs=True), metadata)
        nodes = [node for graph in metadata.partition_graphs for node in graph.node if node.op.startswith("Ganformer")]
        assert [node.device.lower()[-len("/cpu:0"):] for node in nodes] == [self._device.replace("/", ":")], f"ran on {nodes}"
        assert y.shape.as_list() == list(value.shape)
        return value.astype(np.float64)


def run_grid(kernels, cases):
    for seed in cases:
        for check in (cuda_grid.check_bias_act, cuda_grid.check_upfirdn2d):
            try:
                check(kernels, seed)
            except AssertionError as error:
                raise AssertionError(f"{check.__name__} case {seed}: {error}") from error


def test_cpu_kernels_agree_with_numpy(library):
    run_grid(TensorFlowKernels(library, "/cpu:0"), range(1000, 1120))


def test_cpu_kernels_pass_the_check_of_the_gpu(library):
    implementation.check(library, "/cpu:0")


@pytest.mark.parametrize("options", cuda_grid.MANY_CHANNELS_OPTIONS)
@pytest.mark.parametrize("channels, taps, dtype", [(64, 4, "float32"), (61, 4, "float32"), (264, 4, "float32"), (264, 7, "float32"),
                                                   (64, 4, "bfloat16")])
def test_cpu_kernel_for_many_channels_agrees_with_numpy(library, options, channels, taps, dtype):
    """Sizes that the random grid does not reach: rows in several tiles, several tasks per image, results of over 16 MB."""
    cuda_grid.check_many_channels(TensorFlowKernels(library, "/cpu:0"), (2, 71, 131, channels), taps, dtype, options)


@pytest.mark.parametrize("channels_last", [True, False])
def test_cpu_kernel_for_large_bias_act_agrees_with_numpy(library, channels_last):
    """A result of 17 MB, which bypasses the caches."""
    cuda_grid.check_bias_act_long_rows(TensorFlowKernels(library, "/cpu:0"), 2100, channels_last)


def test_factors_of_zero_are_refused(library, graph):
    """The shape function refuses them: it divides by them before there is an op that could."""
    for factors in ({"up": 0}, {"down": 0}):
        with pytest.raises(ValueError, match="up and down are positive"):
            ops.upfirdn_2d(tf.zeros([1, 8, 8, 8]), np.ones((4, 4)), pad=(2, 2), impl="cuda", **factors)


@pytest.mark.gpu
def test_gpu_kernels_agree_with_numpy(gpu, library):
    if not tflib.devices()[0].startswith("/gpu"):
        pytest.skip("TensorFlow does not see the GPU in this process")
    run_grid(TensorFlowKernels(library, "/gpu:0"), range(1000, 1300))


def test_an_op_that_ran_on_another_device_is_noticed(library):
    """Sessions move ops without a kernel or a device to the CPU."""
    with pytest.raises(AssertionError, match="ran on"):
        cuda_grid.check_bias_act(TensorFlowKernels(library, "/gpu:99"), 1000)


def test_products_have_the_precision_of_float32():
    """The golden files' tolerances presuppose it; by default, TensorFlow 2 uses TF32 on GPUs from Ampere on."""
    random = np.random.RandomState(0)
    a, b = random.randn(64, 256).astype(np.float32), random.randn(256, 64).astype(np.float32)
    with tflib.session_scope() as session:
        placed = [tf.placeholder(tf.float32, value.shape) for value in (a, b)]
        product = session.run(tf.matmul(*placed), dict(zip(placed, (a, b))))
    np.testing.assert_allclose(product, a.astype(np.float64) @ b, atol=2e-4)


def test_benchmark_on_the_cpu(library, monkeypatch, capsys):
    monkeypatch.setattr(implementation._state, "active", False)
    monkeypatch.setattr(ops_tensorflow, "ROUNDS", 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert benchmarks.ops.main(["--quick"]) == 0
    title, *rows = capsys.readouterr().out.splitlines()[-7:]
    assert title.split()[-5:] == ["ms", "of", "copy", "reference", "times"]
    assert [row.split()[0] for row in rows] == ["bias_act", "layer_end", "residual_sum", "up", "down", "filter"]


def directional(loss, point, direction):
    """First and second derivative of a float64 function along a direction, by central differences."""
    h = 1e-4
    after, here, before = loss(point + h * direction), loss(point), loss(point - h * direction)
    return (after - before) / (2 * h), (after - 2 * here + before) / h ** 2


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("axis", [1, 3])
def test_bias_act_derivatives_by_finite_differences(library, act, axis):
    random = np.random.RandomState(3)
    x, b = random.randn(2, 4, 3, 4), random.randn(4)
    vx, vb = random.randn(2, 4, 3, 4), random.randn(4)
    shape = [1, 1, 1, 4] if axis == 3 else [1, 4, 1, 1]
    clamp = 2.5

    def loss(point):
        u = point[:x.size].reshape(x.shape) + point[x.size:].reshape(shape)
        return np.sum(np.sin(np.clip(1.3 * cuda_grid.activation(act, u, 0), -clamp, clamp)))

    first, second = directional(loss, np.concatenate([x.ravel(), b]), np.concatenate([vx.ravel(), vb]))
    with tflib.session_scope():
        tx, tb = tf.constant(x, tf.float32), tf.constant(b, tf.float32)
        y = ops.fused_bias_act(tx, tb, act=act, gain=1.3, clamp=clamp, axis=axis, impl="cuda")
        assert kinds_of_ops() == {"GanformerBiasAct"}
        along = sum(tf.reduce_sum(g * tf.constant(v, tf.float32)) for g, v in zip(tf.gradients(tf.sin(y), [tx, tb]), (vx, vb)))
        twice = sum(tf.reduce_sum(g * tf.constant(v, tf.float32)) for g, v in zip(tf.gradients(along, [tx, tb]), (vx, vb)))
        got = tflib.run([along, twice])
    np.testing.assert_allclose(got, [first, second], rtol=2e-4, atol=2e-3)


@pytest.mark.parametrize("act", ["tanh", "softplus", "swish", "lrelu"])
def test_bias_act_derivatives_of_third_and_fourth_order_agree_with_the_reference(library, act):
    with tflib.session_scope():
        x = tf.constant(np.random.RandomState(1).randn(3, 5), tf.float32)
        results = []
        for impl, dtype in (("cuda", tf.float32), ("ref", tf.float64)):
            at = tf.cast(x, dtype)
            chain = [ops.fused_bias_act(at, act=act, impl=impl)]
            for _ in range(4):
                chain.append(tf.gradients(tf.sin(chain[-1]), at)[0])
            results.append(chain)
            assert kinds_of_ops() == {"GanformerBiasAct"}
        for got, expected in zip(*tflib.run(results)):
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


CASES = {
    "up": {"up": 2, "pad": (2, 1)},
    "down": {"down": 2, "pad": (1, 1)},
    "same": {"pad": ((2, 1), (1, 1))},
    "general": {"up": (3, 2), "down": (1, 3), "pad": ((-1, 4), (3, -2))},
}


@pytest.mark.parametrize("case", sorted(CASES))
@pytest.mark.parametrize("data_format", ["NHWC", "NCHW"])
@pytest.mark.parametrize("separable", [True, False])
def test_upfirdn_derivatives_by_finite_differences(library, case, data_format, separable):
    random = np.random.RandomState(5)
    f = np.outer(FIR, FIR[::-1] + 1) / 30 if separable else random.randn(3, 4)
    x, v = random.randn(2, 6, 5, 3), random.randn(2, 6, 5, 3)
    options = CASES[case]
    up, down, pad = [options.get(name, default) for name, default in (("up", 1), ("down", 1), ("pad", None))]
    up, down = [(value, value) if isinstance(value, int) else value for value in (up, down)]
    (top, bottom), (left, right) = (pad, pad) if isinstance(pad[0], int) else pad

    def forward(x):
        return cuda_grid.upfirdn2d(x, f, up[::-1], down[::-1], (left, right, top, bottom), channels_last=data_format == "NHWC")

    first, second = directional(lambda x: np.sum(np.sin(forward(x))), x, v)
    with tflib.session_scope():
        tx, tv = tf.constant(x, tf.float32), tf.constant(v, tf.float32)
        y = ops.upfirdn_2d(tx, f.astype(np.float32), data_format=data_format, impl="cuda", **options)
        assert y.op.type == "GanformerUpfirdn2d" and y.op.inputs[1].shape.ndims == (1 if separable else 2)
        along = tf.reduce_sum(tf.gradients(tf.sin(y), tx)[0] * tv)
        got = tflib.run([along, tf.reduce_sum(tf.gradients(along, tx)[0] * tv), y])
    np.testing.assert_allclose(got[2], forward(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got[:2], [first, second], rtol=2e-4, atol=2e-3)


@pytest.mark.parametrize("act", ["lrelu", "linear", "swish"])
def test_scaled_bias_act_agrees_with_its_reference_to_second_order(library, act):
    random = np.random.RandomState(2)
    arrays = [random.randn(*shape) for shape in ((3, 4, 5, 8), (8,), (3, 8), (3, 4, 5, 8), (1, 4, 5, 1))]
    with tflib.session_scope():
        inputs = [tf.constant(array, tf.float32) for array in arrays]
        results = []
        for impl, dtype in (("cuda", tf.float32), ("ref", tf.float64)):
            x, b, scale, residual, noise = terms = [tf.cast(tensor, dtype) for tensor in inputs]
            y = ops.scaled_bias_act(x, b, scale, residual, noise, act=act, clamp=2.0, impl=impl)
            first = tf.gradients(tf.sin(y), terms)
            second = tf.gradients(sum(tf.reduce_sum(tf.sin(g)) for g in first), terms)
            results.append([y] + first + second)
        for got, expected in zip(*tflib.run(results)):
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-4)


def test_sums_of_float16_gradients_keep_their_small_terms(library):
    with tflib.session_scope():
        assert all(error < 0.005 for error in errors_of_float16_sums("cuda"))


@pytest.mark.parametrize("rows, samples", [(1, 3), (3, 3), (1, 1), (0, 0)])
def test_noise_of_rows_that_only_show_when_it_runs(library, rows, samples):
    random = np.random.RandomState(3)
    x, noise = random.randn(samples, 4, 4, 8), random.randn(rows, 4, 4, 1)
    with tflib.session_scope():
        fed = [tf.placeholder(tf.float32, [None, *array.shape[1:]]) for array in (x, noise)]
        results = []
        for impl in ("cuda", "ref"):
            y = ops.scaled_bias_act(fed[0], noise=fed[1], act="lrelu", impl=impl)
            results.append([y, *tf.gradients(tf.sin(y), fed)])
        for got, expected in zip(*tflib.run(results, dict(zip(fed, (x, noise))))):
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_gradients_of_a_batch_of_none(library):
    with tflib.session_scope():
        terms = [tf.zeros(shape) for shape in ((0, 4, 4, 8), (8,), (0, 8), (0, 4, 4, 8), (0, 4, 4, 1))]
        found = tf.gradients(ops.scaled_bias_act(*terms, act="lrelu", impl="cuda"), terms)
        assert [gradient.shape for gradient in tflib.run(found)] == [tuple(term.shape.as_list()) for term in terms]


@pytest.fixture
def compiled(library, monkeypatch):
    """The compiled ops everywhere, as with --ops cuda."""
    monkeypatch.setattr(implementation._state, "active", True)


def kinds_of_ops():
    return {op.type for op in tf.get_default_graph().get_operations() if op.type.startswith("Ganformer")}


@pytest.mark.parametrize("name", ["ganformer_default", "ganformer_res_range_skip", "v1_stylegan2", "d_resnet", "d_skip"])
def test_networks_of_compiled_ops_agree_with_golden_files(compiled, monkeypatch, name):
    used = set()
    run = tflib.Network.run
    monkeypatch.setattr(tflib.Network, "run", lambda *args, **kwargs: (run(*args, **kwargs), used.update(kinds_of_ops()))[0])
    error, _ = golden.check_network(golden_path("networks", f"{name}.npz"))
    assert error < 5e-5
    assert used == {"GanformerBiasAct", "GanformerUpfirdn2d"}


SIZES = {"resolution": 16, "channel_base": 128, "channel_max": 16}
GENERATOR = {**SIZES, "z_dim": 8, "w_dim": 8, "mapping_num_layers": 2}
DUPLEX = {"transformer": True, "components_num": 2, "integration": "both", "kmeans": True, "norm": "layer"}
NETWORKS = {
    "StyleGAN2, resnet": GeneratorConfig(architecture="resnet", **GENERATOR),
    "StyleGAN2, skip": GeneratorConfig(**GENERATOR),
    "GANformer": GeneratorConfig(**DUPLEX, **GENERATOR),
    "discriminator": DiscriminatorConfig(architecture="resnet", **SIZES),
}


def call(network):
    """(input, result) of calling a network."""
    x = tf.constant(np.random.RandomState(0).randn(2, *network.input_shapes[0]), tf.float32)
    if network.arch_name == "Discriminator":
        return x, network.get_output_for(x, tf.zeros([2, 0])).scores
    return x, network.get_output_for(x, tf.zeros([2, 0]), noise_mode="const").images


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_network_gradients_of_compiled_ops_agree_with_the_reference(library, monkeypatch, name):
    """Second derivatives of path length and R1 with respect to every variable."""
    values = []
    for active in (True, False):
        monkeypatch.setattr(implementation._state, "active", active)
        with tflib.session_scope():
            network = tflib.Network("net", NETWORKS[name], seed=3)
            x, result = call(network)
            (slope,) = tf.gradients(tf.reduce_sum(tf.sin(result)), x)
            gradients = tf.gradients(tf.reduce_sum(tf.square(slope)), list(network.trainables.values()))
            assert bool(kinds_of_ops()) == active
            values.append(tflib.run({name: gradient for name, gradient in zip(network.trainables, gradients) if gradient is not None}))
    assert values[0].keys() == values[1].keys() and len(values[0]) > 10
    for variable, expected in values[1].items():
        np.testing.assert_allclose(values[0][variable], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max(), err_msg=variable)


@pytest.mark.parametrize("name, expected", [("StyleGAN2, resnet", [5, 2, 5]), ("StyleGAN2, skip", [5, 0, 5]), ("GANformer", [0, 0, 5]),
                                            ("discriminator", [0, 2, 0])])
def test_networks_fuse_what_ends_a_layer(compiled, name, expected):
    """Demodulation (if no attention follows), the sum of a residual block and noise are operands of the activation."""
    with tflib.session_scope():
        network = tflib.Network("net", NETWORKS[name], seed=3)
        before = set(tf.get_default_graph().get_operations())
        call(network)
        new = set(tf.get_default_graph().get_operations()) - before
        given = [[tensor.shape.num_elements() != 0 for tensor in op.inputs] for op in new if op.type == "GanformerBiasAct"]
        ends = [(scale, residual, noise) for _, scale, residual, noise, bias, _ in given if residual or bias]  # the rest scales inputs
    assert [sum(operand) for operand in zip(*ends)] == expected


@pytest.mark.parametrize("gain, clamp, expected", [(1, None, 1.0), (1.3, None, 1.3), (1, 0.5, 0.0)])
def test_a_linear_one_is_kept_for_its_gradient_only_where_it_is_clamped(library, gain, clamp, expected):
    with tflib.session_scope():
        x = tf.constant([[-2.0, 3.0]])
        y = ops.fused_bias_act(x, gain=gain, clamp=clamp, impl="cuda")
        (gradient,) = tf.gradients(y, x)
        assert y.op.type == "GanformerBiasAct" and bool(y.consumers()) == (clamp is not None)
        np.testing.assert_allclose(tflib.run(gradient), [[expected, expected]])


def test_sums_of_half_precision_gradients_are_rounded_once(library):
    slopes = np.random.RandomState(4).rand(1, 64, 64, 1).astype(np.float16)
    with tflib.session_scope():
        x, terms = tf.ones(slopes.shape, tf.float16), [tf.zeros([1]), tf.ones([1, 1])]
        y = ops.scaled_bias_act(x, *terms, act="lrelu", gain=1, impl="cuda")
        assert (y.op.type, y.dtype) == ("GanformerBiasAct", tf.float16)
        for value in tflib.run(tf.gradients(y, terms, slopes)):
            assert value.item() == np.float16(slopes.astype(np.float64).sum())


def test_unsupported_calls_use_the_reference(library, monkeypatch):
    with tflib.session_scope():
        double = ops.fused_bias_act(tf.ones([2, 3], tf.float64), impl="cuda")
        ops.upfirdn_2d(tf.ones([1, 8, 8, 4], tf.float64), np.ones((2, 2)), impl="cuda")
        ops.upfirdn_2d(tf.ones([1, 40, 8, 4]), np.ones((33, 1)), impl="cuda")
        unknown = ops.upfirdn_2d(tf.placeholder(tf.float32, [1, None, 8, 4]), np.ones((2, 2)), down=2, pad=(0, 0), impl="cuda")
        ops.fused_bias_act(tf.ones([2, 3, 4, 5]), tf.ones([4]), axis=2, impl="cuda")
        ops.fused_bias_act(tf.ones([3]), tf.ones([3]), impl="cuda")
        for name, value in (("active", True), ("on_gpu", False)):
            monkeypatch.setattr(implementation._state, name, value)
        ops.fused_bias_act(tf.ones([2, 3]), act="swish")
        negative = tf.constant([[-2.0, -1.0, 1.0]])
        rising = tf.gradients(ops.fused_bias_act(negative, act="lrelu", alpha=-0.3, gain=1, impl="cuda"), negative)[0]
        assert not any(op.type.startswith("Ganformer") for op in tf.get_default_graph().get_operations())
        np.testing.assert_allclose(tflib.run(rising), [[-0.3, -0.3, 1.0]])
        assert double.dtype == tf.float64
        assert unknown.shape.as_list() == [1, None, 4, 4]


def test_supported_calls_use_the_compiled_ops(library, monkeypatch):
    """Including calls at the limits of what is supported."""
    with tflib.session_scope():
        filtered = [ops.upfirdn_2d(tf.ones([1, 40, 8, 4]), np.ones((32, 1)), impl="cuda"),
                    ops.upfirdn_2d(tf.placeholder(tf.float32, [None, 8, 8, 4]), np.ones((2, 2)), impl="cuda")]
        activated = [ops.fused_bias_act(tf.ones([2, 3]), tf.ones([3]), axis=axis, impl="cuda") for axis in (1, -1)]
        monkeypatch.setattr(implementation._state, "active", True)
        monkeypatch.setattr(implementation._state, "on_gpu", True)
        activated.append(ops.fused_bias_act(tf.ones([2, 3]), act="swish"))
    assert {y.op.type for y in filtered} == {"GanformerUpfirdn2d"} and {y.op.type for y in activated} == {"GanformerBiasAct"}


def test_errors_name_the_argument(library):
    with tflib.session_scope():
        with pytest.raises(ValueError, match="longer than the padded input"):
            ops.upfirdn_2d(tf.ones([1, 2, 2, 1]), np.ones((4, 4)), impl="cuda")
        x, none = tf.ones([2, 3]), tf.ones([0])
        wrong = library.ganformer_bias_act(x, none, none, none, tf.ones([2]), none, act=0, order=0, alpha=0.0, gain=1.0, clamp=-1.0,
                                           channels_last=True)
        with pytest.raises(tf.errors.InvalidArgumentError, match="bias needs 3 elements, got 2"):
            tflib.run(wrong)
