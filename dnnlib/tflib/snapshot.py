"""Network snapshots: the pickled triple (G, D, Gs), read as data.

Files keep the form of the public release (class dnnlib.tflib.network.Network with a state dictionary). Reading builds plain data only:
names outside the table below are refused, and nothing named or contained in the file is imported or executed.
"""

from __future__ import annotations

import collections
import copyreg
import io
import os
import pickle

import numpy as np

from dnnlib.errors import UserError
from dnnlib.files import atomic_output
from dnnlib.tflib import registry
from dnnlib.tflib.network import Network
from dnnlib.util import EasyDict

FORMAT_VERSION = 4


class NetworkRecord:
    """One network of a snapshot file as data.

    Attributes:
        name, build_func_name: str.
        static_kwargs: dict of the build function's arguments.
        components: dict name -> NetworkRecord.
        values: dict local variable name -> array, components' variables included under their prefix.
    """

    def __setstate__(self, state):
        missing = {"name", "static_kwargs", "components", "build_func_name", "variables"} - set(state)
        if missing:
            raise pickle.UnpicklingError(f"network without {', '.join(sorted(missing))}")
        self.name = state["name"]
        self.build_func_name = state["build_func_name"]
        self.static_kwargs = dict(state["static_kwargs"])
        self.components = dict(state["components"])
        self.values = dict(state["variables"])
        for component in self.components.values():
            self.values.update({f"{component.name}/{name}": value for name, value in component.values.items()})
        for name, value in self.values.items():
            if not isinstance(value, (np.ndarray, np.generic)) or np.asarray(value).dtype.kind not in "fiub":
                raise pickle.UnpicklingError(f"variable {name} is not a numeric array")


def _codecs_encode(text, encoding):
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"codec {encoding} is not allowed")
    return text.encode(encoding)


_reconstruct = np.zeros(0).__reduce__()[0]
_scalar = np.float32(0).__reduce__()[0]
_ALLOWED = {
    ("dnnlib.tflib.network", "Network"): NetworkRecord,
    ("dnnlib.util", "EasyDict"): EasyDict,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): _codecs_encode,
    ("builtins", "bytes"): bytes,
    ("__builtin__", "bytes"): bytes,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which a snapshot must not contain")
        return _ALLOWED[module, name]


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
        raise UserError(f"snapshot {path}: this is a web page, not a snapshot (a download that was refused?)")
    try:
        records = _Reader(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # a damaged pickle raises almost anything
        raise UserError(f"snapshot {path}: cannot be read: {error or type(error).__name__} ({len(data):,} bytes)") from None
    if not (isinstance(records, (tuple, list)) and len(records) == 3 and all(isinstance(r, NetworkRecord) for r in records)):
        raise UserError(f"snapshot {path}: holds {type(records).__name__}, expected the three networks (G, D, Gs)")
    return list(records)


def build_network(record, name):
    """Create a Network from a NetworkRecord and set its variables.

    Raises:
        UserError: variables are missing, unexpected or of another shape; the message lists them all.
    """
    architecture, parse = registry.find_parser(record.build_func_name)
    shapes = {variable: list(np.shape(value)) for variable, value in record.values.items()}
    config, notes = parse(record.static_kwargs)
    for note in notes:
        print(f"snapshot, network {record.name}: {note}")
    network = Network(name, architecture.name, config)
    check_variables(network, shapes, f"network {record.name}")
    network.set_values(record.values)
    return network


def check_variables(network, shapes, what):
    """Compare variable names and shapes with those of a network.

    Args:
        network: Network.
        shapes: dict local name -> list of ints.
        what: the source's name for the message.

    Raises:
        UserError: they differ; every difference is listed.
    """
    expected = {name: variable.shape.as_list() for name, variable in network.variables.items()}
    problems = [f"missing {name} {expected[name]}" for name in expected if name not in shapes]
    problems += [f"unexpected {name} {shapes[name]}" for name in shapes if name not in expected]
    both = [name for name in expected if name in shapes and shapes[name] != expected[name]]
    problems += [f"{name} is {shapes[name]}, expected {expected[name]}" for name in both]
    if problems:
        raise UserError(f"{what}: {len(problems)} variables do not fit {network.arch_name}: {'; '.join(problems)}")


def load_snapshot(source):
    """Load the networks of a snapshot.

    Args:
        source: path, http(s) URL, or gdrive:NAME of a published snapshot.

    Returns:
        (G, D, Gs): Networks in the current graph, with the stored configuration and values.

    Raises:
        UserError: see `read_records` and `build_network`.
    """
    records = read_records(local_path(source))
    return tuple(build_network(record, name) for record, name in zip(records, ("G", "D", "Gs")))


def local_path(source):
    """The file behind a path, URL or gdrive:NAME; the latter two are downloaded into the cache at first use."""
    if source.startswith(("http://", "https://", "gdrive:")):
        from dnnlib import download  # only here: reading a local file needs no network code

        return download.fetch(source)
    return source


def _reduce_array(array):
    """Pickle an array through names that every NumPy version knows."""
    array = np.ascontiguousarray(array) if array.ndim else array
    return np.ndarray, (array.shape, array.dtype, array.tobytes())


def _record(name, build_func_name, static_kwargs, values, components):
    """A pickle-ready object: a Network that was never built and holds only its state."""
    record = Network.__new__(Network)
    record.__dict__.update(
        version=FORMAT_VERSION,
        name=name,
        static_kwargs=static_kwargs,
        components=components,
        build_module_src="",
        build_func_name=build_func_name,
        variables=[(variable, np.asarray(value)) for variable, value in values.items()],
    )
    return record


def _network_record(network):
    values = network.get_values()
    components = {}
    for component, prefix in network.arch.components.items():
        own = {name: values.pop(name) for name in list(values) if name.startswith(prefix + "/")}
        own = {name[len(prefix) + 1 :]: value for name, value in own.items()}
        components[component] = _record(prefix, prefix, network.arch.to_kwargs(network.config, component), own, {})
    return _record(network.name, network.arch_name, network.arch.to_kwargs(network.config, None), values, components)


def save_snapshot(path, networks):
    """Write networks as a snapshot file, atomically.

    Args:
        path: file name.
        networks: (G, D, Gs).
    """
    records = tuple(_network_record(network) for network in networks)
    with atomic_output(path) as file:
        pickler = pickle.Pickler(file, protocol=3)
        pickler.dispatch_table = copyreg.dispatch_table.copy()
        pickler.dispatch_table[np.ndarray] = _reduce_array
        pickler.dump(records)
