from semsam.annotation.candidate_report import (
    SourceCounts,
    list_missed,
    list_sources,
    report_candidates,
)


def result(captions, candidates, boxes):
    """Candidates are names with (caption, template) pairs; boxes are indices of candidates."""
    return {
        "captions": captions,
        "candidates": [
            {"name": name, "sources": [{"caption": c, "template": t} for c, t in sources]}
            for name, *sources in candidates
        ],
        "generated_by": {"templates": ["objects: {}", "parts: {}"]},
        "annotations": [{"candidate": index} for index in boxes],
    }


def test_candidates_are_counted_by_source_and_new_names_by_photo():
    photos = [
        result(
            ["a dog", "two dogs"],
            [("dog", (0, None), (1, None), (0, 0)), ("paw", (0, 1), (1, 1)), ("car", (1, 0))],
            [0, 0, 1],
        ),
        result(["a cat"], [("cat", (0, None)), ("paw", (0, 1), (0, 0))], [0]),
        result([], [], []),
    ]
    report = report_candidates([*photos, {"annotations": [{"area": 3}]}])
    assert (report.photos, report.captions) == (3, 3)
    # dog and paw twice, car once, cat and paw once: of captions, whatever the templates.
    assert report.a_caption == 7 / 3
    assert report.total == SourceCounts(candidates=5, found=3, new=3)
    assert report.sources == {
        "": SourceCounts(2, 2, 0),
        "objects: {}": SourceCounts(3, 1, 2),
        "parts: {}": SourceCounts(2, 1, 2),
    }
    assert report.new_names == [("paw", 2, 1), ("car", 1, 0)]


def test_a_region_tells_where_its_name_comes_from_and_the_photo_what_was_not_found():
    photo = result(
        ["a dog"], [("dog", (0, None), (0, 1)), ("paw", (0, 1)), ("car", (0, 0))], [2, 0, 2]
    )
    assert list_sources(photo) == ["objects: {}", "the captions; parts: {}", "objects: {}"]
    assert list_missed(photo) == ["paw"]
    other = {"annotations": [{"class_name": "dog", "candidate": 0}]}
    assert (list_sources(other), list_missed(other)) == ([""], [])


def test_results_of_other_sources_have_no_candidates_to_report():
    assert report_candidates([{"annotations": []}]) is None
    assert report_candidates([]) is None


def test_photos_without_captions_are_reported_as_such():
    report = report_candidates([result([], [], [])])
    assert (report.photos, report.captions, report.a_caption) == (1, 0, 0.0)
