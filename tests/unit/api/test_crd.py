"""The CustomResourceDefinitions: fresh under manifests/crds, and every default in them is the model's own."""

import argparse

import yaml

from halffull.api.command import add_arguments, run
from halffull.api.crd import files
from halffull.api.model_deployment import KINDS
from wrong_documents import document


def test_the_committed_files_are_fresh(root):
    folder = root / "manifests" / "crds"

    assert {path.name: path.read_text() for path in folder.iterdir()} == files(), "run `make crds`"


def test_the_command_writes_one_file_each_or_prints_them(tmp_path, capsys):
    parser = argparse.ArgumentParser()
    add_arguments(parser)

    assert run(parser.parse_args(["--output", str(tmp_path / "new")])) == 0
    assert {path.name: path.read_text() for path in (tmp_path / "new").iterdir()} == files()
    assert run(parser.parse_args([])) == 0
    printed = list(yaml.safe_load_all(capsys.readouterr().out))
    assert printed == [yaml.safe_load(text) for text in files().values()]


def test_defaults_of_the_schema_are_those_of_the_model():
    for text in files().values():
        crd = yaml.safe_load(text)
        kind = crd["spec"]["names"]["kind"]
        (version,) = crd["spec"]["versions"]
        schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
        written = document(kind)["spec"]
        model = KINDS[kind].model_fields["spec"].annotation

        filled = defaulted(written, schema)

        assert filled != written
        assert model.model_validate(filled) == model.model_validate(written)


def defaulted(value, schema):
    """What the API server makes of a value: absent fields get their defaults, and so do those of blocks."""
    if not isinstance(value, dict):
        return value
    fields = schema.get("properties", {})
    value = {**{name: field["default"] for name, field in fields.items() if "default" in field}, **value}
    return {name: defaulted(part, fields[name]) if name in fields else part for name, part in value.items()}
