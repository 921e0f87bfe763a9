"""Bytes on this machine's disks: what is shared, what arrives, what survives.

Shares are scanned, hashed and read here; downloads are placed, written, journaled
and published here, each in its ``Workspace``. Every function blocks and is called
from a worker thread; none knows an event loop. Failures of the operating system
leave this package only as furymesh errors (`files.translating` is the boundary),
and every path below a share or a download is walked from a root descriptor
without following links.
"""
