"""`halffull crds`: print the CustomResourceDefinitions, or write one file each."""

import argparse
import sys
from pathlib import Path

from halffull.api.crd import files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--output", type=Path, metavar="DIR", help="write one file per resource there, not to stdout")


def run(arguments: argparse.Namespace) -> int:
    """Print or write; return the exit status."""
    if arguments.output is None:
        sys.stdout.write("---\n".join(files().values()))
        return 0
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
        for name, text in files().items():
            (arguments.output / name).write_text(text, encoding="utf-8")
    except OSError as error:
        sys.stderr.write(f"halffull crds: --output: {error}\n")
        return 2
    return 0
