"""A UPnP router that grants everything, and says nothing when it is to be taken back.

Run as `mute_igd.py HOST EXTERNAL`: its address in the network, and the one that it names.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SSDP = ("239.255.255.250", 1900)
SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:1"
DESCRIPTION = (
    '<?xml version="1.0"?><root><device><serviceList><service>'
    f"<serviceType>{SERVICE}</serviceType><controlURL>/control</controlURL>"
    "</service></serviceList></device></root>"
)


class Handler(BaseHTTPRequestHandler):
    external = ""

    def do_GET(self) -> None:
        self._say(DESCRIPTION)

    def do_POST(self) -> None:
        action = self.headers["Soapaction"].strip('"').rpartition("#")[2]
        self.rfile.read(int(self.headers["Content-Length"]))
        print(json.dumps({"event": action}), flush=True)
        if action == "DeletePortMapping":
            self.rfile.read(1)  # until who asked has given up
            return
        inner = (
            f"<NewExternalIPAddress>{self.external}</NewExternalIPAddress>"
            if action == "GetExternalIPAddress"
            else ""
        )
        self._say(
            '<?xml version="1.0"?><s:Envelope><s:Body>'
            f'<u:{action}Response xmlns:u="{SERVICE}">{inner}</u:{action}Response>'
            "</s:Body></s:Envelope>"
        )

    def _say(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def main(host: str, external: str) -> None:
    Handler.external = external
    server = ThreadingHTTPServer((host, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    location = f"http://{host}:{server.server_address[1]}/root.xml"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(SSDP)
        group = struct.pack("=4s4s", socket.inet_aton(SSDP[0]), socket.inet_aton(host))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        print(json.dumps({"event": "ready"}), flush=True)
        while True:
            question, sender = sock.recvfrom(2000)
            if question.startswith(b"M-SEARCH"):
                answer = f"HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nLocation: {location}\r\n\r\n"
                sock.sendto(answer.encode(), sender)


if __name__ == "__main__":
    main(*sys.argv[1:])
