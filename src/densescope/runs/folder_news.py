"""What a watch says of the folder it looks into: what is there, and that nothing is."""

from __future__ import annotations

import time
from collections.abc import Callable

from densescope.errors import DataError
from densescope.features.discovery import RunFiles
from densescope.features.formats import find_format
from densescope.features.surroundings import found_in_words
from densescope.runs.arrivals import Arrivals

REPEAT_SECONDS = 600.0  # between two times that nothing to score is said


class FolderNews:
    """Sentences on a folder, each once; that there is nothing to score again and again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: set[str] = set()
        self._problem_at = 0.0

    def of(self, arrivals: Arrivals) -> list[str]:
        """What is new of the last look."""
        if arrivals.files is None:
            return self._of_problem(arrivals.problem)
        new = [text for text in _sentences(arrivals, arrivals.files) if text not in self._said]
        self._said |= set(new)
        return new

    def _of_problem(self, problem: str) -> list[str]:
        now = self._clock()
        if problem in self._said and now - self._problem_at < REPEAT_SECONDS:
            return []
        self._said.add(problem)
        self._problem_at = now
        return [f"nothing to score yet: {problem}"]


def _sentences(arrivals: Arrivals, files: RunFiles) -> list[str]:
    remarks = found_in_words(files, arrivals.folder, find_format(arrivals.format))
    sentences = [remark.text for remark in remarks]
    try:
        files.check_doubles()
    except DataError as error:
        sentences.append(f"{error}; until then the first of them stands for all")
    return sentences
