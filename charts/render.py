"""Renders the chart to manifests/install.yaml and copies the CRDs into the chart; run by `make crds`.

With --check it writes nothing and says which files are stale. Helm is taken from $HELM, else from PATH.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMESPACE = "halffull-system"
OLDEST_KUBERNETES = "1.29.0"
HEADER = f"""\
# Rendered from charts/halffull by `make crds`; do not edit. For an installation without Helm:
#   kubectl apply --server-side -f install.yaml
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
"""


def copied_crds() -> dict[Path, str]:
    """Return the CRDs of manifests/crds by their path in the chart."""
    target = ROOT / "charts/halffull/files/crds"
    return {target / source.name: source.read_text() for source in sorted((ROOT / "manifests/crds").glob("*.yaml"))}


def rendered() -> str:
    """Return the chart with its default values as one manifest, the namespace first."""
    command = ["template", "halffull", "charts/halffull", "--namespace", NAMESPACE, "--kube-version", OLDEST_KUBERNETES]
    helm = os.environ.get("HELM", "helm")
    return HEADER + subprocess.run([helm, *command], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603


def stale(wanted: dict[Path, str]) -> list[Path]:
    """Return the files whose content differs."""
    return [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]


def main() -> int:
    """Write what is stale, or only name it; return the exit status."""
    check = "--check" in sys.argv[1:]
    found: list[Path] = []
    for produce in (copied_crds, lambda: {ROOT / "manifests/install.yaml": rendered()}):
        wanted = produce()
        for path in stale(wanted):
            found.append(path)
            if not check:
                path.write_text(wanted[path])
    for path in found:
        sys.stderr.write(f"{path.relative_to(ROOT)}: {'stale, run `make crds`' if check else 'written'}\n")
    return 1 if check and found else 0


if __name__ == "__main__":
    sys.exit(main())
