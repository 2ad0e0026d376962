"""Writing datasets: workers, interruptions, existing files; mistakes on the command line."""

import errno
import fcntl
import functools
import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from dataset_tool import cli, sources, writer
from dataset_tool.pictures import ImageFormat
from dataset_tool.writer import ranges_of
from tests.conftest import ROOT, on_one_stack
from tests.dataset_helpers import error_line, folder_bytes, noise, prepare, prepare_process, smooth_picture, write_pngs
from training.dataset import Dataset

SCENES = ["--scenes", "--max-images", 96, "--resolution", 16, "--shards-num", 8]


def test_the_bytes_do_not_depend_on_the_number_of_workers(tmp_path):
    for workers in (1, 2):
        done = prepare_process("--data-dir", tmp_path / str(workers), *SCENES, "--num-workers", workers)
        assert done.returncode == 0, done.stderr
    one = folder_bytes(tmp_path / "1" / "scenes")
    assert len(one) == 8 + 3 and one == folder_bytes(tmp_path / "2" / "scenes")


def test_workers_start_where_the_main_module_has_no_spec(tmp_path, capsys, monkeypatch):
    """As with `%run prepare_data.py` in a notebook, and in some debuggers."""
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace())
    code, _, err = prepare(capsys, "--data-dir", tmp_path, "--scenes", "--max-images", 33, "--resolution", 8, "--num-workers", 2)
    assert (code, err) == (0, "")


def test_a_second_run_finds_the_dataset_and_other_options_are_refused(tmp_path, capsys, monkeypatch):
    write_pngs(tmp_path / "in", noise(5, 8))
    arguments = ["--data-dir", tmp_path, "--task", "own", "--images-dir", tmp_path / "in", "--resolution", 8]
    assert prepare(capsys, *arguments)[0] == 0
    before = folder_bytes(tmp_path / "own")
    for _ in range(2):
        code, out, _ = prepare(capsys, *arguments)
        monkeypatch.chdir(tmp_path)
        arguments[arguments.index("--images-dir") + 1] = "in/"
        assert code == 0 and "already there" in out
        monkeypatch.setattr(writer, "Plan", functools.partial(writer.Plan, versions=("1", "another Pillow")))
    for change in (["--encoding", "raw"], ["--max-images", 3], ["--labels", "folders"]):
        code, _, err = prepare(capsys, *arguments, *change)
        assert code == 1
        message = f"{tmp_path / 'own'}: already exists, made from other input or with other options"
        assert change[0] == "--labels" or message in error_line(err)
    changed = tmp_path / "in" / "0002.png"
    facts = changed.stat()
    os.utime(str(changed), ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))     # raw pictures of another kind would have the same size
    assert prepare(capsys, *arguments)[0] == 1
    os.utime(str(changed), ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert prepare(capsys, *arguments)[0] == 0
    write_pngs(tmp_path / "in", noise(1, 8), ["new.png"])
    assert prepare(capsys, *arguments)[0] == 1
    assert folder_bytes(tmp_path / "own") == before


def test_an_empty_folder_is_no_dataset(tmp_path, capsys):
    arguments = ["--data-dir", tmp_path, "--scenes", "--max-images", 2, "--resolution", 16]
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / "notes.txt").write_text("of the user's own")
    code, _, err = prepare(capsys, *arguments)
    assert code == 1 and f"{tmp_path / 'scenes'}: already exists, made from other input or with other options; delete it" in error_line(err)
    (tmp_path / "scenes" / "notes.txt").unlink()
    code, out, _ = prepare(capsys, *arguments)
    assert code == 0 and "already there" not in out and "continuing" not in out
    (tmp_path / "scenes").rename(tmp_path / "elsewhere")
    (tmp_path / "scenes").write_text("a file")
    assert f"Not a directory ({tmp_path / 'scenes'})" in error_line(prepare(capsys, *arguments)[2])


def test_scenes_of_another_seed_are_other_scenes(tmp_path, capsys):
    arguments = ["--data-dir", tmp_path, "--scenes", "--max-images", 2, "--resolution", 8]
    assert prepare(capsys, *arguments, "--seed", 1)[0] == 0
    assert prepare(capsys, *arguments, "--seed", 1)[0] == 0
    assert prepare(capsys, *arguments, "--seed", 2)[0] == 1


@pytest.mark.parametrize("bad, code", [(1, 0), (2, 1)])
def test_one_percent_of_unusable_pictures_is_accepted(tmp_path, capsys, bad, code):
    write_pngs(tmp_path / "in", noise(100, 8))
    for number in range(bad):
        (tmp_path / "in" / f"{number:04d}.png").write_bytes(b"")
    assert prepare(capsys, "--data-dir", tmp_path, "--task", "own", "--images-dir", tmp_path / "in", "--resolution", 8)[0] == code


def test_the_manifest_says_what_was_made(tmp_path, capsys):
    write_pngs(tmp_path / "in", noise(5, 16))
    (tmp_path / "in" / "0004.png").write_bytes(b"")
    arguments = ["--images-dir", tmp_path / "in", "--resolution", 16, "--ratio", 0.5, "--encoding", "raw", "--allow-skips"]
    assert prepare(capsys, "--data-dir", tmp_path, "--task", "own", *arguments)[0] == 0
    with open(str(tmp_path / "own" / "dataset.json")) as file:
        found = json.load(file)
    expected = {"name": "own", "count": 4, "resolution": 16, "channels": 3, "ratio": 0.5, "box": [0, 4, 16, 12], "encoding": "raw",
                "label_kind": "none", "label_names": [], "masks": False, "source": "png files", "resize_filter": "lanczos",
                "converted": {"cropped": 4}, "skipped": 1, "scanned": False}  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    assert prepare(capsys, "--data-dir", tmp_path, "--scenes", "--max-images", 2, "--resolution", 8, "--masks")[0] == 0
    with open(str(tmp_path / "scenes" / "dataset.json")) as file:
        found = json.load(file)
    expected = {"encoding": "png", "label_kind": "counts", "label_names": ["spheres", "cubes", "cylinders"], "masks": True,
                "tool_version": "1"}  # fmt: skip
    assert {name: found[name] for name in expected} == expected


def test_a_partial_folder_of_another_preparation_is_not_continued(tmp_path, capsys):
    partial = tmp_path / "scenes.partial"
    partial.mkdir()
    (partial / "plan.json").write_text('{"key": "another"}')
    (partial / "scenes-r05.tfrecords1of1.done").write_text("{}")
    code, out, _ = prepare(capsys, "--data-dir", tmp_path, "--scenes", "--max-images", 3, "--resolution", 32)
    assert code == 0 and "left by a different preparation, starting over" in out
    assert not partial.exists() and Dataset(str(tmp_path / "scenes")).count == 3


def _start(data_dir, *arguments):
    command = [sys.executable, os.path.join(ROOT, "prepare_data.py"), "--data-dir", str(data_dir), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


@on_one_stack
@pytest.mark.slow
def test_killed_at_ten_random_moments_it_ends_in_the_same_bytes(tmp_path):
    """SIGKILL of the parent alone: its workers must end too, or they would keep the data folder locked for ever."""
    started = time.time()
    assert _start(tmp_path / "whole", *SCENES, "--num-workers", 2).wait() == 0
    duration = time.time() - started
    expected = folder_bytes(tmp_path / "whole" / "scenes")
    moments = random.Random(0)
    resumed = 0
    for number in range(10):
        process = _start(tmp_path / "killed", *SCENES, "--num-workers", 1 + number % 2)
        time.sleep(moments.uniform(0.3, 0.8) * duration)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        partial = tmp_path / "killed" / "scenes.partial"
        resumed += partial.exists()
        if (tmp_path / "killed" / "scenes").exists():
            assert folder_bytes(tmp_path / "killed" / "scenes") == expected
            (tmp_path / "killed" / "scenes").rename(tmp_path / f"done{number}")
    assert resumed >= 1
    assert _start(tmp_path / "killed", *SCENES, "--num-workers", 2).wait() == 0
    assert folder_bytes(tmp_path / "killed" / "scenes") == expected
    assert sorted(os.listdir(str(tmp_path / "killed"))) == ["scenes"]


def test_workers_end_with_a_killed_parent(tmp_path):
    process = _start(tmp_path, "--scenes", "--max-images", 100000, "--resolution", 16, "--num-workers", 2)
    deadline = time.time() + 60
    while len(_session(process.pid)) < 3 and time.time() < deadline:
        time.sleep(0.1)
    assert len(_session(process.pid)) >= 3
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while _session(process.pid) and time.time() < deadline:
        time.sleep(0.1)
    assert _session(process.pid) == []


def _session(leader):
    """Living processes of a session, from /proc."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(name))
    return found


def test_two_preparations_of_one_dataset_do_not_mix(tmp_path):
    first = _start(tmp_path, "--scenes", "--max-images", 9000, "--resolution", 16, "--num-workers", 1)
    deadline = time.time() + 60
    while not (tmp_path / "scenes.partial").exists() and time.time() < deadline:
        time.sleep(0.05)
    second = prepare_process("--data-dir", tmp_path, "--scenes", "--max-images", 9000, "--resolution", 16)
    first.kill()
    first.wait()
    owner = f"process {first.pid} on {os.uname().nodename}"
    assert second.returncode == 1 and f"{owner} is preparing this dataset" in error_line(second.stderr)


def test_a_file_system_without_locks_does_not_keep_a_dataset_from_being_prepared(tmp_path, capsys, monkeypatch):
    def flock(file, operation):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    code, _, err = prepare(capsys, "--data-dir", tmp_path, "--scenes", "--max-images", 2, "--resolution", 16)
    assert code == 0 and err.startswith(f"warning: {tmp_path / '.scenes.lock'}: this file system has no locks (Function not implemented)")
    assert os.listdir(str(tmp_path)) == ["scenes"]


def test_memory_stays_flat(tmp_path):
    """Twenty times as many pictures take the same memory, except for the entries."""
    program = "import sys; from dataset_tool.cli import main; main(sys.argv[1:]); print(open('/proc/self/status').read())"
    peaks = []
    for count in (100, 2000):
        np.save(str(tmp_path / f"{count}.npy"), np.zeros([count, 64, 64, 3], np.uint8) + np.arange(64, dtype=np.uint8)[:, None, None])
        arguments = ["--data-dir", tmp_path, "--task", f"n{count}", "--images-dir", tmp_path / f"{count}.npy", "--format", "npy"]
        command = [sys.executable, "-c", program, *map(str, arguments), "--num-workers", "1", "--resolution", "16"]
        status = subprocess.check_output(command, cwd=ROOT, text=True).splitlines()
        peaks.append(next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")))
    assert peaks[1] - peaks[0] < 8000        # KB; the larger array has 24,000


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "nothing to prepare; accepted: --ffhq, --bedrooms, --cityscapes, --clevr, --cifar10, --scenes, --task NAME"),
        (["--task", "own"], "--task own: --images-dir is required"),
        (["--task", "a/b", "--images-dir", "x"], "--task a/b: accepted: a name"),
        (["--scenes", "--images-dir", "x"], "--images-dir"),
        (["--ffhq", "--masks"], "--masks: only with --scenes"),
        (["--scenes", "--encoding", "gif"], "--encoding: got 'gif', expected one of png, raw, jpeg"),
        (["--scenes", "--channels", "2"], "--channels: got 2, expected one of 1, 3, 4"),
        (["--scenes", "--resolution", "100"], "--resolution: got 100, expected a power of two, from 4 to 4096"),
        (["--scenes", "--resolution", "2"], "--resolution: got 2, expected a power of two, from 4 to 4096"),
        (["--scenes", "--max-images", "0"], "--max-images: got 0, expected at least 1"),
        (["--scenes", "--max-images", "many"], "--max-images: got 'many', expected an integer"),
        (["--scenes", "--seed", "-1"], "--seed: got -1, expected at least 0"),
        (["--scenes", "--masks", "maybe"], "--masks: got 'maybe', expected True or False"),
        (["--scenes", "False"], "nothing to prepare"),
        (["--ffhq", "--masks", "True"], "--masks: only with --scenes"),
        (["--scenes", "--max-images", "4", "--shards-num", "5"], "--shards-num 5: accepted: 1 to the number of images, 4"),
        (["--scenes", "--encoding", "jpeg", "--channels", "4"], "--encoding jpeg"),
        (["--scenes", "--format", "jpg"], "--format: only with your own images (--task)"),
        (["--task", "own", "--images-dir", "x", "--key", "a"], "--key: only with --format hdf5 or tfds"),
        (["--task", "own", "--images-dir", "x", "--seed", "3"], "--seed: only with --scenes"),
        (["--task", "own", "--images-dir", "x", "--mirror", "http://x"], "--mirror: only with a dataset of the catalog"),
        (["--scenes", "--originals"], "--originals: only with --clevr"),
        (["--ffhq", "--images-dir", "x"], "--images-dir: only with --task"),
        (["--task", ".own", "--images-dir", "x"], "--task .own: accepted: a name"),
        (["--sceens"], "unrecognized arguments: --sceens (did you mean --scenes?)"),
        (["--scenes", "--m", "4"], "ambiguous option: --m"),
    ],
)
def test_wrong_command_lines(tmp_path, capsys, arguments, message):
    code, _, err = prepare(capsys, "--data-dir", tmp_path, *arguments)
    assert code == 2 and message in error_line(err)


def test_more_pictures_than_there_are(tmp_path, capsys):
    write_pngs(tmp_path / "in", noise(2, 8))
    arguments = ["--data-dir", tmp_path, "--task", "own", "--images-dir", tmp_path / "in", "--resolution", 8, "--max-images"]
    _, out, _ = prepare(capsys, *arguments, 3)
    assert out.startswith("--max-images 3: only 2 images are available\n") and Dataset(str(tmp_path / "own")).count == 2
    code, out, _ = prepare(capsys, *arguments, 2)
    assert code == 0 and "available" not in out and "already there" in out


def test_shards_and_workers(monkeypatch):
    """One shard for every 20,000 pictures, unless the catalog or, with priority, the command says otherwise."""

    class Planned(Exception):
        pass

    def planned(data_dir, plan, source, workers, allow_skips):
        raise Planned(plan.name, plan.count, plan.shards, workers)

    monkeypatch.setattr(writer, "write_dataset", planned)
    for options, shards, expected in (
        ({"max_images": 20001}, None, ("own", 20001, 2, 3)),
        ({"max_images": 20000}, None, ("own", 20000, 1, 3)),
        ({}, 5, ("own", 30000, 5, 3)),
        ({"shards_num": 7}, 5, ("own", 30000, 7, 3)),
    ):
        with pytest.raises(Planned) as caught:
            cli._write("own", sources.scenes_source(30000, 0, 8, False), cli.Options(num_workers=3, **options), shards=shards)
        assert caught.value.args == expected
    with pytest.raises(Planned) as caught:
        cli.prepare(cli.Options(scenes=True, max_images=20001, num_workers=1))
    assert caught.value.args == ("scenes", 20001, 2, 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {5}, raising=False)     # one core of several, as with `taskset -c 5`
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    with pytest.raises(Planned) as caught:
        cli.prepare(cli.Options(scenes=True))
    assert caught.value.args == ("scenes", cli.SCENES_COUNT, 1, 1)


def test_flags_with_values_and_abbreviations(tmp_path, capsys):
    code, _, err = prepare(capsys, "--data-dir", tmp_path, "--scenes", "--masks", "True", "--max", 3, "--resol=16", "--cifar10", "no")
    assert code == 0, err
    dataset = Dataset(str(tmp_path / "scenes"))
    assert (dataset.count, dataset.resolution, dataset.has_masks) == (3, 16, True)


def test_options_by_name():
    """What --prepare and programs pass: the catalog and the scenes by name, other names are tasks; unknown options are refused."""
    assert cli.options_for("clevr", max_images=3).clevr and cli.options_for("scenes").scenes
    own = cli.options_for("own", images_dir="photos", ratio=None)
    assert (own.task, own.images_dir, own.ratio, own.data_dir, own.scenes) == ("own", "photos", None, "datasets", False)
    with pytest.raises(TypeError, match="image_dir"):
        cli.options_for("own", image_dir="photos")


def test_exit_codes_and_help_of_the_process(tmp_path):
    done = prepare_process("--scenes", "--resolution", "7")
    assert done.returncode == 2 and "--resolution" in error_line(done.stderr) and done.stdout == ""
    (tmp_path / "file").write_text("")
    done = prepare_process("--scenes", "--max-images", 2, "--data-dir", tmp_path / "file" / "below")
    assert done.returncode == 1 and "--data-dir" in error_line(done.stderr)
    done = prepare_process("--help")
    assert done.returncode == 0 and "43 GB" in " ".join(done.stdout.split())
    assert all(option.flag in done.stdout for _, rows in cli.OPTION_GROUPS for option in rows)


def test_the_options_need_no_tensorflow():
    program = "import sys; from dataset_tool import cli; cli.options_for('scenes'); assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_too_little_space_is_seen_before_starting(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    code, _, err = prepare(capsys, "--data-dir", tmp_path, "--scenes", "--max-images", 10)
    assert code == 1 and "dataset scenes needs about 0.1 MB, only 0.0 MB are free" in error_line(err)
    assert not (tmp_path / "scenes.partial").exists()


@pytest.mark.parametrize("encoding, ratio", [("raw", 1), ("raw", 0.5), ("png", 1), ("png", 0.5), ("jpeg", 1)])
def test_the_space_asked_for_is_enough_and_not_much_more(tmp_path, capsys, encoding, ratio):
    grain = np.random.RandomState(0).normal(0, 8, [4, 128, 128, 3])
    photographs = np.clip(np.stack([smooth_picture(128, 128, seed) for seed in range(4)]) + grain, 0, 255).astype(np.uint8)
    write_pngs(tmp_path / "in", photographs)
    form = ["--resolution", 128, "--ratio", ratio, "--encoding", encoding]
    assert prepare(capsys, "--data-dir", tmp_path, "--task", "own", "--images-dir", tmp_path / "in", *form)[0] == 0
    taken = os.path.getsize(str(tmp_path / "own" / "own-r07.tfrecords1of1"))
    assert taken <= writer.free_space_needed(ImageFormat(128, 3, ratio, encoding), 4) <= 2 * taken


def test_what_is_written_already_needs_no_space(tmp_path, capsys, monkeypatch):
    write_pngs(tmp_path / "in", noise(20, 16))
    (tmp_path / "in" / "0003.png").write_bytes(b"")
    arguments = ["--data-dir", tmp_path, "--task", "own", "--images-dir", tmp_path / "in", "--resolution", 16, "--encoding", "raw"]
    assert prepare(capsys, *arguments)[0] == 1     # one of its 20 pictures cannot be used
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 25000})())
    assert prepare(capsys, *arguments, "--allow-skips")[0] == 0
    assert "needs about" in prepare(capsys, *arguments, "--task", "other")[2]


def test_names_that_are_no_utf_8_and_links_to_nowhere_are_listed(tmp_path, capsys):
    folder = tmp_path / "in" / "a\udcff"
    write_pngs(folder, noise(3, 8))
    write_pngs(tmp_path / "in" / "b", noise(1, 8))
    (folder / "bad\udcfe.png").write_bytes(b"")
    (folder / "link.png").symlink_to("nowhere")
    (folder / "loop").symlink_to(".")
    arguments = ["--data-dir", tmp_path, "--task", "own", "--images-dir", tmp_path / "in", "--resolution", 8, "--labels", "folders"]
    code, out, err = prepare(capsys, *arguments, "--allow-skips")
    assert code == 0, err
    assert "labels: [4, 2] one-hot (a\\udcff, b)" in out and "a\\udcff/loop: it links to" in out
    expected = "a\\udcff/bad\\udcfe.png\tnot an image\na\\udcff/link.png\tnot found\n"
    assert (tmp_path / "own" / "skipped.txt").read_text() == expected
    assert expected.splitlines()[0].replace("\t", ": ") in prepare(capsys, "--check", tmp_path / "in")[1]


def test_a_dataset_is_on_the_disk_before_and_after_its_folder_is_renamed(tmp_path, capsys, monkeypatch):
    """If the machine crashes, names that only the kernel knows are lost."""
    done, sync, rename = [], os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append(os.readlink(f"/proc/self/fd/{handle}")), sync(handle)))
    monkeypatch.setattr(os, "rename", lambda old, new: (done.append((old, new)), rename(old, new)))
    assert prepare(capsys, "--data-dir", tmp_path, "--scenes", "--max-images", 2, "--resolution", 16)[0] == 0
    partial, final = str(tmp_path / "scenes.partial"), str(tmp_path / "scenes")
    assert done[-3:] == [partial, (partial, final), str(tmp_path)]


@pytest.mark.parametrize("number, code", [(errno.EINVAL, 0), (errno.ENOTSUP, 0), (errno.EIO, 1)])
def test_a_file_system_that_cannot_sync_folders_can_hold_datasets(tmp_path, capsys, monkeypatch, number, code):
    sync = os.fsync

    def fsync(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        sync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    assert prepare(capsys, "--data-dir", tmp_path, "--scenes", "--max-images", 2, "--resolution", 16)[0] == code


def test_what_a_killed_preparation_began_is_removed_and_what_it_finished_is_kept(tmp_path, capsys):
    write_pngs(tmp_path / "in", noise(20, 8))
    (tmp_path / "in" / "0003.png").write_bytes(b"")
    folder = tmp_path / "data [1]"
    arguments = ["--data-dir", folder, "--task", "own", "--images-dir", tmp_path / "in", "--resolution", 8, "--shards-num", 2]
    assert prepare(capsys, *arguments)[0] == 1
    partial = folder / "own.partial"
    (partial / ".own-r03.tfrecords2of2.abc.partial").write_bytes(b"half")
    (partial / "own-r03.tfrecords2of2.done").unlink()
    code, out, _ = prepare(capsys, *arguments, "--allow-skips")
    assert code == 0 and out.startswith(f"{partial}: continuing, 1 of 2 shards are finished\n")
    shards = [f"own-r03.tfrecords{number}of2" for number in (1, 2)]
    assert sorted(folder_bytes(folder / "own")) == ["dataset.json", "index.npy", *shards, "skipped.txt"]


def test_neighbouring_shards_are_read_in_one_go():
    """A source that starts over for every range would be read as many times as there are shards."""
    bounds = [0, 10, 20, 30, 40]
    assert ranges_of(bounds, [0, 1, 2, 3]) == [(0, 40)]
    assert ranges_of(bounds, [0, 2, 3]) == [(0, 10), (20, 40)]
    assert ranges_of(bounds, []) == []
