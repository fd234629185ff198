"""Reads documents that a newer version may have written: what this one does not know is left out, and named.

The API server prunes what its CRDs do not know, so such a field in a resource comes from newer CRDs, as in the middle of an
upgrade; in a RouterConfig it comes from a newer operator. Neither may stop what runs.
"""

from copy import deepcopy
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from halffull.api.errors import UNKNOWN_FIELD, DocumentError, path, sentences

Model = TypeVar("Model", bound=BaseModel)


def read_known(model: type[Model], document: Any) -> tuple[Model, list[str]]:
    """Return the document and the paths of fields that `model` does not have.

    Raises DocumentError if something else is wrong with it.
    """
    try:
        return model.model_validate(document), []
    except ValidationError as error:
        unknown = [detail for detail in error.errors(include_url=False) if detail["type"] in UNKNOWN_FIELD]
        if not unknown:
            raise DocumentError(sentences(error, document, model)) from error
    known = deepcopy(document)
    for detail in unknown:
        _drop(known, detail["loc"])
    try:
        return model.model_validate(known), [path(detail, document) for detail in unknown]
    except ValidationError as error:
        raise DocumentError(sentences(error, known, model)) from error


def _drop(document: Any, location: tuple[int | str, ...]) -> None:
    *parents, key = location
    for parent in parents:
        document = document[parent]
    del document[key]
