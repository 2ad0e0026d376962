"""docs/python.md: its code runs and shows what it says."""

import os
import re
import shutil

import numpy as np
import tensorflow.compat.v1 as tf

from dnnlib import tflib
from tests.conftest import ROOT

SHOWN = re.compile(r"^(?P<expression>\S.*?) +# -> (?P<value>.*)$", re.MULTILINE)


def test_the_code_of_the_guide(picture_models, tmp_path, monkeypatch):
    with open(os.path.join(ROOT, "docs", "python.md"), encoding="utf-8") as file:
        blocks = re.findall(r"```python\n(.*?)```", file.read(), re.DOTALL)
    shutil.copy(picture_models["ganformer"], str(tmp_path / "model.pkl"))
    monkeypatch.chdir(tmp_path)
    names, shown = {}, []
    with tflib.session_scope():
        for block in blocks:
            exec(compile(block, "python.md", "exec"), names)
            shown += [(match.group("value"), eval(match.group("expression"), names)) for match in SHOWN.finditer(block)]
        z = np.random.RandomState(1).standard_normal([3, 4, 6])
        expected_images = names["Gs"].run(z, truncation_psi=0.7, noise_mode="const").images
    np.testing.assert_allclose(_run_saved_model(str(tmp_path / "saved_model"), z), expected_images, atol=1e-4)
    assert len(shown) == 11
    for expected, value in shown:
        assert value == eval(expected), f"the guide says {expected}, it is {value}"
    assert (tmp_path / "three.png").is_file() and (tmp_path / "copy.pkl").is_file()


def _run_saved_model(path, z):
    with tf.Graph().as_default(), tf.Session() as session:
        signature = tf.saved_model.load(session, ["serve"], path).signature_def["serving_default"]
        return session.run(signature.outputs["images"].name, {signature.inputs["z"].name: z})
