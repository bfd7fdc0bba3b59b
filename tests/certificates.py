"""An authority of the tests' own, and the PEM files it signs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Files:
    """A certificate with its key, as files."""

    certificate: Path
    private_key: Path


class Authority:
    """Signs certificates and writes them into a folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._ca = trustme.CA()
        self.certificate = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.certificate)

    def sign(self, *names: str, to: str, expires_in: timedelta = timedelta(days=1)) -> Files:
        """Write a certificate for host names (or for a client) and its key; replaces both."""
        made = self._ca.issue_cert(*names, not_after=datetime.now(UTC) + expires_in)
        files = Files(self._folder / f"{to}.cert.pem", self._folder / f"{to}.key.pem")
        files.certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        made.private_key_pem.write_to_path(files.private_key)
        return files
