"""Language: models that write, and encoders of class names; see TEXT_ENCODER."""

from . import clip, language_encoder, sentence_encoder
