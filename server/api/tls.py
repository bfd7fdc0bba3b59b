"""The server's TLS identity, from files that may be replaced while it serves.

Certificates are renewed every few weeks by tools that only write files. So the files are
looked at again when a client connects, and a set that does not fit together is left alone:
the server goes on with the identity it has, and says so in the log.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from server.errors import PreconditionError

_log = logging.getLogger(__name__)

_Stamp = tuple[tuple[int, int, int], ...]


class TlsFilesError(PreconditionError):
    """A certificate, key or CA file cannot be read, or they do not fit together."""

    reason = "TLS_FILES"


@dataclass(frozen=True)
class TlsFiles:
    """Where the PEM files of a server's identity are.

    Attributes
    ----------
    certificate, private_key : Path
        The certificate with its chain, and its key without a password.
    client_ca : Path or None
        Only clients whose certificate this authority signed may connect (mutual TLS).
    """

    certificate: Path
    private_key: Path
    client_ca: Path | None = None

    def check(self) -> None:
        """Raise `TlsFilesError` unless the files can be read and fit together."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.private_key, password=_no_password)
        except (OSError, ValueError) as error:
            raise TlsFilesError(
                f"the certificate {self.certificate} and the key {self.private_key} cannot be "
                f"used together: {_words(error)}; both must be PEM, the key without a password"
            ) from error
        if self.client_ca is not None:
            try:
                context.load_verify_locations(self.client_ca)
            except (OSError, ValueError) as error:
                raise TlsFilesError(
                    f"the client CA {self.client_ca} cannot be used: {_words(error)}; it must "
                    "be one or more PEM certificates"
                ) from error

    def credentials(self) -> grpc.ServerCredentials:
        """Make gRPC's form of the files, which follows their changes.

        Raises
        ------
        TlsFilesError
            If the files are not fit now. Later faults are logged, and the identity stays.
        """
        follower = _Follower(self)
        return grpc.dynamic_ssl_server_credentials(
            follower.first, follower.changed, self.client_ca is not None
        )

    def stamp(self) -> _Stamp:
        """Tell when the files last changed."""
        paths = (self.certificate, self.private_key, self.client_ca)
        stats = [path.stat() for path in paths if path is not None]
        return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats)

    def configuration(self) -> Any:
        """Read the files, checked, in the form that gRPC takes."""
        self.check()
        return grpc.ssl_server_certificate_configuration(
            [(self.private_key.read_bytes(), self.certificate.read_bytes())],
            root_certificates=self.client_ca.read_bytes() if self.client_ca else None,
        )


class _Follower:
    """Gives the files' content again when they have changed. gRPC asks before each handshake."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self.first = files.configuration()
        self._seen = files.stamp()

    def changed(self) -> Any:
        """Give the new configuration, or None to go on with the present one."""
        try:
            stamp = self._files.stamp()
            if stamp == self._seen:
                return None
            # Before the check: what is unfit is told once, not at every handshake.
            self._seen = stamp
            configuration = self._files.configuration()
        except (OSError, TlsFilesError) as error:
            _log.error("the TLS files changed and are not used: %s", error)
            return None
        _log.info("the TLS files changed; new connections see the new ones")
        return configuration


def _no_password() -> str:
    raise ValueError("the key is protected by a password")


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return str(error.reason or error).replace("_", " ").lower()
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)
