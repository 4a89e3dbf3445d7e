"""A Sigstore of our own: an authority, a log of certificates and a log of signatures, in a few hundred bytes each.

It certifies anybody, offline, so that what verifies bundles without keys can be tested. Spec: RFC 6962 (SCT), sigstore
bundle v0.3, rekor v1 `dsse` 0.0.1, C2SP signed-note.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

_SCTS = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_ISSUERS = (ObjectIdentifier("1.3.6.1.4.1.57264.1.1"), ObjectIdentifier("1.3.6.1.4.1.57264.1.8"))
"""The older is the bare text, the newer is in DER; Fulcio writes both."""
_FOREVER = {"start": "2020-01-01T00:00:00Z"}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.DER, form)


def key_id(key: ec.EllipticCurvePrivateKey) -> bytes:
    return hashlib.sha256(spki(key)).digest()


def signed(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def octets(data: bytes) -> bytes:
    """DER of an OCTET STRING; of a UTF8String with another first byte."""
    length = bytes([len(data)]) if len(data) < 128 else b"\x82" + struct.pack("!H", len(data))
    return b"\x04" + length + data


class OwnSigstore:
    def __init__(self) -> None:
        self.authority, self.certificates, self.log = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
        self.now = dt.datetime.now(dt.UTC).replace(microsecond=0)
        name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "ours")])
        builder = self._builder(name, name, self.authority, dt.timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(is_authority=True), critical=True)
        self.root = builder.sign(self.authority, hashes.SHA256())

    def _builder(
        self, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, margin: dt.timedelta
    ) -> x509.CertificateBuilder:
        public = self.authority.public_key()
        return (
            x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now - margin)
            .not_valid_after(self.now + margin)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        )

    def trusted_root(self) -> bytes:
        """`trusted_root.json`."""

        def log(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
            public = {"rawBytes": b64(spki(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": _FOREVER}
            about = {"baseUrl": "https://log.example", "hashAlgorithm": "SHA2_256", "publicKey": public}
            return {**about, "logId": {"keyId": b64(key_id(key))}}

        der = self.root.public_bytes(serialization.Encoding.DER)
        authority = {"subject": {"organization": "ours", "commonName": "ours"}, "uri": "https://ca.example"}
        chain = {"certChain": {"certificates": [{"rawBytes": b64(der)}]}, "validFor": _FOREVER}
        return json.dumps({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(self.log)],
            "certificateAuthorities": [{**authority, **chain}],
            "ctlogs": [log(self.certificates)],
            "timestampAuthorities": [],
        }).encode()  # fmt: skip

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Authority and log over HTTP on loop-back, as Fulcio (v2) and Rekor (v1) answer; the address."""
        ours = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path == "/api/v2/signingCert":
                    status, answer = 200, ours.certify(data, self.headers["Authorization"].removeprefix("Bearer "))
                else:
                    status, answer = 201, ours.record(data)
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def certify(self, asked: dict[str, str], token: str) -> dict[str, Any]:
        """The certificate for a token's subject, and its authority's."""
        said = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(said + "=" * (-len(said) % 4)))
        request = x509.load_pem_x509_csr(base64.b64decode(asked["certificateSigningRequest"]))
        assert request.is_signature_valid
        made = self._certificate(request.public_key(), claims["sub"], claims["iss"])
        chain = [each.public_bytes(serialization.Encoding.PEM).decode() for each in (made, self.root)]
        return {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}}

    def record(self, proposed: dict[str, Any]) -> dict[str, Any]:
        """The entry of an envelope, with the proofs of a log that has only this one."""
        content = proposed["spec"]["proposedContent"]
        envelope = json.loads(content["envelope"])
        certificate = x509.load_pem_x509_certificate(base64.b64decode(content["verifiers"][0]))
        entry = self._entry(base64.b64decode(envelope["payload"]), envelope, certificate)
        proof = entry["inclusionProof"]
        top = base64.b64decode(proof["rootHash"]).hex()
        checkpoint = proof["checkpoint"]["envelope"]
        return {
            "ab" * 40: {
                "body": entry["canonicalizedBody"],
                "integratedTime": int(entry["integratedTime"]),
                "logID": key_id(self.log).hex(),
                "logIndex": 0,
                "verification": {
                    "inclusionProof": {
                        "logIndex": 0, "treeSize": 1, "hashes": [], "rootHash": top, "checkpoint": checkpoint
                    },
                    "signedEntryTimestamp": entry["inclusionPromise"]["signedEntryTimestamp"],
                },
            }
        }  # fmt: skip

    @staticmethod
    def signing_config(url: str) -> bytes:
        """`signing_config.v0.2.json`."""
        service = [{"url": url, "majorApiVersion": 1, "validFor": _FOREVER, "operator": "ours"}]
        return json.dumps({
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "caUrls": service,
            "oidcUrls": [],
            "rekorTlogUrls": service,
            "rekorTlogConfig": {"selector": "ANY"},
            "tsaUrls": [],
            "tsaConfig": {"selector": "ANY"},
        }).encode()  # fmt: skip

    @staticmethod
    def token(identity: str, issuer: str, left_s: int = 300) -> str:
        """An identity token; nobody looks at its signature but an authority, and ours does not."""
        now = int(dt.datetime.now(dt.UTC).timestamp())
        claims = {"iss": issuer, "sub": identity, "aud": "sigstore", "iat": now - 60, "exp": now + left_s}
        parts = (canonical({"alg": "HS256", "typ": "JWT"}), canonical(claims), b"unsigned-here")
        return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)

    def bundle(self, statement: bytes, identity: str, issuer: str) -> bytes:
        """A statement, signed with a key that nobody keeps."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._certificate(key.public_key(), identity, issuer)
        kind = "application/vnd.in-toto+json"
        framed = b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(statement), statement)
        envelope = {"payloadType": kind, "payload": b64(statement), "signatures": [{"sig": b64(signed(key, framed))}]}
        return json.dumps({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "certificate": {"rawBytes": b64(certificate.public_bytes(serialization.Encoding.DER))},
                "tlogEntries": [self._entry(statement, envelope, certificate)],
            },
            "dsseEnvelope": envelope,
        }).encode()  # fmt: skip

    def _certificate(self, key: PublicKeyTypes, identity: str, issuer: str) -> x509.Certificate:
        def made(scts: bytes) -> x509.Certificate:
            builder = x509.CertificateBuilder(
                issuer_name=self.root.subject,
                subject_name=x509.Name([]),
                public_key=key,
                serial_number=4711,
                not_valid_before=self.now - dt.timedelta(minutes=5),
                not_valid_after=self.now + dt.timedelta(minutes=5),
            )
            authority = self.authority.public_key()
            told = b"\x0c" + octets(issuer.encode())[1:]
            extensions: list[tuple[x509.ExtensionType, bool]] = [
                (_usage(is_authority=False), True),
                (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False),
                (x509.SubjectAlternativeName([x509.RFC822Name(identity)]), True),
                (x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), False),
                (x509.UnrecognizedExtension(_ISSUERS[0], issuer.encode()), False),
                (x509.UnrecognizedExtension(_ISSUERS[1], told), False),
            ]
            if scts:
                extensions.append((x509.UnrecognizedExtension(_SCTS, octets(scts)), False))
            for extension, is_critical in extensions:
                builder = builder.add_extension(extension, is_critical)
            return builder.sign(self.authority, hashes.SHA256())

        bare = made(b"").tbs_certificate_bytes
        when = int(self.now.timestamp() * 1000)
        entry = key_id(self.authority) + struct.pack("!I", len(bare))[1:] + bare
        signature = signed(self.certificates, struct.pack("!BBQH", 0, 0, when, 1) + entry + b"\0\0")
        sct = b"\0" + key_id(self.certificates) + struct.pack("!Q", when) + b"\0\0"
        sct += b"\x04\x03" + struct.pack("!H", len(signature)) + signature
        return made(struct.pack("!HH", len(sct) + 2, len(sct)) + sct)

    def _entry(self, statement: bytes, envelope: dict[str, Any], certificate: x509.Certificate) -> dict[str, Any]:
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        spec = {
            "envelopeHash": {"algorithm": "sha256", "value": hashlib.sha256(canonical(envelope)).hexdigest()},
            "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(statement).hexdigest()},
            "signatures": [{"signature": envelope["signatures"][0]["sig"], "verifier": b64(pem)}],
        }
        body = canonical({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec})
        when, name = int(self.now.timestamp()), "log.example"
        promise = {"body": b64(body), "integratedTime": when, "logID": key_id(self.log).hex(), "logIndex": 0}
        top = hashlib.sha256(b"\0" + body).digest()
        note = f"{name}\n1\n{b64(top)}\n"
        signature = b64(key_id(self.log)[:4] + signed(self.log, note.encode()))
        return {
            "logIndex": "0",
            "logId": {"keyId": b64(key_id(self.log))},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(when),
            "inclusionPromise": {"signedEntryTimestamp": b64(signed(self.log, canonical(promise)))},
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": b64(top),
                "treeSize": "1",
                "hashes": [],
                "checkpoint": {"envelope": f"{note}\n\u2014 {name} {signature}\n"},
            },
            "canonicalizedBody": b64(body),
        }


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )
