"""What `get` and `resume` show of a download: events in, lines and JSON out."""

from __future__ import annotations

from pathlib import Path

from furymesh.cli.exits import one_line
from furymesh.cli.output import complain, percent, plural, say, say_json
from furymesh.cli.progress import Display
from furymesh.core.ids import node_id_text
from furymesh.core.paths import shown
from furymesh.core.units import format_duration, format_rate, format_size
from furymesh.swarm.events import (
    Checking,
    Connected,
    Event,
    Note,
    PeerContribution,
    Progress,
    Result,
    Started,
    Trouble,
    Waiting,
)

FULL_BAR = "=" * 20
SHOWN_ATTEMPTS = 3  # addresses named in one line about waiting


class TransferView:
    """Shows one download. With `json` the answer on stdout is JSON and nothing else."""

    def __init__(self, display: Display, *, json: bool, verbose: bool, announce: bool) -> None:
        """`announce` begins with the name and size of what is downloaded."""
        self._display = display
        self._json = json
        self._verbose = verbose
        self._announce = announce
        self._waited_for = ""

    def on_event(self, event: Event) -> None:
        match event:
            case Started():
                self._started(event)
            case Progress():
                self._progressed(event)
            case Checking():
                self._checking(event)
            case Waiting():
                self._waiting(event)
            case Trouble():
                if self._verbose:
                    self._display.line(event.text)
            case Connected():
                self._connected(event)
            case Note():
                self._display.line(event.text)

    def on_complete(self, result: Result) -> None:
        """The last words about a finished download."""
        self._display.close()
        if self._json:
            say_json(_complete_record(result))
        else:
            self._say_complete(result)
        if result.sealed:
            complain(
                "the share is encrypted and the link has no key: what was saved is"
                " ciphertext, good for passing on"
            )

    # --- events -----------------------------------------------------------------

    def _started(self, event: Started) -> None:
        self._display.close()
        if self._json:
            say_json(
                {
                    "event": "started",
                    "file_id": event.file_id.hex(),
                    "name": event.name,
                    "size": event.size,
                    "chunks_total": event.chunks_total,
                    "chunks_done": event.chunks_done,
                }
            )
            return
        done, total = event.chunks_done, event.chunks_total
        if self._announce:
            name = shown(event.name) or event.file_id.hex()[:16]
            say(f"Downloading {name} ({format_size(event.size)}, {plural(total, 'chunk')})")
        if event.resumed:
            say(
                f"Found resume data: {done}/{total} chunks already downloaded"
                f" ({percent(done, total)}%)"
            )
            if done < total:
                say(f"Requesting remaining {plural(total - done, 'chunk')}...")
        if self._verbose:
            self._display.line(f"Writing to {event.part}")

    def _progressed(self, event: Progress) -> None:
        if self._json:
            say_json(
                {
                    "event": "progress",
                    "chunks_done": event.chunks_done,
                    "bytes_done": event.bytes_done,
                    "rate": round(event.rate),
                    "peers": event.peers,
                }
            )
        # While nobody is connected, how long that lasts is the news.
        if event.peers or event.rate:
            self._display.show("Progress", event.bytes_done, event.size, progress_facts(event))

    def _checking(self, event: Checking) -> None:
        activity = "Verifying before it gets its name" if event.final else "Checking what is here"
        facts = (
            f"{percent(event.chunks_done, event.chunks_total)}%",
            f"{event.chunks_done}/{event.chunks_total} chunks",
        )
        self._display.show(activity, event.chunks_done, event.chunks_total, facts)

    def _waiting(self, event: Waiting) -> None:
        tried = tried_text(event, limit=None if self._verbose else SHOWN_ATTEMPTS)
        # The bar tells the time; the line is repeated only when it says more.
        if tried != self._waited_for:
            self._waited_for = tried
            self._display.line(f"No peer has it yet; {tried}")
        facts = f"{format_duration(event.seconds)} of {format_duration(event.timeout)}"
        self._display.show("Waiting for a peer", event.seconds, event.timeout, [facts])

    def _connected(self, event: Connected) -> None:
        if self._verbose:
            self._display.line(f"Connected to {event.address} ({_found(event)})")

    # --- the end ----------------------------------------------------------------

    def _say_complete(self, result: Result) -> None:
        say(f"Progress: [{FULL_BAR}] 100% Complete")
        what = "Folder" if result.path.is_dir() else "File"
        say(f"{what} saved to {shown(str(result.path))}")
        say(summary(result))
        if self._verbose:
            for peer in sorted(result.peers, key=lambda peer: -peer.bytes):
                say(
                    f"  {plural(peer.chunks, 'chunk')}, {format_size(peer.bytes)}"
                    f" from {shown(peer.address)} ({_found(peer)})"
                )


def _found(peer: Connected | PeerContribution) -> str:
    """How a peer was come by, and who it is; a mirror is only that."""
    if peer.node_id is None:
        return peer.found
    return f"{peer.found}, node {node_id_text(peer.node_id)[:16]}"


def progress_facts(event: Progress) -> list[str]:
    """What stands beside the bar; fits 80 columns together with one."""
    facts = [
        f"{percent(event.chunks_done, event.chunks_total)}%",
        f"{event.chunks_done}/{event.chunks_total}",
        format_rate(event.rate),
    ]
    if event.eta is not None and event.bytes_done < event.size:
        facts.append(f"{format_duration(event.eta)} left")
    facts.append(plural(event.peers, "peer"))
    return facts


def tried_text(event: Waiting, limit: int | None) -> str:
    """What became of the addresses that were tried, at most `limit` of them."""
    if not event.tried and event.looked:
        return f"nobody answered {event.looked}; --peer names one elsewhere"
    if not event.tried:
        return "no address of any peer is known: name one with --peer"
    named = event.tried[:limit]
    texts = [one_line(f"{attempt.address} ({attempt.outcome})") for attempt in named]
    if len(event.tried) > len(named):
        texts.append(f"{len(event.tried) - len(named)} more")
    return f"tried {', '.join(texts)}"


def summary(result: Result) -> str:
    """One line about where the bytes came from and how long it took."""
    line = f"{format_size(result.size)} in {format_duration(result.seconds)}"
    if result.bytes_fetched and result.seconds > 0:
        line += f" ({format_rate(result.bytes_fetched / result.seconds)})"
    parts = []
    if result.bytes_fetched:
        parts.append(
            f"{format_size(result.bytes_fetched)} from {plural(len(result.peers), 'peer')}"
        )
    if result.bytes_reused:
        parts.append(f"{format_size(result.bytes_reused)} were here already")
    if result.bytes_wasted:
        parts.append(f"{format_size(result.bytes_wasted)} wasted")
    return f"{line}: {', '.join(parts)}" if parts else line


def _complete_record(result: Result) -> dict[str, object]:
    return {
        "event": "complete",
        "file_id": result.file_id.hex(),
        "path": str(Path(result.path)),
        "size": result.size,
        "seconds": round(result.seconds, 3),
        "bytes_fetched": result.bytes_fetched,
        "bytes_reused": result.bytes_reused,
        "bytes_wasted": result.bytes_wasted,
        "peers": [_peer_record(peer) for peer in result.peers],
        "sealed": result.sealed,
    }


def _peer_record(peer: PeerContribution) -> dict[str, object]:
    return {
        "node_id": node_id_text(peer.node_id) if peer.node_id else None,
        "address": peer.address,
        "bytes": peer.bytes,
        "chunks": peer.chunks,
        "found": peer.found,
    }
