"""The operator's port: the scale signal of each ModelDeployment, as long as this operator follows it."""

from aiohttp.test_utils import TestClient, TestServer

from halffull.controller.metrics import Metrics, application
from halffull.controller.names import Key
from halffull.core.scaling import Demand, Sample


async def test_the_scale_signal_is_served_while_the_resource_is_followed() -> None:
    metrics = Metrics()
    async with TestClient(TestServer(application(metrics))) as client:
        assert (await client.get("/scale/n/d")).status == 404
        metrics.demand(Key("n", "d"), Demand((Sample(1.0, 1.8359, whole=True),), 3))

        answer = await client.get("/scale/n/d")
        assert await answer.json() == {"desiredReplicas": 3, "demandReplicas": 1.836}
        exposition = await (await client.get("/metrics")).text()
        assert 'halffull_operator_desired_replicas{model_deployment="d",namespace="n"} 3.0' in exposition

        metrics.forget(Key("n", "d"))
        metrics.forget(Key("n", "d"))
        assert (await client.get("/scale/n/d")).status == 404
        assert "desired_replicas{" not in await (await client.get("/metrics")).text()
