"""The HTTP server of a simulated engine: vLLM 0.32's paths over the engine model in real time.

Run by `halffull engine` (command.py). The path of a request for text, top to bottom, is `_generate`. Not modelled: sampling
parameters (the text is greedy), log probabilities, tools, structured output, images, `echo`; they are accepted and ignored.
"""

import asyncio
import hmac
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest

from halffull.sim import language
from halffull.sim.adapters import Adapters
from halffull.sim.answering import SSE_HEADERS, Answering, EventWriter, busy_events, compose
from halffull.sim.dialect.base import Dialect, compact, needed, rendered, taken
from halffull.sim.dialect.chat import Chat
from halffull.sim.dialect.completions import Completions
from halffull.sim.dialect.messages import Messages, prompt_text
from halffull.sim.dialect.responses import Responses
from halffull.sim.engine_model import EngineModel
from halffull.sim.exposition import EngineCollector, cache_config_labels
from halffull.sim.generation import Prompt, RefusedError, busy
from halffull.sim.http_metrics import HttpMetrics
from halffull.sim.kv_events import publisher
from halffull.sim.metrics import EngineMetrics
from halffull.sim.pace import Pace
from halffull.sim.profiles import Profile
from halffull.sim.vocabulary import Vocabulary

VERSION = "0.32.0"
UNCOUNTED = frozenset({"/metrics", "/health", "/ping", "/version"})
"""paths that are not in the counts of HTTP requests"""
MAX_BODY_BYTES = 256 * 2**20


class BusyForm(StrEnum):
    """How a full engine refuses a request that asks for a stream."""

    RACE = "race"
    """as vLLM does: HTTP 503 if it was full when the request came, an error event if others filled it meanwhile"""
    STATUS = "status"
    EVENT = "event"


@dataclass(frozen=True, slots=True)
class Settings:
    """How an engine is set up; the command's options say what each means."""

    model: str
    served_names: tuple[str, ...]
    profile: Profile
    scale: float = 1.0
    """real seconds per second of the model"""
    block_size: int = 16
    prefix_cache: bool = False
    max_model_len: int = 131_072
    max_queued: int | None = None
    busy_form: BusyForm = BusyForm.RACE
    metrics_lag: float = 0.3
    api_key: str | None = None
    adapters: tuple[str, ...] = ()
    """names of LoRA adapters"""
    adapter_slots: int = 1
    """of them that the GPU holds"""
    kv_events: str | None = None
    """JSON of `--kv-events-config`"""


def _json(document: Any, status: int = 200) -> web.Response:
    return web.Response(body=compact(document).encode(errors="replace"), status=status, content_type="application/json")


async def _body(request: web.Request) -> dict[str, Any]:
    """Return the request's JSON object. RefusedError (400), worded as vLLM does, if it is none."""
    if request.content_type != "application/json":
        raise RefusedError(400, "Unsupported Media Type: Only 'application/json' is allowed", "Bad Request")
    try:
        document = json.loads(await request.read())
    except ValueError as error:
        at, why = (error.pos, error.msg) if isinstance(error, json.JSONDecodeError) else (0, str(error))
        message = (
            f"1 validation error:\n  {{'type': 'json_invalid', 'loc': 'body.{at}', 'msg': 'JSON decode error', "
            f"'input': '<dict of 0 items>', 'ctx': {{'error': '{why}'}}}}"
        )
        raise RefusedError(400, message, "Bad Request", f"body.{at}") from None
    if not isinstance(document, dict):
        raise RefusedError(400, "1 validation error:\n  Input should be an object", "Bad Request", "body")
    return document


async def _identify(request: web.Request, response: web.StreamResponse) -> None:
    """Send the request's id back, as vLLM does on all but its HTTP 503."""
    if response.status != 503:
        response.headers["x-request-id"] = request.headers.get("x-request-id") or uuid.uuid4().hex


class EngineServer:
    """One simulated engine; make it inside a running event loop. ValueError or OSError: it cannot publish its KV events."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._started = int(time.time())
        self._vocabulary = Vocabulary()
        self._draining = False
        self._model = EngineModel(settings.profile, block_size=settings.block_size, prefix_cache=settings.prefix_cache)
        self._metrics = EngineMetrics(settings.max_model_len, settings.metrics_lag * settings.scale)
        self._publisher = publisher(settings.kv_events)
        self.pace = Pace(self._model, settings.scale, self._metrics, self._publisher)
        self._registry = CollectorRegistry()
        GCCollector(self._registry)
        PlatformCollector(self._registry)
        ProcessCollector(registry=self._registry)
        labels = {"engine": "0", "model_name": settings.served_names[0]}
        cache = cache_config_labels(self._model, prefix_cache=settings.prefix_cache)
        clock = asyncio.get_running_loop().time
        self._registry.register(EngineCollector(self._metrics, self._model, labels, cache, clock))
        self._http = HttpMetrics(self._registry)
        self._adapters = Adapters(settings.adapters, settings.adapter_slots)
        self._registry.register(self._adapters)

    def app(self) -> web.Application:
        """Return the application with all paths."""
        app = web.Application(middlewares=[self._frame], client_max_size=MAX_BODY_BYTES)
        app.on_response_prepare.append(_identify)
        for path, dialect in (
            ("/v1/chat/completions", Chat()),
            ("/v1/completions", Completions()),
            ("/v1/messages", Messages()),
            ("/v1/responses", Responses()),
        ):
            app.router.add_post(path, self._generation(dialect))
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/ping", self._health),
                web.post("/ping", self._health),
                web.get("/version", self._version),
                web.get("/v1/models", self._models),
                web.get("/kv_event_sources", self._kv_event_sources),
                web.get("/metrics", self._expose),
                web.post("/tokenize", self._tokenize),
                web.post("/detokenize", self._detokenize),
                web.post("/v1/messages/count_tokens", self._count_tokens),
                web.get("/v1/responses/{id}", self._no_stored_response),
                web.post("/v1/responses/{id}/cancel", self._no_stored_response),
            ]
        )
        return app

    def close(self) -> None:
        """Publish no longer."""
        if self._publisher is not None:
            self._publisher.close()

    def drain(self) -> None:
        """Answer what comes from now on with finish reason abort; go on with what is in flight."""
        self._draining = True

    def _generation(self, dialect: Dialect) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                return await self._generate(request, dialect)
            except RefusedError as refused:
                return _json(dialect.error(refused), refused.status)

        return handle

    async def _generate(self, request: web.Request, dialect: Dialect) -> web.StreamResponse:
        """Parse, check, queue, answer; a client that goes away ends the handler, which frees its sequences at once."""
        settings = self._settings
        generation = dialect.parse(await _body(request))
        self._check_model(generation.model)
        streamed = generation.stream
        if self._full and not (streamed and settings.busy_form is BusyForm.EVENT):
            raise self._refusal()
        identity = request.headers.get("x-request-id") or uuid.uuid4().hex[:16]
        model = generation.model or settings.served_names[0]
        block_size = settings.block_size if settings.prefix_cache else 0
        reply = compose(generation, identity, model, settings.max_model_len, block_size)
        answering = Answering(dialect, reply, request.headers.get("x-session-id", ""))
        if not streamed:
            await self._run(answering)
            return _json(dialect.whole(reply))
        response = web.StreamResponse(headers=SSE_HEADERS)
        if settings.busy_form is not BusyForm.STATUS:
            await asyncio.sleep(0)  # vLLM hands the prompt to its engine here: others may fill the queue meanwhile
        await response.prepare(request)
        writer = EventWriter(request)
        if self._full:
            writer.write(busy_events(self._refusal()))
        else:
            answering.stream_to(writer)
            await self._run(answering)
        await response.write_eof()
        return response

    async def _run(self, answering: Answering) -> None:
        self._metrics.answers.observe(answering.reply.generation.n)
        with self._adapters.used(answering.reply.model):
            try:
                self.pace.submit(answering.sequences)
                if self._draining:
                    self.pace.abort(answering.sequences)
                await answering.ended.wait()
            finally:
                self.pace.cancel(answering.sequences)

    @property
    def _full(self) -> bool:
        limit = self._settings.max_queued
        return limit is not None and self.pace.in_flight >= limit

    def _refusal(self) -> RefusedError:
        self._metrics.rejected += 1
        return busy()

    def _allowed(self, request: web.Request) -> bool:
        key = self._settings.api_key
        if key is None or not request.path.startswith("/v1"):
            return True
        return hmac.compare_digest(request.headers.get("Authorization", "").encode(), f"Bearer {key}".encode())

    def _check_model(self, name: str | None) -> None:
        names = (*self._settings.served_names, *self._settings.adapters)
        if name is not None and name not in names:
            message = f"The model `{name}` does not exist. Valid aliases: {', '.join(names)}."
            raise RefusedError(404, message, "NotFoundError", "model")

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _version(self, _: web.Request) -> web.Response:
        return _json({"version": VERSION})

    async def _kv_event_sources(self, _: web.Request) -> web.Response:
        return _json({} if self._publisher is None else self._publisher.sources)

    async def _models(self, _: web.Request) -> web.Response:
        return _json({"object": "list", "data": [*self._cards()]})

    def _cards(self) -> Iterator[dict[str, Any]]:
        base, *_ = names = self._settings.served_names
        yield from (self._card(name, self._settings.model, None) for name in names)
        yield from (self._card(name, f"adapters/{name}", base) for name in self._settings.adapters)

    def _card(self, name: str, root: str, parent: str | None) -> dict[str, Any]:
        permission = {
            "id": f"modelperm-{uuid.uuid4().hex[:16]}",
            "object": "model_permission",
            "created": self._started,
            "allow_create_engine": False,
            "allow_sampling": True,
            "allow_logprobs": True,
            "allow_search_indices": False,
            "allow_view": True,
            "allow_fine_tuning": False,
            "organization": "*",
            "group": None,
            "is_blocking": False,
        }
        return {
            "id": name,
            "object": "model",
            "created": self._started,
            "owned_by": "vllm",
            "root": root,
            "parent": parent,
            "max_model_len": self._settings.max_model_len,
            "permission": [permission],
        }

    async def _expose(self, _: web.Request) -> web.Response:
        exposition = generate_latest(self._registry)
        return web.Response(body=exposition, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await _body(request)
        self._check_model(taken(body, "model", str))
        text = rendered(needed(body, "messages", list)) if "messages" in body else needed(body, "prompt", str)
        numbers = self._vocabulary.encode(text)
        strings = language.tokenize(text) if taken(body, "return_token_strs", bool, default=False) else None
        counts = {"count": len(numbers), "max_model_len": self._settings.max_model_len}
        return _json(counts | {"tokens": numbers, "token_strs": strings})

    async def _detokenize(self, request: web.Request) -> web.Response:
        body = await _body(request)
        self._check_model(taken(body, "model", str))
        return _json({"prompt": self._vocabulary.decode(needed(body, "tokens", list))})

    async def _count_tokens(self, request: web.Request) -> web.Response:
        body = await _body(request)
        self._check_model(taken(body, "model", str))
        return _json({"input_tokens": Prompt.of(prompt_text(body)).tokens})

    async def _no_stored_response(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        raise RefusedError(404, f"Response with id '{name}' not found.", "NotFoundError", "response_id")

    @web.middleware
    async def _frame(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Check the key, count the request; answer unknown paths as FastAPI does."""
        began = time.perf_counter()
        try:
            response = await handler(request) if self._allowed(request) else _json({"error": "Unauthorized"}, 401)
        except RefusedError as refused:
            response = _json(refused.document, refused.status)
        except web.HTTPException as refused:
            response = _json({"detail": refused.reason.title()}, refused.status)
        if request.path in UNCOUNTED:
            return response
        resource = request.match_info.route.resource
        self._http.observe(
            resource.canonical if resource is not None else "none",
            request.method,
            response.status,
            time.perf_counter() - began,
            request_bytes=request.content_length or 0,
            response_bytes=response.content_length or 0,
        )
        return response
