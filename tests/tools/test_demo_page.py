import importlib.util
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

TOOL = Path(__file__).parents[2] / "tools" / "demo_page.py"


@pytest.fixture(scope="module")
def page():
    spec = importlib.util.spec_from_file_location("demo_page", TOOL)
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules["demo_page"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["demo_page"]


def results(iou):
    metrics = {"1-IoU": iou, "clicks": 12}
    metrics |= {"1-IoU medium": iou, "1-IoU large": iou + 1}
    return dict.fromkeys(("oracle", "max", "granularity"), metrics)


@pytest.fixture
def report(page):
    picture = page.Picture(np.full((20, 30, 3), 90, np.uint8), "a click on <b> & more")
    return page.Report(
        before={"held-out scenes": results(11.25)},
        after={"held-out scenes": results(71.5)},
        metrics=[{"iteration": i, "total_loss": 40 / (i + 1)} for i in range(0, 100, 10)],
        seconds={"training": 200.0, "shards": 3.0},
        clicks=[picture],
        everything=[picture],
        samples=[picture],
        captions=page.Captions(
            regions=3,
            majority="the <b>",
            baseline={"CIDEr-D": 10.0, "Exact": 0.0},
            trained={"CIDEr-D": 45.0, "Exact": 25.4},
            shown=picture,
            everything=[picture],
        ),
        commands=["make demo"],
    )


def test_the_page_needs_no_other_file_and_shows_every_picture(page, report, tmp_path):
    page.write_page(tmp_path / "index.html", report)
    text = (tmp_path / "index.html").read_text()
    assert text.count('src="data:image/png;base64,') == 5
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert "a click on &lt;b&gt; &amp; more" in text


def test_the_table_gives_both_numbers_and_the_gain(page, report):
    table = page.results_table(report.before, report.after)
    assert '<td>11.2</td><td>71.5</td><td class="gain">+60.2</td>' in table


def test_captions_are_compared_with_the_most_frequent_one(page, report):
    table = page.captions_table(report.captions)
    assert "always “the &lt;b&gt;”" in table
    assert '<td>10.0</td><td>45.0</td><td class="gain">4.5x</td>' in table
    assert '<td>0.0</td><td>25.4</td><td class="gain"></td>' in table


def test_a_size_without_masks_has_no_row(page, report):
    table = page.results_table(report.before, report.after)
    assert "Oracle, large" in table
    assert "Oracle, small" not in table


def test_the_curve_starts_left_above_and_ends_right_below(page, report):
    svg = ElementTree.fromstring(page.loss_curve(report.metrics, width=500, height=200))
    line = svg.find("polyline").get("points").split()
    first, last = (tuple(map(float, p.split(","))) for p in (line[0], line[-1]))
    assert len(line) == 10
    assert first[0] < last[0] <= 500
    assert 0 <= first[1] < last[1] <= 200


def test_a_training_that_logged_nothing_is_an_error(page):
    with pytest.raises(ValueError, match="total_loss"):
        page.loss_curve([{"iteration": 0}])


def test_sets_that_were_evaluated_only_once_are_an_error(page, report, tmp_path):
    report.after["held-out photos"] = results(50.0)
    with pytest.raises(ValueError, match="same sets"):
        page.write_page(tmp_path / "index.html", report)
    assert not (tmp_path / "index.html").exists()
