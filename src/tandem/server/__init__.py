"""The HTTP server: three APIs over one engine."""

from __future__ import annotations

from tandem.server.app import App
from tandem.server.lifecycle import HttpServer, listen, run_server
from tandem.server.options import ServerOptions

__all__ = ["App", "HttpServer", "ServerOptions", "listen", "run_server"]
