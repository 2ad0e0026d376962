"""Labels from sub-folder names or from CSV, JSON and npy files."""

from __future__ import annotations

import csv
import json
import os
import re

import numpy as np

from dataset_tool.sources import EXTENSIONS, SourceLabels
from dnnlib import UsageError, UserError

_SEVERAL = re.compile(r"[;|]")
_ENDINGS = (*EXTENSIONS["images"], ".npy")
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
    if source.labels is not None and not source.labels.names:
        raise UserError(f"--labels {spec or 'source'}: every label is empty; accepted: {ACCEPTED}")
    return source.labels


def _read(source, spec):
    if spec == "folders":
        return from_classes([[os.path.dirname(name)] for name in _in_folders(_names(source))])
    extension = os.path.splitext(spec)[1].lower()
    readers = {".csv": _read_csv, ".json": _read_json}
    if extension not in (*readers, ".npy"):
        raise UsageError(f"--labels {spec}: accepted: {ACCEPTED}")
    if not os.path.isfile(spec):
        raise UserError(f"--labels {spec}: no such file")
    names = [] if extension == ".npy" else _names(source)
    paths = [os.path.abspath(os.path.join(source.root, name)) for name in names]
    try:
        if extension == ".npy":
            return from_array(np.load(spec, allow_pickle=False), source.count)
        table, columns = readers[extension](spec, paths)
        return _from_rows(_match(names, paths, table), columns)
    except (ValueError, KeyError, TypeError, IndexError, EOFError, RecursionError, csv.Error) as error:
        raise UserError(f"--labels {spec}: {error}") from error


def _names(source):
    """The names of all images; some sources have to read all of their images for it."""
    return [source.name(entry) for entry in source.iterate(0, source.count)]


def _in_folders(names):
    if not all("/" in name for name in names):
        outside = next(name for name in names if "/" not in name)
        raise UserError(f"--labels folders: every image must be in a sub-folder, {outside} is in none")
    return names


def _read_csv(path, pictures):
    """Table file name -> list of cells, and the header's names of the label columns (None without a header)."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    if not rows or len(rows[0]) < 2:
        raise ValueError("accepted: lines of a file name and one or more labels, separated by commas, with or without a header")
    header = rows.pop(0)[1:] if _is_header(rows, pictures) else None
    uneven = next((row for row in rows if len(row) != len(rows[0])), None)
    if uneven:
        raise ValueError(f"the line of {uneven[0]} has {len(uneven)} columns, the others have {len(rows[0])}")
    return _table((row[0], row[1:]) for row in rows), header


def _is_header(rows, pictures):
    """Whether the first row is a header: it names no file and, if its cells are numbers, they all differ and all other rows name files."""
    known = {name for path in pictures for name in _file_names(path)}

    def is_file(row):
        return row[0].lower().endswith(_ENDINGS) or not known.isdisjoint(_file_names(row[0]))

    columns = rows[0][1:]
    if is_file(rows[0]):
        return False
    if not all(isinstance(_number(cell), (int, float)) for cell in columns):
        return True
    return len(set(columns)) == len(columns) and all(map(is_file, rows[1:]))


def _file_names(path):
    name = os.path.basename(path)
    return name, os.path.splitext(name)[0]


def _read_json(path, pictures):
    """The same from a JSON object {file: label} or {"labels": [[file, label], ...], "label_names": [...]}."""
    with open(path, encoding="utf-8") as file:
        content = json.load(file, object_pairs_hook=_table)
    columns = None
    if isinstance(content, dict) and isinstance(content.get("labels"), list):
        content, columns = _table(content["labels"]), content.get("label_names")
    if not isinstance(content, dict):
        raise ValueError('accepted: {"file": label, ...} or {"labels": [["file", label], ...]}')
    return {name: label if isinstance(label, list) else [label] for name, label in content.items()}, columns


def _table(pairs):
    """Dict of (file, label) pairs. Raises ValueError when two of them contradict each other."""
    table = {}
    for name, label in pairs:
        name = os.path.normpath(name)
        if name in table and table[name] != label:
            raise ValueError(f"two different labels for {name}")
        table[name] = label
    return table


def _match(names, paths, table):
    """Rows of the table in the order of the images, given by names relative to the source's folder and by absolute paths."""
    ends, owners, served, missing = _ends(table), _owners(table), {}, []
    for name, path in zip(names, paths):
        key = _find(name, path, ends, owners)
        if key is None:
            missing.append(name)
        elif key in served:
            raise ValueError(f"{key} may be {served[key]} or {name}; accepted: paths that distinguish them")
        else:
            served[key] = name
    if missing:
        raise ValueError(f"no label for {len(missing)} of {len(names)} images, first {missing[0]}; {_alike(missing[0], table)}")
    return [table[key] for key in served]


def _ends(keys):
    """Dict: what an image's path may end in -> key of the table. That is the key, or the key without its extension if that is unique."""
    ends = {}
    for key in keys:
        stem = os.path.splitext(key)[0]
        ends[stem] = None if stem in ends else key
    return {**ends, **{key: key for key in keys}}


def _owners(keys):
    """Dict: what a key may end in -> the key, or None if several keys end in it."""
    owners = {}
    for key in keys:
        for tail in _tails(key):
            owners[tail] = key if owners.get(tail, key) == key else None
    return owners


def _find(name, path, ends, owners):
    """The key of an image: one of the two paths ends in the other, the image's path being taken from the source's folder on.

    Endings consist of whole names; the longest is taken; the extension may differ or be missing.
    """
    for tail in _tails(path):
        key = ends.get(tail) or (owners.get(tail) if tail.count("/") >= name.count("/") else None)
        if key is not None:
            return key
    return None


def _tails(path):
    """The endings of a path that consist of whole names, longest first, each with and without its extension."""
    parts = path.split("/")
    for first in range(len(parts)):
        end = "/".join(parts[first:])
        yield end
        yield os.path.splitext(end)[0]


def _alike(name, table):
    """What the table has instead of a row for an image, for the message: rows of files with the same name, else the first rows."""
    stem = os.path.splitext(os.path.basename(name))[0]
    rows = [key for key in table if os.path.splitext(os.path.basename(key))[0] == stem] or list(table)
    return f"the table has {', '.join(rows[:3]) or 'no row'}{', ...' if len(rows) > 3 else ''}"


def _from_rows(rows, columns):
    odd = [cell for row in rows for cell in row if not isinstance(cell, (str, int, float))]
    if odd:
        raise ValueError(f"label {json.dumps(odd[0])}; accepted: strings and numbers")
    cells = [[_number(cell) for cell in row] for row in rows]
    numeric = all(isinstance(cell, (int, float)) for row in cells for cell in row)
    if not numeric:
        return from_classes([[part for cell in row for part in _SEVERAL.split(str(cell)) if part] for row in rows])
    if len({len(row) for row in cells}) != 1:
        raise ValueError("labels differ in length")
    values = np.array(cells, np.float64)
    return _from_numbers(values, columns)


def _number(cell):
    if isinstance(cell, str) and "_" not in cell:     # to Python 1_0 is the number 10
        for kind in (int, float):
            try:
                return kind(cell)
            except ValueError:
                pass
    return cell


def _from_numbers(values, columns):
    """A single column of integers holds classes; several columns are vectors, used as they are."""
    if not np.isfinite(values).all():
        raise ValueError("some labels are not finite")
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
    """Labels from the class names of each image: one-hot if each has exactly one, else multi-hot."""
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
    """Labels of an array [count] or [1, count] of class numbers or names, or [count, classes].

    Raises:
        ValueError: another shape or kind.
    """
    values = np.asarray(values)
    values = values[0] if values.shape == (1, count) else values
    if values.ndim in (1, 2) and values.size == len(values) == count and all(isinstance(value, (str, bytes)) for value in values.flat):
        return from_classes([[value.decode() if isinstance(value, bytes) else str(value)] for value in values.flat])
    if values.ndim not in (1, 2) or len(values) != count or values.dtype.kind not in "fiub":
        raise ValueError(f"{values.dtype} {list(values.shape)} for {count} images; "
                         "accepted: numbers [images] or [images, classes], names [images]")
    return _from_numbers(values.reshape(count, -1).astype(np.float64), None)
