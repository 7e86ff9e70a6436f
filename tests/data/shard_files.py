"""Lists of shards, as a test wants them."""

from semsam.data.datasets.shard_list import Manifest, ShardFile, write_manifest


def write_list(folder, names):
    """``shards.json`` with these files, of which it says nothing true."""
    write_manifest(folder, Manifest([ShardFile(name, 3, 20, "") for name in names], ["a test"]))
