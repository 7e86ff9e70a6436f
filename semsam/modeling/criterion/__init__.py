"""Training objectives: which prediction learns from which ground truth, and by what loss."""

from .many_to_many import ManyToManyCriterion
from .many_to_one import ManyToOneCriterion
from .open_vocabulary import OpenVocabularyCriterion

__all__ = ["ManyToManyCriterion", "ManyToOneCriterion", "OpenVocabularyCriterion"]
