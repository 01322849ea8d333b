"""``python -m daskps.cli`` is ``dask daskps``, where Dask's command is not on the path."""

from daskps.cli import daskps

daskps(prog_name="dask daskps")
