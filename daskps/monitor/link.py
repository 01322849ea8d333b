"""The way to a cluster's live pages: `dashboard`, which in a notebook is the page itself."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

from daskps.cluster import current_client
from daskps.errors import RunFailed


@dataclass(frozen=True, slots=True)
class DashboardLink:
    """Addresses of a cluster's pages; in a notebook links, and the page of daskps below them."""

    url: str
    """Of the page of daskps."""
    dask_url: str
    """Of Dask's own."""
    height: int = 640
    """Of the page in a notebook, in pixels."""

    def __str__(self) -> str:
        return self.url

    def _repr_html_(self) -> str:
        links = " &nbsp;·&nbsp; ".join(
            f"<a href='{escape(url)}' target='_blank'>{name}</a>"
            for name, url in (("Dask dashboard", self.dask_url), ("daskps page", self.url))
        )
        return (
            f"<div>{links}<br><iframe src='{escape(self.url)}' title='daskps' width='100%' "
            f"height='{self.height}' style='border:1px solid #ddd'></iframe></div>"
        )


def dashboard(client: Any = None, *, height: int = 640) -> DashboardLink:
    """Return the address of the live page about training, and serve it from now on.

    The page is on the dashboard of the cluster's scheduler; without this call it comes with the
    first fit. In a notebook what is returned shows the page.

    Parameters
    ----------
    client
        A `distributed.Client`; None takes the current one.
    height
        Of the page in a notebook, in pixels.

    Raises
    ------
    RunFailed
        If there is no client, or its scheduler serves no dashboard.
    """
    client = client or current_client()
    if client is None:
        raise RunFailed(
            "there is no Dask client, so there is no dashboard; make one first: "
            "Client(daskps.local_cluster())."
        )
    from daskps.monitor.dashboard import serve

    if not serve(client):
        raise RunFailed(
            f"the scheduler at {client.scheduler.address} serves no dashboard; install bokeh where "
            "it runs (pip install 'daskps[dashboard]') and start it again."
        )
    status = client.dashboard_link
    return DashboardLink(f"{status.removesuffix('/status')}/daskps", status, height)
