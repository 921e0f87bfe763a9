"""One-way folder sync: files that arrive one after the other, and resume by themselves.

The receiving end's disk is here: `FileWriter` writes one file, `GroupCommit`
makes many durable at once, and `TransferLockManager` keeps what a transfer has
reached in ``.transfer_lock.json``. All of it blocks, and is called from one
thread at a time; the folder's own lock keeps other processes out.
"""

from furymesh.sync.file_writer import FileWriter
from furymesh.sync.folder import Folder
from furymesh.sync.group_commit import GroupCommit
from furymesh.sync.lock_format import MAX_FILES, IncomingFile, Status
from furymesh.sync.names import LOCK_NAME, LOG_NAME, is_reserved
from furymesh.sync.plan import ResumePlan, resume_message
from furymesh.sync.transfer_lock import TransferLockManager

__all__ = [
    "LOCK_NAME",
    "LOG_NAME",
    "MAX_FILES",
    "FileWriter",
    "Folder",
    "GroupCommit",
    "IncomingFile",
    "ResumePlan",
    "Status",
    "TransferLockManager",
    "is_reserved",
    "resume_message",
]
