import pytest

from semsam.data.datasets.regions import RegionRecords


def test_records_in_the_buffer_come_back_by_number():
    records = RegionRecords([{"image_id": number, "text": "é" * number} for number in range(4)])
    assert len(records) == 4
    assert [record["image_id"] for record in records] == [0, 1, 2, 3]
    assert records[-1] == {"image_id": 3, "text": "ééé"}
    with pytest.raises(IndexError):
        records[4]
