"""Network arguments in snapshot files: two vocabularies for the same configuration."""

from __future__ import annotations

import dataclasses
import reprlib

from dnnlib import UserError
from training.networks.config import DiscriminatorConfig, GeneratorConfig

FIRST_GENERATOR = {
    "latent_size": "z_dim",
    "dlatent_size": "w_dim",
    "label_size": "c_dim",
    "fmap_base": "channel_base",
    "fmap_max": "channel_max",
    "mapping_layersnum": "mapping_num_layers",
}
FIRST_DISCRIMINATOR = {"latent_size": "a_dim", "label_size": "c_dim", "fmap_base": "channel_base", "fmap_max": "channel_max"}

# Call options and leftovers that do not affect the variables, and arguments that only the other one of the two networks takes.
IGNORED = {
    "randomize_noise", "noise_mode", "return_dlatents", "return_ws", "dlatent_broadcast", "num_broadcast", "verbose",
    "truncation_cutoff", "dtype", "is_training", "is_validation", "structure",
    *FIRST_GENERATOR, *FIRST_DISCRIMINATOR,
    *(field.name for config_class in (GeneratorConfig, DiscriminatorConfig) for field in dataclasses.fields(config_class)),
}  # fmt: skip

# What networks here always do: only other values are worth a note.
USUAL = (("local_attention", 0), ("nonlinearity", "lrelu"))

# Probabilities for which None means 0.
PROBABILITIES = ("style_mixing", "component_mixing", "component_dropout", "attention_dropout")

TYPES = {  # annotation of a field -> accepted types
    "bool": bool,
    "int": int,
    "float": (int, float),
    "str": str,
    "tuple[float, ...]": (tuple, list),
}


def parse(kwargs, config_class, first):
    """Typed configuration from the keyword arguments of a snapshot or golden file.

    Args:
        kwargs: dict of arguments.
        config_class: class of a network's configuration.
        first: translation of the first vocabulary's names if the file uses that vocabulary, else None; names of the other vocabulary
            are ignored.

    Returns:
        (config, notes): notes are lines about unknown arguments.

    Raises:
        UserError: the resolution is missing, or a value has the wrong type or is out of range.
    """
    known = {field.name: field.type for field in dataclasses.fields(config_class)}
    translation = first or {}
    foreign = set(translation.values()) if first else set(FIRST_GENERATOR) | set(FIRST_DISCRIMINATOR)
    chosen, notes = {}, []
    for name, value in kwargs.items():
        value, target = _plain(value), translation.get(name, name)
        if name in foreign:
            continue
        if target in known:
            chosen[target] = _typed(name, 0.0 if value is None and target in PROBABILITIES else value, known[target])
        elif name not in IGNORED and (name, value) not in USUAL:
            notes.append(f"argument {name} = {reprlib.repr(value)} is not known here; the variables decide")
    if "resolution" not in chosen:
        raise UserError("network arguments: resolution is missing")
    try:
        return config_class(**chosen), notes
    except TypeError:
        nothing = ", ".join(name for name, value in chosen.items() if value is None)
        if not nothing:
            raise
        raise UserError(f"network argument {nothing}: got None, accepted: numbers and names") from None


def _plain(value):
    """NumPy numbers and arrays become Python numbers and lists."""
    return value.tolist() if hasattr(value, "tolist") else value


def _typed(name, value, annotation):
    """A value converted to the type of its field: whole floats to ints; 0, 1 and None to bools; bools to numbers. Otherwise None stays.

    Raises:
        UserError: the value has another type.
    """
    kind = annotation.partition(" | ")[0]
    if kind == "int" and isinstance(value, float) and value.is_integer():
        value = int(value)
    if kind == "bool" and value in (0, 1, None):
        value = bool(value)
    if kind in ("int", "float") and isinstance(value, bool):
        value = int(value)
    if value is not None and not isinstance(value, TYPES[kind]):
        raise UserError(f"network argument {name}: got {reprlib.repr(value)}, accepted: {annotation}")
    return [_typed(name, tap, "float") for tap in value] if isinstance(value, (tuple, list)) else value
