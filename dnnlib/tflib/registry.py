"""The table of network architectures, looked up by the class of their configuration.

The framework itself has no architectures. The package named in DEFINITIONS registers them; it is imported at first use, so that a
snapshot can be opened with `from dnnlib.tflib import load_snapshot` alone.
"""

from __future__ import annotations

import importlib
from dataclasses import asdict, dataclass, field
from typing import Callable

from dnnlib.errors import UserError

DEFINITIONS = "training.networks"


@dataclass(frozen=True)
class Part:
    """A network, or a part of one that can be called on its own.

    Attributes:
        build: function (config, *inputs, **options) -> EasyDict of tensors; creates or reuses variables of the current scope.
        inputs: function config -> list of (name, shape without the batch axis).
        outputs: names of all outputs that `build` can return to a caller of Network.run, in order.
        group: function config -> size of the groups of samples that are compared with each other (minibatch standard deviation), so
            that the result for a sample depends on the whole batch; None if it does not.
    """

    build: Callable
    inputs: Callable
    outputs: tuple
    group: Callable | None = None


@dataclass(frozen=True)
class Architecture:
    """One registered network type.

    Attributes:
        name: its name in snapshot files and messages ("Generator").
        config_class: dataclass of its configuration.
        whole: the network as a Part.
        parts: further Parts by name ("mapping", "synthesis"), built in the same variable scope.
        components: sub-networks in snapshot files: name -> variable prefix ("mapping" -> "G_mapping").
        parsers: build function names found in snapshot files -> function keyword arguments -> (config, notes).
        to_kwargs: function (config, component name or None) -> keyword arguments to store in a snapshot file; by
            default all of the configuration.
        after_update: function (dict local name -> tf.Variable) -> operations to run once after each update of the trainable variables.
    """

    name: str
    config_class: type
    whole: Part
    to_kwargs: Callable = lambda config, component: asdict(config)
    parsers: dict = field(default_factory=dict)
    parts: dict = field(default_factory=dict)
    components: dict = field(default_factory=dict)
    after_update: Callable | None = None


_architectures = {}  # by configuration class


def register(architecture):
    """Add an Architecture to the table."""
    _architectures[architecture.config_class] = architecture


def find_for(config):
    """The Architecture that a configuration belongs to.

    Raises:
        ValueError: there is none.
    """
    importlib.import_module(DEFINITIONS)
    if type(config) not in _architectures:
        accepted = ", ".join(config_class.__name__ for config_class in _architectures)
        raise ValueError(f"configuration of a network: got {type(config).__name__}, expected one of {accepted}")
    return _architectures[type(config)]


def find_parser(build_func_name):
    """(Architecture, parser) for a build function named in a snapshot file.

    Raises:
        UserError: no architecture knows the name.
    """
    importlib.import_module(DEFINITIONS)
    for architecture in _architectures.values():
        if build_func_name in architecture.parsers:
            return architecture, architecture.parsers[build_func_name]
    known = sorted(name for architecture in _architectures.values() for name in architecture.parsers)
    raise UserError(f"snapshot: network type {build_func_name!r} is unknown, accepted: {', '.join(known)}")
