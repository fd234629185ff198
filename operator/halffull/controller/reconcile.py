"""One reconcile, top to bottom: read, derive, publish, bring children in order, write the status. Run by the keyed queue.

Everything that is decided is pure and elsewhere; here is the order of the calls to the API server. The configuration
goes first, so that an edit reaches the routers before anything else is done.
"""

import asyncio
import datetime as dt
import logging
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from halffull.api.errors import DocumentError
from halffull.api.model_deployment import ModelDeployment, SchedulingPolicy
from halffull.api.newer import read_known
from halffull.api.router_config import Balance, RouterConfig, parse_router_config
from halffull.controller import adoption, children, names, routers
from halffull.controller.child import TEMPLATE_HASH, Live, Settings
from halffull.controller.credentials import credentials, named_secrets
from halffull.controller.desired import desired
from halffull.controller.facts import Facts, Notes
from halffull.controller.happenings import happenings
from halffull.controller.kube import Kube
from halffull.controller.names import API_VERSION, Key, Ref
from halffull.controller.observed import Observed
from halffull.controller.records import Outcome, Record, Records
from halffull.controller.rounds import Rounds
from halffull.controller.router_config import balanced, router_config
from halffull.controller.status import refused, status, write_after
from halffull.controller.tell import Teller

LOG = logging.getLogger(__name__)

REFUSED_S = 30.0
"""time after which children that were refused are tried again, and Secrets that are missing looked for"""
ROTATED_S = 60.0
"""between two looks at the Secrets of engines and routers, which get theirs as late from the kubelet"""

Document = dict[str, Any]


class Reconciler:
    """Reconciles ModelDeployments."""

    def __init__(
        self,
        kube: Kube,
        observed: Observed,
        records: Records,
        settings: Settings,
        *,
        rounds: Rounds,
        teller: Teller,
        wake_later: Callable[[Key, float], None],
        wrote: Callable[[Key], None],
    ) -> None:
        """`wrote` is called once the status of a ModelDeployment is about its latest configuration."""
        self._kube = kube
        self._observed = observed
        self._records = records
        self._settings = settings
        self._rounds = rounds
        self._teller = teller
        self._wake_later = wake_later
        self._wrote = wrote

    def touch(self, key: Key, kind: str) -> None:
        """Note that a child of that kind changed: children are looked at in the next reconcile."""
        record = self._records.get(key)
        if record is None:
            return
        engine = self._observed.deployments.get(key, {}).get("spec", {}).get("engine", {})
        if kind != "EndpointSlice" or "selector" in engine:
            record.children_due = True

    async def reconcile(self, key: Key) -> None:
        """Bring one ModelDeployment in order. Raises ApiError; the queue tries again."""
        await self._reconcile(key)
        record, now = self._records.get(key), asyncio.get_running_loop().time()
        for due in (record.retry_at, record.credentials_due) if record else ():
            if due is not None and now < due < float("inf"):
                self._wake_later(key, due - now)  # each time: one who asked for an earlier hour took its place

    async def _reconcile(self, key: Key) -> None:
        document = self._observed.deployments.get(key)
        if document is None or document["metadata"].get("deletionTimestamp"):
            self._rounds.leave(key)
            self._records.drop(key)
            self._observed.forget(key)
            return
        record = self._records.of(key, document["metadata"]["uid"])
        if record.status_at is None:
            record.status = document.get("status") or {}
        try:
            owner, _ = read_known(ModelDeployment, {**document, "status": {}})
        except DocumentError as error:
            message = "; ".join(error.lines)
            await self._write(key, record, document, refused(document, record.status, message, _now()))
            return
        if record.engine_args is None:
            record.engine_args = await adoption.arguments(self._kube, owner)
        policy, problem = self._policy(owner)
        config = await self._publish(key, record, owner, policy, document)
        self._rounds.follow(key)
        if self._children_are_due(record, owner):
            await self._children(key, record, owner, config)
        elif asyncio.get_running_loop().time() >= record.credentials_due:
            before = record.missing_secrets
            await self._credentials(key, record, owner)
            if record.missing_secrets != before:  # for which a sidecar may have waited
                record.children_due = True
                self._wake_later(key, 0)
        known = record.decision is not None or record.outcome != Outcome()
        if not known and record.status.get("observedGeneration") == owner.metadata.generation:
            return  # a restart: what routers have applied is known after the first round, which wakes us
        notes = Notes(
            policy=problem,
            sidecar=record.sidecar_problem,
            secrets=record.missing_secrets,
            taken=record.outcome.taken,
            refused=record.outcome.refused,
            sharers=tuple(self._observed.sharers(key)),
        )
        made = status(owner, config, self._facts(key, record, document), notes, previous=record.status, now=_now())
        await self._write(key, record, document, made.dump())

    def _policy(self, owner: ModelDeployment) -> tuple[SchedulingPolicy | None, tuple[str, str] | None]:
        """Return the SchedulingPolicy that is named, or (reason, message) why there is none to use."""
        named = owner.spec.scheduling_policy_ref
        if named is None:
            return None, None
        document = self._observed.policies.get(Key(owner.metadata.namespace, named.name))
        if document is None:
            return None, (
                "PolicyNotFound",
                f"SchedulingPolicy {named.name} does not exist; what was applied last stays",
            )
        try:
            return read_known(SchedulingPolicy, {**document, "status": {}})[0], None
        except DocumentError as error:
            message = f"SchedulingPolicy {named.name}: {'; '.join(error.lines)}"
            return None, ("PolicyInvalid", message)

    async def _publish(
        self,
        key: Key,
        record: Record,
        owner: ModelDeployment,
        policy: SchedulingPolicy | None,
        document: Mapping[str, Any],
    ) -> RouterConfig:
        """Write the RouterConfig if it changed."""
        before = record.config or await self._published(key)
        now = asyncio.get_running_loop().time()
        replicas = {e.name for e in self._observed.engines_of(key, document)}
        balance = before.balance if before else Balance()
        renew = record.decision is not None and now - record.published_at >= balance.renew_seconds
        reasons = {change.replica: change.reason for change in record.changes}
        drained = owner.spec.engine.drain
        balance = balanced(balance, replicas, record.decision, reasons, drained=drained, renew=renew)
        config = router_config(owner, policy, before, balance, engine_args=record.engine_args or ())
        if config != record.config:
            documents = [routers.config_map(owner, config)]
            outcome = await children.apply(self._kube, self._observed, record, key, documents)
            if outcome != Outcome():
                if record.outcome == Outcome():
                    record.outcome = outcome
                    self._retry(record)
                return config
            record.config = config
            if config != before:
                record.published_at = now
            if before is None or before.hash != config.hash:
                LOG.info("%s: published policy %s (%.12s)", key, config.scheduling.policy, config.hash)
                self._rounds.poke(key)
        return config

    async def _published(self, key: Key) -> RouterConfig | None:
        """Return the RouterConfig that an earlier operator published."""
        document = await self._kube.get("ConfigMap", key.namespace, names.router(key.name))
        text = ((document or {}).get("data") or {}).get(names.CONFIG_KEY)
        if text is None:
            return None
        try:
            return parse_router_config(text)[0]
        except DocumentError as error:
            LOG.warning("%s: the published RouterConfig is not valid and is made anew: %s", key, error)
            return None

    @staticmethod
    def _children_are_due(record: Record, owner: ModelDeployment) -> bool:
        retry = record.retry_at is not None and asyncio.get_running_loop().time() >= record.retry_at
        return record.children_due or retry or record.generation != owner.metadata.generation

    async def _children(self, key: Key, record: Record, owner: ModelDeployment, config: RouterConfig) -> None:
        """Create the Secret, apply and prune children, put the sidecar into adopted workloads."""
        record.children_due = False  # what happens from here on counts again
        try:
            await self._credentials(key, record, owner)
            secret = await self._secret(record, owner)
            accounts: tuple[str, ...] = ()
            record.sidecar_problem = ""
            if owner.spec.engine.selector is not None:
                await self._reread_arguments(key, record, owner)
                if owner.spec.router.placement == "Sidecar":
                    injected = await adoption.inject(self._kube, owner, self._settings, record.missing_secrets)
                    accounts, record.sidecar_problem = injected.accounts, injected.problem
            await self._apply(key, record, owner, config, accounts)
            if secret != Outcome():
                others = record.outcome
                record.outcome = Outcome(secret.taken + others.taken, secret.refused + others.refused)
                self._retry(record)
            if self._settings.patch_adopted and record.generation != owner.metadata.generation:
                await adoption.sweep(self._kube, [key.namespace])
        except BaseException:
            record.children_due = True
            raise
        record.generation = owner.metadata.generation

    async def _credentials(self, key: Key, record: Record, owner: ModelDeployment) -> None:
        """Read the Secrets that are named, and again in a while: they are rotated, and not watched."""
        record.credentials, record.missing_secrets = await credentials(self._kube, owner)
        record.credentials_due = float("inf")
        if named_secrets(owner):
            pause_s = REFUSED_S if record.missing_secrets else ROTATED_S
            record.credentials_due = asyncio.get_running_loop().time() + pause_s

    async def _secret(self, record: Record, owner: ModelDeployment) -> Outcome:
        """Create the Secret, once; return what stands in its way."""
        if record.has_secret:
            return Outcome()
        outcome = await children.create_once(self._kube, record, routers.secret(owner, _token(), _token()))
        record.has_secret = outcome == Outcome()
        return outcome

    async def _reread_arguments(self, key: Key, record: Record, owner: ModelDeployment) -> None:
        """Read the arguments of adopted pods, which tell the engine's limits; if they changed, publish anew."""
        arguments = await adoption.arguments(self._kube, owner)
        if arguments != record.engine_args:
            record.engine_args = arguments
            self._wake_later(key, 0)

    async def _apply(
        self, key: Key, record: Record, owner: ModelDeployment, config: RouterConfig, accounts: tuple[str, ...]
    ) -> None:
        """Apply and prune children; what the API server refuses goes into the status and is tried again later."""
        try:
            objects = desired(owner, config, self._settings, self._live(key), accounts)
        except ValueError as error:
            record.outcome = Outcome(refused=(str(error),))
            return
        record.outcome = await children.apply(self._kube, self._observed, record, key, objects)
        await children.prune(self._kube, self._observed, record, key, objects)
        record.retry_at = None
        if record.outcome != Outcome():
            self._retry(record)

    def _retry(self, record: Record) -> None:
        """Have children looked at again in a while."""
        record.retry_at = asyncio.get_running_loop().time() + REFUSED_S

    def _live(self, key: Key) -> Live:
        """Return what the engine Deployment must keep."""
        child = self._observed.children[key].get(Ref("Deployment", names.engine_deployment(key.name)))
        if child is None:
            return Live()
        return Live(child.document["annotations"].get(TEMPLATE_HASH, ""), child.document["images"])

    def _facts(self, key: Key, record: Record, document: Mapping[str, Any]) -> Facts:
        decision = record.decision
        pods = self._observed.children[key].get(Ref("Deployment", names.engine_deployment(key.name)))
        return Facts(
            engines=self._observed.engines_of(key, document),
            routers=self._observed.routers(key),
            signals=record.signals,
            marks=decision.marks if decision else {},
            speeds=decision.speeds if decision else {},
            pressures=decision.pressures if decision else {},
            answers=record.answers,
            desired=record.demand.desired,
            engine_pods=pods.document["replicas"] if pods else None,
        )

    async def _write(self, key: Key, record: Record, document: Mapping[str, Any], made: Document) -> None:
        """Write the status now, later or not at all, and tell what changed."""
        hash_ = record.config.hash if record.config else ""
        now = asyncio.get_running_loop().time()
        since = float("inf") if record.status_at is None else now - record.status_at
        delay = write_after(record.status or None, made, since)
        if delay is None:
            if record.status_hash != hash_:  # right as it stands, which a SchedulingPolicy may wait for
                record.status_hash = hash_
                self._wrote(key)
            await self._tell(record, document, made)  # of a replica that is not among those listed
            return
        if delay > 0:
            self._wake_later(key, delay)
            return
        await self._kube.apply_status(_with_status(document, made))
        before = record.status
        record.status, record.status_at, record.status_hash = made, now, hash_
        self._wrote(key)
        await self._tell(record, document, before)

    async def _tell(self, record: Record, document: Mapping[str, Any], before: Mapping[str, Any]) -> None:
        """Tell what changed since the status `before`, and with the replicas."""
        changes, record.changes = record.changes, []
        told = happenings(before, record.status, changes)
        await self._teller.tell({**document, "kind": "ModelDeployment"}, told)


def _with_status(document: Mapping[str, Any], made: Document) -> Document:
    metadata = document["metadata"]
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelDeployment",
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
        "status": made,
    }


def _token() -> str:
    return secrets.token_urlsafe(32)


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
