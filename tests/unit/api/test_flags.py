"""Where commands listen if nobody says so."""

import argparse
import importlib

import pytest


@pytest.mark.parametrize("command", ["router", "sim", "controller"])
@pytest.mark.parametrize(("services", "host"), [(None, "0.0.0.0"), ("10.0.0.1", "0.0.0.0"), ("fd00::1", "::")])
def test_pods_listen_where_their_cluster_asks_them(
    command: str, services: str | None, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    if services is not None:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", services)
    parser = argparse.ArgumentParser()
    importlib.import_module(f"halffull.{command}.command").add_arguments(parser)
    required = ["--router-image", "x"] if command == "controller" else []
    assert parser.parse_args(required).host == host
