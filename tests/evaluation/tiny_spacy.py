"""A spaCy pipeline of a few words, with parts of speech and word vectors, made in no time."""

import numpy as np

TAGS = {
    "NOUN": ["dog", "puppy", "cat", "lawn"],
    "PROPN": ["Rex"],
    "VERB": ["runs", "walks"],
    "AUX": ["is"],
}
VECTORS = {"dog": [1, 0], "puppy": [0.6, 0.8], "cat": [0, 1], "runs": [1, 0], "walks": [0.8, 0.6]}


def save_pipeline(folder, vectors=VECTORS):
    """Write it; returns its path, which is its name."""
    import spacy

    pipeline = spacy.blank("en")
    ruler = pipeline.add_pipe("attribute_ruler")
    for tag, words in TAGS.items():
        ruler.add([[{"ORTH": word}] for word in words], {"POS": tag})
    for word, vector in vectors.items():
        pipeline.vocab.set_vector(word, np.array(vector, dtype=np.float32))
    pipeline.to_disk(folder)
    return str(folder)
