"""From a ModelDeployment to all its child objects, in one pure step. Called by `reconcile`; pinned by golden files."""

from collections.abc import Iterable

from halffull.api.model_deployment import ModelDeployment
from halffull.api.router_config import RouterConfig
from halffull.controller import engines, names, routers, sidecar
from halffull.controller.child import Document, Live, Settings


def desired(
    owner: ModelDeployment,
    config: RouterConfig,
    settings: Settings,
    live: Live | None = None,
    accounts: Iterable[str] = (),
) -> tuple[Document, ...]:
    """Return the objects that are to exist, in the order in which they are applied; the ConfigMap comes first.

    `live` is the engine Deployment as it is, `accounts` are the ServiceAccounts of adopted pods with a sidecar. The
    Secret (`routers.secret`) is apart, since it is created once; so are sidecars in workloads that are not ours.
    """
    engine, router, name = owner.spec.engine, owner.spec.router, owner.metadata.name
    objects = [routers.config_map(owner, config), *routers.rights(owner, accounts)]
    if router.placement == "Sidecar":
        adopted = engine.selector is not None
        objects += routers.services(owner, {sidecar.SIDECAR_OF: name} if adopted else names.selector(name, "engine"))
    else:
        objects += routers.services(owner, names.selector(name, "router"))
        objects += [routers.deployment(owner, settings), routers.budget(owner)]
    if engine.endpoints is None:
        objects.append(engines.service(owner))
    if engine.template is not None:
        objects.append(engines.deployment(owner, engine.template, settings, live or Live()))
        objects.append(engines.budget(owner, engine.template))
    return tuple(objects)
