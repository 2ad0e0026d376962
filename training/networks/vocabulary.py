"""Arguments of networks in snapshot files: two vocabularies for the same configuration (networks.md §6)."""

from __future__ import annotations

import dataclasses

from dnnlib.errors import UserError

FIRST_GENERATOR = {
    "latent_size": "z_dim",
    "dlatent_size": "w_dim",
    "label_size": "c_dim",
    "fmap_base": "channel_base",
    "fmap_max": "channel_max",
    "mapping_layersnum": "mapping_num_layers",
}
FIRST_DISCRIMINATOR = {"latent_size": "a_dim", "label_size": "c_dim", "fmap_base": "channel_base", "fmap_max": "channel_max"}

# Call options and leftovers that say nothing about the variables.
IGNORED = {
    "randomize_noise", "noise_mode", "return_dlatents", "return_ws", "dlatent_broadcast", "num_broadcast", "local_attention", "verbose",
    "truncation_cutoff", "truncation_psi", "dtype", "is_training", "is_validation", "structure", "nonlinearity",
}  # fmt: skip


def parse(kwargs, config_class, first):
    """Typed configuration from the keyword arguments of a snapshot or golden file.

    Args:
        kwargs: dict of arguments.
        config_class: GeneratorConfig or DiscriminatorConfig.
        first: translation of the first vocabulary's names when the file uses it, else None; for every argument the spelling of the
            file's own vocabulary counts.

    Returns:
        (config, notes): notes are lines about arguments that nobody knows.

    Raises:
        UserError: no resolution, or values that no network can have.
    """
    known = {field.name for field in dataclasses.fields(config_class)}
    translation = first or {}
    foreign = set(translation.values()) if first else set(FIRST_GENERATOR) | set(FIRST_DISCRIMINATOR)
    chosen, notes = {}, []
    for name, value in kwargs.items():
        target = translation.get(name, name)
        if name in foreign:
            continue
        if target in known:
            chosen[target] = _plain(value)
        elif name not in IGNORED:
            notes.append(f"argument {name} = {value!r} is not known here; the variables decide")
    if "resolution" not in chosen:
        raise UserError("network arguments: resolution is missing")
    return config_class(**chosen), notes


def _plain(value):
    """NumPy numbers become Python numbers."""
    return value.item() if hasattr(value, "item") and not getattr(value, "shape", ()) else value


def is_first(kwargs):
    """Whether keyword arguments without a build function's name use the first vocabulary."""
    second = {"z_dim", "w_dim", "c_dim", "a_dim", "channel_base", "channel_max", "mapping_num_layers"}
    return bool((set(FIRST_GENERATOR) | set(FIRST_DISCRIMINATOR)) & set(kwargs)) and not second & set(kwargs)
