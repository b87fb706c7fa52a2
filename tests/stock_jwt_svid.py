"""Verifies the JWT-SVID of a task with the stock `spiffe` library and with PyJWT.

usage: stock_jwt_svid.py SVID_FILE TASK_TOKEN_FILE BUNDLE_URL JWKS_URL AUDIENCE SPIFFE_ID

The bundle is fetched where the broker publishes it (SPIFFE Trust Domain and Bundle §4), and its keys of JWT-SVIDs are
taken as they stand there. Each library must take the JWT-SVID for the SPIFFE ID, and refuse it for another audience and
with another signature; the keys of task tokens must not verify it, and a task token must be no JWT-SVID. Prints a line
for each library; exit 0 if all agree.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from urllib.request import urlopen

import jwt
from spiffe import JwtBundle, JwtSvid, SpiffeId
from spiffe.errors import PySpiffeError


def altered(token: str) -> str:
    """The token with one bit of its signature turned."""
    signed, signature = token.rsplit(".", 1)
    first = "A" if signature[0] != "A" else "B"
    return f"{signed}.{first}{signature[1:]}"


def refuses(verify, *arguments) -> bool:
    try:
        verify(*arguments)
    except (PySpiffeError, jwt.PyJWTError):
        return True
    return False


def main() -> int:
    svid_file, token_file, bundle_url, jwks_url, audience, expected = sys.argv[1:]
    token, task_token = (Path(file).read_text(encoding="ascii") for file in (svid_file, token_file))
    document = json.load(urlopen(bundle_url))
    keys = [key for key in document["keys"] if key["use"] == "jwt-svid"]
    assert keys and all(key["kid"] for key in keys)
    assert isinstance(document["spiffe_sequence"], int)

    trust_domain = SpiffeId(expected).trust_domain
    bundle = JwtBundle.parse(trust_domain, json.dumps({"keys": keys}).encode())

    def spiffe(token: str, bundle: JwtBundle, audience: str) -> JwtSvid:
        return JwtSvid.parse_and_validate(token, bundle, {audience})

    svid = spiffe(token, bundle, audience)
    assert svid.spiffe_id == SpiffeId(expected), svid.spiffe_id
    assert refuses(spiffe, token, bundle, audience + "/other")
    assert refuses(spiffe, altered(token), bundle, audience)
    assert refuses(spiffe, task_token, bundle, audience)
    of_tokens = JwtBundle.parse(trust_domain, urlopen(jwks_url).read())
    assert refuses(spiffe, token, of_tokens, audience)
    assert refuses(spiffe, task_token, of_tokens, audience), "a task token is no JWT-SVID, whatever its key"
    print(f"spiffe {version('spiffe')}: accepted as {svid.spiffe_id}")

    published = jwt.PyJWKSet.from_dict({"keys": keys})

    def pyjwt(token: str, keys: jwt.PyJWKSet, audience: str) -> dict:
        key = keys[jwt.get_unverified_header(token)["kid"]]
        options = {"require": ["sub", "aud", "exp"]}
        return jwt.decode(token, key, algorithms=["ES256"], audience=audience, leeway=0, options=options)

    claims = pyjwt(token, published, audience)
    assert claims["sub"] == expected and claims["aud"] == audience, claims
    assert set(claims) == {"sub", "aud", "iat", "exp", "jti", "cnf", "task"}, claims
    header = jwt.get_unverified_header(token)
    assert set(header) == {"alg", "kid", "typ"} and header["typ"] == "JWT", header
    assert refuses(pyjwt, token, published, audience + "/other")
    assert refuses(pyjwt, altered(token), published, audience)
    print(f"PyJWT {jwt.__version__}: accepted, and refused for another audience and signature")
    return 0


if __name__ == "__main__":
    sys.exit(main())
