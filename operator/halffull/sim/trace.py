"""Reads recorded traces: what arrives when, how long its prompt and its answer are. Called by `simulate` and `load`.

Three forms are known, told apart by the first line: Azure's CSV (`TIMESTAMP,ContextTokens,GeneratedTokens`; the sample
that ships with halffull has no TIMESTAMP), Mooncake's JSON lines (`timestamp` in ms, `input_length`, `output_length`,
`hash_ids` of blocks of 512 tokens), and what routers record (written by `router.recording`).
"""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

BLOCK_TOKENS = 512
"""tokens of one block of a Mooncake trace"""
RECORDED = {"conversation": "azure-2023-conversation.csv", "code": "azure-2023-code.csv"}
"""traces that ship with halffull: lengths only (recorded/NOTICE.md)"""

FORMS = "neither JSON lines nor a CSV with the columns TIMESTAMP, ContextTokens, GeneratedTokens"


class TraceError(Exception):
    """A trace that cannot be read: says file, line and why."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request to send."""

    at_s: float
    """when, seconds after the first one"""
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    """names of the prompt's blocks of `BLOCK_TOKENS`; the same name is the same text. Empty: a text of its own"""
    live: "Live | None" = None
    """what a router recorded besides; None: the trace is none of a router"""


@dataclass(frozen=True, slots=True)
class Live:
    """What a router knew of a request besides its lengths."""

    stream: bool
    priority: int
    caller: str
    session: str
    """caller and session are hashes"""


def read_trace(path: Path) -> list[Call]:
    """Read a trace, in the order of arrival; raises TraceError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TraceError(f"{path}: {error}") from error
    return parse_trace(text, str(path))


def recorded_lengths(name: str) -> list[Call]:
    """The requests of a trace that ships with halffull, all at time 0: it has no arrivals."""
    file = resources.files("halffull.sim") / "recorded" / RECORDED[name]
    return parse_trace(file.read_text(encoding="utf-8"), RECORDED[name])


def parse_trace(text: str, source: str) -> list[Call]:
    """Parse any form; times count from the first arrival. Raises TraceError that names `source` and the line."""
    lines = text.splitlines()
    calls: list[Call] = []
    if lines and '"recording"' in lines[0]:
        calls = recording(lines, source)
    elif lines and lines[0].lstrip().startswith("{"):
        for number, line in enumerate(lines, start=1):
            if line.strip():
                calls.append(_call(_mooncake, line, f"{source}, line {number}"))
    else:
        rows = csv.DictReader(lines)
        if not {"ContextTokens", "GeneratedTokens"} <= set(rows.fieldnames or ()):
            raise TraceError(f"{source}: {FORMS}")
        calls.extend(_call(_azure, row, f"{source}, line {rows.line_num}") for row in rows)
    if not calls:
        raise TraceError(f"{source}: no requests in it")
    calls.sort(key=lambda call: call.at_s)
    first = calls[0].at_s
    return [replace(call, at_s=call.at_s - first) for call in calls]


def recording(lines: Sequence[str], source: str) -> list[Call]:
    """Parse recordings of routers, one after the other. Raises TraceError that names `source` and the line.

    A router hashes blocks of bytes, the engine model has blocks of tokens: how many bytes a token has on average, the
    recording says. Requests that got no token are left out: what they would have got nobody knows.
    """
    entries: list[tuple[str, dict[str, Any]]] = []
    block_bytes = tokens = text_bytes = 0
    for number, line in enumerate(lines, start=1):
        where = f"{source}, line {number}"
        try:
            entry = json.loads(line)
            if "recording" in entry:
                block_bytes = int(entry["blockBytes"])
            elif entry["output_length"] > 0 and entry["input_length"] > 0:
                tokens += entry["input_length"]
                text_bytes += entry["prompt_bytes"]
                entries.append((where, entry))
        except KeyError as error:
            raise TraceError(f"{where}: {error} is missing") from error
        except (ValueError, TypeError) as error:
            raise TraceError(f"{where}: {error}") from error
    step = BLOCK_TOKENS * text_bytes / max(tokens * block_bytes, 1)
    return [_call(lambda entry: _recorded(entry, step), entry, where) for where, entry in entries]


def _recorded(entry: dict[str, Any], step: float) -> Call:
    """The call of one entry; a block of the engine ends with every `step`-th block of the router."""
    names: list[Any] = entry["hash_ids"]
    blocks: list[int] = []
    while step and (last := int((len(blocks) + 1) * step)) <= len(names):
        blocks.append(int(names[max(last - 1, 0)]))
    live = Live(bool(entry["stream"]), int(entry["priority"]), str(entry["caller"]), str(entry["session"]))
    at_s = float(entry["timestamp"]) / 1000
    return Call(at_s, int(entry["input_length"]), int(entry["output_length"]), tuple(blocks), live)


def _call(parse: Callable[[Any], Call], record: str | dict[str, str], where: str) -> Call:
    try:
        call = parse(record)
    except KeyError as error:
        raise TraceError(f"{where}: {error} is missing") from error
    except (ValueError, TypeError) as error:
        raise TraceError(f"{where}: {error}") from error
    if call.prompt_tokens < 1 or call.output_tokens < 1:
        raise TraceError(f"{where}: a request has at least one prompt token and one output token")
    return call


def _azure(row: dict[str, str]) -> Call:
    stamp = row.get("TIMESTAMP")
    return Call(_seconds(stamp) if stamp else 0.0, int(row["ContextTokens"]), int(row["GeneratedTokens"]))


def _seconds(stamp: str) -> float:
    """Seconds of a time such as `2023-11-16 18:17:03.9799600`, which has more digits than `datetime` takes."""
    whole, _, fraction = stamp.partition(".")
    since = datetime.fromisoformat(whole) - datetime(2000, 1, 1)  # noqa: DTZ001 (only differences matter)
    return since.total_seconds() + float(f"0.{fraction or 0}")


def _mooncake(line: str) -> Call:
    entry = json.loads(line)
    if not isinstance(entry, dict):
        raise TypeError("not a JSON object")
    blocks = tuple(int(block) for block in entry.get("hash_ids", ()))
    return Call(entry["timestamp"] / 1000, int(entry["input_length"]), int(entry["output_length"]), blocks)
