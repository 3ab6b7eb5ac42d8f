"""Writes an authority, and a certificate of it for 127.0.0.1 with its key: provider_certificate.py FOLDER"""

import datetime
import ipaddress
import os
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

folder = sys.argv[1]
now = datetime.datetime.now(datetime.timezone.utc)


def named(text):
    return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, text)])


def begun(subject, key, issuer):
    return (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )


authority_key = ec.generate_private_key(ec.SECP256R1())
authority = (
    begun("authority", authority_key, "authority")
    .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    .sign(authority_key, hashes.SHA256())
)
key = ec.generate_private_key(ec.SECP256R1())
leaf = (
    begun("provider", key, "authority")
    .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
    .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    .sign(authority_key, hashes.SHA256())
)
for name, certificate in ("authority", authority), ("provider", leaf):
    with open(f"{folder}/{name}.crt", "wb") as file:
        file.write(certificate.public_bytes(serialization.Encoding.PEM))
descriptor = os.open(f"{folder}/provider.key", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
with os.fdopen(descriptor, "wb") as file:
    file.write(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
