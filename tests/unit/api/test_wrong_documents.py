"""What the API server refuses, a file is refused for too, with the field named (the same table as tests/cluster)."""

import pytest
import yaml

from halffull.api.model_deployment import DocumentError, load_documents
from wrong_documents import Wrong, document, table


@pytest.mark.parametrize("row", table(), ids=lambda row: row.title)
def test_a_wrong_document_is_refused_with_the_field_named(row: Wrong):
    with pytest.raises(DocumentError) as refused:
        load_documents(yaml.safe_dump(row.document), "here.yaml")

    name, kind = row.document["metadata"]["name"], row.document["kind"]
    assert f"here.yaml: {kind} {name}: {row.field}: {row.file}" in str(refused.value)


@pytest.mark.parametrize("kind", ["ModelDeployment", "SchedulingPolicy"])
def test_the_documents_that_rows_change_are_right(kind):
    (resource,) = load_documents(yaml.safe_dump(document(kind)))

    assert resource.kind == kind


def test_all_wrong_documents_of_a_file_are_named_at_once():
    text = yaml.safe_dump_all(row.document for row in table())

    with pytest.raises(DocumentError) as refused:
        load_documents(text)

    assert len(refused.value.lines) >= len(table())
