"""An evaluation that is killed (SIGKILL) at any moment leaves a cache that the next evaluation can use."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import metrics
from metrics import fid, images, reference, results, rows
from tests.cli_helpers import ROOT
from tests.conftest import half_of
from tests.metrics_standins import ArrayDataset, BlobGenerator, write_features_dir

METRICS = "fid,kid,pr"
CACHED = 4  # FID's sums, KID's and precision's rows, precision's radii


def make_dataset():
    """16 pictures of the same kind as the generator's."""
    z = 2 * np.random.RandomState(1).randn(16, 2, 4).astype(np.float32)
    return ArrayDataset(images.quantize(BlobGenerator().run_part("synthesis", z).images))


def options_in(folder, cache="cache"):
    """Options that keep everything below a folder."""
    folder = str(folder)
    return metrics.Options(images_num=12, features_dir=os.path.join(folder, "features"), cache_dir=os.path.join(folder, cache),
                           run_dir=os.path.join(folder, "run"), progress=False)  # fmt: skip


def _die(*ignored, **also_ignored):
    os.kill(os.getpid(), signal.SIGKILL)


def _die_halfway(write):
    """A function that writes like `write`, but dies after half of the bytes."""

    def die(collected, file):
        import io

        whole = io.BytesIO()
        write(collected, whole)
        file.write(whole.getvalue()[: whole.tell() // 2])
        file.flush()
        _die()

    return die


class DyingGenerator(BlobGenerator):
    run = _die


def die_in_evaluation(folder, moment):
    """Evaluate and get killed at a given moment: the test's other process."""
    Gs, dataset = BlobGenerator(), make_dataset()
    if moment == "reading the reals":
        dataset.read = _die
    elif moment == "writing the first file":
        fid.FeatureStatistics.save = _die_halfway(fid.FeatureStatistics.save)
    elif moment == "writing the second file":
        rows.Rows.save = _die_halfway(rows.Rows.save)
    elif moment == "generating":
        Gs = DyingGenerator()
    elif moment == "comparing":
        metrics.precision_recall.manifold_overlap = _die
    elif moment == "writing the results":
        results.Result.as_dict = _die
    metrics.evaluate(METRICS, Gs, dataset, options_in(folder))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Values of an undisturbed evaluation, and the folder with the feature networks."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "features").mkdir()
    write_features_dir(folder / "features")
    return [result.values for result in metrics.evaluate(METRICS, BlobGenerator(), make_dataset(), options_in(folder))], folder / "features"


@pytest.mark.slow
@pytest.mark.parametrize("moment, whole_files", half_of([
    ("reading the reals", 0),
    ("writing the first file", 0),
    ("writing the second file", 1),
    ("generating", 3),
    ("comparing", CACHED),
    ("writing the results", CACHED),
]))  # fmt: skip
def test_killed_at_a_moment(undisturbed, tmp_path, capsys, moment, whole_files):
    expected, features = undisturbed
    os.symlink(str(features), str(tmp_path / "features"))
    code = f"from tests.test_metrics_killed import die_in_evaluation; die_in_evaluation({str(tmp_path)!r}, {moment!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    cache = tmp_path / "cache"
    names = os.listdir(str(cache)) if cache.is_dir() else []
    kept = {name: (cache / name).stat().st_mtime_ns for name in names if not name.endswith(".partial")}
    assert len(kept) == whole_files
    assert len(names) - len(kept) == moment.startswith("writing the ") - moment.endswith("results")

    dataset = make_dataset()
    if whole_files == CACHED:
        dataset.read = None  # nothing is left to read
    evaluated = metrics.evaluate(METRICS, BlobGenerator(), dataset, options_in(tmp_path))
    assert [result.values for result in evaluated] == expected
    assert "unreadable" not in capsys.readouterr().err
    assert {name: (cache / name).stat().st_mtime_ns for name in kept} == kept
    assert [result.values for result in metrics.read(str(tmp_path / "run"))] == expected


def test_what_killed_evaluations_began_to_write_is_removed_in_time(tmp_path):
    cache = reference.ReferenceCache(str(tmp_path))
    for name, age in ((".a.npy.x.partial", 2 * 86400), (".b.npy.y.partial", 60), ("c.npy", 2 * 86400)):
        (tmp_path / name).write_bytes(b"begun")
        os.utime(str(tmp_path / name), (time.time() - age,) * 2)
    cache.save("new.npy", lambda file: file.write(b"whole"), 5)
    assert sorted(os.listdir(str(tmp_path))) == [".b.npy.y.partial", "c.npy", "new.npy"]  # the recent one may still be in use
