"""From a command line to run_network.py's options: presets, and the checks that need only the values themselves."""

from __future__ import annotations

import math
import re

from dnnlib import UsageError, option_table
from training import schedule
from training.presets import BASELINES, GANFORMER_DEFAULT, GANFORMER_TASKS, MODEL_VALUES, NEEDS, OPTION_GROUPS, OPTIONS, PRESET_LAYERS

Options = option_table.options_class(OPTIONS, "Every option of run_network.py, resolved.")

_ROWS = {option.name: option for option in OPTIONS}
DESCRIPTION = (
    "Train, evaluate and visualize GANformers and their baselines. "
    "With none of --train, --eval and --vis: print the networks' layers and parameter counts."
)


def parse_given(argv):
    """The flags of run_network.py that a command line gives: dict option name -> value. Errors as of `dnnlib.option_table.parse_given`."""
    return option_table.parse_given(argv, "run_network.py", DESCRIPTION, OPTION_GROUPS)


def preset_values(given, dataset):
    """The values that --ganformer-default or --baseline stand for.

    Args:
        given: dict of the flags given explicitly.
        dataset: name of the dataset, or None.

    Returns:
        dict option name -> value.

    Raises:
        UsageError: both are given.
    """
    if given.get("ganformer_default") and given.get("baseline"):
        raise UsageError(f"--ganformer-default and --baseline {given['baseline']}: give only one of them")
    if given.get("ganformer_default"):
        return {**GANFORMER_DEFAULT, **GANFORMER_TASKS.get(dataset, {})}
    return dict(BASELINES.get(given.get("baseline"), {}))


def _model_values(values, chosen):
    """What --g-model and --d-model imply if one of them was chosen: dict option name -> value."""
    if not {"g_model", "d_model"} & set(chosen):
        return {}
    return MODEL_VALUES.get(tuple(values.get(name, _ROWS[name].default) for name in ("g_model", "d_model")), {})


def resolve(given, stored=None, resolution_log2=None):
    """Combine defaults, stored options, preset and given flags; later ones win.

    Args:
        given: dict of the flags given explicitly.
        stored: dict of a run's stored options (--reload), or None.
        resolution_log2: log2 of the dataset's width, if known: layers that a preset names are lowered to fit it.

    Returns:
        (Options, list of notes for the user). A --vis-* flag turns --vis on.

    Raises:
        UsageError: an impossible value or combination.
    """
    if "vis" not in given and any(name.startswith("vis_") and value is not False for name, value in given.items()):
        given = {**given, "vis": True}
    known = {name: value for name, value in (stored or {}).items() if name in _ROWS}
    dataset = {**known, **given}.get("dataset")
    preset = preset_values(given, dataset)
    if dataset == known.get("dataset") and preset == preset_values({name: known.get(name) for name in given}, dataset):
        preset = {}  # the stored options were made with it, and with flags that won over it
    notes = []
    for name in PRESET_LAYERS:
        if resolution_log2 is not None and name not in given and preset.get(name, 0) > resolution_log2:
            notes.append(f"the preset's {_ROWS[name].flag} {preset[name]} is beyond this resolution: using {resolution_log2}")
            preset[name] = resolution_log2
    values = {**known, **preset, **given}
    chosen = [name for name, value in {**preset, **given}.items() if value != known.get(name)]
    values = {**values, **_model_values(values, chosen), **given}
    values = {name: tuple(value) if _ROWS[name].kind is list else value for name, value in values.items()}
    options = Options(**values)
    if options.train or not (options.eval or options.vis):  # these two take the networks as they are
        notes += _without_effect(options, given, resolution_log2)
    _check_combinations(options)
    if resolution_log2 is not None:
        _check_layers(options, resolution_log2)
    return options, notes


def _without_effect(options, given, resolution_log2):
    """Notes on given flags that have no effect because something they depend on is off."""
    notes = []
    for needs, names in NEEDS:
        for name in names:
            on = name in given and getattr(options, name) != _ROWS[name].default
            if on and not any(_has(options, need) for need in needs):
                notes.append(f"{_ROWS[name].flag} has no effect without {' or '.join(_flag_of(need) for need in needs)}")
    if options.mapping_ltnt2ltnt and options.mapping_shared_dim:
        notes.append("--mapping-ltnt2ltnt has no effect with --mapping-shared-dim, which maps all components jointly")
    last = resolution_log2 or math.inf
    for letter, lowest, on in (("g", 2, options.transformer), ("d", 3, options.d_transformer)):
        first, end = getattr(options, f"{letter}_start_res"), getattr(options, f"{letter}_end_res")
        if on and max(first, lowest) >= min(end, last + 1):
            layers = f"{lowest} to {last}" if resolution_log2 else f"from {lowest} on"
            notes.append(f"--{letter}-start-res {first} --{letter}-end-res {end}: no layer has attention (its layers: {layers})")
    if options.ema_warmup and options.pretrained_pkl != "None":
        notes.append("--ema-warmup has no effect with --pretrained-pkl, which continues the snapshot's Gs")
    if options.d_img2img in (1, 2):
        notes.append(f"--d-img2img {options.d_img2img} has no effect: attention in the discriminator starts at 3 (8 pixels)")
    return notes


def _has(options, need):
    """Whether an option ("name") is on, or ("name value") has that value."""
    name, _, value = need.partition(" ")
    return getattr(options, name) == value if value else getattr(options, name) not in (False, 0, "none", "non")


def _flag_of(need):
    name, _, value = need.partition(" ")
    return f"{_ROWS[name].flag} {value}".strip()


def _check_combinations(options):
    """Check combinations of options, as far as no dataset is needed."""
    o = options
    option_table.check_gpus(o.gpus)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", o.expname):
        raise UsageError(f"--expname: got {o.expname!r}, expected letters, digits, '.', '_' and '-'")
    if o.latent_size % o.components_num:
        raise UsageError(f"--latent-size {o.latent_size}: expected a multiple of --components-num {o.components_num}")
    if o.transformer and o.kgan:
        raise UsageError("--transformer and --kgan: give only one of them")
    if o.components_num > 1 and not (o.transformer or o.kgan):
        raise UsageError(f"--components-num {o.components_num}: more than 1 needs --transformer or --kgan")
    if o.kgan and o.components_num == 1:
        raise UsageError("--kgan: needs --components-num of 2 or more")
    if (o.latent_size // o.components_num) % o.num_heads:
        raise UsageError(f"--num-heads {o.num_heads}: expected a divisor of the component size {o.latent_size // o.components_num}")
    if o.g_model == "ViTGAN" and (o.transformer or o.kgan):
        raise UsageError("--g-model ViTGAN: --transformer and --kgan need --g-model StyleGAN2")
    if o.d_model == "ViTGAN" and o.d_transformer:
        raise UsageError("--d-model ViTGAN: --d-transformer needs --d-model StyleGAN2")
    if "ViTGAN" in (o.g_model, o.d_model) and o.vit_dim % o.vit_heads:
        raise UsageError(f"--vit-heads {o.vit_heads}: expected a divisor of --vit-dim {o.vit_dim}")
    if o.precision == "mixed" and "ViTGAN" in (o.g_model, o.d_model):
        raise UsageError("--precision mixed: ViTGAN computes in fp32")
    if o.augment == "none" and (o.bcr_real or o.bcr_fake):
        raise UsageError("--bcr-real and --bcr-fake: consistency under augmentation needs --augment diffaug")
    if o.images_dir and not o.prepare and (o.train or not o.eval):
        raise UsageError(f"--images-dir {o.images_dir}: expected with --eval and without --train, or with --prepare")
    if o.last_snapshots == 0:
        raise UsageError("--last-snapshots: got 0, expected 1 or more, or -1 for all")
    if o.train or o.dry_run:
        schedule.rounds_per_step(o.batch_size, o.batch_gpu, len(o.gpus.split(",")))
        group = schedule.MBSTD_GROUP_SIZE
        if o.d_model == "StyleGAN2" and o.batch_gpu % min(o.batch_gpu, group):
            raise UsageError(f"--batch-gpu {o.batch_gpu}: expected a multiple of {group}, or less (minibatch standard deviation)")


def _check_layers(options, resolution_log2):
    """Check that the layers named by options exist at this resolution."""
    for name in ("g_img2img", "d_img2img", "merge_layer"):
        value = getattr(options, name)
        if value > resolution_log2:
            last = f"{resolution_log2} ({2 ** resolution_log2} pixels)"
            raise UsageError(f"{_ROWS[name].flag} {value}: the last resolution of this dataset is {last}")
    patch, width = options.vit_patch or 2, 2**resolution_log2
    if "ViTGAN" in (options.g_model, options.d_model) and (width % patch or patch % 2):
        raise UsageError(f"--vit-patch {patch}: expected an even divisor of the dataset's width {width}")


def eval_batch_gpu(options):
    """Images that one device takes at once outside of training: --eval-batch-gpu, or else --batch-gpu."""
    return options.eval_batch_gpu or options.batch_gpu


def options_document():
    """The option reference, docs/options.md (python -m training.command_line > docs/options.md)."""
    lines = [
        "# Options of run_network.py",
        "",
        DESCRIPTION,
        "",
        "A BOOL flag takes an optional value (`--style`, `--style False`); a number may be a fraction (`--ratio 188/256`).",
        "A flag given explicitly overrides a preset, in any spelling.",
        "This page is generated by `python -m training.command_line` from the table in training/presets.py.",
        "",
    ]
    for title, rows in OPTION_GROUPS:
        lines += [f"## {title}", "", "| flag | default | meaning |", "|---|---|---|", *(_document_row(option) for option in rows), ""]
    lines += ["## Presets", ""]
    presets = [("--ganformer-default", GANFORMER_DEFAULT)]
    presets += [(f"--ganformer-default, dataset {task}", values) for task, values in GANFORMER_TASKS.items()]
    presets += [(f"--baseline {name}", values) for name, values in BASELINES.items()]
    presets += [(f"--g-model {g_model} --d-model {d_model}", values) for (g_model, d_model), values in MODEL_VALUES.items()]
    for name, values in presets:
        words = " ".join(f"{_ROWS[option].flag} {value}" for option, value in values.items())
        lines.append(f"* `{name}`: {f'`{words}`' if words else 'the defaults'}")
    return "\n".join(lines)


def _document_row(option):
    flags = ", ".join(f"`{flag}`" for flag in (option.flag, *option.aliases))
    default = ",".join(option.default) if option.kind is list else option.default
    choices = f" ({', '.join(option.choices)})" if option.choices else ""
    meaning = re.sub(r"\S*<\S*>", r"`\g<0>`", option.help)  # outside backticks Markdown takes <...> for HTML
    return f"| {flags} | {'' if default is None else default} | {meaning}{choices} |"


if __name__ == "__main__":
    print(options_document())
