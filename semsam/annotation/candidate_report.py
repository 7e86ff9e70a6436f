"""What the data engine's candidates come to: how many, from where, and which the detector found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SourceCounts:
    """Candidates of one source, a name counted once a photo.

    Attributes:
        candidates: that it gave.
        found: of which the detector found a box.
        new: that the captions' own words do not give.
    """

    candidates: int
    found: int
    new: int


@dataclass(frozen=True)
class CandidateReport:
    """Candidates of a folder of results.

    Attributes:
        photos: that have a result with candidates, perhaps none.
        captions: of all photos.
        a_caption: mean number of candidates that a caption gives, with the language model's.
        total: all sources together.
        sources: of the captions' own words (``""``), and of each template.
        new_names: names that are not the captions' own: name, photos for which it was thought of,
            photos in which it was found; the most frequent first.
    """

    photos: int
    captions: int
    a_caption: float
    total: SourceCounts
    sources: dict[str, SourceCounts]
    new_names: list[tuple[str, int, int]]


def name_source(template: str) -> str:
    """What a page calls a source: the last line of a template, or the captions (``""``)."""
    return template.rstrip().splitlines()[-1].rstrip(" :") if template else "the captions"


def report_candidates(results: Iterable[dict[str, Any]]) -> CandidateReport | None:
    """Count candidates; None where no result has any, which ``DetectedObjects`` alone gives.

    Args:
        results: of photos.
    """
    photos = captions = given = 0
    counts: dict[str, Counter[str]] = {}
    thought: Counter[str] = Counter()
    found_new: Counter[str] = Counter()
    for result in results:
        if "candidates" not in result:
            continue
        photos += 1
        captions += len(result["captions"])
        templates = result["generated_by"]["templates"]
        counts = counts or {source: Counter() for source in ["all", "", *templates]}
        found = {region["candidate"] for region in result["annotations"]}
        for index, candidate in enumerate(result["candidates"]):
            sources = candidate["sources"]
            given += len({source["caption"] for source in sources})
            numbers = {source["template"] for source in sources}
            is_new = None not in numbers
            for source in ["all", *("" if n is None else templates[n] for n in numbers)]:
                counts[source].update({"candidates": 1, "found": index in found, "new": is_new})
            if is_new:
                thought[candidate["name"]] += 1
                found_new[candidate["name"]] += index in found
    if not photos:
        return None
    made = {
        source: SourceCounts(number["candidates"], number["found"], number["new"])
        for source, number in counts.items()
    }
    return CandidateReport(
        photos=photos,
        captions=captions,
        a_caption=given / captions if captions else 0.0,
        total=made.pop("all"),
        sources=made,
        new_names=[(name, number, found_new[name]) for name, number in thought.most_common()],
    )


def list_sources(result: dict[str, Any]) -> list[str]:
    """Of each annotation where its name comes from, in words; ``""`` where it is no candidate."""
    texts = []
    for region in result["annotations"]:
        if "candidate" not in region or "candidates" not in result:
            texts.append("")
            continue
        templates = ["", *result["generated_by"]["templates"]]
        sources = result["candidates"][region["candidate"]]["sources"]
        numbers = sorted({0 if s["template"] is None else s["template"] + 1 for s in sources})
        texts.append("; ".join(name_source(templates[number]) for number in numbers))
    return texts


def list_missed(result: dict[str, Any]) -> list[str]:
    """Candidates of a photo of which no box was found."""
    found = {region.get("candidate") for region in result["annotations"]}
    candidates = result.get("candidates", [])
    return [candidate["name"] for i, candidate in enumerate(candidates) if i not in found]
