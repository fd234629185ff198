"""The documentation says what is: every name in it exists, and every name that users meet is in it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from halffull.api.base import Document
from halffull.api.model_deployment import load_documents
from halffull.api.router_config import EngineTarget, ReplicaBalance, RouterConfig, RouterSettings
from halffull.api.scenario import (
    Clients,
    Contender,
    Engines,
    Objective,
    Outage,
    Routers,
    Scenario,
    Sessions,
    Slowdown,
)
from halffull.api.status import (
    ModelDeploymentStatus,
    ReplicaCounts,
    ReplicaStatus,
    RouterStatus,
    SchedulingPolicyStatus,
)
from halffull.core.errors import Reason
from halffull.engines.catalog import ENGINES
from halffull.policies.catalog import POLICIES
from halffull.sim.setting import setting

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
READMES = [ROOT / folder / "README.md" for folder in ("", "operator", "bench", "tests/chaos")]
RESOURCES = [
    pytest.param(text, id=f"{page.stem}-{number}")
    for page in PAGES
    if page.stem != "simulator"
    for number, text in enumerate(re.findall(r"```yaml\n(.*?)```|<<EOF\n(.*?)\nEOF", page.read_text(), re.DOTALL))
]


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


@pytest.mark.parametrize("texts", RESOURCES)
def test_resources_are_valid(texts: tuple[str, str]) -> None:
    assert load_documents("".join(texts))


def test_scenarios_are_valid_and_every_field_is_named() -> None:
    scenarios = re.findall(r"```yaml\n(.*?)```", page("simulator"), re.DOTALL)
    assert scenarios
    for text in scenarios:
        assert setting(Scenario.model_validate(yaml.safe_load(text) | {"requests": 100})).rate > 0
    documents = (Scenario, Engines, Clients, Routers, Objective, Contender, Outage, Slowdown, Sessions)
    fields = {field.alias for document in documents for field in document.model_fields.values()}
    assert fields - set(re.findall(r"\w+", page("simulator"))) == set()


def anchors(path: Path) -> set[str]:
    """Those that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", [*READMES, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]*)(?:#([^)]*))?\)", path.read_text())
    for name, anchor in links:
        target = path.parent / name if name else path
        assert target.exists(), name
        assert not anchor or anchor in anchors(target), f"{name}#{anchor}"


def test_every_page_is_in_the_index() -> None:
    linked = set(re.findall(r"\]\(docs/([\w-]+)\.md", (ROOT / "README.md").read_text()))
    assert {path.stem for path in PAGES} - linked == set()


@pytest.mark.parametrize("path", [*READMES, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_pages_name_exist(path: Path) -> None:
    for name in re.findall(r"\b(?:manifests|charts|docs|bench)/[\w./-]*\w", path.read_text()):
        assert (ROOT / name).exists(), name


def test_tables_of_policies_orderings_and_gates_are_fresh() -> None:
    command = [sys.executable, ROOT / "docs" / "tables.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_has_advice(name: str) -> None:
    row = re.search(rf"^\| `{name}` \|.*", page("policies"), re.MULTILINE)
    assert row is not None
    assert all(len(cell.strip()) > 3 for cell in row[0].strip("|").split("|"))


def test_every_error_is_explained() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", page("errors"), re.MULTILINE)
    assert {(name, int(status)) for status, name in rows} == {(reason.header, reason.status) for reason in Reason}


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_is_described(name: str) -> None:
    row = re.search(rf"^\| `{name}` \|.*", page("engines"), re.MULTILINE)
    assert row is not None
    *_, at_once, continued, pause = (cell.strip() for cell in row[0].strip("|").split("|"))
    adapter = ENGINES[name]
    continues = any(path.continuing for path in adapter.paths.values())
    assert at_once == str(adapter.defaults.max_sequences)
    assert continued == ("yes" if continues else "no")
    assert pause == f"{adapter.container.pre_stop_seconds} s"


def test_every_header_of_ours_is_explained() -> None:
    sources = (ROOT / "operator" / "halffull" / "router").rglob("*.py")
    named = {header for source in sources for header in re.findall(r"x-halffull-\w+", source.read_text())}
    assert len(named) > 5
    assert named - set(re.findall(r"^\| `([\w-]+)` \|", page("requests"), re.MULTILINE)) == set()


def metrics_named_in(path: str, prefix: str) -> set[str]:
    source = (ROOT / "operator" / "halffull" / path).read_text()
    return set(re.findall(prefix, source))


def test_every_metric_of_the_operator_is_explained() -> None:
    for name in metrics_named_in("controller/metrics.py", r'"halffull_operator_(\w+)"'):
        assert re.search(rf"`{name}(_total)?`", page("monitoring")), name


def test_every_metric_of_the_router_is_explained() -> None:
    pattern = r'(?:_gauge|_counter|_by_reason|_histograms?)\("(\w+)"|PREFIX \+ "(\w+[a-z])"'
    named = {one or other for one, other in metrics_named_in("router/observability/metrics.py", pattern)}
    assert len(named) > 10
    for name in named:
        assert re.search(rf"`{name}(_total)?`", page("metrics")), name


def test_every_reason_of_a_condition_is_explained() -> None:
    sources = [ROOT / "operator/halffull/controller" / f"{name}.py" for name in ("status", "policy_status")]
    reasons = {
        reason
        for source in sources
        for reason in re.findall(r'make\.false\(\s*(?:kind|"\w+"), "(\w+)"', source.read_text())
    }
    assert len(reasons) > 5
    for reason in reasons:
        assert f"`{reason}`" in page("troubleshooting"), reason


@pytest.mark.parametrize(
    "model",
    [
        *(ModelDeploymentStatus, ReplicaCounts, ReplicaStatus, RouterStatus, SchedulingPolicyStatus),
        *(RouterConfig, EngineTarget, RouterSettings, ReplicaBalance),
    ],
)
def test_every_field_of_status_and_router_config_is_explained(model: type[Document]) -> None:
    for field in model.model_fields.values():
        assert f"`{field.alias}`" in page("reference"), field.alias
