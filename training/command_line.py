"""From a command line to typed options: parsing, presets, and the checks that need only the values themselves."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import math
import os
import re

from dnnlib import UsageError, UserError
from dnnlib.download import check_remote, is_remote
from dnnlib.errors import FALSE_WORDS, TRUE_WORDS
from training import schedule
from training.presets import BASELINES, GANFORMER_DEFAULT, GANFORMER_TASKS, MODEL_VALUES, NEEDS, OPTION_GROUPS, OPTIONS, PRESET_LAYERS


def options_class(rows, doc):
    """A dataclass of options: one field for each row (training.presets.Option), with its default."""
    fields = [(row.name, row.kind, dataclasses.field(default=row.default)) for row in rows]
    made = dataclasses.make_dataclass("Options", fields, frozen=True)
    made.__doc__ = doc
    return made


Options = options_class(OPTIONS, "Every option of run_network.py, resolved; one field for each row of training.presets.OPTIONS.")

_ROWS = {option.name: option for option in OPTIONS}
DESCRIPTION = (
    "Train, evaluate and visualize GANformers and their baselines. "
    "With none of --train, --eval and --vis: print the networks' layers and parameter counts."
)


class _Parser(argparse.ArgumentParser):
    """argparse that raises UsageError instead of exiting, and has a hint for a misspelt flag."""

    def error(self, message):
        unknown = re.match(r"unrecognized arguments: (--[^\s=]+)", message)
        if unknown:
            near = difflib.get_close_matches(unknown.group(1), self._option_string_actions, n=1)
            message += f" (did you mean {near[0]}?)" if near else " (--help lists all)"
        raise UsageError(message)


def _parse_bool(text):
    lowered = text.lower()
    if lowered not in TRUE_WORDS + FALSE_WORDS:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected True or False")
    return lowered in TRUE_WORDS


def _parse_number(kind):
    word = {int: "an integer", float: "a number or a fraction"}[kind]

    def parse(text):
        numerator, slash, denominator = text.partition("/") if kind is float else (text, "", "")
        try:
            value = kind(numerator) / kind(denominator) if slash else kind(numerator)
        except (ValueError, ZeroDivisionError):
            raise argparse.ArgumentTypeError(f"got {text!r}, expected {word}") from None
        if not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"got {text!r}, expected {word}")
        return value

    return parse


def _parse_list(text):
    return tuple(part.strip() for part in text.split(",") if part.strip())


_PARSE = {bool: _parse_bool, int: _parse_number(int), float: _parse_number(float), str: str, list: _parse_list}
_METAVAR = {bool: "BOOL", int: "N", float: "X", str: "TEXT", list: "A,B"}


def _help_text(option):
    parts = [option.help]
    if option.choices:
        choices = ", ".join(map(str, option.choices))
        parts.append(f"of {choices}" if option.kind is list else f"one of {choices}")
    if option.default is not None:
        default = ",".join(option.default) if option.kind is list else option.default
        parts.append(f"default: {default}")
    return "; ".join(parts).replace("%", "%%")


def build_parser(prog, description, groups):
    """The argparse parser of an option table. Its result contains only the flags that were given.

    Args:
        prog: name of the program.
        description: first paragraph of its --help.
        groups: list of (title, list of training.presets.Option).
    """
    parser = _Parser(prog=prog, description=description, argument_default=argparse.SUPPRESS)
    for title, rows in groups:
        group = parser.add_argument_group(title)
        for option in rows:
            extra = {"nargs": "?", "const": True} if option.kind is bool else {}
            group.add_argument(option.flag, *option.aliases, dest=option.name, type=_PARSE[option.kind], metavar=_METAVAR[option.kind],
                               help=_help_text(option), **extra)  # fmt: skip
    return parser


def parse_given(argv, prog="run_network.py", description=DESCRIPTION, groups=OPTION_GROUPS):
    """Parse a command line by an option table.

    Args:
        argv: list of strings.
        prog, description, groups: as in `build_parser`.

    Returns:
        dict option name -> value, of the flags given explicitly only.

    Raises:
        UsageError: an unknown flag, or a value that is unreadable or not accepted. (--help prints and exits.)
    """
    given = vars(build_parser(prog, description, groups).parse_args(argv))
    for option in [option for _, rows in groups for option in rows if option.name in given]:
        check_value(option, given[option.name])
    return given


def check_value(option, value):
    """Check one value against an option's range and choices.

    Args:
        option: training.presets.Option.
        value: the value, None if unset.

    Raises:
        UsageError: it is not accepted.
    """
    if value is None:
        return
    for member in value if option.kind is list else (value,):
        if option.choices and member not in option.choices:
            raise UsageError(f"{option.flag}: got {member!r}, expected one of {', '.join(map(str, option.choices))}")
    outside = (option.low is not None and value < option.low) or (option.high is not None and value > option.high)
    if outside or (option.power_of_two and value & (value - 1)):
        bounds = f"at least {option.low:g}" if option.high is None else f"from {option.low:g} to {option.high:g}"
        raise UsageError(f"{option.flag}: got {value}, expected {'a power of two, ' if option.power_of_two else ''}{bounds}")


def check_gpus(text):
    """Check --gpus: raises UsageError unless it is cpu or a comma-separated list of different numbers."""
    if not re.fullmatch(r"cpu|\d+(,\d+)*", text) or len(set(text.split(","))) < len(text.split(",")):
        raise UsageError(f"--gpus: got {text!r}, expected different GPU numbers such as 0 or 0,1, or cpu")


def check_source(flag, source):
    """Check a flag's input file: raises UserError if it does not exist, or for a gdrive:NAME that is not published."""
    if is_remote(source):
        check_remote(source)
    elif not os.path.isfile(source):
        found = "this is a folder, expected a file" if os.path.isdir(source) else "there is no such file"
        raise UserError(f"{flag} {source}: {found}")


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
    preset = preset_values(given, {**known, **given}.get("dataset"))
    notes = []
    for name in PRESET_LAYERS:
        if resolution_log2 is not None and name not in given and preset.get(name, 0) > resolution_log2:
            notes.append(f"the preset's {_ROWS[name].flag} {preset[name]} is beyond this resolution: using {resolution_log2}")
            preset[name] = resolution_log2
    values = {**known, **preset, **given}
    values = {**values, **_model_values(values, chosen=[*preset, *given]), **given}
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
    check_gpus(o.gpus)
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
