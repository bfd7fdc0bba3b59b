"""How Envoy connects to the server behind: in plain text, or over TLS."""

from __future__ import annotations

import ipaddress
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SOCKETS = "type.googleapis.com/envoy.extensions.transport_sockets"

PLAIN = json.dumps(
    {
        "name": "envoy.transport_sockets.raw_buffer",
        "typed_config": {"@type": f"{_SOCKETS}.raw_buffer.v3.RawBuffer"},
    }
)


@dataclass(frozen=True)
class UpstreamTls:
    """PEM files, as Envoy will see them.

    Attributes
    ----------
    ca : Path or None
        Whom to trust; None: whom the machine trusts.
    certificate, private_key : Path or None
        Whom to be, where the server asks its clients.
    """

    ca: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None

    def socket(self, host: str) -> str:
        """Give the transport socket for a server of that name, in JSON."""
        context: dict[str, Any] = {
            "alpn_protocols": ["h2"],
            "validation_context": {
                "trusted_ca": {"filename": str(self.ca or _trusted_by_the_machine())},
                "match_typed_subject_alt_names": [
                    {"san_type": _kind_of(host), "matcher": {"exact": host}}
                ],
            },
        }
        if self.certificate is not None:
            context["tls_certificates"] = [
                {
                    "certificate_chain": {"filename": str(self.certificate)},
                    "private_key": {"filename": str(self.private_key)},
                }
            ]
        typed: dict[str, Any] = {
            "@type": f"{_SOCKETS}.tls.v3.UpstreamTlsContext",
            "common_tls_context": context,
        }
        if _kind_of(host) == "DNS":
            typed["sni"] = host
        return json.dumps({"name": "envoy.transport_sockets.tls", "typed_config": typed})


def _kind_of(host: str) -> str:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "DNS"
    return "IP_ADDRESS"


def _trusted_by_the_machine() -> str:
    paths = ssl.get_default_verify_paths()
    return paths.cafile or paths.openssl_cafile
