import numpy as np
import pytest
from PIL import Image

from semsam.data.mappers import SemSegMapper
from semsam.data.records import BadRecordError
from semsam.data.transforms import LargeScaleJitter, ResizeShortestEdge


def write(folder, labels, size=None):
    """A photo whose red is the label, and its labels."""
    labels = np.asarray(labels, dtype=np.uint8)
    height, width = size or labels.shape
    red = np.array(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))
    photo = np.stack([red, np.zeros_like(red), np.full_like(red, 9)], axis=2)
    Image.fromarray(photo).save(folder / "photo.png")
    Image.fromarray(labels).save(folder / "labels.png")
    names = {"file_name": folder / "photo.png", "sem_seg_file_name": folder / "labels.png"}
    return {"image_id": "a", **{key: str(path) for key, path in names.items()}}


def mapper(is_train, low=1.0, high=1.0, **kwargs):
    jitter = LargeScaleJitter(12, low, high, 0.5)
    resize = ResizeShortestEdge(6, 100)
    return SemSegMapper(is_train=is_train, jitter=jitter, resize=resize, **kwargs)


def test_in_evaluation_the_photo_is_resized_and_the_labels_are_not(tmp_path):
    labels = np.arange(12 * 16).reshape(12, 16)
    found = mapper(False)(write(tmp_path, labels))
    assert found["image"].shape == (3, 6, 8)
    assert np.array_equal(found["sem_seg"].numpy(), labels)
    assert (found["height"], found["width"], found["image_id"]) == (12, 16, "a")


def test_labels_follow_the_photo_through_flip_and_crop(tmp_path):
    # Columns of 40 pixels, so that the bilinear filter leaves most of the photo as it was.
    labels = (np.arange(4).repeat(40)[None] * 60).repeat(120, axis=0)
    record = write(tmp_path, labels)
    flipped = set()
    for seed in range(6):
        rng = np.random.default_rng(seed)
        found = mapper(True, 1.0, 3.0)({**record, "rng": rng})
        assert found["image"].shape == (3, 12, 12)
        here = found["sem_seg"].numpy()
        real = here != 255
        same = np.abs(found["image"][0].numpy().astype(int) - here)[real] < 20
        assert same.mean() > 0.7
        row = here[0][here[0] != 255]
        flipped.add(bool(row[0] > row[-1]))
    assert flipped == {True, False}


def test_padding_is_no_class(tmp_path):
    record = write(tmp_path, np.zeros((6, 12)))
    found = mapper(True)({**record, "rng": np.random.default_rng(0)})
    assert found["sem_seg"].unique().tolist() == [0, 255]
    assert (found["sem_seg"][6:] == 255).all()


def test_colours_vary_in_training_only_and_labels_never(tmp_path):
    record = write(tmp_path, np.full((12, 12), 100))
    images = [
        mapper(True, color_jitter=0.5)({**record, "rng": np.random.default_rng(seed)})["image"]
        for seed in range(3)
    ]
    assert len({int(image[0, 0, 0]) for image in images}) == 3
    assert int(mapper(False, color_jitter=0.5)(record)["image"][0, 0, 0]) == 100


def test_labels_of_another_size_than_the_photo_are_a_bad_record(tmp_path):
    record = write(tmp_path, np.zeros((6, 12)), size=(6, 10))
    with pytest.raises(BadRecordError, match=r"labels are \(6, 12\).*\(6, 10\)"):
        mapper(False)(record)
