"""How the operator calls the engines and routers of a ModelDeployment, and what it takes for an answer."""

import ssl

import aiohttp
import certifi
import pytest
from aiohttp import web

from halffull.controller.endpoints import Endpoint
from halffull.controller.facts import RouterAnswer
from halffull.controller.metrics import Metrics
from halffull.controller.scrape import Credentials, Scraper


async def asked(said: web.Response) -> RouterAnswer:
    """What is taken from a router that says this of its status."""

    async def status(_: web.Request) -> web.Response:
        return said

    app = web.Application()
    app.router.add_get("/status", status)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    async with aiohttp.ClientSession() as session:
        answers = await Scraper(session, Metrics()).routers([Endpoint("r", host, port, ready=True)], Credentials())
    await runner.cleanup()
    return answers["r"]


def test_a_bundle_of_authorities_may_have_names_in_any_language_between_its_certificates() -> None:
    bundle = f"# TÜRKTRUST Elektronik Sertifika Hizmet Sağlayıcısı\n{certifi.contents()}"

    context = Credentials("https", ca=bundle).tls()

    assert context is not None
    assert context.get_ca_certs()


def test_an_authority_that_is_no_certificate_is_refused() -> None:
    with pytest.raises(ssl.SSLError):
        Credentials("https", ca="Sağlayıcısı").tls()


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ('{"config":{"hash":"a"},"queue":{"requests":1},"replicas":[{"name":"r"}]}', True),
        ('{"config":{"hash":null},"queue":null,"replicas":[]}', True),
        ("[]", False),
        ('{"config":"a"}', False),
        ('{"queue":[1]}', False),
        ('{"replicas":{"r":{}}}', False),
        ('{"replicas":["r"]}', False),
        ("[" * 100_000, False),
    ],
)
async def test_only_what_has_the_form_of_a_status_is_taken_for_one(said: str, taken: bool) -> None:
    answer = await asked(web.Response(text=said))

    assert (answer.document is not None) is taken
    assert bool(answer.error) is not taken


async def test_a_router_that_refuses_us_is_told_by_what_it_answers() -> None:
    answer = await asked(web.Response(status=401))

    assert answer.error == "status unknown: answered 401"
