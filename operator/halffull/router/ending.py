"""What is told of a request's end to the witnesses: logs, traces, recordings. `passage` calls it once per request."""

import logging
from typing import TYPE_CHECKING

from halffull.router.asked import Asked
from halffull.router.observability.telemetry import Ended

if TYPE_CHECKING:
    from halffull.router.passage import Passage
    from halffull.router.proxy import Proxy

LOG = logging.getLogger(__name__)


def tell(proxy: "Proxy", passage: "Passage", asked: Asked, *, status: int, reason: str) -> None:
    """Tell the witnesses how a request ended; one that fails costs no answer."""
    exchange, head, prompt = passage.exchange, asked.head, asked.prompt
    replica = exchange.replica if exchange is not None else None
    estimate = exchange.asked.prompt_tokens if exchange is not None else 0
    ended = Ended(
        request_id=passage.request_id,
        method=head.method.decode(),
        path=proxy.adapter.label(head.path),
        status=status,
        reason=reason,
        replica=replica.name if replica is not None else "",
        attempts=exchange.attempts if exchange is not None else 0,
        prompt_tokens=prompt.counted or estimate,
        generated_tokens=exchange.generated if exchange is not None else 0,
        caller=exchange.asked.caller if exchange is not None else "",
        traceparent=head.fields.get(b"traceparent", b"").decode("latin-1"),
        arrived=passage.arrived,
        sent_at=(exchange.sent_at or None) if exchange is not None else None,
        started_at=exchange.started_at if exchange is not None else None,
        ended_at=proxy.clock(),
        request=exchange.asked if exchange is not None else None,
        prompt_bytes=prompt.text_bytes,
        blocks=proxy.blocks(prompt, asked.body) if proxy.recording else (),
    )
    for witness in proxy.witnesses:
        try:
            witness(ended)
        except Exception:
            LOG.exception("the end of request %s cannot be noted", ended.request_id)
