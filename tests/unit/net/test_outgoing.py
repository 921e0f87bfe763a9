from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio

from furymesh.core.errors import EnvironmentFault, UnavailableError
from furymesh.core.link import Address
from furymesh.net.connect import listen
from furymesh.net.outgoing import connect, lend_port

Listener = tuple[socket.socket, int]


@pytest.fixture
def listeners() -> Iterator[tuple[Listener, Listener]]:
    """Two listening sockets with their ports; the first has lent its own."""
    made = [listen(Address("127.0.0.1", 0))[0] for _ in range(2)]
    lend_port(made[:1])
    yield (made[0], made[0].getsockname()[1]), (made[1], made[1].getsockname()[1])
    for sock in made:
        sock.close()


async def test_a_connection_leaves_from_the_port_that_this_process_listens_on(
    listeners: tuple[Listener, Listener],
) -> None:
    (lender, port), (other, there) = listeners
    sock = await connect(("127.0.0.1", there), local_port=port)
    await trio.lowlevel.wait_readable(other)
    accepted, address = other.accept()
    assert address == ("127.0.0.1", port) == sock.getsockname()
    sock.close()
    accepted.close()
    # Whoever comes to the port itself is still accepted.
    with socket.create_connection(lender.getsockname()) as came:
        accepted, address = lender.accept()
        assert address == came.getsockname()
        accepted.close()


async def test_a_port_that_is_lent_is_nobody_elses_to_listen_on(
    listeners: tuple[Listener, Listener],
) -> None:
    (_, port), (_, there) = listeners
    sock = await connect(("127.0.0.1", there), local_port=port)
    with pytest.raises(EnvironmentFault, match="taken"):
        listen(Address("127.0.0.1", port))
    sock.close()


async def test_a_port_that_is_not_lent_is_not_dialled_from(
    listeners: tuple[Listener, Listener],
) -> None:
    (_, port), (_, kept) = listeners
    with pytest.raises(UnavailableError, match=f"cannot dial from port {kept}"):
        await connect(("127.0.0.1", port), local_port=kept)


async def test_any_port_will_do_and_can_be_dialled_from_again(
    listeners: tuple[Listener, Listener],
) -> None:
    (_, one), (_, other) = listeners
    first = await connect(("127.0.0.1", one), local_port=0)
    port = first.getsockname()[1]
    second = await connect(("127.0.0.1", other), local_port=port)
    assert second.getsockname()[1] == port
    first.close()
    second.close()
