"""Verifies the JWT-SVID of a task with the stock `spiffe` library, and with PyJWT, jwcrypto and Authlib.

usage: stock_jwt_svid.py SVID_FILE TASK_TOKEN_FILE BUNDLE_URL JWKS_URL AUDIENCE SPIFFE_ID

The bundle is fetched where the broker publishes it (SPIFFE Trust Domain and Bundle §4), and its keys of JWT-SVIDs are
taken as they stand there. Each library must take the JWT-SVID for the SPIFFE ID, and refuse it for another audience and
with one bit of its signature turned; the keys of task tokens must not verify it, and a task token must be no JWT-SVID.
Prints a line for each library; exit 0 if all agree.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from urllib.request import urlopen

import jwt
from spiffe import JwtBundle, JwtSvid, SpiffeId
from spiffe.errors import PySpiffeError
from stock_libraries import altered, claims_of, refuses


def main() -> int:
    svid_file, token_file, bundle_url, jwks_url, audience, expected = sys.argv[1:]
    token, task_token = (Path(file).read_text(encoding="ascii") for file in (svid_file, token_file))
    document = json.load(urlopen(bundle_url))
    keys = [key for key in document["keys"] if key["use"] == "jwt-svid"]
    assert keys and all(key["kid"] for key in keys)
    assert isinstance(document["spiffe_sequence"], int)
    of_tokens = json.load(urlopen(jwks_url))

    trust_domain = SpiffeId(expected).trust_domain

    def bundle(keys: dict) -> JwtBundle:
        return JwtBundle.parse(trust_domain, json.dumps(keys).encode())

    def spiffe(token: str, bundle: JwtBundle, audience: str) -> JwtSvid:
        return JwtSvid.parse_and_validate(token, bundle, {audience})

    def is_refused(*arguments) -> bool:
        return refuses((PySpiffeError,), spiffe, *arguments)

    published = bundle({"keys": keys})
    svid = spiffe(token, published, audience)
    assert svid.spiffe_id == SpiffeId(expected), svid.spiffe_id
    assert is_refused(token, published, audience + "/other")
    assert all(is_refused(other, published, audience) for other in altered(token))
    assert is_refused(task_token, published, audience)
    assert is_refused(token, bundle(of_tokens), audience)
    assert is_refused(task_token, bundle(of_tokens), audience), "a task token is no JWT-SVID, whatever its key"
    print(f"spiffe {version('spiffe')}: accepted as {svid.spiffe_id}, and refused for whatever was changed")

    claims = claims_of(token, {"keys": keys}, of_tokens, audience, None)
    assert claims["sub"] == expected and claims["aud"] == audience, claims
    assert set(claims) == {"sub", "aud", "iat", "exp", "jti", "cnf", "task"}, claims
    header = jwt.get_unverified_header(token)
    assert set(header) == {"alg", "kid", "typ"} and header["typ"] == "JWT", header
    return 0


if __name__ == "__main__":
    sys.exit(main())
