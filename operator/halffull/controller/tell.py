"""Posts Kubernetes Events. Called by `reconcile` after a status was written; an Event that fails is logged, not retried."""

import datetime as dt
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from halffull.controller.events import Happening, event, repeated
from halffull.controller.kube import ApiError, Kube

LOG = logging.getLogger(__name__)


class Teller:
    """Tells of happenings in the name of one operator."""

    def __init__(self, kube: Kube, reporter: str) -> None:
        self._kube = kube
        self._reporter = reporter

    async def tell(self, about: Mapping[str, Any], happenings: Iterable[Happening]) -> None:
        """Post one Event each; one that exists counts up."""
        for happening in happenings:
            LOG.log(
                logging.WARNING if happening.type == "Warning" else logging.INFO,
                "%s/%s: %s: %s",
                about["metadata"]["namespace"],
                about["metadata"]["name"],
                happening.reason,
                happening.note,
            )
            try:
                await self._post(event(about, happening, self._reporter, dt.datetime.now(dt.UTC)))
            except ApiError as error:
                LOG.warning("cannot post an Event: %s", error)

    async def _post(self, document: Mapping[str, Any]) -> None:
        if await self._kube.create(document) is not None:
            return
        namespace, name = document["metadata"]["namespace"], document["metadata"]["name"]
        existing = await self._kube.merge("Event", namespace, name, {})  # reads it with the right to patch
        await self._kube.merge("Event", namespace, name, repeated(existing, dt.datetime.now(dt.UTC)))
