"""The kernels without TensorFlow, called through ctypes: the .cu files compiled for the CPU through the host shim, or by nvcc for a GPU;
the CPU kernels behind the same interface."""

import atexit
import ctypes
import functools
import os
import shutil
import subprocess
import tempfile

import numpy as np

SOURCES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "ops", "cuda")
KERNELS = ("bias_act.cu", "upfirdn2d.cu")
ACTIVATIONS = ("linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish")
TYPES = ("float32", "float16", "bfloat16")
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-sanitize=vptr", "-g")
NUMERIC_TYPES = """// All that the CPU kernels need of TensorFlow's header.
namespace Eigen {
struct half {
  _Float16 value;
  half() = default;
  explicit half(float number) : value(static_cast<_Float16>(number)) {}
  explicit operator float() const { return value; }
};
}
"""

_pointer, _long, _int, _float = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, ctypes.c_float


class BiasAct(ctypes.Structure):
    """GanformerBiasAct of launchers.h."""

    _fields_ = [(name, _pointer) for name in ("x", "scale", "residual", "noise", "bias", "ref", "y")] + \
               [(name, _long) for name in ("samples", "channels", "pixels", "noise_samples")] + \
               [(name, _int) for name in ("channels_last", "type", "act", "order")] + \
               [(name, _float) for name in ("alpha", "gain", "clamp")]


class Upfirdn2d(ctypes.Structure):
    """GanformerUpfirdn2d of launchers.h."""

    _fields_ = [(name, _pointer) for name in ("x", "fy", "fx", "y", "workspace")] + \
               [(name, _long) for name in ("samples", "channels", "in_h", "in_w", "out_h", "out_w")] + \
               [(name, _int) for name in ("taps_y", "taps_x", "up_y", "up_x", "down_y", "down_x", "pad_y0", "pad_x0",
                                          "flip", "channels_last", "type")]


def encode(values, dtype):
    """float64 values as the bytes of `dtype`, bfloat16 as uint16."""
    if dtype != "bfloat16":
        return np.ascontiguousarray(values, dtype)
    with np.errstate(invalid="ignore"):
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)).astype(np.uint16)


def decode(stored, dtype):
    """The float64 values of an array that `encode` made."""
    if dtype == "bfloat16":
        stored = (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    with np.errstate(invalid="ignore"):  # signalling NaN among all bit patterns
        return stored.astype(np.float64)


class HostMemory:
    """Blocks of exactly the asked size from malloc, which the address sanitizer watches."""

    def __init__(self):
        self._libc = ctypes.CDLL(None)
        self._libc.malloc.restype = _pointer
        self._libc.malloc.argtypes = [ctypes.c_size_t]
        self._libc.free.argtypes = [_pointer]

    def allocate(self, size):
        return self._libc.malloc(max(size, 1))

    def upload(self, pointer, array):
        ctypes.memmove(pointer, array.ctypes.data, array.nbytes)

    def download(self, array, pointer):
        ctypes.memmove(array.ctypes.data, pointer, array.nbytes)

    def free(self, pointer):
        self._libc.free(pointer)


class DeviceMemory:
    """The first GPU's memory through the driver alone. Its copies wait for the kernels and report their errors."""

    def __init__(self):
        self._driver = ctypes.CDLL("libcuda.so.1")
        context, device = _pointer(), _int()
        self._check(self._driver.cuInit(0))
        self._check(self._driver.cuDeviceGet(ctypes.byref(device), 0))
        self._check(self._driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
        self._check(self._driver.cuCtxSetCurrent(context))

    @staticmethod
    def _check(code):
        if code:
            raise RuntimeError(f"CUDA driver error {code}")

    def allocate(self, size):
        pointer = ctypes.c_uint64()
        self._check(self._driver.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(max(size, 1))))
        return pointer.value

    def upload(self, pointer, array):
        if array.nbytes:
            self._check(self._driver.cuMemcpyHtoD_v2(ctypes.c_uint64(pointer), _pointer(array.ctypes.data), ctypes.c_size_t(array.nbytes)))

    def download(self, array, pointer):
        if array.nbytes:
            self._check(self._driver.cuMemcpyDtoH_v2(_pointer(array.ctypes.data), ctypes.c_uint64(pointer), ctypes.c_size_t(array.nbytes)))

    def free(self, pointer):
        self._check(self._driver.cuMemFree_v2(ctypes.c_uint64(pointer)))


class Kernels:
    """The launchers of a shared library on NumPy arrays."""

    def __init__(self, path, memory):
        self._library = ctypes.CDLL(path)
        self._library.ganformer_upfirdn2d_workspace.restype = _long
        self._memory = memory

    def bias_act(self, x, act="linear", order=0, channels_last=True, dtype="float32", gain=1.0, clamp=-1.0, alpha=0.2, misaligned=False,
                 **terms):
        """x [N, pixels, C] or [N, C, pixels] float64; terms: scale [N, C], residual, noise [N or 1, pixels], bias [C], ref."""
        samples, channels, pixels = (x.shape[0], x.shape[2], x.shape[1]) if channels_last else x.shape
        noise_samples = len(terms["noise"]) if terms.get("noise") is not None else 1
        args = BiasAct(samples=samples, channels=channels, pixels=pixels, noise_samples=noise_samples, channels_last=channels_last,
                       type=TYPES.index(dtype), act=ACTIVATIONS.index(act), order=order, alpha=alpha, gain=gain, clamp=clamp)
        inputs = dict(terms, x=x)
        return self._call(self._library.ganformer_bias_act, args, {name: encode(value, dtype) for name, value in inputs.items()},
                          x.shape, dtype, misaligned=misaligned)

    def upfirdn2d(self, x, fy, fx=None, up=(1, 1), down=(1, 1), pad=(0, 0, 0, 0), flip=False, channels_last=True, dtype="float32",
                  misaligned=False):
        """x [N, H, W, C] or [N, C, H, W] float64; fy [taps] with fx [taps], or fy [taps_y, taps_x]; up (x, y), pad (x0, x1, y0, y1)."""
        samples, in_h, in_w, channels = x.shape if channels_last else np.moveaxis(x, 1, 3).shape
        taps_y, taps_x = fy.shape if fx is None else (len(fy), len(fx))
        out_h = (in_h * up[1] + pad[2] + pad[3] - taps_y) // down[1] + 1
        out_w = (in_w * up[0] + pad[0] + pad[1] - taps_x) // down[0] + 1
        args = Upfirdn2d(samples=samples, channels=channels, in_h=in_h, in_w=in_w, out_h=out_h, out_w=out_w, taps_y=taps_y, taps_x=taps_x,
                         up_y=up[1], up_x=up[0], down_y=down[1], down_x=down[0], pad_y0=pad[2], pad_x0=pad[0], flip=flip,
                         channels_last=channels_last, type=TYPES.index(dtype))
        inputs = {"x": encode(x, dtype), "fy": encode(fy, "float32")}
        if fx is not None:
            inputs["fx"] = encode(fx, "float32")
            args.fx = 1  # the answer depends on whether the filter is separable
        shape = (samples, out_h, out_w, channels) if channels_last else (samples, channels, out_h, out_w)
        workspace = self._library.ganformer_upfirdn2d_workspace(ctypes.byref(args))
        return self._call(self._library.ganformer_upfirdn2d, args, inputs, shape, dtype, workspace, misaligned)

    def _call(self, function, args, inputs, shape, dtype, workspace=0, misaligned=False):
        """Results start as NaN, so that what the kernel does not write is seen."""
        out = np.full(shape, 0x7FC0 if dtype == "bfloat16" else np.nan, np.uint16 if dtype == "bfloat16" else dtype)
        offset = out.itemsize if misaligned else 0
        blocks = []

        def place(name, size, array=None):
            shift = offset if name in ("x", "y") else 0
            blocks.append(self._memory.allocate(size + shift))
            if array is not None:
                self._memory.upload(blocks[-1] + shift, array)
            setattr(args, name, blocks[-1] + shift)
            return blocks[-1] + shift

        try:
            for name, array in inputs.items():
                place(name, array.nbytes, array)
            result = place("y", out.nbytes, out)
            if workspace:
                place("workspace", workspace)
            code = function(ctypes.byref(args), None)
            if code:
                raise RuntimeError(f"launcher returned CUDA error {code}")
            self._memory.download(out, result)
        finally:
            for block in blocks:
                self._memory.free(block)
        return decode(out, dtype)


@functools.lru_cache(maxsize=None)
def _folder():
    folder = tempfile.mkdtemp(prefix="ganformer_kernels_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _compile(command, library):
    path = os.path.join(_folder(), library)
    subprocess.run(command + ["-o", path], check=True, cwd=SOURCES)
    return path


@functools.lru_cache(maxsize=None)
def shim_library(sanitize=False):
    """Compile the kernels for the CPU; returns the library's path. With `sanitize`, libasan must be preloaded."""
    flags = list(SANITIZE) if sanitize else []
    kind = "asan" if sanitize else "plain"
    compilers = {}
    for kernel in KERNELS:
        target = os.path.join(_folder(), f"{kernel}.{kind}.o")
        command = ["g++", "-std=c++17", "-O1", "-Wall", "-Werror", "-fPIC", "-c", "-x", "c++", kernel, "-o", target]
        compilers[target] = subprocess.Popen(command + flags, cwd=SOURCES)
    assert [compiler.wait() for compiler in compilers.values()] == [0] * len(KERNELS)
    return _compile(["g++", "-shared"] + flags + list(compilers), f"shim_{kind}.so")


@functools.lru_cache(maxsize=None)
def cpu_library(sanitize=False):
    """Compile the CPU kernels; returns the library's path. With `sanitize`, libasan must be preloaded."""
    folder = os.path.join(_folder(), "tensorflow", "core", "framework")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "numeric_types.h"), "w", encoding="utf-8") as file:
        file.write(NUMERIC_TYPES)
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cpu_kernels.cc")
    command = ["g++", "-std=c++14", "-O1", "-march=native", "-Wall", "-Werror", "-Wno-unknown-pragmas", "-fPIC", "-shared"]
    command += [f"-I{SOURCES}", f"-I{_folder()}", source] + (list(SANITIZE) if sanitize else [])
    return _compile(command, f"cpu_{'asan' if sanitize else 'plain'}.so")


def sanitizer_runtime():
    """Path of libasan, or None where g++ has none."""
    path = subprocess.run(["g++", "-print-file-name=libasan.so"], stdout=subprocess.PIPE, text=True).stdout.strip()
    return os.path.realpath(path) if os.path.isabs(path) else None


def shim_kernels():
    """The kernels on the CPU."""
    return Kernels(shim_library(), HostMemory())


@functools.lru_cache(maxsize=None)
def device_kernels():
    """The kernels on the first GPU, compiled for it alone."""
    path = _compile(["nvcc", "-std=c++14", "-O3", "-arch=native", "-Xcompiler", "-fPIC", "-shared"] + list(KERNELS), "device.so")
    return Kernels(path, DeviceMemory())
