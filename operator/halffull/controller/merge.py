"""Strategic merge of a `podTemplatePatch` into a pod template we built, as kubectl does it; called by the builders.

Maps merge key by key and null deletes a key. The lists of MERGE_KEYS merge by that key, any other list is replaced.
`$patch: delete` and `$patch: replace` work on maps and on elements of merged lists.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

MERGE_KEYS = {
    "containers": "name",
    "env": "name",
    "ephemeralContainers": "name",
    "hostAliases": "ip",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ports": "containerPort",
    "resourceClaims": "name",
    "schedulingGates": "name",
    "topologySpreadConstraints": "topologyKey",
    "volumeDevices": "devicePath",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
"""list fields of a pod template that merge by a key (patchMergeKey of the Kubernetes API), and that key"""
_DIRECTIVE = "$patch"


def strategic_merge(target: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return `target` with `patch` merged into it; neither is changed.

    Raises ValueError for an element of a merged list that lacks its key.
    """
    if patch.get(_DIRECTIVE) == "replace":
        return {key: copy.deepcopy(value) for key, value in patch.items() if key != _DIRECTIVE}
    if patch.get(_DIRECTIVE) == "delete":
        return {}
    merged = copy.deepcopy(dict(target))
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            existing = merged.get(key)
            merged[key] = strategic_merge(existing if isinstance(existing, Mapping) else {}, value)
        elif isinstance(value, list) and key in MERGE_KEYS:
            merged[key] = _merge_list(key, merged.get(key) or [], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _merge_list(field: str, target: Sequence[Mapping[str, Any]], patch: Sequence[Any]) -> list[dict[str, Any]]:
    """Merge `patch` into `target` by the field's key; new elements come last."""
    key = MERGE_KEYS[field]
    if any(isinstance(element, Mapping) and element.get(_DIRECTIVE) == "replace" for element in patch):
        return [copy.deepcopy(dict(element)) for element in patch if element.get(_DIRECTIVE) != "replace"]
    merged = [copy.deepcopy(dict(element)) for element in target]
    for element in patch:
        if not isinstance(element, Mapping) or key not in element:
            raise ValueError(f"podTemplatePatch: each element of {field} needs {key!r}")
        place = next((i for i, existing in enumerate(merged) if existing.get(key) == element[key]), None)
        if element.get(_DIRECTIVE) == "delete":
            if place is not None:
                del merged[place]
        elif place is None:
            merged.append(strategic_merge({}, element))
        else:
            merged[place] = strategic_merge(merged[place], element)
    return merged
