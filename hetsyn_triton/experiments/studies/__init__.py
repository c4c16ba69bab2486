"""Studies: train many networks for one question, and write a table and a picture."""

from .catalogue import STUDIES
from .runner import StudyReporter, StudyResult, run_study

__all__ = ["STUDIES", "StudyReporter", "StudyResult", "run_study"]
