"""Every error that Tandem raises on purpose, drawn once as a tree.

::

    TandemError
    ├── RequestError                the caller can mend it
    │   ├── InvalidInput            a field has the wrong type, range or content
    │   ├── TextTooLong             more tokens than the model takes, truncation off
    │   ├── PayloadTooLarge         body or list over its limit
    │   ├── UnknownModel            the request names a model that is not served
    │   ├── Unauthorized            no key, or a wrong one
    │   └── Forbidden               a key that is known and may not do this
    ├── ServiceError                the service can not do it now
    │   ├── Overloaded              try again after ``retry_after_s``
    │   ├── Draining                the process is shutting down
    │   ├── NotReady                the model is still being loaded or its device failed
    │   ├── DeadlineExceeded        the request's own deadline passed
    │   ├── BackendFailed           a forward pass failed
    │   └── MemoryExhausted         a budget of memory can not hold what was asked
    ├── ModelError                  the model's files
    │   ├── ModelNotFound           no source has it
    │   ├── ModelBroken             a file is missing, truncated or has the wrong hash
    │   ├── ModelUnsupported        an architecture or module that Tandem does not build
    │   └── DownloadFailed          a source has it but the transfer failed
    ├── ConfigError                 a setting is unknown or out of range
    ├── MemoryFault                 a block of memory was misused, or the books of a pool or a cache disagree: a bug
    ├── SnapshotBroken              a saved vector index is damaged or another's (``vectors/base.py``); it starts empty
    └── JobError                    a job or a command can not go on (input unreadable, disk full)
        ├── ServerRefusedError      the server that a command asks will not do it (``cli/cache_client.py``)
        └── ServerBusyError         it was too busy, or gone, each time

What goes wrong in a cache is none of these: it is a miss and a counter. The HTTP server maps this tree to status codes
in one table (``server/errors.py``), the command line to exit codes (``cli/main.py``).
"""

from __future__ import annotations

from typing import Self


class TandemError(Exception):
    """Root of the tree. ``str(error)`` is a sentence for the person who can act on it."""


class RequestError(TandemError):
    """The caller can mend it. ``param`` names the field that was wrong, if one was.

    ``index`` is the input that was wrong, from 0; the message then begins with ``input {index}``. None when no single
    input is to blame.
    """

    def __init__(self, message: str, *, param: str | None = None, index: int | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.index = index

    def shifted(self, by: int) -> Self:
        """This error, its index and the number in its message moved: for who handed over a slice that began at ``by``.

        Without an index it stays as it is.
        """
        if self.index is not None:
            message = self.about(f"input {self.index + by}")
            self.index += by
            self.args = (message,)
        return self

    def about(self, subject: str) -> str:
        """The message with ``subject`` in the place of ``input {index}``, for who counts in rows or lines."""
        message = str(self)
        return message if self.index is None else subject + message.removeprefix(f"input {self.index}")


class InvalidInput(RequestError):
    """A field has the wrong type, range or content."""


class TextTooLong(RequestError):
    """A text has more tokens than the model takes and truncation was switched off."""


class PayloadTooLarge(RequestError):
    """The body or the list of inputs is over its limit."""


class UnknownModel(RequestError):
    """The request names a model that this server does not serve."""


class Unauthorized(RequestError):
    """An API key is required and was missing or wrong."""


class Forbidden(RequestError):
    """The API key is known, and what was asked is not for its holder."""


class ServiceError(TandemError):
    """The service can not do it now. ``retry_after_s`` is a prediction in seconds, None when there is none."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Overloaded(ServiceError):
    """The backlog is full."""


class Draining(ServiceError):
    """The process is shutting down and takes no new work."""


class NotReady(ServiceError):
    """The model is not loaded yet, or its device failed its last forward pass."""


class DeadlineExceeded(ServiceError):
    """The request's own deadline passed before it was computed."""


class BackendFailed(ServiceError):
    """A forward pass failed."""


class MemoryExhausted(ServiceError):
    """A budget of memory, or the system, can not hold what was asked; the message has size, use and budget."""


class ModelError(TandemError):
    """Something about a model's files."""


class ModelNotFound(ModelError):
    """No source has the model; the message says what each source answered."""


class ModelBroken(ModelError):
    """A file is missing, truncated, unreadable or has the wrong hash; the message names it."""


class ModelUnsupported(ModelError):
    """The architecture, or a module of it, is not one that Tandem builds."""


class DownloadFailed(ModelError):
    """A source has the model but the transfer failed."""


class ConfigError(TandemError):
    """A setting is unknown, of the wrong type or out of range."""


class MemoryFault(TandemError):
    """A block was given back twice or to another pool, or the books of a pool or a cache disagree. A bug, not a
    condition."""


class JobError(TandemError):
    """A bulk job, or a command that needs a server, can not go on."""
