"""Verifies a task token with stock clients: PyJWT, and Authlib and jwcrypto where they are installed.

usage: stock_clients.py TOKEN_FILE JWKS_URL ISSUER AUDIENCE SUBJECT

The keys come from the broker's JWKS over HTTP. Each client must accept the token as it is, and refuse it for another
audience, from another issuer, and with another signature. Prints a line for each client; exit 0 if all agree.
"""

import json
import sys
import urllib.request
from pathlib import Path

import jwt


def altered(token: str) -> str:
    """The token with one bit of its signature turned."""
    signed, signature = token.rsplit(".", 1)
    first = "A" if signature[0] != "A" else "B"
    return f"{signed}.{first}{signature[1:]}"


def pyjwt(token: str, jwks_url: str, issuer: str, audience: str) -> dict:
    key = jwt.PyJWKClient(jwks_url).get_signing_key_from_jwt(token)
    return jwt.decode(
        token,
        key,
        algorithms=["ES256"],
        audience=audience,
        issuer=issuer,
        leeway=0,
        options={"require": ["exp", "iat", "iss", "aud", "sub", "jti"]},
    )


def authlib(token: str, jwks_url: str, issuer: str, audience: str) -> dict:
    from authlib.jose import JsonWebKey, JsonWebToken

    with urllib.request.urlopen(jwks_url) as answer:
        keys = JsonWebKey.import_key_set(json.load(answer))
    claims = JsonWebToken(["ES256"]).decode(
        token,
        keys,
        claims_options={
            "iss": {"essential": True, "value": issuer},
            "aud": {"essential": True, "value": audience},
            "exp": {"essential": True},
        },
    )
    claims.validate(leeway=0)
    return dict(claims)


def jwcrypto(token: str, jwks_url: str, issuer: str, audience: str) -> dict:
    from jwcrypto import jwk, jwt as jwcrypto_jwt

    with urllib.request.urlopen(jwks_url) as answer:
        keys = jwk.JWKSet.from_json(answer.read().decode())
    checks = {"iss": issuer, "aud": audience, "exp": None}
    parsed = jwcrypto_jwt.JWT(algs=["ES256"], check_claims=checks)
    parsed.leeway = 0
    parsed.deserialize(token, key=keys)
    return json.loads(parsed.claims)


def refuses(verify, *arguments: str) -> bool:
    try:
        verify(*arguments)
    except Exception as refusal:  # each client has its own kinds
        return not isinstance(refusal, (ImportError, OSError, TypeError))
    return False


def main() -> int:
    token_file, jwks_url, issuer, audience, subject = sys.argv[1:]
    token = Path(token_file).read_text(encoding="ascii")
    assert jwt.get_unverified_header(token)["typ"] == "at+jwt"
    clients = {f"PyJWT {jwt.__version__}": pyjwt}
    try:
        import authlib as package

        clients[f"Authlib {package.__version__}"] = authlib
    except ImportError:
        print("Authlib is not installed")
    try:
        import jwcrypto as _package  # noqa: F401

        clients["jwcrypto"] = jwcrypto
    except ImportError:
        print("jwcrypto is not installed")
    for name, verify in clients.items():
        claims = verify(token, jwks_url, issuer, audience)
        assert claims["sub"] == subject, claims
        assert claims["cnf"]["jkt"], claims
        assert refuses(verify, token, jwks_url, issuer, audience + "/other"), name
        assert refuses(verify, token, jwks_url, issuer + "/other", audience), name
        assert refuses(verify, altered(token), jwks_url, issuer, audience), name
        print(f"{name}: accepted, and refused for another audience, issuer and signature")
    return 0


if __name__ == "__main__":
    sys.exit(main())
