"""Write the model of a checkpoint folder (SOLVER.PARALLEL fsdp) as one file.

    python tools/consolidate_checkpoint.py output/run/model_0004999 model_0004999.pth

The file has what is needed to predict or to start from (MODEL.WEIGHTS), not the optimizer. A run
leaves that of its end as ``model_final.pth``. Consolidate folders only that you trust.
"""

from __future__ import annotations

import argparse

from semsam.checkpoint.sharded import consolidate

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="a checkpoint that several ranks wrote")
    parser.add_argument("file", help="what will hold the model, a .pth file")
    arguments = parser.parse_args()
    consolidate(arguments.folder, arguments.file)
