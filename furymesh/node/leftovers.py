"""What crashes leave in the state directories, and its removal when a process starts.

Nothing that another process is at work on is touched: what is being written is
locked, by itself or by the download that it is about.
"""

from __future__ import annotations

from contextlib import suppress

from furymesh.core.errors import AlreadyRunningError
from furymesh.node import orders
from furymesh.node.config import Config
from furymesh.storage import bans, catalog, manifests
from furymesh.storage.files import sweep_temporaries
from furymesh.storage.journal_file import remove_unfinished
from furymesh.storage.lock import DownloadLock
from furymesh.storage.resume_reader import list_unfinished, resume_path

_DIRECTORIES = (catalog.DIRECTORY, manifests.DIRECTORY, bans.DIRECTORY, orders.DIRECTORY)


def sweep(config: Config) -> None:
    """Remove the temporary files of processes that are no more; raises EnvironmentFault."""
    for name in _DIRECTORIES:
        sweep_temporaries(config.data_dir / name)
    directory = config.transfer.resume_dir
    for file_id in list_unfinished(directory):
        with suppress(AlreadyRunningError), DownloadLock(directory, file_id) as lock:
            lock.acquire()
            remove_unfinished(resume_path(directory, file_id))
