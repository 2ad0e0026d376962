"""--labels: folders, CSV, JSON, npy, labels that the source brings; kinds, names, errors."""

import json

import numpy as np
import pytest

from dataset_tool import labels
from dataset_tool.sources import Source
from tests.dataset_helpers import error_line, noise, prepare, write_pngs
from training.dataset import Dataset

NAMES = ["cat/1.png", "cat/2.png", "dog/1b.png", "dog/2b.png"]


@pytest.fixture
def run(tmp_path, capsys):
    """Function (spec) -> (Dataset or None, output): prepares four pictures in two folders with --labels."""
    write_pngs(tmp_path / "in", noise(4, 8), NAMES)

    def prepare_with(spec):
        arguments = ["--data-dir", tmp_path, "--task", "own", "--images-dir", tmp_path / "in", "--resolution", 8]
        code, out, err = prepare(capsys, *arguments, *(["--labels", spec] if spec else []))
        return (Dataset(str(tmp_path / "own")), out) if code == 0 else (code, error_line(err))

    return prepare_with


def _write(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return str(tmp_path / name)


def test_folder_names(run):
    dataset, out = run("folders")
    assert dataset.label_names == ["cat", "dog"] and "labels: [4, 2] one-hot (cat, dog)" in out
    np.testing.assert_array_equal(dataset.labels, [[1, 0], [1, 0], [0, 1], [0, 1]])


def test_classes_without_images_are_counted(run, tmp_path, capsys):
    assert "classes have no images" not in run("folders")[1]
    arguments = ["--data-dir", tmp_path, "--images-dir", tmp_path / "in", "--resolution", 8]
    _, out, _ = prepare(capsys, *arguments, "--task", "first", "--labels", "folders", "--max-images", 2)
    assert "  labels: [2, 2] one-hot (cat, dog)\n  1 of 2 classes have no images: what is generated for them is arbitrary\n" in out
    table = _write(tmp_path, "labels.csv", "1,1\n2,6\n1b,11\n2b,16\n")
    _, out, _ = prepare(capsys, *arguments, "--task", "numbers", "--labels", table)
    assert "  13 of 17 classes have no images" in out
    table = _write(tmp_path, "labels.csv", "file,x,y\n1,0.5,0\n2,1,0\n1b,0,0\n2b,2,0\n")
    _, out, _ = prepare(capsys, *arguments, "--task", "vectors", "--labels", table)
    assert "continuous (x, y)" in out and "have no images" not in out


def test_a_dataset_with_other_labels_is_another_one(run, tmp_path):
    spec = _write(tmp_path, "labels.csv", "file,kind\n1,red\n2,blue\n1b,red\n2b,blue\n")
    assert run(spec)[0].count == 4 and "already there" in run(spec)[1]
    _write(tmp_path, "labels.csv", "file,kind\n1,blue\n2,red\n1b,red\n2b,blue\n")
    code, message = run(spec)
    assert code == 1 and "already exists, made from other input or with other options" in message


def test_without_labels_it_is_said(run):
    dataset, out = run(None)
    assert dataset.labels.shape == (4, 0) and "labels: none" in out and "--labels folders" in out


@pytest.mark.parametrize(
    "text, names, values, kind",
    [
        ("file,kind\n1.png,red\n2.png,blue\n1b.png,red\n2b.png,green\n", ["blue", "green", "red"], [2, 0, 2, 1], "one-hot"),
        ("2b,1\ncat/1.png,0\n2.png,2\ndog/1b.png,2\n", ["0", "1", "2"], [0, 2, 2, 1], "one-hot"),
        ("file,tags\n1,a;b\n2,b\n1b,a|c\n2b,\n", ["a", "b", "c"], [[1, 1, 0], [0, 1, 0], [1, 0, 1], [0, 0, 0]], "multi-hot"),
        ("file,x,y\n1,0.5,2\n2,1,1\n1b,0,-3\n2b,1e2,0\n", ["x", "y"], [[0.5, 2], [1, 1], [0, -3], [100, 0]], "continuous"),
        ("file,p,q\n1,1,0\n2,1,1\n1b,0,0\n2b,0,1\n", ["p", "q"], [[1, 0], [1, 1], [0, 0], [0, 1]], "multi-hot"),
        ("x.PPM,3,4\n1,1,0\n2,1,1\n1b,0,0\n2b,0,1\n", ["0", "1"], [[1, 0], [1, 1], [0, 0], [0, 1]], "multi-hot"),
        ("9,3,4\n8,3,4\n1,1,0\n2,1,1\n1b,0,0\n2b,0,1\n", ["0", "1"], [[1, 0], [1, 1], [0, 0], [0, 1]], "multi-hot"),
        ("file , kind\n\n1.png, red\n 1.png,red\n./cat//2.png,blue \n1b.png,red\n2b.png,red\n", ["blue", "red"], [1, 0, 1, 1], "one-hot"),
        ("1,0\n2,1\n2.jpg,2\n1b,0\n2b,2\n", ["0", "1", "2"], [0, 1, 0, 2], "one-hot"),
        ("gone,7,7\n1,0.5,2\n2,1,1\n1b,0,3\n2b,5,0\n", ["0", "1"], [[0.5, 2], [1, 1], [0, 3], [5, 0]], "continuous"),
        ("1,1_0\n2,1_1\n1b,1_0\n2b,2_0\n", ["1_0", "1_1", "2_0"], [0, 1, 0, 2], "one-hot"),
        ("./cat/1.jpg,0\nin/cat/2.png,1\n1b.jpg,2\ndog/2b,0\n", ["0", "1", "2"], [0, 1, 2, 0], "one-hot"),
        ("file,2019,2020\n1.png,0.5,2\n2.png,1,1\n1b.png,0,3\ngone.png,4,4\n2b.png,5,0\n", ["2019", "2020"],
         [[0.5, 2], [1, 1], [0, 3], [5, 0]], "continuous"),
        ("file,2019,2020\n1,0.5,2\n2,1,1\n1b,0,3\n2b,5,0\n", ["2019", "2020"], [[0.5, 2], [1, 1], [0, 3], [5, 0]], "continuous"),
        ("gone.png,7,8\n1.png,0.5,2\n2.png,1,1\n1b.png,0,3\n2b.png,5,0\n", ["0", "1"], [[0.5, 2], [1, 1], [0, 3], [5, 0]], "continuous"),
        ("train/cat/1.png,red\n/old/place/cat/2.png,blue\n../dog/1b.jpg,red\nin/dog/2b,blue\n", ["blue", "red"], [1, 0, 1, 0], "one-hot"),
        ("file,p,q\n1,1,0\n2,0,1\n1b,0,0\n2b,0,0\n", ["p", "q"], [[1, 0], [0, 1], [0, 0], [0, 0]], "multi-hot"),
        ("\ufeff1,red\n2,blue\n1b,red\n2b,red\n", ["blue", "red"], [1, 0, 1, 1], "one-hot"),     # as spreadsheets write it
        ("file,cat,dog\n1,1,0\n2,0,1\n1b,1,0\n2b,1,0\n", ["cat", "dog"], [0, 1, 0, 0], "one-hot"),
        ("file,age\n1,0.5\n2,2.5\n1b,3\n2b,4\n", ["age"], [[0.5], [2.5], [3], [4]], "continuous"),
        ("file,age\n1,0.5\n2,2.5\n1b,3\n2b,4\ngone,5\n", ["age"], [[0.5], [2.5], [3], [4]], "continuous"),
        ("file,tags\n1,a\n2,b\n1b,\n2b,b\n", ["a", "b"], [[1, 0], [0, 1], [0, 0], [0, 1]], "multi-hot"),
    ],
)
def test_csv(run, tmp_path, text, names, values, kind):
    dataset, out = run(_write(tmp_path, "labels.csv", text))
    assert dataset.label_names == names and f"] {kind} (" in out
    expected = np.eye(len(names))[values] if kind == "one-hot" else values
    np.testing.assert_array_equal(dataset.labels, np.float32(expected))


@pytest.mark.parametrize(
    "content, names, values",
    [
        ({"labels": [["cat/1.png", 1], ["cat/2.png", 0], ["dog/1b.png", 2], ["dog/2b.png", 1]]}, ["0", "1", "2"], np.eye(3)[[1, 0, 2, 1]]),
        ({"1": "a", "2": "b", "1b": "a", "2b": "b"}, ["a", "b"], np.eye(2)[[0, 1, 0, 1]]),
        ({"1": ["a"], "2": ["a", "b"], "1b": [], "2b": ["b"]}, ["a", "b"], [[1, 0], [1, 1], [0, 0], [0, 1]]),
        ({"labels": [["1", [0.5, 1]], ["2", [2, 3]], ["1b", [4, 5]], ["2b", [6, 7]]], "label_names": ["u", "v"]}, ["u", "v"],
         [[0.5, 1], [2, 3], [4, 5], [6, 7]]),
        ({"labels": [["1", [0.5, 1]], ["2", [2, 3]], ["1b", [4, 5]], ["2b", [6, 7]]], "label_names": ["u"]}, ["0", "1"],
         [[0.5, 1], [2, 3], [4, 5], [6, 7]]),
    ],
)
def test_json(run, tmp_path, content, names, values):
    dataset, _ = run(_write(tmp_path, "labels.json", json.dumps(content)))
    assert dataset.label_names == names
    np.testing.assert_array_equal(dataset.labels, np.float32(values))


@pytest.mark.parametrize("values, names", [
    ([2, 0, 1, 1], ["0", "1", "2"]), (["red", "blue", "green", "green"], ["blue", "green", "red"]),
    ([b"c", b"a", b"b", b"b"], ["a", "b", "c"]),
])  # fmt: skip
def test_npy(run, tmp_path, values, names):
    np.save(str(tmp_path / "labels.npy"), np.array(values))
    dataset, _ = run(str(tmp_path / "labels.npy"))
    assert dataset.label_names == names
    np.testing.assert_array_equal(dataset.labels, np.eye(3)[[2, 0, 1, 1]])


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.csv", "1,0\n2,1\n1b,2\n", "no label for 1 of 4 images, first dog/2b.png; the table has 1, 2, 1b"),
        ("a.csv", "file,a,b\n1,0,1\n2,1\n", "the line of 2 has 2 columns, the others have 3"),
        ("a.csv", "cat/1.png,0\ncat/2.png,0\ndog/1b.png,1\ncat/2b.png,0\n",
         "no label for 1 of 4 images, first dog/2b.png; the table has cat/2b.png"),
        ("a.json", "{}", "no label for 4 of 4 images, first cat/1.png; the table has no row"),
        ("a.csv", "1,0\n2,1\n1b,2\n2b,3\n1,1\n", "two different labels for 1"),
        ("a.csv", "1,\n2,\n1b,\n2b,\n", "every label is empty"),
        ("a.json", '{"1": null, "2": "b", "1b": "a", "2b": "a"}', "label null; accepted: strings and numbers"),
        ("a.json", '{"1": [], "2": [], "1b": [], "2b": []}', "every label is empty"),
        ("a.json", '{"u": 0, "v": 0, "w": 0, "x": 0}', "no label for 4 of 4 images, first cat/1.png; the table has u, v, w, ..."),
        ("a.json", '{"1": [0, 1], "2": [1], "1b": [0, 1], "2b": [0, 1]}', "labels differ in length"),
        ("a.csv", "", "lines of a file name and one or more labels"),
        ("a.csv", "1;0\n2;1\n1b;2\n2b;3\n", "separated by commas"),
        ("a.csv", "1,nan\n2,1\n1b,2\n2b,4\n", "not finite"),
        ("a.csv", "1,-1\n2,1\n1b,2\n2b,4\n", "class numbers -1 to 4"),
        ("a.csv", "1,0\n2,1\n1b,200000\n2b,4\n", "class numbers 0 to 200000; accepted: 0 to 100000"),
        ("a.csv", "1.jpg,0\n1.webp,1\n2,1\n1b,2\n2b,4\n", "no label for 1 of 4 images, first cat/1.png; the table has 1.jpg, 1.webp"),
        ("a.json", '{"1": 0, "2": 1, "1b": 0, "2b": 1, "1": 1}', "two different labels for 1"),
        ("a.json", '{"labels": [["1", 0], ["2", 1], ["1b", 0], ["2b", 1], ["1", 1]]}', "two different labels for 1"),
        ("a.json", '{"labels": [5]}', "unpack"),
        ("a.json", "{", "Expecting property name"),
        ("a.json", "[1, 2]", 'accepted: {"file": label'),
        ("a.json", "[" * 100000, "recursion"),
        ("a.csv", f"1,{'x' * 200000}\n", "field larger than field limit"),
        ("a.npy", "", "No data left"),
        ("a.txt", "", "accepted: none, folders, source, FILE.csv"),
        ("missing.csv", None, "no such file"),
    ],
)
def test_errors_name_the_file(run, tmp_path, name, content, message):
    path = str(tmp_path / name)
    if content is not None:
        _write(tmp_path, name, content)
    code, line = run(path)
    assert code == (2 if name == "a.txt" else 1) and f"--labels {path}: " in line
    assert message in line or name == "a.npy"


def test_an_array_of_objects_is_refused(run, tmp_path):
    """To read it is to run what its file says."""
    np.save(str(tmp_path / "labels.npy"), np.array(["a", "b", "a", "b"], object))
    code, line = run(str(tmp_path / "labels.npy"))
    assert code == 1 and "allow_pickle" in line


def test_a_name_is_not_enough_where_pictures_share_it(tmp_path, capsys):
    """The label of cat/1.png is not that of dog/1.png."""
    write_pngs(tmp_path / "in", noise(6, 8), [f"{kind}/{number}.png" for kind in ("cat", "dog") for number in range(3)])
    arguments = ["--data-dir", tmp_path, "--task", "own", "--images-dir", tmp_path / "in", "--resolution", 8, "--labels"]
    table = _write(tmp_path, "a.csv", "cat/0.png,0\ncat/1.png,0\ncat/2.png,0\ndog/0.png,1\n")
    code, _, err = prepare(capsys, *arguments, table)
    assert code == 1 and "no label for 2 of 6 images, first dog/1.png" in error_line(err)
    for name in ("1.png", "1"):
        table = _write(tmp_path, "b.csv", f"cat/0.png,0\n{name},0\ncat/2.png,0\ndog/0.png,1\ndog/2.png,1\n")
        code, _, err = prepare(capsys, *arguments, table)
        assert code == 1 and f"{name} may be cat/1.png or dog/1.png" in error_line(err)
    table = _write(tmp_path, "b.csv", "cat/0.png,0\ncat/2.png,0\ndog/0.png,1\ndog/2.png,1\nx/1.png,1\n")
    code, _, err = prepare(capsys, *arguments, table)
    assert code == 1 and "no label for 2 of 6 images, first cat/1.png" in error_line(err)
    table = _write(tmp_path, "c.csv", "0.png,0\n1.png,0\n2.png,0\ndog/0.png,1\ndog/1.png,1\ndog/2.png,1\n")
    assert prepare(capsys, *arguments, table)[0] == 0
    assert Dataset(str(tmp_path / "own")).labels.argmax(1).tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    "rows, missing, there",
    [
        (["train/cat/1.png", "val/cat/1.png", "far/cat/2.png", "far/dog/1b.png", "far/dog/2b.png"], "cat/1.png",
         "train/cat/1.png, val/cat/1.png"),
        (["cat/2.png", "cat/1b.png", "far/cat/1.png", "far/dog/2b.png"], "dog/1b.png", "cat/1b.png"),
        (["cat/1.png", "bird/2.png", "dog/1b.png", "dog/2b.png"], "cat/2.png", "bird/2.png"),
        (["cat/1.png", "/old/place/bird/2.png", "dog/1b.png", "dog/2b.png"], "cat/2.png", "/old/place/bird/2.png"),
        (["cat/1", "concat/2", "dog/1b", "dog/2b"], "cat/2.png", "concat/2"),
    ],
)  # fmt: skip
def test_a_row_of_another_folder_is_of_another_picture(run, tmp_path, rows, missing, there):
    """Nor is a row used if two rows end in the picture's path."""
    code, line = run(_write(tmp_path, "a.csv", "".join(f"{row},0\n" for row in rows)))
    assert code == 1 and line.endswith(f"no label for 1 of 4 images, first {missing}; the table has {there}")


def test_rows_of_another_place(tmp_path, capsys):
    """The part before the pictures' folder may differ; of two rows with the same ending, the one that matches more of the path is used."""
    write_pngs(tmp_path / "photos", noise(2, 8), ["1.png", "2.png"])
    arguments = ["--data-dir", tmp_path, "--task", "own", "--images-dir", tmp_path / "photos", "--resolution", 8, "--labels"]
    table = _write(tmp_path, "a.csv", "/old/photos/1.png,1\n/old/drawings/1.png,0\n/old/elsewhere/2.png,2\n")
    code, _, err = prepare(capsys, *arguments, table)
    assert code == 0, err
    assert Dataset(str(tmp_path / "own")).labels.argmax(1).tolist() == [1, 2]


def test_an_array_of_labels_needs_no_names(tmp_path):
    """A source that has to read all of its pictures to name them is not asked to do so."""
    np.save(str(tmp_path / "labels.npy"), np.array([1, 0]))

    def entries():
        raise AssertionError("the source is read")

    attached = labels.attach(Source("pictures", None, entries, 2, ""), str(tmp_path / "labels.npy"))
    np.testing.assert_array_equal(attached.values, [[0, 1], [1, 0]])


@pytest.mark.parametrize("values", [[1j, 0], [["a", "b"], ["c", "d"]], [1, 0, 1], [[[1]], [[0]]]])
def test_an_array_of_another_kind_or_shape_is_refused(values):
    with pytest.raises(ValueError, match="for 2 images; accepted: numbers"):
        labels.from_array(values, 2)


def test_folders_and_source_need_something_to_take_labels_from(run, tmp_path):
    code, line = run("source")
    assert code == 1 and "--labels source: png files have no labels of their own" in line
    write_pngs(tmp_path / "in", noise(1, 8), ["loose.png"])
    code, line = run("folders")
    assert code == 1 and "loose.png is in none" in line


def test_labels_follow_their_pictures_into_every_shard(tmp_path, capsys):
    write_pngs(tmp_path / "in", noise(4, 8), NAMES)
    arguments = ["--data-dir", tmp_path, "--task", "own", "--images-dir", tmp_path / "in", "--resolution", 8, "--labels", "folders"]
    assert prepare(capsys, *arguments, "--shards-num", 3)[0] == 0
    dataset = Dataset(str(tmp_path / "own"))
    np.testing.assert_array_equal(dataset.read(range(4)), noise(4, 8).transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(dataset.labels, [[1, 0], [1, 0], [0, 1], [0, 1]])


def test_labels_follow_their_pictures_past_skipped_ones(run, tmp_path):
    (tmp_path / "in" / "cat" / "2.png").write_bytes(b"")
    code, line = run("folders")
    assert code == 1 and "cat/2.png" in line
    write_pngs(tmp_path / "in", noise(120, 8), [f"dog/x{number:03d}.png" for number in range(120)])
    dataset, _ = run("folders")
    assert dataset.count == 123 and dataset.labels.argmax(1).tolist() == [0] + [1] * 122
