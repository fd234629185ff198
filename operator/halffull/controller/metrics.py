"""The operator's own metrics and probes, on one port. `app` starts it; the other modules count through `Metrics`."""

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from halffull.controller.names import Key
from halffull.core.scaling import Demand


class Metrics:
    """Everything that the operator counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.reconciles = Counter("halffull_operator_reconciles", "Reconciles that ended well.", registry=self.registry)
        self.errors = Counter(
            "halffull_operator_reconcile_errors", "Reconciles that failed and are tried again.", registry=self.registry
        )
        self.seconds = Histogram(
            "halffull_operator_reconcile_seconds",
            "Duration of a reconcile.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self.scrapes = Counter(
            "halffull_operator_scrapes", "Requests to engines and routers.", ["target"], registry=self.registry
        )
        self.scrape_failures = Counter(
            "halffull_operator_scrape_failures",
            "Requests to engines and routers without a usable answer.",
            ["target"],
            registry=self.registry,
        )
        self.queue_depth = Gauge("halffull_operator_queue_depth", "Resources that wait.", registry=self.registry)
        self.leader = Gauge("halffull_operator_leader", "1 in the operator that acts.", registry=self.registry)
        self.resources = Gauge(
            "halffull_operator_model_deployments", "ModelDeployments watched.", registry=self.registry
        )
        self.rebalanced = Counter(
            "halffull_operator_weight_changes",
            "Weights, suspensions and trust of replicas that were changed.",
            registry=self.registry,
        )
        labels = ["namespace", "model_deployment"]
        self._desired = Gauge(
            "halffull_operator_desired_replicas", "Replicas that the load asks for.", labels, registry=self.registry
        )
        self._demand = Gauge(
            "halffull_operator_demand_replicas",
            "KV cache in use and requests that wait, in replicas, as last seen.",
            labels,
            registry=self.registry,
        )
        self.scale: dict[Key, Demand] = {}
        """the scale signal of each ModelDeployment"""

    def demand(self, key: Key, demand: Demand) -> None:
        """Show what the scale signal of a ModelDeployment is now."""
        self.scale[key] = demand
        if demand.desired is not None:
            self._desired.labels(*key).set(demand.desired)
            self._demand.labels(*key).set(demand.samples[-1].demand)

    def forget(self, key: Key) -> None:
        """A ModelDeployment is gone, or another operator follows it now."""
        if self.scale.pop(key, None) is not None:
            self._desired.remove(*key)
            self._demand.remove(*key)


def application(metrics: Metrics) -> web.Application:
    """Return the server of `/metrics`, `/healthz` and `/readyz`; it answers as long as the event loop turns."""

    async def exposition(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"content-type": CONTENT_TYPE_LATEST})

    async def health(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def scale(request: web.Request) -> web.Response:
        key = Key(request.match_info["namespace"], request.match_info["name"])
        demand = metrics.scale.get(key)
        if demand is None or demand.desired is None:
            return web.json_response({"error": "not known here"}, status=404)
        seen = round(demand.samples[-1].demand, 3)
        return web.json_response({"desiredReplicas": demand.desired, "demandReplicas": seen})

    app = web.Application()
    app.add_routes([web.get("/metrics", exposition), web.get("/healthz", health), web.get("/readyz", health)])
    app.add_routes([web.get("/scale/{namespace}/{name}", scale)])
    return app
