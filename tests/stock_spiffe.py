"""Reads the X.509-SVID of a task with the stock `spiffe` library, and verifies its path with `cryptography`.

usage: stock_spiffe.py SVID_FILE KEY_FILE BUNDLE_URL SPIFFE_ID

The bundle is fetched where the broker publishes it (SPIFFE Trust Domain and Bundle §4). The library must take the SVID
for the SPIFFE ID and refuse the authority in its place; and the path from the leaf to the published authority must
verify. Exit 0 if all of it is so.
"""

import base64
import json
import sys
from importlib.metadata import version
from pathlib import Path
from urllib.request import urlopen

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import PolicyBuilder, Store
from spiffe import SpiffeId, TrustDomain, X509Bundle, X509Svid
from spiffe.errors import PySpiffeError


def main() -> int:
    svid_file, key_file, bundle_url, expected = sys.argv[1:]
    chain, key = (Path(file).read_bytes() for file in (svid_file, key_file))
    svid = X509Svid.parse(chain, key)
    assert svid.spiffe_id == SpiffeId(expected), svid.spiffe_id
    assert svid.private_key.public_key() == svid.leaf.public_key()

    trust_domain = svid.spiffe_id.trust_domain
    assert trust_domain == TrustDomain(expected.removeprefix("spiffe://").split("/")[0])
    document = json.load(urlopen(bundle_url))
    published = [key for key in document["keys"] if key["use"] == "x509-svid"]
    assert published and all("kid" not in key for key in published)
    der = b"".join(base64.b64decode(key["x5c"][0]) for key in published)
    bundle = X509Bundle.parse_raw(trust_domain, der)

    verifier = PolicyBuilder().store(Store(list(bundle.x509_authorities))).build_client_verifier()
    verified = verifier.verify(svid.leaf, svid.cert_chain[1:])
    assert [name.value for name in verified.subjects] == [expected]
    (authority,) = bundle.x509_authorities
    try:
        X509Svid.parse(authority.public_bytes(Encoding.PEM), key)
    except PySpiffeError:
        pass
    else:
        raise AssertionError("an authority is taken for a workload")
    print(f"spiffe {version('spiffe')}: accepted as {svid.spiffe_id}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
