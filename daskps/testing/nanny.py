"""``dask worker`` whose worker processes are forked from one that has imported what they need.

A worker that died is back in a fraction of the time that a fresh Python takes to import numba.
"""

from __future__ import annotations

import multiprocessing

from distributed import utils
from distributed.cli.dask_worker import main

PRELOAD = ["distributed", "daskps._api", "daskps.run.dask_worker"]

if __name__ == "__main__":
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOAD)
    utils._forkserver_preload_set = True  # or Dask would replace the list by its own
    main()
