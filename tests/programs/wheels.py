"""Real work with wheels that bring machine code: a matrix product, ciphers and certificates, a database."""

import datetime as dt
import sys

import cryptography.exceptions
import numpy as np
import psycopg
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

rows = np.arange(10_000, dtype="float64").reshape(100, 100) + np.eye(100)
product = rows @ np.linalg.inv(rows)
print("product", np.allclose(product, np.eye(100), atol=1e-6), np.fft.rfft(np.ones(8))[0].real)

key = AESGCM.generate_key(256)
sealed = AESGCM(key).encrypt(b"n" * 12, b"text", b"seen")
try:
    AESGCM(key).decrypt(b"n" * 12, sealed, b"changed")
except cryptography.exceptions.InvalidTag:
    print("cipher", AESGCM(key).decrypt(b"n" * 12, sealed, b"seen").decode())

own = ec.generate_private_key(ec.SECP256R1())
name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "own")])
now = dt.datetime.now(dt.UTC)
made = x509.CertificateBuilder(name, name, own.public_key(), 7, now, now + dt.timedelta(days=1))
read = x509.load_pem_x509_certificate(made.sign(own, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
read.verify_directly_issued_by(read)
print("certificate", read.subject.rfc4514_string(), read.serial_number)

with psycopg.connect(sys.argv[1]) as database, database.cursor() as cursor:
    cursor.execute("CREATE TEMPORARY TABLE things (number int, name text, seen timestamptz, parts jsonb)")
    with cursor.copy("COPY things (number, name) FROM STDIN") as copy:
        for number in range(100):
            copy.write_row((number, f"h\u00e4llo {number}"))
    cursor.execute(
        "UPDATE things SET parts = %s, seen = now() WHERE number = %s", (psycopg.types.json.Jsonb({"a": [1]}), 7)
    )
    cursor.execute("SELECT sum(number), max(name), max(parts->>'a'), count(seen) FROM things")
    print("database", psycopg.pq.__impl__, *cursor.fetchone())
