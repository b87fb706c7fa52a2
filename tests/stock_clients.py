"""Verifies a task token with stock libraries: PyJWT, jwcrypto and Authlib.

usage: stock_clients.py TOKEN_FILE JWKS_URL BUNDLE_URL ISSUER AUDIENCE SUBJECT

The keys come from the broker's JWKS over HTTP, by PyJWT's own client too. Each library must accept the token as it is,
and refuse it for another audience, from another issuer, with one bit of its signature turned, and by a key of
JWT-SVIDs. Prints a line for each library; exit 0 if all agree.
"""

import json
import sys
from pathlib import Path
from urllib.request import urlopen

import jwt
from stock_libraries import claims_of


def main() -> int:
    token_file, jwks_url, bundle_url, issuer, audience, subject = sys.argv[1:]
    token = Path(token_file).read_text(encoding="ascii")
    assert jwt.get_unverified_header(token)["typ"] == "at+jwt"
    keys = json.load(urlopen(jwks_url))
    others = [key for key in json.load(urlopen(bundle_url))["keys"] if key["use"] == "jwt-svid"]
    claims = claims_of(token, keys, {"keys": others}, audience, issuer)
    assert claims["sub"] == subject, claims
    assert claims["cnf"]["jkt"], claims
    fetched = jwt.PyJWKClient(jwks_url).get_signing_key_from_jwt(token)
    assert jwt.decode(token, fetched, algorithms=["ES256"], audience=audience, issuer=issuer) == claims
    return 0


if __name__ == "__main__":
    sys.exit(main())
