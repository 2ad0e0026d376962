"""Command lines made from tables of options: flags, --help, typed values, checks of ranges and choices."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import math
import os
import re
from typing import NamedTuple

from dnnlib.download import check_remote, is_remote
from dnnlib.errors import FALSE_WORDS, TRUE_WORDS, UsageError, UserError


class Option(NamedTuple):
    """One command-line option. Its flag is the name with dashes (a name that is a Python keyword ends in _)."""

    name: str
    kind: type                      # bool, int, float, str, or list (comma-separated names)
    default: object                 # None: depends on the dataset, the device or another option, as the help says
    help: str
    choices: tuple = ()             # accepted values, or accepted members of a list
    low: float | None = None        # smallest accepted value
    high: float | None = None       # largest accepted value
    aliases: tuple = ()             # older spellings of the flag
    power_of_two: bool = False      # whether only powers of two are accepted
    of_the_call: bool = False       # says what to do now and where: --reload does not take it from the run

    @property
    def flag(self):
        return "--" + self.name.rstrip("_").replace("_", "-")


def options_class(rows, doc):
    """A dataclass of options: one field for each row (Option), with its default."""
    fields = [(row.name, row.kind, dataclasses.field(default=row.default)) for row in rows]
    made = dataclasses.make_dataclass("Options", fields, frozen=True)
    made.__doc__ = doc
    return made


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
        groups: list of (title, list of Option).
    """
    parser = _Parser(prog=prog, description=description, argument_default=argparse.SUPPRESS)
    for title, rows in groups:
        group = parser.add_argument_group(title)
        for option in rows:
            extra = {"nargs": "?", "const": True} if option.kind is bool else {}
            group.add_argument(option.flag, *option.aliases, dest=option.name, type=_PARSE[option.kind], metavar=_METAVAR[option.kind],
                               help=_help_text(option), **extra)  # fmt: skip
    return parser


def parse_given(argv, prog, description, groups):
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
        option: Option.
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
