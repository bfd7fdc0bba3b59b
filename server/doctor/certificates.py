"""How long a certificate lasts, found by a handshake in memory: no parser of our own."""

from __future__ import annotations

import ssl
import time

from server.api.tls import TlsFiles, TlsFilesError

SECONDS_PER_DAY = 86_400


def days_left(files: TlsFiles) -> float:
    """Give the days until the server's certificate expires; negative once it has.

    Raises
    ------
    TlsFilesError
        If no client could accept it for another reason.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.certificate, files.private_key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    # The certificate vouches for itself here: who signed it, its clients know, not we.
    client.load_verify_locations(files.certificate)
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = server.wrap_bio(to_server, to_client, server_side=True)
    two = client.wrap_bio(to_client, to_server)
    for _ in range(4):
        for side in (two, one):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                if error.verify_code == _EXPIRED:
                    return -1.0
                raise TlsFilesError(
                    f"no client could accept {files.certificate}: {error.verify_message}"
                ) from error
    shown = two.getpeercert()
    if not shown:
        raise TlsFilesError(f"{files.certificate} made no handshake")
    return (ssl.cert_time_to_seconds(str(shown["notAfter"])) - time.time()) / SECONDS_PER_DAY


_EXPIRED = 10
"""OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED."""
