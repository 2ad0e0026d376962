"""Labels from sub-folder names and from CSV, JSON and npy files."""

from __future__ import annotations

import csv
import json
import os
import re

import numpy as np

from dataset_tool.sources import SourceLabels
from dnnlib import UsageError, UserError

_SEVERAL = re.compile(r"[;|]")
ACCEPTED = "none, folders, source, FILE.csv, FILE.json, FILE.npy"


def attach(source, spec):
    """Give a source the labels that --labels asks for.

    Args:
        source: the Source.
        spec: one of ACCEPTED, or None: the source's own if it has any.

    Returns:
        The labels (SourceLabels or None), which are also set in the source.
    """
    if spec == "none":
        source.labels = None
    elif spec in (None, "source"):
        if spec == "source" and source.labels is None:
            raise UserError(f"--labels source: {source.description} have no labels of their own; accepted: {ACCEPTED}")
    else:
        source.labels = _read(source, spec)
    return source.labels


def _read(source, spec):
    names = [source.name(entry) for entry in source.iterate(0, source.count)]
    if spec == "folders":
        return from_classes([[os.path.dirname(name)] for name in _in_folders(names)])
    extension = os.path.splitext(spec)[1].lower()
    readers = {".csv": _read_csv, ".json": _read_json}
    if extension not in (*readers, ".npy"):
        raise UsageError(f"--labels {spec}: accepted: {ACCEPTED}")
    if not os.path.isfile(spec):
        raise UserError(f"--labels {spec}: no such file")
    try:
        if extension == ".npy":
            return from_array(np.load(spec, allow_pickle=False), source.count)
        table, columns = readers[extension](spec, names)
        return _from_rows(_match(names, table), columns)
    except (ValueError, KeyError, TypeError, IndexError, EOFError) as error:
        raise UserError(f"--labels {spec}: {error}") from error


def _in_folders(names):
    if not all("/" in name for name in names):
        outside = next(name for name in names if "/" not in name)
        raise UserError(f"--labels folders: every picture must be in a sub-folder, {outside} is in none")
    return names


def _read_csv(path, names):
    """Table file name -> list of cells, and the header's names of the label columns (None when the first line is a picture's)."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    if not rows or len(rows[0]) < 2:
        raise ValueError("accepted: lines of a file name and one or more labels, with or without a header")
    header = None if _keys(rows[0][0]) & {key for name in names for key in _keys(name)} else rows.pop(0)[1:]
    uneven = next((row for row in rows if len(row) != len(rows[0])), None)
    if uneven:
        raise ValueError(f"line of {uneven[0]} has {len(uneven)} columns, the others {len(rows[0])}")
    return {row[0]: row[1:] for row in rows}, header


def _keys(name):
    """What a picture can be called: its path, its file name, the latter without its extension."""
    base = os.path.basename(name)
    return {name, base, os.path.splitext(base)[0]}


def _read_json(path, names):
    """The same from a JSON object {file: label} or {"labels": [[file, label], ...], "label_names": [...]}."""
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    columns = None
    if isinstance(content, dict) and isinstance(content.get("labels"), list):
        content, columns = dict(content["labels"]), content.get("label_names")
    if not isinstance(content, dict):
        raise ValueError('accepted: {"file": label, ...} or {"labels": [["file", label], ...]}')
    return {name: label if isinstance(label, list) else [label] for name, label in content.items()}, columns


def _match(names, table):
    """Rows of the table in the order of the pictures, found by path, by file name or by the name without its extension."""
    short = {}
    for name, row in table.items():
        for key in _keys(name):
            short[key] = None if key in short and short[key] != row else row     # None: ambiguous
    rows, missing = [], []
    for name in names:
        base = os.path.basename(name)
        row = table.get(name) or short.get(base) or short.get(os.path.splitext(base)[0])
        rows.append(row)
        if row is None:
            missing.append(name)
    if missing:
        raise ValueError(f"no label for {len(missing)} of {len(names)} pictures, first {missing[0]}")
    return rows


def _from_rows(rows, columns):
    cells = [[_number(cell) for cell in row] for row in rows]
    numeric = all(isinstance(cell, (int, float)) for row in cells for cell in row)
    if not numeric:
        return from_classes([[part for cell in row for part in _SEVERAL.split(str(cell)) if part] for row in rows])
    if len({len(row) for row in cells}) != 1:
        raise ValueError("labels of different lengths")
    values = np.array(cells, np.float64)
    return _from_numbers(values, columns)


def _number(cell):
    if isinstance(cell, str):
        for kind in (int, float):
            try:
                return kind(cell)
            except ValueError:
                pass
    return cell


def _from_numbers(values, columns):
    """One column of integers are classes; several columns are vectors as they stand."""
    if not np.isfinite(values).all():
        raise ValueError("labels that are not finite")
    if values.shape[1] == 1 and (values == np.round(values)).all():
        return _one_hot(values[:, 0])
    names = list(columns) if columns and len(columns) == values.shape[1] else [str(column) for column in range(values.shape[1])]
    binary = np.isin(values, (0, 1)).all()
    kind = "continuous" if not binary else "one-hot" if (values.sum(1) == 1).all() else "multi-hot"
    return SourceLabels(values.astype(np.float32), names, kind)


def _one_hot(numbers):
    classes = numbers.astype(np.int64)
    if classes.min() < 0 or classes.max() > 100000:
        raise ValueError(f"class numbers {classes.min()} to {classes.max()}; accepted: 0 to 100000")
    names = [str(number) for number in range(classes.max() + 1)]
    return SourceLabels(_hot([[number] for number in classes], len(names)), names, "one-hot")


def from_classes(found, names=None):
    """Labels from the class names of every picture: one-hot when each has exactly one, else multi-hot."""
    names = names or sorted({name for row in found for name in row})
    numbers = {name: number for number, name in enumerate(names)}
    kind = "one-hot" if all(len(row) == 1 for row in found) else "multi-hot"
    return SourceLabels(_hot([[numbers[name] for name in row] for row in found], len(names)), names, kind)


def _hot(classes, width):
    values = np.zeros([len(classes), width], np.float32)
    for row, numbers in zip(values, classes):
        row[numbers] = 1
    return values


def from_array(values, count):
    """Labels of an array [count] of class numbers or [count, classes]. Raises ValueError for another shape or kind."""
    values = np.asarray(values)
    if values.ndim not in (1, 2) or len(values) != count or values.dtype.kind not in "fiub":
        raise ValueError(f"{values.dtype} {list(values.shape)} for {count} pictures; accepted: numbers [pictures] or [pictures, classes]")
    return _from_numbers(values.reshape(count, -1).astype(np.float64), None)
