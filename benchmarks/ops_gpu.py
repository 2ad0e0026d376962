"""The kernels of the compiled ops on the GPU, without TensorFlow: the part of benchmarks.ops for --device gpu.

The launchers are called through ctypes, one after the other on the default stream, and timed with the driver's events. Successive launches
use different arrays, which together exceed four times the size of the L2 cache, so that a launch never finds its inputs in the cache.
"""

import contextlib
import ctypes
import functools
import importlib.util
import shutil

import numpy as np

from benchmarks import cuda_kernels
from benchmarks.ops_cases import RESAMPLING, TAPS
from dnnlib import UserError, gpus
from dnnlib.toolchain import BuildError, query

ROUNDS = 5
LAUNCHES = 50  # timed together, at least
WARM_UP = 5
CACHES = 4  # the arrays together exceed this many times the L2 cache
COPY_BYTES = 256 << 20
COPIES_BEFORE = (8, 32, 128)
ALIGNMENT = 256  # bytes, like the driver's own allocations
L2_CACHE_SIZE = 38  # CUdevice_attribute
NOT_READY = 600  # CUresult
TERMS = {"bias_act": ("bias",), "layer_end": ("bias", "scale", "noise"), "residual_sum": ("residual",)}


def measure_all(cases, with_torch):
    """Compile the kernels and measure every case.

    Args:
        cases: the list that ops_cases.cases returns.
        with_torch: whether to measure PyTorch's composition too.

    Returns:
        (dict that describes the machine, list with a dict for every case: description, milliseconds, fraction of the copy bandwidth,
        milliseconds of a copy of the same size)

    Raises:
        UserError: there is no GPU, no nvcc or no PyTorch.
    """
    if with_torch and importlib.util.find_spec("torch") is None:
        raise UserError("--torch: PyTorch is not installed")
    machine = describe_machine()
    print("{gpu}; driver {driver}; nvcc {nvcc}".format(**machine), flush=True)
    library = cuda_kernels.device_library(gpus.visible_gpus()[0].capability)
    device = cuda_kernels.DeviceMemory()
    kernels, stopwatch = cuda_kernels.Kernels(library, device), Stopwatch(device)
    rotated = CACHES * device.attribute(L2_CACHE_SIZE)
    timers = {"copy": lambda: stopwatch.seconds([stopwatch.copy])}
    for case in cases:
        timers[case, "ms"] = functools.partial(kernel_seconds, case, rotated, kernels, device, stopwatch)
        timers[case, "copy_ms"] = functools.partial(copy_seconds, case, rotated, device, stopwatch)
        if with_torch:
            timers[case, "torch_ms"] = functools.partial(torch_seconds, case, rotated, stopwatch)
    rounds = [{name: timer() for name, timer in timers.items()} for _ in range(ROUNDS)]
    best = {name: min(times[name] for times in rounds) for name in timers}
    copy = 2 * COPY_BYTES / best["copy"]
    print(f"copy: {copy / 1e9:.1f} GB/s; arrays exceed {rotated / 1e6:.0f} MB together")
    rows = [describe(case, best, copy) for case in cases]
    return {**machine, "copy_bytes_per_second": copy, "rotated_bytes": rotated}, rows


def describe_machine():
    """The GPU's name and the releases of the driver and of nvcc: dict. UserError if there is no GPU or no nvcc."""
    visible, smi = gpus.visible_gpus(), shutil.which("nvidia-smi")
    if not visible:
        raise UserError("--device gpu: the driver shows no GPU (python -m ops.doctor says why)")
    try:
        nvcc = cuda_kernels.find_nvcc(visible[0].capability)
        driver = query([smi, "--query-gpu=driver_version", "--format=csv,noheader"]).splitlines()[0] if smi else "unknown"
    except BuildError as error:
        raise UserError(f"--device gpu: {error}") from None
    return {"gpu": visible[0].name, "driver": driver, "nvcc": nvcc.version}


def describe(case, best, copy):
    """The result row of a case, from the best times of all cases in seconds and the copy bandwidth in bytes per second."""
    op, dtype, data_format, shape = case
    row = {"op": op, "dtype": dtype, "layout": data_format, "shape": list(shape), "of_copy": moved(case) / best[case, "ms"] / copy}
    return {**row, **{name: 1e3 * best[case, name] for name in ("ms", "copy_ms", "torch_ms") if (case, name) in best}}


class Stopwatch:
    """Times work on the GPU's default stream with the driver's events.

    The host queues the launches behind copies of a large buffer, so that its own delays are not measured. If it has not queued them all
    before the copies end, it tries again with more copies; if even the most are not enough, the last time counts, host delays included.
    """

    def __init__(self, device):
        self._device = device
        self._target, self._source = (ctypes.c_uint64(device.allocate(COPY_BYTES)) for _ in range(2))
        self._start, self._stop = ctypes.c_void_p(), ctypes.c_void_p()
        for event in (self._start, self._stop):
            device.call("cuEventCreate", ctypes.byref(event), 0)

    def copy(self):
        """Start a copy of COPY_BYTES."""
        self._device.call("cuMemcpyDtoDAsync_v2", self._target, self._source, ctypes.c_size_t(COPY_BYTES), None)

    def seconds(self, launches):
        """Seconds per launch; `launches` are functions that start the same work on different arrays, called in turn."""
        in_turn = [launches[index % len(launches)] for index in range(max(LAUNCHES, len(launches)))]
        for launch in in_turn[:WARM_UP]:
            launch()
        for copies in COPIES_BEFORE:
            if self._record(in_turn, copies):
                break
        milliseconds = ctypes.c_float()
        self._device.call("cuEventElapsedTime", ctypes.byref(milliseconds), self._start, self._stop)
        return milliseconds.value / 1e3 / len(in_turn)

    def _record(self, in_turn, copies):
        """Record both events; returns whether the GPU was still copying when the last launch was queued."""
        for _ in range(copies):
            self.copy()
        self._device.call("cuEventRecord", self._start, None)
        for launch in in_turn:
            launch()
        self._device.call("cuEventRecord", self._stop, None)
        in_time = self._device.call("cuEventQuery", self._start, accepted=(0, NOT_READY)) == NOT_READY
        self._device.call("cuEventSynchronize", self._stop)
        return in_time


def kernel_seconds(case, rotated, kernels, device, stopwatch):
    """Seconds of one launch of a case's kernel, on arrays that together exceed `rotated` bytes."""
    with on_device(case, rotated, kernels, device) as structs:
        return stopwatch.seconds([functools.partial(kernels.launch, args) for args in structs])


def copy_seconds(case, rotated, device, stopwatch):
    """Seconds of a copy by the driver that moves as many bytes as the case must, between arrays that together exceed `rotated` bytes."""
    size = moved(case) // 2
    part = aligned(size)
    sets = sets_over(rotated, 2 * part)
    with random_block(device, 2 * sets * part, case[1]) as block:
        sources = [block + 2 * number * part for number in range(sets)]
        return stopwatch.seconds([functools.partial(device.copy, source + part, source, size) for source in sources])


def arguments(case):
    """(the launcher's struct without pointers, dict from field to number of elements for every array of the case's type)"""
    op, dtype, data_format, (n, c, h, w) = case
    common = {"channels_last": data_format == "NHWC", "dtype": dtype}
    picture = n * c * h * w
    if op in RESAMPLING:
        up, down, pad = (RESAMPLING[op].get(name, 1) for name in ("up", "down", "pad"))
        args = cuda_kernels.upfirdn2d_args((n, h, w, c), (len(TAPS),) * 2, (up, up), (down, down), pad * 2, **common)
        return args, {"x": picture, "y": n * c * args.out_h * args.out_w}
    act, gain = ("linear", np.sqrt(0.5)) if op == "residual_sum" else ("lrelu", np.sqrt(2))
    args = cuda_kernels.bias_act_args(n, h * w, c, act, gain=gain, **common)
    terms = {"bias": c, "scale": n * c, "noise": h * w, "residual": picture}
    return args, {"x": picture, "y": picture, **{name: terms[name] for name in TERMS[op]}}


def moved(case):
    """Bytes that a case must move: each input and output once."""
    return sum(arguments(case)[1].values()) * np.dtype(case[1]).itemsize


@contextlib.contextmanager
def on_device(case, rotated, kernels, device):
    """Structs of a case, each with its own arrays, over `rotated` bytes in total, which stay in the GPU's memory during the block."""
    args, elements = arguments(case)
    sizes = {name: number * np.dtype(case[1]).itemsize for name, number in elements.items()}
    taps = np.array(TAPS, np.float32) / sum(TAPS)
    if isinstance(args, cuda_kernels.Upfirdn2d):
        args.fx = 1  # not null: the size of the workspace depends on whether the filter is separable
        sizes.update(fy=taps.nbytes, fx=taps.nbytes, workspace=kernels.workspace(args))
    offsets, total = {}, 0
    for name, size in sizes.items():
        offsets[name] = total
        total += aligned(size)
    sets = sets_over(rotated, total)
    with random_block(device, sets * total, case[1]) as block:
        structs = [type(args).from_buffer_copy(args) for _ in range(sets)]
        for number, struct in enumerate(structs):
            for name, offset in offsets.items():
                setattr(struct, name, block + number * total + offset)
            for name in {"fy", "fx"} & set(offsets):
                device.upload(getattr(struct, name), taps)
        yield structs


def aligned(size):
    """The next multiple of ALIGNMENT."""
    return -(-size // ALIGNMENT) * ALIGNMENT


@contextlib.contextmanager
def random_block(device, size, dtype):
    """Pointer to `size` bytes of random numbers, which stay in the GPU's memory during the block."""
    block = device.allocate(size)
    try:
        cuda_kernels.fill(device, block, size, random_values(dtype))
        yield block
    finally:
        device.free(block)


def sets_over(rotated, size):
    """How many sets of arrays of `size` bytes it takes to exceed `rotated` bytes, at least two."""
    return max(2, rotated // size + 1)


@functools.lru_cache(maxsize=None)
def random_values(dtype):
    """Normally distributed numbers to fill all arrays of a type with: kernels may be faster on zeros."""
    return np.random.RandomState(0).randn(1 << 20).astype(dtype)


def torch_seconds(case, rotated, stopwatch):
    """Seconds of the composition a PyTorch user would write: grouped convolutions with the FIR, or add, leaky_relu and multiply."""
    import torch

    sets = sets_over(rotated, moved(case))
    compose, inputs = torch_composition(case, "cuda", sets)
    results = [None] * sets  # kept, so that each has its own memory

    def launch(number):
        results[number] = compose(*inputs[number])

    seconds = stopwatch.seconds([functools.partial(launch, number) for number in range(sets)])
    inputs.clear()
    results.clear()
    torch.cuda.empty_cache()
    return seconds


def torch_composition(case, device, sets):
    """(function of x and, for residual_sum, the residual; list of `sets` lists of its arguments)"""
    import torch
    import torch.nn.functional as functional

    op, dtype, data_format, (n, c, h, w) = case
    options = {"device": device, "dtype": getattr(torch, dtype)}
    memory = torch.channels_last if data_format == "NHWC" else torch.contiguous_format
    pictures = 2 if op == "residual_sum" else 1
    inputs = [[torch.randn([n, c, h, w], **options).to(memory_format=memory) for _ in range(pictures)] for _ in range(sets)]
    kernel = torch.tensor(np.outer(TAPS, TAPS) / sum(TAPS)**2, **options)[None, None].repeat(c, 1, 1, 1)
    spread = 4 * kernel
    bias, scale, noise = torch.zeros([1, c, 1, 1], **options), torch.ones([n, c, 1, 1], **options), torch.zeros([1, 1, h, w], **options)
    compositions = {
        "bias_act": lambda x: functional.leaky_relu(x + bias, 0.2) * 2**0.5,
        "layer_end": lambda x: functional.leaky_relu(x * scale + noise + bias, 0.2) * 2**0.5,
        "residual_sum": lambda x, residual: (x + residual) * 0.5**0.5,
        "up": lambda x: functional.conv_transpose2d(x, spread, stride=2, padding=1, groups=c),
        "down": lambda x: functional.conv2d(x, kernel, stride=2, padding=1, groups=c),
        "filter": lambda x: functional.conv2d(x, kernel, padding=1, groups=c),
    }
    return compositions[op], inputs
