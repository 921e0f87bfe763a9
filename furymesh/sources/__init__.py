"""Sources of bytes that are no peers: mirrors, which are HTTP or SFTP servers.

`opening.open_server` gives a `Server` (`source`): `http` with range requests, `sftp`
with reads at offsets. `content` says where a chunk is in the files there, `guard`
decides which addresses a server may have, `survey` reads all of it once. What a server
says is hostile input, and its bytes are verified like those of any peer.
"""
