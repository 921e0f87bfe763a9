"""What `furymesh sync` shows at either end: events in, lines and JSON out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from furymesh.cli.exits import one_line
from furymesh.cli.output import note, percent, plural, say, say_json, say_listening
from furymesh.cli.progress import Display
from furymesh.core.ids import node_id_text
from furymesh.core.paths import shown
from furymesh.core.units import format_duration, format_rate, format_size
from furymesh.node.sync import Serving
from furymesh.sync.events import (
    Begun,
    Came,
    ClientEvent,
    Comparing,
    Found,
    Gone,
    Hashing,
    Lost,
    Note,
    Planned,
    Progress,
    Queued,
    Report,
    ServerEvent,
    Started,
    Synced,
)
from furymesh.sync.pushing import Terms

SHOWN_FAILURES = 10  # named on the screen; --json names more
SHORT_ID = 16  # characters of a node id that tell nodes apart


class PushView:
    """Shows what a client does. With `json` the answer on stdout is JSON and nothing else."""

    def __init__(self, display: Display, terms: Terms, *, json: bool) -> None:
        self.syncing = False
        self._display = display
        self._terms = terms
        self._json = json
        self._found = ""
        self._left_out: tuple[str, ...] = ()  # what was shown of it last

    def on_event(self, event: ClientEvent) -> None:
        match event:
            case Found():
                self._on_found(event)
            case Queued():
                self._tell(
                    "waiting", f"Waiting: place {event.place} in the queue", place=event.place
                )
            case Started():
                self.syncing = True
                self._tell("started", "")
            case Hashing():
                self._hashing(event)
            case Comparing():
                self._tell("comparing", "", files=event.files)
                words = f"the server looks at what it has of {plural(event.files, 'file')}"
                self._display.show("Comparing", 0, 0, [words])
            case Progress():
                self._progressed(event)
            case Report():
                self.syncing = False
                self._display.close()
                self._reported(event)
            case Lost():
                self.syncing = False
                self._display.close()
                words = f"{event.reason}; trying again in {format_duration(event.retry)}"
                self._tell("lost", words, reason=event.reason, retry=round(event.retry, 1))
            case Note():
                self._display.line(event.text)

    def _tell(self, name: str, line: str, **fields: object) -> None:
        if self._json:
            say_json({"event": name, **fields})
        elif line:
            self._display.line(line)

    def _on_found(self, event: Found) -> None:
        node_id = node_id_text(event.node_id)
        if self._json:
            others = [node_id_text(other) for other in event.others]
            say_json(
                {
                    "event": "found",
                    "node_id": node_id,
                    "address": event.address,
                    "new": event.new,
                    "others": others,
                }
            )
            return
        line = f"Server {node_id[:SHORT_ID]} at {shown(event.address)}"
        if line != self._found:
            self._found = line
            self._display.line(line)
        if event.others:
            count = plural(len(event.others), "other")
            self._display.line(f"{count} answered too; --server names the one that is meant")
        if event.new:
            self._display.line(f'From now on "{self._terms.client_id}" is used with it only')

    def _hashing(self, event: Hashing) -> None:
        done, total = event.bytes_done, event.bytes_total
        self._tell("hashing", "", **asdict(event))
        facts = [f"{percent(done, total)}%", f"{format_size(done)} of {format_size(total)}"]
        self._display.show("Hashing", done, total, facts)

    def _progressed(self, event: Progress) -> None:
        if self._json:
            say_json({"event": "progress", **asdict(event), "rate": round(event.rate)})
        facts = [
            f"{event.files_done:,}/{event.files:,} files",
            f"{format_size(event.bytes_done)} of {format_size(event.bytes)}",
            format_rate(event.rate),
        ]
        if event.rate > 0 and event.bytes_done < event.bytes:
            left = (event.bytes - event.bytes_done) / event.rate
            facts.append(f"{format_duration(left)} left")
        self._display.show("Syncing", event.bytes_done, event.bytes, facts)

    def _reported(self, event: Report) -> None:
        if self._json:
            failed = [{"path": path, "reason": reason} for path, reason in event.failed]
            say_json(
                {
                    "event": "synced",
                    "files": event.files,
                    "bytes": event.bytes_sent,
                    "skipped": event.skipped,
                    "copied": event.copied,
                    "removed": event.removed,
                    "failed_count": event.failed_count,
                    "failed": failed,
                    "left_out": event.left_out,
                    "notice": event.notice,
                    "seconds": round(event.seconds, 3),
                    "next_sync": event.next_sync,
                }
            )
            return
        say(report_line(event))
        for path, reason in event.failed[:SHOWN_FAILURES]:
            note(one_line(f"Failed: {path}: {reason}" if path else f"Failed: {reason}"))
        if event.left_out != self._left_out:
            self._left_out = event.left_out
            for line in event.left_out:
                note(one_line(line[:1].upper() + line[1:]))
        if event.notice:
            note(one_line(event.notice))
        if not self._terms.once:
            say(f"Next sync in {format_duration(event.next_sync)}")


def report_line(event: Report) -> str:
    """One line about a sync that is done."""
    parts = [f"{plural(event.files, 'file')} sent ({format_size(event.bytes_sent)})"]
    for count, what in (
        (event.skipped, "unchanged"),
        (event.copied, "copied there"),
        (event.removed, "removed"),
        (event.failed_count, "failed"),
    ):
        if count:
            parts.append(f"{count:,} {what}")
    return f"Synced in {format_duration(event.seconds)}: {', '.join(parts)}"


class ServeView:
    """Shows what a server does."""

    def __init__(self, archive: Path, *, json: bool) -> None:
        self._archive = archive
        self._json = json

    def listening(self, serving: Serving) -> None:
        place = f"Folders go to {shown(str(self._archive))}"
        say_listening(serving.node_id, serving.addresses, place, json=self._json)

    def on_event(self, event: ServerEvent) -> None:
        if isinstance(event, Note):
            note(one_line(event.text))
        elif self._json:
            say_json(_record(event))
        else:
            say(one_line(_line(event)))


def _record(event: Came | Begun | Planned | Synced | Gone) -> dict[str, object]:
    match event:
        case Came():
            return {
                "event": "came",
                "client_id": event.client_id,
                "node_id": node_id_text(event.node_id),
                "address": event.address,
                "place": event.place,
            }
        case Synced():
            return {"event": "synced", **asdict(event), "seconds": round(event.seconds, 3)}
        case Begun() | Planned() | Gone():
            return {"event": type(event).__name__.lower(), **asdict(event)}


def _line(event: Came | Begun | Planned | Synced | Gone) -> str:
    match event:
        case Came():
            text = f"waits, place {event.place}" if event.place else "it is its turn"
            text = f"{node_id_text(event.node_id)[:SHORT_ID]} at {event.address}: {text}"
        case Begun():
            text = "session begins"
        case Planned():
            text = event.text
        case Synced():
            text = "; ".join([_synced(event), *filter(None, [event.notice])])
        case Gone():
            text = f"gone ({event.reason})"
    return f"{event.client_id}: {text}"


def _synced(event: Synced) -> str:
    parts: Sequence[tuple[int, str]] = (
        (event.kept, "unchanged"),
        (event.copied, "copied"),
        (event.removed, "removed"),
        (event.failed, "failed"),
    )
    named = [f"{count:,} {what}" for count, what in parts if count]
    stored = f"{plural(event.stored, 'file')} stored ({format_size(event.received)} received)"
    return f"{', '.join([stored, *named])} in {format_duration(event.seconds)}"
