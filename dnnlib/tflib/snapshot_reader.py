"""Reads network snapshot files as data.

Reading creates plain data only: names outside the table below are rejected, and nothing named or contained in the file is imported or
executed.
"""

from __future__ import annotations

import io
import os
import pickle
import pickletools
from dataclasses import dataclass

import numpy as np

from dnnlib.errors import UserError

NUMBER_TYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


@dataclass
class NetworkRecord:
    """One network of a snapshot file as data.

    Attributes:
        path: name of the file.
        name, build_func_name: str.
        static_kwargs: dict of the build function's arguments.
        values: dict local variable name -> array, components' variables included under their prefix.
    """

    path: str
    name: str
    build_func_name: str
    static_kwargs: dict
    values: dict


# What the names in a file stand for while it is read. A file decides what is called with which arguments, in any order, and can set the
# attributes of anything without __setstate__ (pickle's BUILD). So these classes only store what they are given; NumPy gets it once checked.


class _Network:
    """A network: its state."""

    state = ()

    def __setstate__(self, state):
        self.state = state


class _Dict(dict):
    """A dict, or one made from a list of pairs (Python 2)."""

    def __init__(self, pairs=()):
        super().__init__(pairs)
        if pairs:
            pairs.clear()  # moved, not copied: many dicts made from one list would fill the memory

    def __setstate__(self, state):
        raise pickle.UnpicklingError("it sets attributes of a dict")


class _NumberType:
    """A NumPy type: a plain number type, then its byte order."""

    def __init__(self, name, align=False, copy=False):
        if name not in NUMBER_TYPES:
            raise pickle.UnpicklingError(f"its arrays are of type {name!r}, accepted: {', '.join(NUMBER_TYPES)} (plain numbers)")
        self.native = self.stored = np.dtype(name)

    def __setstate__(self, state):
        _, order, subtype, names, fields = state[:5]
        if (subtype, names, fields) != (None, None, None):
            raise pickle.UnpicklingError("its arrays are of a compound type")
        self.stored = self.native.newbyteorder(order)


class _Array:
    """An array: its shape, number type and bytes (a string with a character per byte in files of Python 2 or protocol 2)."""

    def __init__(self, shape=(0,), number_type=None, data=b"", order="C"):
        self.shape, self.number_type, self.data, self.order = shape, number_type, data, order

    def __setstate__(self, state):
        _, shape, number_type, fortran, data = state
        self.__init__(shape, number_type, data, "F" if fortran else "C")

    def array(self):
        """The NumPy array, on the bytes of the file."""
        if not isinstance(self.number_type, _NumberType):
            raise pickle.UnpicklingError("an array has no number type")
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data
        array = np.ndarray(self.shape, self.number_type.stored, data, order=self.order)
        if array.nbytes != len(data):
            raise pickle.UnpicklingError(f"an array of {array.nbytes} bytes has {len(data)}")
        return array


class _Function:
    """A function that can be called but not changed."""

    __slots__ = ("_call",)

    def __init__(self, call):
        self._call = call

    def __call__(self, *arguments):
        return self._call(*arguments)

    def __setstate__(self, state):
        raise pickle.UnpicklingError("it sets attributes of a function")


def _latin1(text, encoding):
    """The string itself, whose characters are the bytes of an array."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"codec {encoding!r} is not allowed")
    return text


_reconstruct = _Function(lambda kind, shape, code: _Array())
_scalar = _Function(lambda number_type, data: _Array((), number_type, data))
_frombuffer = _Function(lambda data, number_type, shape, order: _Array(shape, number_type, data, order))
_no_bytes = _Function(lambda: b"")
_ALLOWED = {
    ("dnnlib.tflib.network", "Network"): _Network,
    ("dnnlib.util", "EasyDict"): _Dict,
    ("collections", "OrderedDict"): _Dict,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _NumberType,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("_codecs", "encode"): _Function(_latin1),
    ("builtins", "bytes"): _no_bytes,
    ("__builtin__", "bytes"): _no_bytes,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which a snapshot must not contain")
        return _ALLOWED[module, name]


def _check_sizes(data):
    """Raise if a file asks for more memory than its size justifies: Python's reader allocates what it is told before reading on."""
    for code, argument, _ in pickletools.genops(data):  # which itself raises if a string claims to be longer than the file
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > len(data):
            raise pickle.UnpicklingError(f"it numbers its objects up to {argument}")


def _state(network):
    """The state of a _Network, complete and with printable names."""
    if not isinstance(network, _Network):
        raise pickle.UnpicklingError(f"a component is {type(network).__name__}, expected a network")
    missing = {"name", "static_kwargs", "components", "build_func_name", "variables"} - set(network.state)
    if missing:
        raise pickle.UnpicklingError(f"network without {', '.join(sorted(missing))}")
    state = network.state
    names = [state["name"], state["build_func_name"], *state["static_kwargs"], *dict(state["variables"])]
    for name in names:
        if not (isinstance(name, str) and name.isprintable()):
            raise pickle.UnpicklingError(f"{name!r} is not a valid name")
    return state


def _arrays(named, limit):
    """Dict name -> array from pairs (name, _Array). More bytes than the file has are rejected: it may repeat one array endlessly."""
    arrays = {}
    for name, value in named:
        if not isinstance(value, _Array):
            raise pickle.UnpicklingError(f"variable {name} is not a numeric array")
        limit -= len(name) + len(value.data)
        if limit < 0:
            raise pickle.UnpicklingError("its arrays have more bytes than the file")
        arrays[name] = value.array()
    return arrays


def _network_variables(state):
    """Pairs (local name, _Array), those of the components under their prefix."""
    yield from dict(state["variables"]).items()
    for component in state["components"].values():
        inside = _state(component)
        if inside["components"]:
            raise pickle.UnpicklingError(f"component {inside['name']} has components")
        yield from ((f"{inside['name']}/{name}", value) for name, value in dict(inside["variables"]).items())


def _with_numbers(value):
    """An argument, with the NumPy numbers in a list or tuple converted."""
    if not isinstance(value, (list, tuple)):
        return value
    return type(value)(one.array() if isinstance(one, _Array) and one.shape == () else one for one in value)


def _as_record(network, path, limit):
    """NetworkRecord of a _Network; `limit` is the size of the file."""
    state = _state(network)
    kwargs = {name: _with_numbers(value) for name, value in state["static_kwargs"].items()}
    kwargs.update(_arrays([(name, value) for name, value in kwargs.items() if isinstance(value, _Array)], limit))
    return NetworkRecord(path, state["name"], state["build_func_name"], kwargs, _arrays(_network_variables(state), limit))


def read_records(path):
    """Read a snapshot file without building anything.

    Args:
        path: file name.

    Returns:
        List of three NetworkRecords: G, D, Gs.

    Raises:
        UserError: the file is missing, truncated, not a snapshot, or contains anything but plain data.
    """
    if not os.path.isfile(path):
        raise UserError(f"snapshot {path}: there is no such file")
    with open(path, "rb") as file:
        data = file.read()
    if data[:1] == b"<":
        raise UserError(f"snapshot {path}: this is a web page, not a snapshot (perhaps a refused download)")
    try:
        _check_sizes(data)
        networks = _Reader(io.BytesIO(data), encoding="latin1").load()
        if not (isinstance(networks, (tuple, list)) and len(networks) == 3 and all(isinstance(n, _Network) for n in networks)):
            raise pickle.UnpicklingError(f"it holds {type(networks).__name__}, expected the three networks (G, D, Gs)")
        return [_as_record(network, path, len(data)) for network in networks]
    except Exception as error:  # a damaged pickle raises almost anything
        reason = repr(str(error) or type(error).__name__)[1:-1][:300]  # one line, whatever names the file contains
        raise UserError(f"snapshot {path}: cannot be read as a network snapshot: {reason} ({len(data):,} bytes)") from None
