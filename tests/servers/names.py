"""A DNS server on loopback that says where every name is, so that tests need none of the machine's."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dns.message
import dns.rdatatype
import dns.rrset

#: Clients may keep an answer for so long.
_TTL_SECONDS = 1


@contextmanager
def naming(addresses: Sequence[str]) -> Iterator[str]:
    """`127.0.0.1:port` of a server that answers each question with these IPv4 addresses."""

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            body, connection = self.request
            query = dns.message.from_wire(body)
            response: Any = dns.message.make_response(query)
            for question in query.question:
                if question.rdtype == dns.rdatatype.A:
                    response.answer.append(dns.rrset.from_text(question.name, _TTL_SECONDS, "IN", "A", *addresses))
            connection.sendto(response.to_wire(), self.client_address)

    with socketserver.ThreadingUDPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
