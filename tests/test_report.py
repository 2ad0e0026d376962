"""report.html: what is in it, and the page in a real browser."""

import json
import os
import re
import subprocess
import sys
import tempfile

import numpy as np
import PIL.Image
import pytest

from dnnlib import UserError
from examples import webdriver
from tests import report_run
from tests.conftest import ROOT
from tests.dataset_helpers import png_of_size
from training import report
from training.report import data, pictures, stats


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "demo-000"
    folder.mkdir()
    report_run.write_run(folder)
    report.write(str(folder))
    return folder


def page_data(folder):
    """The data in a page, and the page itself."""
    text = (folder / "report.html").read_text(encoding="utf-8")
    packed = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL).group(1)
    return json.loads(packed), text


def test_page_holds_the_run_and_nothing_from_elsewhere(run_dir):
    content, text = page_data(run_dir)
    assert not re.search(r'(src|href)\s*=\s*["\']?(https?:)?//', text) and "@import" not in text and "fetch(" not in text
    assert [grid["kimg"] for grid in content["grids"]] == list(report_run.KIMG)
    assert [chart["title"] for chart in content["charts"]] == ["Losses", "Regularizers", "Gradient norms", "Speed", "Memory"]
    assert [series["name"] for series in content["charts"][3]["series"]] == ["images per second"]
    losses = {series["name"]: series["points"] for series in content["charts"][0]["series"]}
    assert len(losses["G"]) == 60 and losses["D"][9] == [40, 0.1]
    assert content["metrics"][0]["series"][0]["points"] == [[kimg, 300 - kimg] for kimg in report_run.KIMG[1:]]
    assert [len(sample["layers"]) for sample in content["explorers"][0]["samples"]] == [5, 5]
    assert content["commands"] == ["python run_network.py --train --dataset scenes", "python run_network.py --vis --note '</script><b>'"]
    assert content["sections"]["options"]["gamma"] == 10 and content["environment"] == {"python": "3.11.7", "code": "abc1234"}
    assert len(text) < 15e6


def test_maps_keep_their_colours_exactly(tmp_path):
    owner = np.random.RandomState(0).randint(3, size=[40, 600])
    pixels = np.asarray(report_run.COLOURS, np.uint8)[owner]
    report_run.save(tmp_path, "map.png", pixels)
    encoded = pictures.drawing(str(tmp_path / "map.png"), width=600)
    with PIL.Image.open(_bytes(encoded)) as picture:
        assert picture.mode == "P"  # a third of the size
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), pixels)
    with PIL.Image.open(_bytes(pictures.drawing(str(tmp_path / "map.png")))) as picture:
        assert picture.size == (256, 17)
        assert {colour for _, colour in picture.convert("RGB").getcolors()} <= set(report_run.COLOURS)


def _bytes(url):
    import base64
    import io

    return io.BytesIO(base64.b64decode(url.partition("base64,")[2]))


def test_pictures_of_other_kinds(tmp_path):
    stripes = np.tile([0, 255], 100)[None, :, None].repeat(40, axis=0).repeat(3, axis=2)
    report_run.save(tmp_path, "stripes.png", stripes)
    with PIL.Image.open(_bytes(pictures.photograph(str(tmp_path / "stripes.png"), 100))) as picture:
        assert picture.size == (100, 20) and np.abs(np.asarray(picture)[2:-2, 4:-4].astype(int) - 127).max() < 20  # averaged
    stripes[:, ::2] = (255, 0, 0)
    report_run.save(tmp_path, "red.png", stripes)
    with PIL.Image.open(_bytes(pictures.photograph(str(tmp_path / "red.png"), 200))) as picture:
        assert np.abs(np.asarray(picture).astype(int) - stripes).max() < 40  # colours as detailed as the shades
    many = np.random.RandomState(1).randint(256, size=[15, 20, 3])  # too many colours for a palette
    report_run.save(tmp_path, "many.png", many)
    with PIL.Image.open(_bytes(pictures.drawing(str(tmp_path / "many.png")))) as picture:
        np.testing.assert_array_equal(np.asarray(picture), many)
    report_run.save(tmp_path, "line.png", many[:1].repeat(10, axis=1))
    with PIL.Image.open(_bytes(pictures.photograph(str(tmp_path / "line.png"), 100))) as picture:
        assert picture.size == (100, 1)


def test_pictures_are_left_out_evenly():
    assert pictures.evenly(list(range(10)), 4) == [0, 3, 6, 9]
    assert (pictures.evenly([1, 2], 5), pictures.evenly([1, 2, 3], 1)) == ([1, 2], [3])
    tried = []

    def encode(item):
        tried.append(item)
        return None if item >= 98 else "x" * 10

    encoded = pictures.within(list(range(100)), encode, most=48, limit=36)  # 1 and 3 pictures fit, 6 do not; the last one is none
    assert encoded == [(0, "x" * 10), (34, "x" * 10)] and sorted(tried) == [0, 17, 34, 65, 82, 99]
    assert pictures.within([5, 6], encode, most=48, limit=36) == [(5, "x" * 10), (6, "x" * 10)]
    assert pictures.within([], encode, most=48, limit=36) == []
    assert pictures.within([98, 6, 7, 99], encode, most=48, limit=20) == [(7, "x" * 10)]  # the ends are none, and two do not fit


def test_many_large_grids_stay_small(tmp_path):
    rng = np.random.RandomState(0)
    for index in range(70):
        report_run.save(tmp_path, f"visuals/images/{index:06d}_grid.png", rng.randint(256, size=[256, 1024, 3]))
        report_run.save(tmp_path, f"visuals/maps/{index:06d}_grid.png", np.zeros([256, 1024, 3]))
    grids = data.gather(str(tmp_path))["grids"]
    assert sum(len(grid["src"] + grid["maps"]) for grid in grids) < 6_000_000
    assert (grids[0]["kimg"], grids[-1]["kimg"]) == (0, 69)
    assert len(grids) >= 6


def test_empty_run_and_missing_run(tmp_path):
    report.write(str(tmp_path))
    content, _ = page_data(tmp_path)
    assert content["charts"] == content["grids"] == content["explorers"] == []
    with pytest.raises(UserError, match="there is no such folder"):
        report.write(str(tmp_path / "absent"))


def test_continued_run_forgets_the_ticks_it_repeats(tmp_path):
    for images, value in ((1000, 1), (2000, 2), (3000, 3), (2000, 20), (2500, 25)):
        report.append_stats(str(tmp_path), images, {"Loss/G": value, "Loss/D": float("nan") if images == 1000 else 1})
    report.append_stats(str(tmp_path), 4000, {"Own/some_number": 7, "Own/none": float("inf")})
    chart, own = stats.training_charts(str(tmp_path))
    assert own == {"title": "Own", "series": [{"name": "some number", "points": [[4, 7]]}]}
    assert chart["series"][0] == {"name": "G", "points": [[1, 1], [2, 20], [2.5, 25]]}
    assert chart["series"][1]["points"] == [[2, 1], [2.5, 1]]


def test_numbers_without_their_place_are_left_out(tmp_path):
    (tmp_path / "stats.jsonl").write_text('{"Loss/G": 1}\n')
    place = {"snapshot": "network-snapshot-000001.pkl"}
    lines = ({"settings": place, "values": {"swd": 1}}, {"metric": "swd", "settings": place, "values": {}},
             {"metric": "swd", "settings": {}, "values": {"swd": 1}},
             {"metric": "ppl", "settings": place, "values": {"ppl": float("nan")}})  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    charts = [made(str(tmp_path)) for made in (stats.training_charts, stats.metric_charts, stats.metric_table)]
    assert charts == [[], [], []]


def test_results_of_unlike_settings_or_of_another_network_are_not_one_curve(tmp_path):
    def record(kimg, value, **settings):
        settings = {"fakes": 50, "snapshot": f"network-snapshot-{kimg:06d}.pkl", **settings}
        line = {"metric": "swd", "values": {"swd": value}, "settings": settings}
        with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    for kimg in (1, 2):
        record(kimg, 10 * kimg, **dict.fromkeys(("network", "network_fingerprint", "images_dir", "tool"), str(kimg)))
    (chart,) = stats.metric_charts(str(tmp_path))
    assert chart["series"] == [{"name": "swd", "points": [[1, 10], [2, 20]]}]
    record(2, 7, fakes=6, protocol="stylegan2")
    record(2, 5, snapshot="other/vit-000/network-snapshot-000002.pkl", protocol="full")
    (chart,) = stats.metric_charts(str(tmp_path))
    assert chart["series"] == [
        {"name": "swd, fakes 50, protocol None", "points": [[1, 10], [2, 20]]},
        {"name": "swd, fakes 6, protocol stylegan2", "points": [[2, 7]]},
    ]
    assert chart["latest"] == 7  # the page's header names the newest result for the last snapshot
    elsewhere = {"metric": "swd", "value": 5, "of": "other/vit-000/network-snapshot-000002.pkl", "reals": None, "fakes": 50}
    assert stats.metric_table(str(tmp_path)) == [{**elsewhere, "settings": "protocol full"}]  # unlike one of the chart's curves
    record(1, 3, fakes=6, protocol="stylegan2")
    (chart,) = stats.metric_charts(str(tmp_path))
    assert chart["latest"] == 7 and chart["series"][1]["points"] == [[1, 3], [2, 7]]


def test_results_for_what_was_not_trained_here(tmp_path):
    def record(values, protocol="full", **place):
        settings = {"reals": 80, "fakes": 50, "protocol": protocol, "dataset": "blobs", **place}
        with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"metric": "pr", "values": values, "settings": settings}) + "\n")

    for recall in (0.1, 0.2):  # the newest one counts
        record({"precision": 0.5, "recall": recall}, snapshot="some.pkl")
    record({"precision": 0.75}, protocol="stylegan2", images_dir="/there/photos")
    found = data.gather(str(tmp_path))
    assert found["dataset"] == {"name": "blobs"} and found["metrics"] == []
    assert [list(row.values()) for row in found["results"]] == [
        ["precision", 0.5, "some.pkl", 80, 50, "protocol full"],
        ["recall", 0.2, "some.pkl", 80, 50, "protocol full"],
        ["precision", 0.75, "/there/photos", 80, 50, "protocol stylegan2"],
    ]


def test_damaged_pictures_are_left_out(tmp_path, capsys):
    report_run.write_run(tmp_path)
    whole = data.gather(str(tmp_path))
    victims = [tmp_path / "reals.png", tmp_path / "visuals" / "images" / "000024_grid.png"]
    for path in victims:
        assert path.exists()
        path.write_bytes(path.read_bytes()[:100])
    found = data.gather(str(tmp_path))
    assert [len(found[name]) for name in ("others", "grids")] == [len(whole[name]) - 1 for name in ("others", "grids")]
    said = capsys.readouterr().err
    assert all(f"warning: the report leaves out {path}: " in said for path in victims)


def test_damage_of_every_kind_is_noticed(tmp_path, capsys):
    """Pillow raises a different exception for each kind."""
    path = tmp_path / "picture.png"
    PIL.Image.new("RGB", (8, 8), "white").save(str(path), compress_level=0)
    whole = path.read_bytes()
    place = whole.index(b"IDAT")
    shortened = whole[: place - 4] + (20).to_bytes(4, "big") + whole[place:]  # its pixels take the place of the next chunk
    for damaged in (whole[:60], whole[:11] + b"\x01" + whole[12:], shortened, png_of_size(1 << 15, 1 << 16)):
        path.write_bytes(damaged)
        assert pictures.photograph(str(path), 8) is None and pictures.drawing(str(path)) is None
        assert capsys.readouterr().err.count(f"warning: the report leaves out {path}: ") == 2


def test_layers_are_counted_and_a_sample_without_all_its_maps_is_left_out(tmp_path, capsys, monkeypatch):
    for number in range(3):
        folder = f"visuals/layer_maps/{number:06d}"
        for name in ("image.png", *(f"l{layer}_h0.png" for layer in range(11))):
            report_run.save(tmp_path, f"{folder}/{name}", np.full([2, 2, 3], int(name[1:-7]) if name[0] == "l" else 255))
    (tmp_path / "visuals" / "about.json").write_text(
        '{"layer_maps": {"colours": [], "grids": [], "attended": "latent", "seed": 0, "images": 0}}')
    (tmp_path / "visuals" / "layer_maps" / "000001" / "l3_h0.png").write_bytes(b"")
    (explorer,) = data.gather(str(tmp_path))["explorers"]
    assert explorer["note"] == "0 kimg, seed 0" and [sample["number"] for sample in explorer["samples"]] == [0, 2]
    for layer, (url,) in enumerate(explorer["samples"][1]["layers"]):
        with PIL.Image.open(_bytes(url)) as picture:
            assert picture.convert("RGB").getpixel((0, 0)) == (layer, layer, layer)
    assert "l3_h0.png" in capsys.readouterr().err
    monkeypatch.setattr(data, "EXPLORER_LIMIT", 1)
    assert len(data.gather(str(tmp_path))["explorers"][0]["samples"]) == 1


def test_maps_and_strips_are_in_the_order_of_their_names_not_of_the_folder(monkeypatch):
    names = [f"l{layer}_h{head}.png" for layer in (10, 2) for head in (1, 0)]
    monkeypatch.setattr(data.os, "listdir", lambda folder: names)
    monkeypatch.setattr(data, "drawing", os.path.basename)
    assert data._layers("x") == [["l2_h0.png", "l2_h1.png"], ["l10_h0.png", "l10_h1.png"]]
    names = ["component_01.png", "component_00.png"]
    monkeypatch.setattr(data, "numbered_files", lambda folder, prefix, suffix: [(0, folder)])
    monkeypatch.setattr(data, "photograph", lambda path, width: os.path.basename(path))
    strips = data._strips("x", "there")
    assert [[row["src"] for row in found["rows"]] for found in strips] == 2 * [["component_00.png", "component_01.png"]]


def test_pictures_have_the_note_of_their_own_making(tmp_path):
    about = {kind: {"seed": seed} for seed, kind in enumerate(("images", "interpolations", "noise_var", "style_mix", "layer_maps"))}
    for name in ("interpolations-w/000000/all.png", "images-grid.png", "noise-variance.png", "layer-mixing.png", "component-mixing.png"):
        report_run.save(tmp_path, f"visuals/{name}", np.zeros([8, 8, 3]))
    (tmp_path / "visuals" / "about.json").write_text(json.dumps(about))
    found = data.gather(str(tmp_path))
    assert [(picture["title"], picture["note"]) for picture in found["others"]] == [
        ("Samples", "seed 0"), ("Where the noise acts", "seed 2"), ("Mixing over layers", "seed 3"), ("Mixing over components", "seed 3"),
    ]  # fmt: skip
    assert [strips["note"] for strips in found["strips"]] == ["seed 1"]
    assert data._note({"images": 8000, "truncation_psi": 0.7, "seed": 1}) == "8 kimg, truncation 0.7, seed 1"


def test_long_curves_are_thinned():
    points = [[x, 2 * x + (-1) ** x] for x in range(10000)]
    thin = stats.thinned(points, most=100)
    assert len(thin) <= 100 and thin[-1] == [9999, 19997] and len(stats.thinned(points)) <= 500
    assert all(abs(y - 2 * x) <= 1.01 for x, y in thin[:-1])
    assert all(abs(after[0] - before[0] - 102) < 0.1 for before, after in zip(thin[:97], thin[1:98]))


def test_report_flag(run_dir):
    os.remove(str(run_dir / "report.html"))
    command = [sys.executable, os.path.join(ROOT, "run_network.py"), "--report", "--result-dir", str(run_dir.parent), "--expname"]
    done = subprocess.run([*command, "demo"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"report {run_dir / 'report.html'}\n"), done.stderr
    assert (run_dir / "report.html").is_file()
    done = subprocess.run([*command, "other"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == f"error: --expname other: there is no run of that name in {run_dir.parent}\n"


@pytest.fixture(scope="module")
def browser(run_dir):
    if None in webdriver.programs():
        (pytest.fail if os.environ.get("BROWSER_REQUIRED") else pytest.skip)("no chromium and chromedriver here")
    with webdriver.browser() as session:
        session.open(run_dir / "report.html")
        yield session


def test_sections_and_console(browser):
    expected = ["samples", "metrics", "curves", "attention", "interpolations", "pictures", "commands", "configuration", "environment"]
    assert browser.run("return [...document.querySelectorAll('main > section')].map((section) => section.id)") == expected
    broken = "[...document.images].filter((image) => image.src && !(image.complete && image.naturalWidth)).length"
    browser.wait(f"{broken} === 0")
    assert [message for message in browser.messages() if message["level"] in ("SEVERE", "WARNING")] == []
    assert browser.run("return document.body.textContent.includes(\"--note '</script><b>'\")")
    untrained = "{dataset: {}, grids: [], charts: [], metrics: [], updated: 'today'}"
    assert browser.run(f"return summary({untrained})") == "as of today"


def test_slider_moves_by_keyboard(browser):
    image, output = "document.querySelector('#samples img').src", "document.querySelector('#samples output').textContent"
    assert browser.run(f"return {output}") == "216 kimg"
    last = browser.run(f"return {image}")
    browser.run("document.querySelector('#samples input').focus()")
    browser.press("Left", "Left")
    assert browser.run(f"return {output}") == "168 kimg"
    assert browser.run(f"return {image}") != last
    browser.wait("document.querySelectorAll('#samples img')[1].complete")
    boxes = browser.run("return [...document.querySelectorAll('#samples img')].map((shown) => [shown.clientWidth, shown.clientHeight])")
    assert boxes[0] == boxes[1] and boxes[0][0] > 400
    browser.press("Home")
    assert browser.run(f"return {output}") == "0 kimg"
    assert browser.run("return document.querySelectorAll('#samples img')[1].clientHeight") == 0  # no picture of another time is shown
    browser.click("#samples button")
    browser.wait(f"{output} === '24 kimg'")
    browser.click("#samples button")
    browser.run("document.querySelector('#samples input').focus()")
    browser.press("End")
    assert browser.run(f"return {image}") == last


def test_curves_draw_and_tell_values(browser):
    drawn = browser.run("return [...document.querySelectorAll('.curve')].map((curve) => [curve.getTotalLength(), curve.getBBox().width])")
    assert len(drawn) == 8 and all(length > 100 and width > 100 for length, width in drawn)
    labels = browser.run("return [...document.querySelectorAll('#curves .chart:first-child text')].map((text) => text.textContent)")
    assert {"0", "1", "2", "3", "100", "200", "kimg"} <= set(labels)
    browser.hover("#curves .chart svg", 0, 0)
    reading = "document.querySelector('#curves .reading').textContent"
    kimg = float(browser.run(f"return {reading}").split()[0])
    assert 60 < kimg < 180
    browser.run("document.querySelector('#curves svg').focus()")
    browser.press("End")
    assert browser.run(f"return {reading}") == "240 kimgG 1.463D 0.01667"
    browser.press("Left")
    assert browser.run(f"return {reading}").startswith("236 kimg")
    browser.press("Escape")
    assert browser.run(f"return {reading}") == ""
    browser.click("#curves .chart button")
    assert browser.run("return document.querySelectorAll('#curves .chart:first-child .curve').length") == 1
    browser.click("#curves .chart button")


def test_attention_explorer_names_the_owner(browser):
    reading = "document.querySelector('#attention .reading').textContent"
    browser.wait("document.querySelector('#attention canvas').width === 32")
    share = 100 * np.mean(report_run.owners(layer=4) == 2)
    browser.hover("#attention canvas", 0, 30)
    assert browser.run(f"return {reading}") == f"latent 3 of 3 owns {share:.1f} % of this picture"
    browser.hover("#attention canvas", 0, -250)
    assert browser.run(f"return {reading}").startswith("latent 1 of 3 owns")
    browser.run("document.querySelectorAll('#attention input')[0].focus()")
    browser.press("Home")
    assert browser.run("return document.querySelector('#attention output').textContent") == "1 of 5 (4 × 4)"
    small = 100 * np.mean(report_run.owners(layer=0) == 2)
    browser.run("document.querySelector('#attention [role=group] button:last-child').focus()")
    browser.wait(f"{reading} === 'latent 3 of 3 owns {small:.1f} % of this picture'")
    browser.run("document.querySelector('#attention canvas').focus()")
    browser.press("Down")
    assert browser.run(f"return {reading}").startswith("latent 3 of 3")
    browser.press("Escape")
    assert browser.run(f"return {reading}").startswith("Point at the picture")


def test_ticks_are_round_and_enough(browser):
    assert browser.run("return ticks(1, 10, 4)") == [2, 4, 6, 8, 10]
    assert browser.run("return ticks(0.3, 5.4, 5)") == [1, 2, 3, 4, 5]
    for low, high in ((0, 1), (0.28, 5.7), (-4.7, 2.2), (1, 10), (0, 9999), (0.00282, 0.003)):
        assert 3 <= len(browser.run(f"return ticks({low}, {high}, 5)")) <= 9
    assert browser.run("return logTicks(-1, 1).map((level) => brief(10 ** level))") == ["0.1", "0.2", "0.5", "1", "2", "5", "10"]
    assert browser.run("return logTicks(-4.5, 0.2).map((level) => brief(10 ** level))") == ["1.00e-4", "0.001", "0.01", "0.1", "1"]
    assert len(browser.run("return logTicks(0.31, 0.6)")) >= 2
    assert browser.run("return told(ticks(8.12342, 8.1235, 2))") == ["8.12345", "8.1235"]
    assert browser.run("return told([0, 20, 40])") == ["0", "20", "40"]
    browser.run("document.querySelector('#curves .chart:nth-child(2) button:last-child').click()")
    labels = browser.run("return [...document.querySelectorAll('#curves .chart:nth-child(2) text')].map((text) => text.textContent)")
    assert {"0.1", "0.05", "0.02", "0.01"} <= set(labels)


def test_tables_get_a_row_of_their_own(browser):
    widths = browser.run("return [...document.querySelectorAll('#pictures img')].map((image) => image.clientWidth)")
    assert len(widths) == 3 and widths[2] > 900 > 600 > max(widths[:2])


def test_strips_number_the_latents_as_the_explorer_does(tmp_path):
    report_run.save(tmp_path, "visuals/interpolations-z/000002/component_00.png", np.zeros([8, 8, 3]))
    (strips,) = data.gather(str(tmp_path))["strips"]
    assert [row["label"] for row in strips["rows"]] == ["sample 2 to 3, latent 1 alone"]


def test_more_curves_than_colours_can_be_told_apart(browser, tmp_path):
    for tick in (1, 2, 3):
        report.append_stats(str(tmp_path), 1000 * tick, {f"Loss/{name}": tick for name in "abcdefgh"})
    report.write(str(tmp_path))
    with webdriver.browser() as session:
        session.open(tmp_path / "report.html")
        session.wait("document.querySelectorAll('.curve').length === 8")
        for looks in ("'.curve')].map((curve) => curve.style.cssText", "'#curves button .chip')].map((chip) => chip.style.cssText"):
            assert len(set(session.run(f"return [...document.querySelectorAll({looks})"))) == 8


def test_a_map_lies_on_its_picture_beside_many_latents(browser, tmp_path):
    report_run.write_run(tmp_path)
    for number in range(2):
        report_run.save(tmp_path, f"visuals/snapshot/layer_maps/{number:06d}/image.png", report_run.scene(0)[:16])
    path = tmp_path / "visuals" / "snapshot" / "about.json"
    about = json.loads(path.read_text())
    about["layer_maps"].update(colours=[[shade, 0, 0] for shade in range(64)], attended="token")
    path.write_text(json.dumps(about))
    report.write(str(tmp_path))
    with webdriver.browser() as session:
        session.open(tmp_path / "report.html")
        session.wait("document.querySelector('#attention canvas').width === 32")
        session.wait("document.querySelector('#attention .stage img').complete")
        heights = session.run("return [...document.querySelector('#attention .stage').children].map((part) => part.clientHeight)")
        assert heights[0] == heights[1] > 100
        reading = "document.querySelector('#attention .reading').textContent"
        assert session.run(f"return {reading}") == "Point at the picture to see which token owns a region."
        session.run("document.querySelector('#attention [role=group] button:last-child').focus()")
        assert session.run(f"return {reading}") == "token 64 of 64 owns 0.0 % of this picture"
        assert session.run("return document.querySelector('#attention .explorer').clientHeight") > 2 * heights[0]


def test_the_browser_s_own_files_go_with_it(browser, monkeypatch):
    with tempfile.TemporaryDirectory() as folder:  # not in tmp_path: paths of sockets are short
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        with webdriver.browser() as session:
            assert session.run("return document.title") == ""
        assert os.listdir(folder) == []


def test_curves_of_one_value_and_of_one_point(browser, tmp_path):
    report.append_stats(str(tmp_path), 0, {"Rates/G": 0.002})
    report.write(str(tmp_path))
    with webdriver.browser() as session:
        session.open(tmp_path / "report.html")
        session.wait("document.querySelectorAll('.curve').length === 1")
        labels = set(session.run("return [...document.querySelectorAll('#curves text')].map((text) => text.textContent)"))
        assert {"0.002", "0.0015", "0", "0.5", "kimg"} <= labels and not any(label.startswith("-") for label in labels)


def test_long_names_and_long_trainings_keep_to_the_page(browser, tmp_path):
    report.append_stats(str(tmp_path), 24_984_000, {"Loss/G": 1.0})
    with open(tmp_path / "config.json", "w") as file:
        json.dump({"dataset": {"name": "d" * 200, "count": 3, "resolution": 8}}, file)
    with open(tmp_path / "metrics.jsonl", "w") as file:
        for name in "ab":
            settings = {"snapshot": "network-snapshot-024984.pkl", "dataset": name * 200}
            file.write(json.dumps({"metric": "fid", "values": {"fid": 5.0}, "settings": settings}) + "\n")
        settings = {"images_dir": "/" + "c" * 200, "dataset": "d" * 200, "fakes": 50000}
        file.write(json.dumps({"metric": "fid", "values": {"fid": 123.456789}, "settings": settings}) + "\n")
    report.write(str(tmp_path))
    with webdriver.browser(width=500) as session:
        session.open(tmp_path / "report.html")
        session.wait("document.querySelectorAll('.curve').length === 3")
        cells = session.run("return [...document.querySelectorAll('#metrics th, #metrics td')].map((cell) => cell.textContent)")
        assert cells == ["metric", "value", "of", "fakes", "settings", "fid", "123.46", "/" + "c" * 200, "50,000", "dataset " + "d" * 200]
        assert "24984 kimg" in session.run("return document.querySelector('#summary').textContent")
        session.run("document.querySelector('#metrics svg').focus()")
        session.press("End")
        assert session.run("return document.querySelector('#metrics .reading').textContent").startswith("24984 kimg")
        assert session.run("return document.documentElement.scrollWidth <= innerWidth")
        ends = "[...document.querySelectorAll('button, .reading span')].map((found) => found.getBoundingClientRect().right)"
        assert max(session.run(f"return {ends}")) <= 500


def test_touch_on_a_phone(run_dir, browser):
    with webdriver.browser() as session:
        session.become_phone()
        session.open(run_dir / "report.html")
        session.wait("document.querySelectorAll('.curve').length === 8")
        assert session.run("return [innerWidth, document.documentElement.scrollWidth]") == [390, 390]
        rows = session.run("return [...document.querySelectorAll('input')].map((input) => input.parentElement.clientHeight)")
        assert len(rows) == 4 and max(rows) < 60  # label, slider and reading are on one line
        session.wait("document.querySelector('#attention canvas').width === 32")
        for place, text in (("#curves .chart svg", "kimg"), ("#attention canvas", "owns")):
            session.tap(place)
            reading = f"document.querySelector('{place.split()[0]} .reading').textContent"
            session.wait(f"{reading}.includes('{text}')")
            session.run("return new Promise((resolve) => setTimeout(resolve, 400))")  # the events that follow a touch have arrived
            assert text in session.run(f"return {reading}")  # it stays when the finger is lifted
        assert [message for message in session.messages() if message["level"] == "SEVERE"] == []


@pytest.mark.parametrize("width, dark", [(500, False), (840, False), (1200, True)])
def test_phone_and_dark_mode(run_dir, browser, tmp_path, width, dark):
    with webdriver.browser(width=width, dark=dark) as session:
        session.open(run_dir / "report.html")
        session.wait("document.querySelectorAll('.curve').length === 8")
        assert session.run("return document.documentElement.scrollWidth <= innerWidth")
        rows = session.run("return [...document.querySelectorAll('input')].map((input) => input.parentElement.clientHeight)")
        assert max(rows) < 60  # label, slider and reading are on one line
        session.screenshot(tmp_path / "page.png")
        with PIL.Image.open(str(tmp_path / "page.png")) as picture:
            corner = picture.convert("RGB").getpixel((2, 2))
        assert (max(corner) < 60) == dark
        assert [message for message in session.messages() if message["level"] == "SEVERE"] == []
