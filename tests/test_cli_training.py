"""run_network.py in real processes: a run that is killed, stopped and continued matches an undisturbed one."""

import contextlib
import fcntl
import json
import os
import pty
import re
import resource
import signal
import struct
import subprocess
import termios

import numpy as np
import pytest

from dnnlib import locks
from tests.cli_helpers import SMALL, command, finish, start, wait_for, write_raw_dataset
from tests.conftest import on_one_stack, on_the_other_stack
from tests.metrics_standins import write_features_dir
from training import run_choice

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """--data-dir and --result-dir."""
    data = tmp_path_factory.mktemp("data")
    write_raw_dataset(data)
    return ["--data-dir", data, "--dataset", "blobs", "--result-dir", tmp_path_factory.mktemp("results")]


def states(folder):
    return sorted(name for name in os.listdir(str(folder)) if name.startswith("training-state"))


def load(path):
    """Everything in a state that must be reproduced; the run's clock is left out."""
    with np.load(str(path)) as file:
        arrays = {name: file[name] for name in file.files if name != "sha256"}
    record = json.loads(arrays.pop("record").tobytes().decode())
    record["progress"].pop("seconds")
    return record["progress"], arrays


@on_the_other_stack
def test_kill_stop_and_continue(folders):
    results = folders[-1]
    flags = [*folders, *SMALL, "--train", "--tick-kimg", "0.16", "--pathreg"]
    code, out, err = finish(*flags, "--expname", "whole", "--total-kimg", "2")
    assert code == 0, err
    assert len(re.findall(r"^tick ", out, re.M)) == 13
    assert states(results / "whole-000") == [f"training-state-{kimg:06d}.npz" for kimg in range(3)]

    flags += ["--expname", "parts", "--total-kimg", "2"]
    process = start(*flags)
    wait_for(process, "saved")
    wait_for(process, "tick")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL

    with locks.take(str(results / "parts-000" / run_choice.LOCK)):  # as another training process does
        code, _, err = finish(*flags)
    assert code == 1 and f"parts-000 is being trained by process {os.getpid()} on " in err, err

    process = start(*flags)
    wait_for(process, "continuing")
    wait_for(process, "tick")
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate()
    assert process.returncode == 0 and "SIGTERM: finishing this step" in rest and "saved" in rest

    process = start(*flags)
    assert "continuing" in "".join(wait_for(process, "tick"))
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate()
    assert process.returncode == 0 and "stopped at kimg " in rest.splitlines()[-1]

    code, out, err = finish(*flags)
    assert code == 0 and out.splitlines()[-1] == "training complete: kimg 2.000", err
    progress, arrays = load(results / "parts-000" / "training-state-000002.npz")
    expected_progress, expected = load(results / "whole-000" / "training-state-000002.npz")
    assert progress == expected_progress and progress["step"] == 125
    assert arrays.keys() == expected.keys()
    assert not [name for name in arrays if not np.array_equal(arrays[name], expected[name])]
    log = (results / "parts-000" / "log.txt").read_text()
    assert log.count("command: python run_network.py") == 4 and log.count("\ncontinuing ") == 3
    assert not os.path.exists(str(results / "parts-001"))


def test_options_of_a_run(folders):
    results = folders[-1]
    flags = [*folders, *SMALL, "--expname", "options", "--train"]
    code, _, err = finish(*flags, "--total-kimg", "0.05", "--baseline", "GAN", "--metrics", "swd", "--eval-images-num", "32")
    assert code == 0, err
    run = results / "options-000"
    config = json.loads((run / "config.json").read_text())
    assert config["options"]["style"] is False and config["options"]["latent_stem"] is True
    assert config["generator"]["latent_stem"] is True and config["dataset"]["name"] == "blobs" and config["dataset"]["fingerprint"]
    assert config["versions"]["numpy"] == np.__version__
    assert (run / "metric-swd.txt").read_text().count("\n") == 1

    code, out, err = finish(*flags, "--total-kimg", "0.1")  # without the preset: different networks
    assert code == 2 and re.search(r"error: this run was trained with a different generator.*--reload", err)
    assert "generator.latent_stem changed from True to False" in out and "continuing" not in out
    code, out, err = finish(*flags, "--total-kimg", "0.1", "--reload", "--g-lr", "0.001", "--batch-size", "16")
    assert code == 0, err
    assert "training.g_adam.learning_rate changed from 0.002 to 0.001" in out
    assert json.loads((run / "config.json").read_text())["options"]["style"] is False
    code, out, err = finish(*flags, "--total-kimg", "0.05", "--restart")
    assert code == 0 and os.path.isdir(str(results / "options-001")), err


@on_one_stack
def test_evaluation_reads_the_architecture_from_the_snapshot(folders):
    results = folders[-1]
    flags = [*folders, *SMALL, "--expname", "seen"]
    code, _, err = finish(*flags, "--train", "--total-kimg", "0.05", "--transformer", "--components-num", "2", "--kmeans")
    assert code == 0, err
    assert (results / "seen-000" / "visuals" / "maps" / "000000_grid.png").exists()
    (events,) = (results / "seen-000").glob("events*")
    assert all(events.read_bytes().count(b"\n" + bytes([len(tag)]) + tag) == 2 for tag in (b"samples", b"attention"))  # their tags
    snapshot = results / "seen-000" / "network-snapshot-000000.pkl"
    (results / "seen-000" / "network-snapshot-000009.pkl").write_bytes(snapshot.read_bytes()[:5000])
    code, out, err = finish(*folders, "--gpus", "cpu", "--expname", "seen", "--eval", "--metrics", "swd", "--eval-images-num", "32",
                            "--vis-images", "--vis-num", "3")  # fmt: skip
    assert code == 0, err
    assert re.search(r"warning: .*000009.pkl.*; falling back to network-snapshot-000000.pkl", out)
    assert re.search(r"metric swd: swd \d", out)
    assert (results / "seen-000" / "metric-swd.txt").exists()
    pictures = [name for _, _, names in os.walk(str(results / "seen-000" / "visuals")) for name in names]
    assert {"000000.png", "000001.png", "000002.png"} <= set(pictures)


@on_one_stack
def test_continuing_from_a_snapshot_of_another_architecture(folders):
    """--pretrained-pkl puts its architecture into the run's record, so that the same command continues the run."""
    flags, results = [*folders, *SMALL, "--train"], folders[-1]
    code, _, err = finish(*flags, "--expname", "first", "--total-kimg", "0.032", "--transformer", "--components-num", "2", "--kmeans")
    assert code == 0, err
    tuned = [*flags, "--expname", "tuned", "--pretrained-pkl", results / "first-000" / "network-snapshot-000000.pkl"]
    scored = ["--eval", "--metrics", "swd", "--eval-images-num", "32"]

    def networks_scored():
        lines = [json.loads(line)["settings"] for line in (results / "tuned-000" / "metrics.jsonl").read_text().splitlines()]
        return [(line["snapshot"], line["network_fingerprint"]) for line in lines]

    for kimg, message in (("0.032", "with its architecture"), ("1.008", "continuing")):
        code, out, err = finish(*tuned, *scored, "--total-kimg", kimg)
        assert code == 0, err
        assert message in out
        assert len(set(networks_scored())) == len(networks_scored())  # --eval does not repeat the metrics of the last snapshot
    record = json.loads((results / "tuned-000" / "config.json").read_text())
    assert record["generator"]["components_num"] == 2 and record["options"]["pretrained_pkl"] == str(tuned[-1])
    tuned[-1].unlink()  # the run goes on without it
    spelled = [*tuned[:-1], os.path.relpath(str(tuned[-1]))]
    code, out, err = finish(*spelled, "--total-kimg", "1.008")
    assert code == 0 and "continuing" in out and "changed" not in out, err
    other = [*tuned[:-1], results / "tuned-000" / "network-snapshot-000001.pkl"]
    code, _, err = finish(*other, "--total-kimg", "2")
    assert code == 2 and re.search(r"error: --pretrained-pkl .* run tuned began from .*first-000.* give --restart", err), err
    reloaded = [*folders, "--gpus", "cpu", "--expname", "tuned", "--reload", *scored]
    code, out, err = finish(*reloaded)
    assert code == 0, err
    before, reloaded = networks_scored()[-2:]
    assert before == reloaded and reloaded[0] == "network-snapshot-000001.pkl"


@on_one_stack
def test_another_batch_size_trains_the_same_number_of_images(folders):
    flags, folder = [*folders, *SMALL, "--train", "--expname", "batches", "--baseline", "GAN"], folders[-1] / "batches-000"
    assert finish(*flags, "--total-kimg", "0.064")[0] == 0
    larger = [*flags, "--batch-size", "32", "--total-kimg", "1.024"]
    code, _, err = finish(*larger)
    assert code == 2 and "batch_size" in err and "--accept-changes" in err
    code, _, err = finish(*larger, "--accept-changes")
    assert code == 0, err
    progress, _ = load(folder / states(folder)[-1])
    assert progress["images"] == 1024 and progress["step"] == 4 + 30
    code, _, err = finish(*larger, "--accept-changes", "--latent-size", "64")
    assert code == 1 and "the training state does not fit these networks" in err and "--restart --pretrained-pkl FILE" in err
    code, out, err = finish(*folders, "--gpus", "cpu", "--train", "--expname", "batches", "--reload")
    assert code == 0 and "training complete: kimg 1.024" in out, err


@on_one_stack
def test_a_damaged_newest_state_costs_only_its_own_part(folders):
    results = folders[-1]
    flags = [*folders, *SMALL, "--train", "--baseline", "GAN", "--tick-kimg", "0.512"]
    assert finish(*flags, "--expname", "hurt", "--total-kimg", "3.072")[0] == 0
    newest = results / "hurt-000" / "training-state-000003.npz"
    _, expected = load(newest)
    content = bytearray(newest.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] ^= 1  # the bit that means: encrypted
    newest.write_bytes(content)
    code, out, err = finish(*flags, "--expname", "hurt", "--total-kimg", "3.072")
    assert code == 0 and f"warning: training state {newest}: cannot be read" in out and "continuing" in out, err
    _, arrays = load(newest)
    assert not [name for name in expected if not np.array_equal(arrays[name], expected[name])]


@on_one_stack
def test_a_full_disk_loses_nothing_that_was_there(folders):
    """Files may grow to only 40 kB (a process limit), and the log is on a full disk."""
    results = folders[-1]
    flags = [*folders, *SMALL, "--train", "--baseline", "GAN", "--expname", "full", "--summarize", "False"]
    assert finish(*flags, "--total-kimg", "0.064")[0] == 0
    state = results / "full-000" / states(results / "full-000")[-1]
    before = state.read_bytes()
    (results / "full-000" / "log.txt").unlink()
    (results / "full-000" / "log.txt").symlink_to("/dev/full")
    done = subprocess.run(command(*flags, "--total-kimg", "1.6"), capture_output=True, text=True,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000)))  # fmt: skip
    assert done.returncode == 1 and "warning: cannot save the snapshot" in done.stdout, done.stderr
    assert done.stderr.count("some lines are missing there") == 1 and "error: the last state was not saved" in done.stderr
    assert "Traceback" not in done.stderr and state.read_bytes() == before
    assert not [name for _, _, names in os.walk(str(results / "full-000")) for name in names if name.endswith(".partial")]
    code, out, err = finish(*flags, "--total-kimg", "1.6")
    assert code == 0 and "continuing" in out and "kimg 0.064" in out, err


@on_the_other_stack
def test_a_signal_ends_an_evaluation(folders, tmp_path):
    flags = [*folders, *SMALL, "--train", "--baseline", "GAN", "--expname", "scored", "--features-dir", write_features_dir(tmp_path)]
    flags[flags.index("none")] = "fid"
    process = start(*flags, "--total-kimg", "0.032", "--eval-images-num", "1000000")
    wait_for(process, "saved")
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "warning: evaluation stopped by SIGTERM: fid not computed" in rest, rest


@on_one_stack
def test_on_a_terminal(folders):
    """The bar is on the terminal and not in the log; only the newest files are kept."""
    results = folders[-1]
    flags = [*folders, *SMALL, "--train", "--baseline", "GAN", "--tick-kimg", "0.512", "--last-snapshots", "1", "--keep-samples", "False"]
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 24, 120, 0, 0))
    process = subprocess.Popen(command(*flags, "--expname", "shown", "--total-kimg", "3.072"), stdout=subprocess.DEVNULL, stderr=follower)
    os.close(follower)
    shown = b""
    with contextlib.suppress(OSError):  # reading past the end of a terminal raises this
        while True:
            shown += os.read(leader, 1 << 16)
    assert process.wait() == 0, shown
    assert re.search(rb"\r +\d+%\|.*/512 .*img/s", shown), shown[-2000:]
    log = (results / "shown-000" / "log.txt").read_text()
    assert "\r" not in log and log.count("\ntick ") == 6 and log.count("\nsaved ") == 2
    assert states(results / "shown-000") == ["training-state-000003.npz"]
    assert [path.name for path in (results / "shown-000").glob("network-snapshot-*")] == ["network-snapshot-000003.pkl"]
    assert len(list((results / "shown-000" / "visuals" / "images").rglob("*.png"))) == 1


@on_one_stack
def test_vitgan_trains_continues_evaluates_and_samples_like_the_others(folders, tmp_path):
    results, scored = folders[-1], ["--metrics", "swd,ppl", "--eval-images-num", "32", "--features-dir", write_features_dir(tmp_path)]
    model = ["--baseline", "ViTGAN", "--vit-dim", "16", "--vit-heads", "2", "--vit-depth", "1", "--latent-size", "16"]
    sizes = ["--mapping-layersnum", "2", "--batch-size", "16", "--batch-gpu", "8", "--tick-kimg", "0.512"]
    flags = [*folders, "--gpus", "cpu", "--train", *model, *sizes, *scored]
    for name, kimgs in (("vit-whole", ["2.048"]), ("vit-parts", ["1.024", "2.048"])):
        for kimg in kimgs:
            code, out, err = finish(*flags, "--expname", name, "--total-kimg", kimg)
            assert code == 0 and "metric ppl: ppl " in out, err
    (_, expected), (_, arrays) = [load(results / f"{name}-000" / "training-state-000002.npz") for name in ("vit-whole", "vit-parts")]
    assert expected.keys() == arrays.keys() and not [name for name in expected if not np.array_equal(arrays[name], expected[name])]
    pairs = [(array, arrays["D" + name[1:]]) for name, array in arrays.items() if name.startswith("G/") and "D" + name[1:] in arrays]
    alike = [np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in pairs if one.shape == other.shape and one.size > 100]
    assert len(alike) > 3 and np.max(np.abs(alike)) < 0.5  # they started from different values
    code, out, err = finish(*folders, "--gpus", "cpu", "--expname", "vit-parts", "--eval", *scored)
    assert code == 0 and re.search(r"metric swd: swd \d", out) and "metric ppl: ppl " in out, err
    snapshot = results / "vit-parts-000" / "network-snapshot-000002.pkl"
    code, _, err = finish("--model", snapshot, "--gpus", "cpu", "--seeds", "1-3", "--output-dir", tmp_path / "images", script="generate.py")
    assert code == 0 and len(list((tmp_path / "images").glob("*.png"))) == 3, err
