"""From a dataset's record to what a model takes."""

from .caption import CaptionMapper
from .photo import PhotoMapper
from .promptable import PromptableMapper
from .sem_seg import SemSegMapper
