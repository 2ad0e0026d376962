"""Whole runs in one process: exact continuation, damaged states, full disks, TensorBoard, what a run folder holds."""

import dataclasses
import glob
import itertools
import os
import shutil
import signal
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from dnnlib import UserError, locks, log, tflib
from dnnlib.tflib.snapshot import read_records
from tests.training_standins import GANFORMER, ArrayDataset, small_networks, small_training
from training import command_line, launch, run_choice, run_files, schedule, status, training_loop, training_state
from training.config import OutputConfig, ScheduleConfig
from training.samples import SampleGrid
from training.training_loop import TrainingLoop


def train(folder, config, generator=None, outputs=None, evaluate=None, classes=0, state=None, dataset=None):
    """One training session; returns the values of all of its variables at the end."""
    os.makedirs(str(folder), exist_ok=True)
    with tflib.session_scope():
        networks = small_networks(c_dim=classes, generator=generator)
        outputs = outputs or OutputConfig(summarize=False)
        dataset = dataset or ArrayDataset(classes)
        loop = TrainingLoop(str(folder), networks, config, outputs, dataset, ["/cpu:0"], {"made": "here"}, evaluate, state)
        loop.run()
        return training_state.capture(loop.variables, loop.progress, {})


def assert_same_state(one, other):
    assert one.progress.images == other.progress.images and one.progress.path_length_mean == other.progress.path_length_mean
    assert one.arrays.keys() == other.arrays.keys()
    different = [name for name in one.arrays if not np.array_equal(one.arrays[name], other.arrays[name])]
    assert not different


@pytest.mark.slow
def test_exact_continuation(tmp_path):
    """2N steps equal N, stop, N: with mixing, noise, dropout, both lazy regularizers, accumulation, mirroring, labels and shuffling."""
    options = {"generator": {**GANFORMER, "component_mixing": 0.5}, "classes": 3}
    config = small_training(total_kimg=0.064, tick_kimg=0.008)
    states = []

    def keep(Gs, path, run_dir):
        states.append(training_state.load_latest(run_dir)[0])
        return {}

    whole = train(tmp_path / "whole", config, evaluate=keep, **options)
    assert [state.progress.step for state in states] == [3, 6, 8]
    parts = train(tmp_path / "parts", config, state=states[0], **options)
    assert parts.progress.step == 8
    assert_same_state(whole, parts)
    assert_same_state(whole, states[2])


@pytest.fixture(scope="module")
def short_run(tmp_path_factory):
    """A finished run of four ticks, the last one shorter, with its events and metric calls."""
    folder = tmp_path_factory.mktemp("runs") / "short"
    calls = []

    def evaluate(Gs, path, run_dir):
        calls.append((Gs.name, os.path.basename(path), run_dir))
        return {"swd": 12.5}

    sizes, write = [], SampleGrid.write
    with mock.patch.object(SampleGrid, "write", lambda self, Gs, shown, size: sizes.append(size) or write(self, Gs, shown, size)):
        train(folder, small_training(pathreg=False, total_kimg=0.072), outputs=OutputConfig(batch_gpu=2), evaluate=evaluate)
    assert set(sizes) == {2}
    return folder, calls


def test_run_folder(short_run):
    folder, calls = short_run
    names = sorted(os.listdir(str(folder)))
    assert {"network-snapshot-000000.pkl", "reals.png", "training-state-000000.npz", "visuals"} <= set(names)
    assert os.listdir(str(folder / "visuals" / "images")) == ["000000_grid.png"]
    assert [call[1] for call in calls] == ["network-snapshot-000000.pkl"] * 2  # after tick 3 and at the end
    state, _ = training_state.load_latest(str(folder))
    records = read_records(str(folder / "network-snapshot-000000.pkl"))
    for name, record in zip(("G", "D", "Gs"), records):
        for key, value in record.values.items():
            assert np.array_equal(value, state.arrays[f"{name}/{key}"])


def test_events(short_run):
    events, begun = {}, []
    for path in glob.glob(str(short_run[0] / "events*")):
        for event in tf.train.summary_iterator(path):
            begun += [event.step] if event.session_log.status == tf.SessionLog.START else []
            for value in event.summary.value:
                events.setdefault(value.tag, []).append((event.step, value))
    assert [step for step, _ in events["Loss/G"]] == [24, 40, 64, 72] and begun == [1]
    assert [value.simple_value for _, value in events["Progress/tick"]] == [1, 2, 3, 4]
    wanted = {"Loss/D", "Scores/real", "Scores/fake", "Regularizer/r1", "Gradients/G", "Gradients/D", "Gradients/D_r1",
              "Timing/images_per_second", "Resources/peak_memory_gb", "Metrics/swd", "samples", "Rates/G", "Rates/D", "Skipped/G",
              "Timing/saving_seconds", "Timing/metrics_seconds"}  # fmt: skip
    assert wanted <= set(events)
    assert events["Metrics/swd"][0][1].simple_value == 12.5
    picture = events["samples"][-1][1].image
    assert (picture.width, picture.height) == (8 * 8, 5 * 8)
    assert picture.encoded_image_string.startswith(b"\x89PNG")


def test_damaged_states_are_passed_over(tmp_path, short_run, capsys):
    good, _ = training_state.load_latest(str(short_run[0]))
    for kimg in (1, 2, 3, 4):
        training_state.save(str(tmp_path / f"training-state-{kimg:06d}.npz"), good)
    whole = (tmp_path / "training-state-000002.npz").read_bytes()
    (tmp_path / "training-state-000004.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "training-state-000003.npz").write_bytes(b"")
    with np.load(str(tmp_path / "training-state-000002.npz")) as file:
        arrays = dict(file)
    arrays["G/G_synthesis/4x4/Const/const"] = arrays["G/G_synthesis/4x4/Const/const"] + 1e-7
    np.savez(str(tmp_path / "training-state-000002.npz"), **arrays)
    state, path = training_state.load_latest(str(tmp_path))
    assert path.endswith("000001.npz")
    assert_same_state(state, good)
    warnings = capsys.readouterr().out.splitlines()
    assert len(warnings) == 3 and "checksum" in warnings[2]
    assert [line.split("; ")[-1] for line in warnings] == [f"falling back to training-state-{kimg:06d}.npz" for kimg in (3, 2, 1)]


def test_a_run_with_damaged_states_alone_is_not_left_for_a_new_one(picture_models, tmp_path, capsys):
    run_dir, options = tmp_path / "exp-000", command_line.Options(result_dir=str(tmp_path))
    run_dir.mkdir()
    state = run_dir / "training-state-000001.npz"
    training_state.save(str(state), training_state.TrainingState(training_state.Progress(), {}))
    state.write_bytes(state.read_bytes()[:100])
    (run_dir / "network-snapshot-000001.pkl").write_bytes(b"damaged")
    with pytest.raises(UserError, match=rf"^training state {state}: cannot be read \(.*\); give --restart for a new run$"):
        run_choice.find_run(options)
    assert capsys.readouterr().out == ""
    snapshot = shutil.copy(picture_models["kgan"], str(run_dir / "network-snapshot-000000.pkl"))
    with pytest.raises(UserError, match=f"--restart for a new run, or --restart --pretrained-pkl {snapshot} for one that starts") as kept:
        run_choice.find_run(options)
    assert capsys.readouterr().out.endswith("; falling back to network-snapshot-000000.pkl\n")
    assert run_choice.find_run(dataclasses.replace(options, restart=True)) == run_choice.FoundRun()
    locks.take(str(run_dir / run_choice.LOCK)).close()
    assert kept.tb  # which a notebook keeps as well, with all open files


def test_state_of_other_networks_is_refused(short_run):
    state, _ = training_state.load_latest(str(short_run[0]))
    with tflib.session_scope():
        networks = small_networks(generator={"mapping_num_layers": 3})
        state.arrays = {name: array for name, array in state.arrays.items() if "_optimizer/" not in name}
        with pytest.raises(UserError, match=r"G/G_mapping/Dense2/bias is None, expected \[8\].*and 1 more"):
            training_state.restore(training_state.state_variables(networks, {}), state)


def test_old_snapshots_are_removed(tmp_path, capsys):
    for kimg in range(5):
        for name in (f"network-snapshot-{kimg:06d}.pkl", f"training-state-{kimg:06d}.npz"):
            (tmp_path / name).write_text("")
    run_files.remove_old(str(tmp_path), -1)
    assert len(os.listdir(str(tmp_path))) == 10
    run_files.remove_old(str(tmp_path), 2)
    assert sorted(os.listdir(str(tmp_path)))[:2] == ["network-snapshot-000003.pkl", "network-snapshot-000004.pkl"]
    assert len(os.listdir(str(tmp_path))) == 4
    (tmp_path / "network-snapshot-000000.pkl").mkdir()
    run_files.remove_old(str(tmp_path), 1)
    left = ["network-snapshot-000000.pkl", "network-snapshot-000004.pkl", "training-state-000004.npz"]
    assert sorted(os.listdir(str(tmp_path))) == left and f"warning: cannot delete {tmp_path / left[0]}: " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("total_kimg, evaluations", [(0.08, 2), (0.064, 1)])  # in the latter, saving the last images fails twice
def test_full_disk_loses_nothing(total_kimg, evaluations, tmp_path, monkeypatch, capsys):
    config = small_training(total_kimg=total_kimg, pathreg=False, d_reg="non")

    def fail(path, state):
        raise OSError(28, "No space left on device")

    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "training-state-000000.npz").write_bytes(b"before")
    monkeypatch.setattr(training_loop.training_state, "save", fail)
    evaluated = []

    def evaluate(Gs, path, run_dir):
        evaluated.append((path, run_dir))
        return {}

    with pytest.raises(UserError, match="No space left"):
        train(folder, config, evaluate=evaluate)
    assert evaluated == evaluations * [(None, str(folder))]
    assert (folder / "training-state-000000.npz").read_bytes() == b"before"
    assert capsys.readouterr().out.count("warning: cannot save") == 2
    assert not glob.glob(str(folder / ".*partial"))


@pytest.mark.parametrize("keep, room, left, saved", [
    (10, 3, [101, 102, 103], True), (10, 2, [102, 103], True), (10, 1, [102], False), (-1, 2, [100, 101, 102], False),
])  # fmt: skip
def test_a_full_disk_takes_the_room_of_the_oldest_snapshots(keep, room, left, saved, tmp_path, monkeypatch, capsys):
    """Old ones go one at a time, however many may be kept; never the one last saved, and none if all are to be kept."""
    save = training_state.save

    def save_where_room_is(path, state):
        if len(glob.glob(str(tmp_path / "training-state-*"))) >= room:
            raise OSError(28, "No space left on device")
        save(path, state)

    for kimg in (100, 101, 102):
        (tmp_path / f"network-snapshot-{kimg:06d}.pkl").write_bytes(b"")
        (tmp_path / f"training-state-{kimg:06d}.npz").write_bytes(b"")
    monkeypatch.setattr(training_loop.training_state, "save", save_where_room_is)
    with tflib.session_scope():
        outputs = OutputConfig(summarize=False, last_snapshots=keep)
        config = small_training(pathreg=False, d_reg="non")
        loop = TrainingLoop(str(tmp_path), small_networks(), config, outputs, ArrayDataset(), ["/cpu:0"], {})
        loop._saved_images = 102000
        path = loop._save(training_state.capture(loop.variables, loop.progress, {}), 103000)
    assert (path is not None) == saved == ("warning: cannot save" not in capsys.readouterr().out)
    assert sorted(int(name[-10:-4]) for name in glob.glob(str(tmp_path / "training-state-*.npz"))) == left


class Unreadable(ArrayDataset):
    """Three batches, then a record that cannot be read."""

    def batches(self, *args, **kwargs):
        yield from itertools.islice(super().batches(*args, **kwargs), 3)
        raise UserError("unusable record")


@pytest.mark.slow
def test_what_was_learned_before_an_unreadable_record_is_saved(tmp_path):
    with pytest.raises(UserError, match="unusable record"):
        train(tmp_path, small_training(pathreg=False, d_reg="non"), dataset=Unreadable())
    state, _ = training_state.load_latest(str(tmp_path))
    assert state.progress.step == 3


@pytest.mark.slow
def test_a_stop_during_the_last_metrics_is_said(tmp_path, capsys):
    def evaluate(Gs, path, run_dir):
        os.kill(os.getpid(), signal.SIGTERM)
        return {}

    train(tmp_path, small_training(total_kimg=0.008, pathreg=False, d_reg="non"), evaluate=evaluate)
    assert capsys.readouterr().out.splitlines()[-1] == (
        "training complete: kimg 0.008; stopped before the metrics: run --eval to compute them")  # fmt: skip


def test_time_left_has_the_snapshots_in_it(monkeypatch, capsys):
    """Ticks of 1000 images at 10 images/s; a snapshot every third tick and at the end takes 40 s with its metrics."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(status.time, "time", lambda: clock.now)
    shown = status.Status(ScheduleConfig(total_kimg=7, tick_kimg=1), None, 0, 0.0, {})
    left, paused = [], []
    for tick in range(1, 8):
        clock.now += 100
        values = shown.tick(tick, 1000 * tick, {"Skipped/G": tick})
        assert values["Timing/images_per_second"] == pytest.approx(10) and values["Skipped/G"] == tick
        left.append(capsys.readouterr().out.split("  left ")[1].split("  ")[0])
        paused.append((values["Timing/saving_seconds"], values["Timing/metrics_seconds"]))
        if tick % 3 == 0:
            clock.now += 40
            shown.pause(saving=10, metrics=30)
    assert left == [log.format_time(seconds) for seconds in (600, 500, 400, 380, 280, 180, 40)]
    assert paused == [(0, 0), (0, 0), (0, 0), (10, 30), (0, 0), (0, 0), (10, 30)]


def test_a_tick_says_where_a_continued_run_stands(monkeypatch, capsys):
    clock = SimpleNamespace(now=50.0)
    monkeypatch.setattr(status.time, "time", lambda: clock.now)
    shown = status.Status(ScheduleConfig(total_kimg=7, tick_kimg=1), None, 2000, 7200.0, {"G": 0.002})
    clock.now += 100
    shown.step({"Loss/G": 1.5, "Loss/D": 2.5, "Regularizer/r1": 3.5, "Regularizer/path_length": 4.5, "Gradients/G": 5.5}, 1000)
    values = shown.tick(3, 3000, {})
    expected = {"Progress/tick": 3, "Progress/kimg": 3, "Timing/images_per_second": 10, "Timing/seconds_per_kimg": 100,
                "Timing/total_hours": 7300 / 3600, "Rates/G": 0.002}  # fmt: skip
    assert {name: values[name] for name in expected} == pytest.approx(expected)
    with open("/proc/self/status") as file:
        largest = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))  # KiB
    assert values["Resources/peak_memory_gb"] == pytest.approx(largest * 1024 / 2**30, rel=0.05)
    out = capsys.readouterr().out
    assert "tick 3  kimg 3.000  G 1.5  D 2.5  R1 3.5  PL 4.5  |dG| 5.5  time " in out
    assert "  time 2h 01m  left 6m 40s  sec/kimg 100.0  images/s 10.0  memory " in out


def test_what_the_options_ask_for_reaches_the_loop(picture_models, tmp_path, monkeypatch, capsys):
    """A run without a training state is not continued; the new one's lock is held until the end; a failing report stops nothing."""
    made, old = {}, tmp_path / "exp-000" / "network-snapshot-000000.pkl"

    class Loop:
        def __init__(self, **given):
            made.update(given)

        def run(self):
            with pytest.raises(BlockingIOError):
                locks.take(os.path.join(made["run_dir"], run_choice.LOCK))
            made["show"](None, 0)
            return True

    old.parent.mkdir()
    old.write_bytes(b"")
    monkeypatch.setattr(launch, "TrainingLoop", Loop)
    outputs = {"summarize": False, "truncation_psi": 0.4, "keep_samples": False, "last_snapshots": 3}
    start = {"pretrained_pkl": picture_models["kgan"], "style_mixing": 0.25}
    options = command_line.Options(result_dir=str(tmp_path), eval_batch_gpu=1, **start, **outputs)
    plan = launch.plan_training(options, ArrayDataset(), ["/cpu:0"])
    assert plan.run_dir == str(tmp_path / "exp-001") and plan.notes == ["the latest run has no training state: starting a new one"]
    assert launch.train(plan, options, ArrayDataset(), ["/cpu:0"], None)
    assert made["outputs"] == OutputConfig(batch_gpu=1, **outputs)
    assert made["networks"]["G"].config.style_mixing == made["networks"]["Gs"].config.style_mixing == 0.25
    assert made["networks"]["D"].config == plan.discriminator
    assert "warning: report.html is not up to date: AttributeError" in capsys.readouterr().out
    locks.take(os.path.join(plan.run_dir, run_choice.LOCK)).close()


def test_a_run_goes_on_without_the_snapshot_that_it_started_from(picture_models, tmp_path):
    """Its state has the architecture, which the options need not repeat."""
    origin = shutil.copy(picture_models["vitgan"], str(tmp_path / "origin.pkl"))
    options, dataset = command_line.Options(result_dir=str(tmp_path / "results"), pretrained_pkl=origin), ArrayDataset()
    first = launch.plan_training(options, dataset, ["/cpu:0"])
    first.lock.close()
    assert len(first.pretrained) == 3 and first.generator.dim == first.discriminator.dim == 8
    training_state.save(run_files.state_path(first.run_dir, 0), training_state.TrainingState(training_state.Progress(), first.record))
    os.remove(origin)
    for given in (origin, "None"):  # the average of the weights starts no warm-up either way
        again = dataclasses.replace(options, pretrained_pkl=given)
        plan = launch.plan_training(dataclasses.replace(again, truncation_psi=0.4), dataset, ["/cpu:0"])
        plan.lock.close()
        assert (plan.run_dir, plan.pretrained, plan.discriminator) == (first.run_dir, None, first.discriminator)
        assert plan.generator == dataclasses.replace(first.generator, truncation_psi=0.4)
        assert plan.record["options"]["pretrained_pkl"] == origin
        assert plan.notes[1:] == ["generator.truncation_psi changed from 0.7 to 0.4"]
        shown = launch.planned(dataclasses.replace(again, reload=True), dataset)
        assert shown == (dataclasses.replace(options, reload=True), first.generator, first.discriminator)
    with pytest.raises(UserError, match="with a different dataset.count") as refused:
        launch.plan_training(options, ArrayDataset(count=7), ["/cpu:0"])
    plan = launch.plan_training(options, dataset, ["/cpu:0"])
    with pytest.raises(AttributeError) as failed:
        launch.train(plan._replace(pretrained=[None]), options, dataset, ["/cpu:0"], None)
    locks.take(os.path.join(first.run_dir, run_choice.LOCK)).close()
    assert refused.tb and failed.tb
    with pytest.raises(UserError, match="origin.pkl: there is no such file"):
        launch.plan_training(dataclasses.replace(options, restart=True), dataset, ["/cpu:0"])
    with pytest.raises(UserError, match="origin.pkl: there is no such file"):
        launch.planned(dataclasses.replace(options, reload=True, restart=True), dataset)
    assert os.listdir(options.result_dir) == ["exp-000"]


def test_a_run_of_an_earlier_version_goes_on_with_the_snapshot_that_it_started_from(picture_models, tmp_path):
    options = command_line.Options(result_dir=str(tmp_path), pretrained_pkl=picture_models["vitgan"])
    first = launch.plan_training(options, ArrayDataset(), ["/cpu:0"])
    first.lock.close()
    record = {name: value for name, value in first.record.items() if name != "networks"}
    training_state.save(run_files.state_path(first.run_dir, 0), training_state.TrainingState(training_state.Progress(), record))
    plan = launch.plan_training(options, ArrayDataset(), ["/cpu:0"])
    plan.lock.close()
    assert (plan.pretrained, plan.generator, plan.discriminator) == (None, first.generator, first.discriminator)


@pytest.mark.parametrize("images, left", [(1000, 3), (2000, 3), (3000, 3), (4000, 2), (6000, 2), (7000, 1)])
def test_snapshots_left(images, left):
    assert schedule.snapshots_left(images, ScheduleConfig(total_kimg=7, tick_kimg=1)) == left
    assert schedule.snapshots_left(images, ScheduleConfig(total_kimg=9, tick_kimg=1)) == 3 - (images - 1000) // 3000


def small_loop(folder, state=None, evaluate=None):
    """A TrainingLoop of 80 images in the current session."""
    config, outputs = small_training(pathreg=False, d_reg="non"), OutputConfig(summarize=False)
    return TrainingLoop(str(folder), small_networks(), config, outputs, ArrayDataset(), ["/cpu:0"], {}, evaluate, state)


@pytest.mark.usefixtures("graph")
def test_a_complete_run_is_left_as_it_is(tmp_path):
    """It is neither saved nor evaluated again; the time and the average path length are those of the state."""
    loop = small_loop(tmp_path)
    state = training_state.capture(loop.variables, training_state.Progress(10, 80, 7200.0, 1.5), {})
    again = small_loop(tmp_path, state, lambda Gs, path, run_dir: pytest.fail("evaluated again"))
    assert again.run() and os.listdir(str(tmp_path)) == ["reals.png"]
    assert 7200 <= again.status.seconds < 7300 and again.step.path_length_mean == 1.5


@pytest.mark.usefixtures("graph")
def test_a_state_is_written_after_its_networks(tmp_path, monkeypatch):
    """No run continues from images whose networks could not be saved."""

    def fail(path, networks):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(training_loop.tflib, "save_snapshot", fail)
    loop = small_loop(tmp_path)
    assert loop._save(training_state.capture(loop.variables, loop.progress, {}), 1000) is None
    assert loop._save_error.errno == 5 and not glob.glob(str(tmp_path / "training-state-*"))


@pytest.mark.usefixtures("graph")
def test_a_grid_that_cannot_be_drawn_costs_no_snapshot(tmp_path, monkeypatch, capsys):
    saved = []

    def write(*arguments):
        saved.append(len(glob.glob(str(tmp_path / "training-state-*"))))
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")

    loop = small_loop(tmp_path)
    monkeypatch.setattr(loop.samples, "write", write)
    loop._begin_files()
    loop.snapshot(evaluate=False)
    assert saved == [0, 1]
    assert capsys.readouterr().out.count("warning: the sample grid is not written: ResourceExhaustedError: OOM") == 2


@pytest.mark.usefixtures("graph")
def test_saving_and_metrics_take_their_own_times(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0)

    def evaluate(Gs, path, run_dir):
        clock.now += 30
        return {}

    loop, paused = small_loop(tmp_path, evaluate=evaluate), {}
    monkeypatch.setattr(training_loop, "time", SimpleNamespace(time=lambda: clock.now))
    monkeypatch.setattr(loop, "_save", lambda state, images: setattr(clock, "now", clock.now + 10))
    monkeypatch.setattr(loop.status, "pause", lambda **seconds: paused.update(seconds))
    loop.snapshot(evaluate=True)
    assert paused == {"saving": 10, "metrics": 30}


def test_states_of_other_versions_are_refused(tmp_path, monkeypatch):
    path = str(tmp_path / "training-state-000001.npz")
    for version, other in ((2, 1), (1, 2)):
        monkeypatch.setattr(training_state, "VERSION", version)
        training_state.save(path, training_state.TrainingState(training_state.Progress(), {}))
        assert training_state.load(path).progress == training_state.Progress()
        monkeypatch.setattr(training_state, "VERSION", other)
        with pytest.raises(UserError, match=f"got version {version}, expected {other}"):
            training_state.load(path)
