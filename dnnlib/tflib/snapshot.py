"""Network snapshots: the pickled triple (G, D, Gs).

Files have the format of the public release (class dnnlib.tflib.network.Network with a state dictionary); snapshot_reader reads them as
data.
"""

from __future__ import annotations

import copyreg
import pickle

import numpy as np

from dnnlib import download
from dnnlib.errors import UserError
from dnnlib.files import atomic_output
from dnnlib.tflib import registry
from dnnlib.tflib.network import Network
from dnnlib.tflib.snapshot_reader import read_records

FORMAT_VERSION = 4


def build_network(record, name):
    """Create a Network from a NetworkRecord and set its variables.

    Raises:
        UserError: an argument has the wrong type, or variables are missing, unexpected or of the wrong shape; the message lists them all.
    """
    what = f"snapshot {record.path}, network {record.name}"
    _, parse = registry.find_parser(record.build_func_name)
    shapes = {variable: list(np.shape(value)) for variable, value in record.values.items()}
    try:
        config, notes = parse(record.static_kwargs)
    except UserError as error:
        raise UserError(f"{what}: {error}") from None
    for note in notes:
        print(f"{what}: {note}")
    network = Network(name, config, seed=None)
    check_variables(network, shapes, what)
    network.set_values(record.values)
    return network


def check_variables(network, shapes, what):
    """Compare variable names and shapes with those of a network.

    Args:
        network: Network.
        shapes: dict local name -> list of ints.
        what: name of the source for the message.

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
    return download.fetch(source) if download.is_remote(source) else source


def _reduce_array(array):
    """Pickle an array using only names that exist in every NumPy version."""
    array = np.ascontiguousarray(array) if array.ndim else array
    return np.ndarray, (array.shape, array.dtype, array.tobytes())


def _record(name, build_func_name, static_kwargs, values, components):
    """An object to pickle: a Network that was never built and has only its state."""
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
