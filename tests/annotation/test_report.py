import re
import subprocess
import sys
from pathlib import Path

import pytest

from semsam.annotation.engine import AnnotationEngine
from semsam.annotation.mask_sources import Sa1bMasks
from semsam.annotation.report import report_labels, write_review_sheet

from .colour_labeler import ColourLabeler
from .photos import write_photos

ROOT = Path(__file__).parents[2]


class OtherLabeler(ColourLabeler):
    """Sees red in another way, and is silent of blue."""

    def name(self, photo, index):
        name = super().name(photo, index)["class_name"]
        names = {"red": "<Crimson>", "green": "Green", "yellow": "Yellow"}
        return {"class_name": names.get(name), "class_fallback": name == "yellow"}


@pytest.fixture
def images(tmp_path):
    return write_photos(tmp_path / "images", 8)


@pytest.fixture
def results(images, tmp_path):
    labelers = [ColourLabeler(), OtherLabeler()]
    AnnotationEngine(Sa1bMasks(images), labelers, device="cpu").run(tmp_path / "results")
    return tmp_path / "results"


def test_labels_agreement_and_fallbacks_are_counted(results):
    report = report_labels(results)
    assert (report.photos, report.masks) == (8, 20)
    colours = dict(report.counts["class_name"])
    others = dict(report.counts["OtherLabeler.class_name"])
    assert sum(colours.values()) == report.named["class_name"] == 20
    assert others == {
        "<Crimson>": colours["red"],
        "Green": colours["green"],
        "Yellow": colours["yellow"],
    }
    both = 20 - colours["blue"]
    pair = ("class_name", "OtherLabeler.class_name")
    assert report.agreement == {pair: (both, both - colours["red"])}
    assert report.fallbacks == colours["yellow"]
    numbers = [number for _, number in report.counts["class_name"]]
    assert numbers == sorted(numbers, reverse=True)


def test_a_review_sheet_is_one_file_with_pictures_and_escaped_names(results, images, tmp_path):
    write_review_sheet(results, images, tmp_path / "review.html", num_photos=3)
    page = (tmp_path / "review.html").read_text()
    assert page.count("<figure>") == page.count("data:image/jpeg;base64,") == 3
    assert [f"photo_{i}.png" in page for i in (0, 1, 7)] == [True, False, True]
    assert "&lt;Crimson&gt;" in page
    assert "<Crimson>" not in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "agree on" in page


def test_a_photo_that_is_gone_is_named_in_the_sheet(results, images, tmp_path):
    (images / "photo_0.png").unlink()
    write_review_sheet(results, images, tmp_path / "review.html", num_photos=2)
    page = (tmp_path / "review.html").read_text()
    assert page.count("data:image/jpeg") == 1
    assert "No such file" in page


def test_the_tool_exports_imports_and_shows(results, images, tmp_path):
    def run(*words):
        tool = [sys.executable, ROOT / "tools/review.py", *words]
        return subprocess.run(
            list(map(str, tool)), cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout

    assert "20 annotations" in run("export", results, tmp_path / "coco.json", "--polygons")
    told = run("import", tmp_path / "coco.json", results, tmp_path / "corrected")
    assert "20 kept" in told
    assert "20 masks of 8 photos" in run("sheet", results, images, tmp_path / "review.html")
