"""Certificates that are renewed under the feet of who serves with them."""

import subprocess
from pathlib import Path


def certify(folder: Path) -> None:
    """Make a self-signed certificate for 127.0.0.1 and its key, and put both in place at once as the kubelet does."""
    made = folder.parent / f"{folder.name}-{len(list(folder.parent.iterdir()))}"
    made.mkdir()
    names = ["-subj", "/CN=router", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(made / "tls.key"), "-out", str(made / "tls.crt")]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "1"]
    subprocess.run(["openssl", "req", "-x509", *curve, *names, *files], check=True, capture_output=True)
    link = folder.parent / "link"
    link.symlink_to(made.name)
    link.replace(folder)
